// The sums over the steps of an epoch: loss, hits, samples.

#define MOST 1024       // threads of a block of tally

// Whether v is larger than `best` in the order of argmax: a NaN is larger than every number and
// equal to other NaNs.
template <typename Number>
__device__ __forceinline__ bool larger(Number v, Number best) {
    return v > best || (v != v && best == best);
}

// Index of the first of the largest elements in column n of a (K, N), for the threads with
// threadIdx.y == 0. Threads with the same threadIdx.x share a column: each reads every
// blockDim.y-th element. All threads of the block must call this, also those with n >= N.
template <typename T>
__device__ int first_largest(const T* __restrict__ a, int K, int N, i64 n) {
    __shared__ T value[MOST];
    __shared__ int index[MOST];
    T best = T(0);
    int at = -1;
    if (n < N)
        for (int k = threadIdx.y; k < K; k += blockDim.y) {
            const T v = a[(i64)k * N + n];
            if (at < 0 || larger(v, best)) best = v, at = k;
        }
    const int mine = threadIdx.y * blockDim.x + threadIdx.x;
    value[mine] = best, index[mine] = at;
    __syncthreads();
    if (threadIdx.y == 0)
        for (int y = 1; y < (int)blockDim.y; y++) {
            const int other = y * blockDim.x + threadIdx.x;
            const T v = value[other];
            if (index[other] < 0) continue;
            if (larger(v, best) || (!larger(best, v) && index[other] < at))
                best = v, at = index[other];
        }
    __syncthreads();            // the next column uses the same memory
    return at;
}

// The class of sample n: its label, or the largest of its class probabilities (K, N).
__device__ __forceinline__ i64 class_of(const i64* __restrict__ labels, int, int N, i64 n) {
    return n < N ? labels[n] : -1;
}

template <typename T>
__device__ __forceinline__ i64 class_of(const T* __restrict__ shares, int K, int N, i64 n) {
    return first_largest(shares, K, N, n);
}

// The sum over all threads of the block, for thread 0. All threads must call this.
__device__ int over_block(int mine) {
    __shared__ int all[MOST];
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();            // thread 0 has read the result of the call before
    all[thread] = mine;
    for (int half = blockDim.x * blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) all[thread] += all[thread + half];
    }
    return all[0];
}

// sums += (N loss, hits, N)
template <typename T>
__device__ __forceinline__ void add_batch(double* sums, const T* loss, i64 hits, int N) {
    sums[0] += double(loss[0]) * N;
    sums[1] += hits;
    sums[2] += N;
}

// Counts the hits, the samples whose output y (K, N) is largest at their class, in pieces of
// `length` samples. If there is only one piece, its block adds the batch to `sums`; otherwise the
// counts go to hits (pieces,), for add_hits. Without `classes`, y and target are not read.
template <typename T, typename Target>
__global__ void __launch_bounds__(MOST)
tally(double* __restrict__ sums, const T* __restrict__ loss, const T* __restrict__ y,
      const Target* __restrict__ target, int* __restrict__ hits, int K, int N, int length,
      int pieces, int classes) {
    for (int piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
        const i64 begin = (i64)piece * length, end = begin + length < N ? begin + length : N;
        int mine = 0;
        for (i64 n0 = begin; classes && n0 < end; n0 += blockDim.x) {
            const i64 n = n0 + threadIdx.x;
            const i64 right = class_of(target, K, N, n), found = first_largest(y, K, N, n);
            if (threadIdx.y == 0 && n < end && found == right) mine++;
        }
        const int all = over_block(mine);
        if (threadIdx.x > 0 || threadIdx.y > 0) continue;
        if (pieces == 1) add_batch(sums, loss, all, N);
        else hits[piece] = all;
    }
}

// Adds the hits of all pieces to `sums`, with one block.
template <typename T>
__global__ void add_hits(double* __restrict__ sums, const T* __restrict__ loss,
                         const int* __restrict__ hits, int pieces, int N) {
    i64 mine = 0;
    for (int piece = threadIdx.x; piece < pieces; piece += blockDim.x) mine += hits[piece];
    const i64 all = over_row(mine, Sum());
    if (threadIdx.x == 0) add_batch(sums, loss, all, N);
}
