// The sums of the tile that a block computes: how its threads share them, multiply two tiles in
// shared memory, and write the sums back to shared memory, one slice after another.

// The arithmetic of a product: type of the elements, size of a step, number of tiles in flight.
template <typename T>
struct Fma { typedef T Element; static constexpr int TILE_K = 16, STAGES = 2; };
struct Tf32 { typedef float Element; static constexpr int TILE_K = 16, STAGES = 3, S = 1; };
struct Half { typedef __half Element; static constexpr int TILE_K = 32, STAGES = 3, S = 2; };

// From this number of elements of a tile on, a thread takes more of them than in a small tile.
constexpr int LARGE = 128 * 128;

// --- without the matrix units --------------------------------------------------------------------

// A thread has ROWS neighbouring rows and every 16th column, or every 16th group of PACK columns if
// those are neighbours in shared memory.
template <class Math, class TileA, class TileB>
struct SimpleSums {
    typedef typename Math::Element T;
    typedef typename Wide<T>::type Number;
    static constexpr int BM = TileA::ROWS, BN = TileB::ROWS;
    static constexpr int THREADS = BM * BN / (BM * BN >= LARGE ? 64 : 32);
    static constexpr int BLOCKS = 512 / THREADS;        // on a multiprocessor, for the compiler
    static constexpr int TX = 16, ROWS = BM / (THREADS / TX), COLUMNS = BN / TX;
    static constexpr int PACK = TileB::WIDE < 4 ? TileB::WIDE : 4;
    static constexpr int TOGETHER = TileB::ORDER == ALONG_K ? 1 : PACK;     // columns
    static constexpr int SLICE_ROWS = 64, SLICE_COLUMNS = BN, STRIDE = BN;
    Number sum[ROWS][COLUMNS] = {};
    const int at_a = TileA::at(row(), 0), at_b = TileB::at(column(), 0);

    __device__ static unsigned row() { return threadIdx.x / TX * ROWS; }
    __device__ static unsigned column() { return threadIdx.x % TX * TOGETHER; }
    __device__ static int beyond(int j) { return j / TOGETHER * TX * TOGETHER + j % TOGETHER; }
    __device__ static unsigned slice() { return row() / SLICE_ROWS; }

    // Reads the numbers of COUNT rows at `k`. The i-th is from(i) rows behind the one at `at`. From
    // a tile ALONG_K they are read for PACK indices k at once.
    template <class Tile, int COUNT, class From>
    __device__ static void read(Number (&numbers)[PACK][COUNT], const T* tile, int at, unsigned k,
                                From from) {
        constexpr bool ALONG = Tile::ORDER == ALONG_K;
        if (ALONG && k % PACK) return;
#pragma unroll
        for (int i = 0; i < COUNT; i += ALONG ? 1 : PACK) {
            const Vec<T, PACK> v = load_shared<PACK>(tile + Tile::beyond(at, from(i), k));
#pragma unroll
            for (int c = 0; c < PACK; c++)
                numbers[ALONG ? c : k % PACK][ALONG ? i : i + c] = Number(v.at[c]);
        }
    }

    __device__ __forceinline__ void multiply(const T* a, const T* b) {
        Number rows[PACK][ROWS], columns[PACK][COLUMNS];
#pragma unroll(TileB::ORDER == ALONG_K ? PACK : 8)
        for (unsigned k = 0; k < Math::TILE_K; k++) {
            read<TileA>(rows, a, at_a, k, [](int i) { return i; });
            read<TileB>(columns, b, at_b, k, [](int j) { return beyond(j); });
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int j = 0; j < COLUMNS; j++)
                    sum[i][j] += rows[k % PACK][i] * columns[k % PACK][j];
        }
    }

    // Writes this thread's sums to its slice, whose rows are STRIDE elements apart.
    __device__ __forceinline__ void lay_out(Number* slice) const {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j += TOGETHER) {
                Vec<Number, TOGETHER> v;
#pragma unroll
                for (int c = 0; c < TOGETHER; c++) v.at[c] = sum[i][j + c];
                store_shared(slice + (row() % SLICE_ROWS + i) * STRIDE + column() + beyond(j), v);
            }
    }
};

// --- with the matrix units -----------------------------------------------------------------------

// The matrix units take 8 lines of a tile as one group, and 16 of the first operand. Which lines
// form a group is free, as long as the sums are put back in the same way; it is chosen so that the
// registers of a thread are loaded together and reads have no bank conflicts.
template <class Tile>
constexpr bool FLOATS_ACROSS = Tile::ORDER == ACROSS_K && sizeof(typename Tile::Element) == 4;

// Line g of a group of the first or the second operand. For floats ACROSS_K, lines g of the first
// operand's groups 2 i and 2 i + 1 are neighbours.
template <class Tile, bool FIRST>
__device__ __forceinline__ unsigned line_of(unsigned group, unsigned g) {
    if (!FLOATS_ACROSS<Tile>) return 8 * group + g;
    return group / 4 * 32 + (FIRST ? g / 2 % 2 * 16 + group / 2 % 2 * 8 + g / 4 * 4 + g % 2 * 2
                                         + group % 2
                                   : g / 4 * 16 + group % 4 * 4 + g % 4);
}

