// Operations that C++ does not have: asynchronous copies, and the matrix units. They are written in
// PTX, the assembly language of the GPU, for every architecture from sm_80 on. The CPU shim of the
// tests has functions of the same names.

#ifdef __CUDACC__

// Tells the tests on the CPU about an access to shared memory.
__device__ __forceinline__ void note_access(const void*, int) {}

// The dynamic shared memory of the launch.
__device__ __forceinline__ unsigned char* shared_memory() {
    extern __shared__ __align__(1024) unsigned char bytes[];
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

// --- warpgroups (sm_90a) -------------------------------------------------------------------------

// Rounds to the nearest number of TF32, ties to even: one instruction from sm_90 on.
__device__ __forceinline__ unsigned nearest_tf32(float v) {
    unsigned bits = 0;
#if __CUDA_ARCH__ >= 900
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
#endif
    return bits;
}

// What this thread has written to shared memory is visible to the matrix units after a barrier.
__device__ __forceinline__ void stores_are_visible() {
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// A barrier in shared memory: it completes a phase when as many threads have arrived as it was made
// for, and all expected bytes. Phases are counted from 0; one thread makes the barrier.
__device__ __forceinline__ void barrier_make(u64* barrier, int threads) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                 :: "r"(shared_address(barrier, 0)), "r"(threads) : "memory");
#endif
}

__device__ __forceinline__ void barrier_arrive(u64* barrier) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
                 :: "r"(shared_address(barrier, 0)) : "memory");
#endif
}

// Arrives, and lets the barrier wait for `bytes` bytes of copy_bulk.
__device__ __forceinline__ void barrier_expect(u64* barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(shared_address(barrier, 0)), "r"(bytes) : "memory");
#endif
}

// Waits until a phase is complete; the barrier is in this phase or in the next one.
__device__ __forceinline__ void barrier_wait(u64* barrier, int phase) {
#if __CUDA_ARCH__ >= 900
    unsigned complete;
    do asm volatile("{\n.reg .pred p;\n"
                    "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                    "selp.u32 %0, 1, 0, p;\n}"
                    : "=r"(complete)
                    : "r"(shared_address(barrier, 0)), "r"(phase & 1) : "memory");
    while (!complete);
#endif
}

// Starts to copy `bytes` bytes, a multiple of 16, from global to shared memory, both at multiples
// of 16 bytes; the barrier counts them when they have arrived.
__device__ __forceinline__ void copy_bulk(float* to, const float* from, int bytes, u64* barrier) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];"
                 :: "r"(shared_address(to, 0)), "l"(from), "r"(bytes),
                    "r"(shared_address(barrier, 0)) : "memory");
#endif
}

// A description of an array for copy_box, 128 bytes that the driver has made.
struct alignas(64) BoxMap { u64 content[16]; };

// Starts to copy a box of a five-dimensional array to shared memory, at a multiple of 1024 bytes.
// The map has the sizes of array and box, and whether numbers are rounded to TF32: to the nearest
// one, ties to even. The box begins at these indices, innermost first; where it is outside of the
// array, there are zeros. Its lines of 128 bytes lie one after another; in line i, the 16 bytes at
// place j are at place j ^ i % 8.
__device__ __forceinline__ void copy_box(float* to, const BoxMap& map, int n, int c, int block,
                                         int x, int y, u64* barrier) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5, %6}], [%7];"
                 :: "r"(shared_address(to, 0)), "l"((u64)&map), "r"(n), "r"(c), "r"(block), "r"(x),
                    "r"(y), "r"(shared_address(barrier, 0)) : "memory");
#endif
}

// Gives registers of this warpgroup back, or takes more: from now on its threads have COUNT each.
template <int COUNT, bool MORE>
__device__ __forceinline__ void set_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    if constexpr (MORE) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(COUNT));
    else asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(COUNT));
#endif
}

// Products are executed while the warpgroup goes on: after products_begin it starts some, which
// products_commit makes a group; products_wait waits for all groups but the last PENDING ones.
// Until then, nothing may touch their sums and registers, nor overwrite their tiles.
__device__ __forceinline__ void products_begin() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void products_commit() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

template <int PENDING>
__device__ __forceinline__ void products_wait() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(PENDING) : "memory");
#endif
}

