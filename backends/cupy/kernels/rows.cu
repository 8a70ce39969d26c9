// Reading long rows, and adding up their elements in an order that does not depend on the launch.
//
// Every row of `size` elements is cut into `per_row` pieces of `length` elements, so that a few
// long rows are enough for a whole GPU; the pieces depend only on the shape. A block takes one
// piece of blockDim.y rows. Threads with neighbouring threadIdx.x take neighbouring elements, V
// each.

// The largest block, for which shared memory is reserved; THREADS in launch.py.
#define MOST_THREADS 256

// launch.py fills in this struct and has the same fields in the same order. V divides size and
// length.
struct Pieces {
    i64 size, length;
    int rows, per_row;
};

// All threads of a block do the same number of turns, so there may be barriers in the loop.
#define FOR_ROW_GROUPS(first, p) \
    for (i64 first = (i64)blockIdx.y * blockDim.y; first < (p).rows; \
         first += (i64)gridDim.y * blockDim.y)
// From the last rows to the first: a second pass begins with the rows that the first pass read
// last, because they may still be in the cache.
#define FOR_ROW_GROUPS_BACK(first, p) \
    for (i64 first = (((p).rows - 1) / (i64)blockDim.y - blockIdx.y) * blockDim.y; first >= 0; \
         first -= (i64)gridDim.y * blockDim.y)
#define FOR_PIECES(piece, p) for (int piece = blockIdx.x; piece < (p).per_row; piece += gridDim.x)

// Elements begin .. end - 1 of one row; empty if the row does not exist.
struct Span {
    i64 begin, end;
};

__device__ __forceinline__ Span span(const Pieces& p, i64 row, int piece) {
    const i64 begin = piece * p.length, end = begin + p.length < p.size ? begin + p.length : p.size;
    return {begin, row < p.rows ? end : begin};
}

// The loop of a thread over a span, or over one long array. A turn loads U vectors, so that several
// loads are in flight. Vector u of a turn begins at i + u * STEP.
#define STEP(V) ((i64)blockDim.x * (V))
#define FOR_SPAN(i, s, U, V) \
    for (i64 i = (s).begin + threadIdx.x * (V); i < (s).end; i += (U) * STEP(V))
#define FOR_ARRAY(i, n, U, V) \
    for (i64 i = ((i64)blockIdx.x * (U) * blockDim.x + threadIdx.x) * (V); i < (n); \
         i += (U) * STEP(V) * gridDim.x)

// Loads the U vectors of a turn; zeros after the end.
template <int U, int V, typename T>
__device__ __forceinline__ void load_turn(Vec<T, V> (&turn)[U], const T* from, i64 i, i64 end) {
#pragma unroll
    for (int u = 0; u < U; u++) {
        turn[u] = {};
        if (i + u * STEP(V) < end) turn[u] = load<V>(from + i + u * STEP(V));
    }
}

// `store` for global memory only. In some loops the compiler splits the store of a struct into
// stores of single elements; 16 bytes are therefore stored in PTX, which it does not split.
template <typename T, int V>
__device__ __forceinline__ void store_whole(T* to, const Vec<T, V>& value) {
#ifdef __CUDACC__
    if constexpr (sizeof(value) == 16) {
        const unsigned* words = reinterpret_cast<const unsigned*>(&value);
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                     :: "l"(__cvta_generic_to_global(to)),
                        "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");
        return;
    }
#endif
    store(to, value);
}

template <int U, int V, typename T>
__device__ __forceinline__ void store_turn(T* to, i64 i, i64 end, const Vec<T, V> (&turn)[U]) {
#pragma unroll
    for (int u = 0; u < U; u++)
        if (i + u * STEP(V) < end) store_whole(to + i + u * STEP(V), turn[u]);
}

// --- reductions over the threads of a block ------------------------------------------------------

// Merges the values of `lanes` threads (a power of two) in a tree; all of them get the result. The
// lanes are `stride` threads apart: 1 along threadIdx.x, blockDim.x along threadIdx.y. All threads
// of the block must call this.
template <typename Value, typename Merge>
__device__ __forceinline__ Value over_lanes(const Value& mine, unsigned lane, unsigned lanes,
                                            unsigned stride, Merge merge) {
    __shared__ Value all[MOST_THREADS];
    const unsigned slot = threadIdx.y * blockDim.x + threadIdx.x;
    // After this barrier, the result of the call before has been read
    __syncthreads();
    all[slot] = mine;
    for (unsigned half = lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) all[slot] = merge(all[slot], all[slot + half * stride]);
    }
    __syncthreads();
    return all[slot - lane * stride];
}

template <typename Value, typename Merge>
__device__ __forceinline__ Value over_row(const Value& mine, Merge merge) {
    return over_lanes(mine, threadIdx.x, blockDim.x, 1, merge);
}

struct Sum {
    template <typename Number>
    __device__ Number operator()(Number a, Number b) const { return a + b; }
};
struct Largest {
    template <typename Number>
    __device__ Number operator()(Number a, Number b) const { return a < b ? b : a; }
};
