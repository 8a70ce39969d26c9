// The sums over the steps of an epoch: loss, hits, samples.

#define MOST 1024       // threads of the one block

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
__device__ int first_largest(const T* __restrict__ a, int K, int N, int n) {
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
__device__ __forceinline__ i64 class_of(const i64* __restrict__ labels, int, int N, int n) {
    return n < N ? labels[n] : -1;
}

template <typename T>
__device__ __forceinline__ i64 class_of(const T* __restrict__ shares, int K, int N, int n) {
    return first_largest(shares, K, N, n);
}

// sums += (N loss, number of samples whose output y (K, N) is largest at their class, N), computed
// by one block. Without `classes`, y and target are not read.
template <typename T, typename Target>
__global__ void __launch_bounds__(MOST)
tally(double* __restrict__ sums, const T* __restrict__ loss, const T* __restrict__ y,
      const Target* __restrict__ target, int K, int N, int classes) {
    __shared__ int hits[MOST];
    int hit = 0;
    for (int n0 = 0; classes && n0 < N; n0 += blockDim.x) {
        const int n = n0 + threadIdx.x;
        const i64 right = class_of(target, K, N, n), found = first_largest(y, K, N, n);
        if (threadIdx.y == 0 && n < N && found == right) hit++;
    }
    if (threadIdx.y == 0) hits[threadIdx.x] = hit;
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        for (int x = 1; x < (int)blockDim.x; x++) hit += hits[x];
        sums[0] += double(loss[0]) * N;
        sums[1] += hit;
        sums[2] += N;
    }
}