// The registers of an operand of warp_multiply, for GROUPS groups of lines of a tile. A register is
// one TF32 number, or the halves at k and k + 1.
template <class Tile, bool FIRST, int GROUPS>
struct Operand {
    typedef typename Tile::Element T;
    static constexpr bool TRANSPOSED = Tile::ORDER == ACROSS_K;
    int at;                             // of this thread's part of the first group at k = 0
    unsigned registers[GROUPS][2];

    // r: the first line of this warp
    __device__ __forceinline__ Operand(unsigned r) {
        const unsigned lane = threadIdx.x % 32, i = lane % 8;
        if (FLOATS_ACROSS<Tile>)
            at = Tile::at(r + line_of<Tile, FIRST>(0, lane / 4), lane % 4);
        else {
            // The row of a matrix whose address this thread passes: a matrix has 8 lines x 16 bytes
            // along k, or 8 k x 8 lines.
            const unsigned group = FIRST ? lane / 8 % 2 : lane / 16;
            const unsigned q = FIRST ? lane / 16 : lane / 8 % 2;
            at = Tile::at(r + 8 * group + (TRANSPOSED ? 0 : i),
                          Tile::WIDE * q + (TRANSPOSED ? i : 0));
        }
        at = keep(at);
    }

    __device__ __forceinline__ void load(const T* tile, int k) {
        if constexpr (FLOATS_ACROSS<Tile>) {
            constexpr int V = FIRST ? 2 : 1;
#pragma unroll
            for (int group = 0; group < GROUPS; group += V)
#pragma unroll
                for (int q = 0; q < 2; q++) {
                    const Vec<T, V> v = load_shared<V>(
                        tile + Tile::beyond(at, line_of<Tile, FIRST>(group, 0), k + 4 * q));
#pragma unroll
                    for (int c = 0; c < V; c++) registers[group + c][q] = to_tf32(v.at[c]);
                }
        } else {
#pragma unroll
            for (int group = 0; group < GROUPS; group += 2) {
                unsigned matrix[4];
                load_matrices<TRANSPOSED>(matrix, tile, Tile::beyond(at, 8 * group, k));
#pragma unroll
                for (int m = 0; m < 4; m++)
                    registers[group + (FIRST ? m % 2 : m / 2)][FIRST ? m / 2 : m % 2] =
                        sizeof(T) == 4 ? to_tf32(float_of(matrix[m])) : matrix[m];
            }
        }
    }
};

// A warp computes WM x WN elements of the tile; ptx.cu says which sums a thread holds. The first
// operand of the matrix units is A, or B if only B consists of floats ACROSS_K (SWAPPED): of the
// first one, two neighbours are loaded at once.
template <class Math, class TileA, class TileB>
struct WarpSums {
    typedef typename Math::Element T;
    static constexpr int BM = TileA::ROWS, BN = TileB::ROWS;
    static constexpr int WM = BM * BN >= LARGE ? 64 : 32, WN = WM, ACROSS = BN / WN;
    static constexpr int THREADS = 32 * (BM / WM) * ACROSS, BLOCKS = 1;
    static constexpr int S = Math::S, MT = WM / 16, NT = WN / 8;
    static constexpr bool SWAPPED = FLOATS_ACROSS<TileB> && !FLOATS_ACROSS<TileA>;
    static constexpr int SLICE_ROWS = WM, SLICE_COLUMNS = BN < 128 ? BN : 128;
    // The padding puts most rows that are written at once into different banks.
    static constexpr int STRIDE = SLICE_COLUMNS + (SWAPPED ? 4 : 8);
    float sum[MT][NT][4] = {};
    Operand<TileA, !SWAPPED, 2 * MT> rows{row()};
    Operand<TileB, SWAPPED, NT> columns{column()};

    __device__ static unsigned row() { return threadIdx.x / 32 / ACROSS * WM; }
    __device__ static unsigned column() { return threadIdx.x / 32 % ACROSS * WN; }
    __device__ static unsigned slice() {
        return row() / WM * (BN / SLICE_COLUMNS) + column() / SLICE_COLUMNS;
    }

    __device__ __forceinline__ void multiply(const T* a, const T* b) {
        __syncwarp();                       // the matrix units need all threads of the warp
#pragma unroll
        for (int k = 0; k < Math::TILE_K; k += 8 * S) {
            rows.load(a, k);
            columns.load(b, k);
            if constexpr (SWAPPED) warp_multiply<S>(sum, columns.registers, rows.registers);
            else warp_multiply<S>(sum, rows.registers, columns.registers);
        }
    }

    __device__ __forceinline__ void lay_out(float* slice) const {
        const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        slice += column() % SLICE_COLUMNS;
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < NT; j++)
#pragma unroll
                for (int q = 0; q < 2; q++)
                    if constexpr (SWAPPED)
                        store_shared(slice + line_of<TileA, false>(j, 2 * t + q) * STRIDE
                                           + line_of<TileB, true>(2 * i, g),
                                     Vec<float, 2>{{sum[i][j][q], sum[i][j][q + 2]}});
                    else
                        store_shared(slice + line_of<TileA, true>(2 * i + q, g) * STRIDE
                                           + line_of<TileB, false>(j, 2 * t),
                                     Vec<float, 2>{{sum[i][j][2 * q], sum[i][j][2 * q + 1]}});
    }
};

template <class Math, class TileA, class TileB>
struct SumsOf { typedef WarpSums<Math, TileA, TileB> type; };
template <typename T, class TileA, class TileB>
struct SumsOf<Fma<T>, TileA, TileB> { typedef SimpleSums<Fma<T>, TileA, TileB> type; };