// The matrix units' description of a tile ALONG_K from index `k` on: the address and the distance
// from 8 lines to the next 8, both in units of 16 bytes, and how the pieces of a line change
// places. A tile begins at a multiple of 1024 bytes, or of 512 if its lines have 64 bytes.
template <class Tile>
__device__ __forceinline__ u64 tile_from(const float* place, int k) {
    constexpr int LINE = Tile::LINE * sizeof(float);
    static_assert(LINE == 64 || LINE == 128, "a layout of the units");
    return (shared_address(place, k) & 0x3FFFF) >> 4 | 1 << 16 | (u64)(8 * LINE / 16) << 32
           | (u64)(LINE == 64 ? 2 : 1) << 62;
}

// One warpgroup: D (64 x N) += A (64 x 8) B (8 x N), with B in shared memory: N lines of a tile
// ALONG_K, from `k` on. With warp w of the group, g = lane / 4 and t = lane % 4, a thread holds
//     of A, rows 16 w + g and 16 w + g + 8 at k = t, then both at k = t + 4;
//     of each 8 columns of D, columns 2 t and 2 t + 1 in row 16 w + g, then in row 16 w + g + 8.
template <class Tile, int N>
__device__ __forceinline__ void warpgroup_multiply(float (&d)[N / 8][4], const unsigned (&a)[4],
                                                   const float* place, int k) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const u64 tile = tile_from<Tile>(place, k);
#define SUMS(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
    if constexpr (N == 64)
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32 {"
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
                     "%30, %31}, "
                     "{%32, %33, %34, %35}, %36, 1, 1, 1;"
                     : SUMS(0), SUMS(1), SUMS(2), SUMS(3),
                       SUMS(4), SUMS(5), SUMS(6), SUMS(7)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tile));
    else if constexpr (N == 128)
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 {"
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "
                     "%30, %31, "
                     "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "
                     "%46, %47, "
                     "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
                     "%62, %63}, "
                     "{%64, %65, %66, %67}, %68, 1, 1, 1;"
                     : SUMS(0), SUMS(1), SUMS(2), SUMS(3),
                       SUMS(4), SUMS(5), SUMS(6), SUMS(7),
                       SUMS(8), SUMS(9), SUMS(10), SUMS(11),
                       SUMS(12), SUMS(13), SUMS(14), SUMS(15)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tile));
#undef SUMS
#endif
}

// The same with A in shared memory, too: 64 lines of a tile.
template <class Tile, int N>
__device__ __forceinline__ void warpgroup_multiply_tiles(float (&d)[N / 8][4], const float* a,
                                                         const float* b, int k) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const u64 rows = tile_from<Tile>(a, k), columns = tile_from<Tile>(b, k);
#define SUMS(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
    if constexpr (N == 192)
        asm volatile("wgmma.mma_async.sync.aligned.m64n192k8.f32.tf32.tf32 {"
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "
                     "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "
                     "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
                     "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
                     "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
                     "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "
                     "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
                     "%96, %97, 1, 1, 1;"
                     : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5),
                       SUMS(6), SUMS(7), SUMS(8), SUMS(9), SUMS(10), SUMS(11),
                       SUMS(12), SUMS(13), SUMS(14), SUMS(15), SUMS(16), SUMS(17),
                       SUMS(18), SUMS(19), SUMS(20), SUMS(21), SUMS(22), SUMS(23)
                     : "l"(rows), "l"(columns));
    else if constexpr (N == 256)
        asm volatile("wgmma.mma_async.sync.aligned.m64n256k8.f32.tf32.tf32 {"
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "
                     "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "
                     "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
                     "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
                     "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
                     "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "
                     "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "
                     "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
                     "%110, %111, "
                     "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, "
                     "%124, %125, "
                     "%126, %127}, "
                     "%128, %129, 1, 1, 1;"
                     : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5),
                       SUMS(6), SUMS(7), SUMS(8), SUMS(9), SUMS(10), SUMS(11),
                       SUMS(12), SUMS(13), SUMS(14), SUMS(15), SUMS(16), SUMS(17),
                       SUMS(18), SUMS(19), SUMS(20), SUMS(21), SUMS(22), SUMS(23),
                       SUMS(24), SUMS(25), SUMS(26), SUMS(27), SUMS(28), SUMS(29),
                       SUMS(30), SUMS(31)
                     : "l"(rows), "l"(columns));
#undef SUMS
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
