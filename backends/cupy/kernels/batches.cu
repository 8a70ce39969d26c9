// The inputs of a step: batches of samples, and a few numbers from the host.

// samples (S, D) are batch-first; a batch is out[d, n] = samples[index[first[0] + n], d], converted
// to T. `first` is in device memory, so that a captured graph reads another batch each time. A block
// transposes tiles of TILE x TILE elements in shared memory, so that it reads contiguous
// elements of a sample, VS at a time, and writes contiguous elements of the batch, VT at a time. A
// row of the tile has one element more than needed, so that its columns, too, are spread over all
// banks of the memory. Blocks that run at the same time are neighbours in the batch, which is the
// larger part of what is moved if the samples are bytes.
#define TILE 64

// Elements are converted as by NumPy's astype. (Half is not among the types of the samples: it
// would have to be converted to float first.)
template <typename S, typename T, int VS, int VT>
__global__ void gather_batch(const S* __restrict__ samples, const i64* __restrict__ index,
                             const i64* __restrict__ first, T* __restrict__ out, i64 D, int N,
                             int indexed) {
    __shared__ T tile[TILE][TILE + 1];
    const i64 start = first[0];
    const int thread = threadIdx.x, threads = blockDim.x;
    for (i64 d0 = (i64)blockIdx.y * TILE; d0 < D; d0 += (i64)gridDim.y * TILE)
        for (int n0 = blockIdx.x * TILE; n0 < N; n0 += gridDim.x * TILE) {
            const int depth = D - d0 < TILE ? int(D - d0) : TILE,
                      width = N - n0 < TILE ? N - n0 : TILE;
            for (int i = thread; i < TILE * (TILE / VS); i += threads) {
                const int n = i / (TILE / VS), d = i % (TILE / VS) * VS;
                if (n >= width || d >= depth) continue;
                const i64 sample = indexed ? index[start + n0 + n] : start + n0 + n;
                const Vec<S, VS> value = load<VS>(samples + sample * D + d0 + d);
                for (int k = 0; k < VS; k++) tile[d + k][n] = T(value.at[k]);
            }
            __syncthreads();
            for (int i = thread; i < TILE * (TILE / VT); i += threads) {
                const int d = i / (TILE / VT), n = i % (TILE / VT) * VT;
                if (d >= depth || n >= width) continue;
                Vec<T, VT> value;
                for (int k = 0; k < VT; k++) value.at[k] = tile[d][n + k];
                store(out + (d0 + d) * N + n0 + n, value);
            }
            __syncthreads();        // the next tile uses the same memory
        }
}

// Numbers that are passed as an argument of the launch. The driver copies arguments, so the host
// does not wait for the GPU.
#define VALUES 8
struct Values {
    double at[VALUES];
};

extern "C" __global__ void assign(double* __restrict__ out, Values values, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = values.at[i];
}

// The counters that a captured step moves itself: steps, and the position in the order of the
// samples.
extern "C" __global__ void move_on(u64* __restrict__ steps, i64* __restrict__ position,
                                   i64 samples) {
    if (threadIdx.x == 0) {
        *steps += 1;
        if (samples) *position += samples;
    }
}
