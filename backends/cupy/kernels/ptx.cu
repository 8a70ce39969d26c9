// Operations that C++ does not have: asynchronous copies, and the matrix units. They are written in
// PTX, the assembly language of the GPU, for every architecture from sm_80 on. The CPU shim of the
// tests has functions of the same names.

#ifdef __CUDACC__

// Tells the tests on the CPU about an access to shared memory.
__device__ __forceinline__ void note_access(const void*, int) {}

// The dynamic shared memory of the launch.
__device__ __forceinline__ unsigned char* shared_memory() {
    extern __shared__ __align__(16) unsigned char bytes[];
    return bytes;
}

// The address of an element of a tile, for instructions: a constant part of `at` becomes a part of
// the instruction.
template <typename T>
__device__ __forceinline__ unsigned shared_address(const T* tile, int at) {
    return (unsigned)__cvta_generic_to_shared(tile) + at * (int)sizeof(T);
}

// The same number, in a register. Without this, the compiler computes what depends only on the
// thread again and again in a loop.
__device__ __forceinline__ int keep(int v) {
    int kept;
    asm volatile("mov.b32 %0, %1;" : "=r"(kept) : "r"(v));
    return kept;
}

// Starts to copy BYTES bytes (4, 8 or 16, or the size of one element) from global memory to element
// `at` of a tile in shared memory. If the source is not valid, it is not read, and zeros are
// written. The copy is visible after copies_wait and a barrier; the previous content may be read
// until the barrier before this call.
template <int BYTES, typename T>
__device__ __forceinline__ void copy_async(T* tile, int at, const T* from, bool valid) {
#if __CUDA_ARCH__ >= 800
    const unsigned target = shared_address(tile, at);
    const int bytes = valid ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(target), "l"(from), "r"(bytes) : "memory");
    else if constexpr (BYTES >= 4)
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;"
                     :: "r"(target), "l"(from), "r"(bytes), "n"(BYTES) : "memory");
    else
        *(unsigned short*)(tile + at) = valid ? *(const unsigned short*)from : (unsigned short)0;
#else
    for (int k = 0; k < BYTES / 2; k++)
        ((unsigned short*)(tile + at))[k] = valid ? ((const unsigned short*)from)[k] : (unsigned short)0;
#endif
}

// Copies are counted in groups: all copies started since the last call form one group.
__device__ __forceinline__ void copies_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until the copies of this thread are complete, except those of the last PENDING groups.
template <int PENDING>
__device__ __forceinline__ void copies_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
#endif
}

// Loads four matrices of 8 rows of 16 bytes for one warp. Row i of matrix m begins at the element
// tile[at] of thread 8 m + i. With g = lane / 4 and t = lane % 4, a thread gets, of each matrix, the 32 bits at
// row g, column t; TRANSPOSED: of 16-bit elements, those at column g in rows 2 t and 2 t + 1.
template <bool TRANSPOSED, typename T>
__device__ __forceinline__ void load_matrices(unsigned (&matrix)[4], const T* tile, int at) {
#if __CUDA_ARCH__ >= 800
    const unsigned from = shared_address(tile, at);
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
                     : "r"(from) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
                     : "r"(from) : "memory");
#endif
}

__device__ __forceinline__ float float_of(unsigned bits) { return __uint_as_float(bits); }

// Rounds to nearest, to the 10 fraction bits of TF32; the matrix units would truncate.
__device__ __forceinline__ unsigned to_tf32(float v) {
    unsigned bits = 0;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
#endif
    return bits;
}

// One warp: D (16 MT x 8 NT) += A (16 MT x 8 S) B (8 S x 8 NT), with S elements per register: one
// TF32 number or two halves. With g = lane / 4 and t = lane % 4, a thread holds
//
//     of each 16 x 8 piece of D   rows g and g + 8 in columns 2 t and 2 t + 1
//     of each 8 rows of A         row g at k = S t and S t + 4 S
//     of each 8 columns of B      column g at k = S t and S t + 4 S
template <int S, int MT, int NT>
__device__ __forceinline__ void warp_multiply(float (&d)[MT][NT][4],
                                              const unsigned (&a)[2 * MT][2],
                                              const unsigned (&b)[NT][2]) {
#if __CUDA_ARCH__ >= 800
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int j = 0; j < NT; j++)
            if constexpr (S == 1)
                asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
                    "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                    : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                    : "r"(a[2 * i][0]), "r"(a[2 * i + 1][0]), "r"(a[2 * i][1]),
                      "r"(a[2 * i + 1][1]), "r"(b[j][0]), "r"(b[j][1]));
            else
                asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                    "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                    : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                    : "r"(a[2 * i][0]), "r"(a[2 * i + 1][0]), "r"(a[2 * i][1]),
                      "r"(a[2 * i + 1][1]), "r"(b[j][0]), "r"(b[j][1]));
#else
    __trap();       // before sm_80 the backend does not use the matrix units
#endif
}

#endif

// Reads or writes V neighbours in shared memory at once. Tiles and sums are read and written only
// here, in load_matrices and in copy_async, so that the tests can count the accesses that have to
// wait because of bank conflicts.
template <int V, typename T>
__device__ __forceinline__ Vec<T, V> load_shared(const T* from) {
    note_access(from, V * sizeof(T));
    return load<V>(from);
}

template <typename T, int V>
__device__ __forceinline__ void store_shared(T* to, const Vec<T, V>& value) {
    note_access(to, V * sizeof(T));
    store(to, value);
}
