// Definitions for all kernels. CupyBackend puts this text in front of the file of a family and
// compiles both as one source, because CuPy identifies a compiled kernel by its source and would
// not notice a change in an included file.
//
// Arrays are batch-last and C-contiguous, (C, H, W, N). Neighbouring threads take neighbouring
// samples, so that a warp reads contiguous memory, and a tap falls on padding for all threads of
// the warp or for none.

#include <cuda_fp16.h>

typedef long long i64;
typedef unsigned long long u64;

// A window that slides over feature maps of H x W with N samples. Tap i of output row oy reads the
// input row
//     iy = oy * stride_h - top + i * dilation_h
// (columns likewise). launch.py fills in this struct and has the same fields in the same order.
struct Window {
    int H, W, OH, OW, N;
    int KH, KW, stride_h, stride_w, top, left, dilation_h, dilation_w;
};

// The type in which elements are compared and added. Half has too few digits for sums, and no
// arithmetic before sm_53.
template <typename T> struct Wide { typedef T type; };
template <> struct Wide<__half> { typedef float type; };

// V samples of one pixel. One instruction moves up to 16 bytes; their address must be a multiple of
// their size.
template <typename T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Vec {
    T at[V];
};

template <int V, typename T>
__device__ __forceinline__ Vec<T, V> load(const T* from) {
    return *reinterpret_cast<const Vec<T, V>*>(from);
}

template <typename T, int V>
__device__ __forceinline__ void store(T* to, const Vec<T, V>& value) {
    *reinterpret_cast<Vec<T, V>*>(to) = value;
}

// How the work is spread over threads. The kernels in this folder loop over
//
//     channels    blockIdx.z                  in steps of gridDim.z
//     rows        blockIdx.y, threadIdx.z     a row is contiguous: columns x samples
//     columns     blockIdx.x, threadIdx.y
//     samples     threadIdx.x                 V at a time
//
// and each level is a loop, so that a launch of any size is correct. Blocks start in the order of
// memory, so that those that run at the same time have neighbouring elements. Divisions are slow on
// a GPU: there are few of them, in 32 bits. Addresses have 64 bits, so arrays may have more than
// 2^31 elements.
#define FOR_CHANNELS(c, C) for (int c = blockIdx.z; c < (C); c += gridDim.z)
#define FOR_ROWS(row, rows) \
    for (unsigned row = blockIdx.y * blockDim.z + threadIdx.z; row < (unsigned)(rows); \
         row += gridDim.y * blockDim.z)
#define FOR_COLUMNS(column, columns) \
    for (int column = blockIdx.x * blockDim.y + threadIdx.y; column < (columns); \
         column += gridDim.x * blockDim.y)
#define FOR_SAMPLES(n, N, V) for (int n = threadIdx.x * (V); n < (N); n += blockDim.x * (V))

__device__ __forceinline__ bool inside(int i, int size) { return 0 <= i && i < size; }
