// Matrix products, and convolutions as matrix products whose second operand is not in memory.
//
//     C (M, N) = f(A (M, K) B (K, N) + bias), or C += for gradients that accumulate
//
//     convolution          A = W (F, C*KH*KW)      B = im2col(x) (C*KH*KW, OH*OW*N)
//     filter gradient      A = dy (F, OH*OW*N)     B = im2col(x)^T
//     input gradient       a convolution of dy with flipped filters (stride 1)
//
// A block computes one tile of C in a loop along k in steps of TILE_K: while it multiplies one pair
// of tiles in shared memory, the next pairs are copied. If C has too few tiles for all
// multiprocessors, several blocks share the loop of one tile; each writes its sum to a workspace,
// and add_splits adds the sums.

struct Product {
    // number of elements from one line of an array to the next
    i64 lda, ldb, ldc;
    i64 a_group, b_group, c_group;                  // and from one group of channels to the next
    int M, N, K;                                    // of one group
    // number of blocks that share a tile of C, number of steps of TILE_K of each of them
    int splits, steps;
    // Whether 16 bytes of A, 16 bytes of B, and four elements of C can be moved at once.
    int wide_a, wide_b, wide_c;
    int has_bias, activation, accumulate;
};

// --- arithmetic ----------------------------------------------------------------------------------

// The arithmetic of a product: type of the elements, size of a step, number of tiles in flight.
template <typename T>
struct Fma { typedef T Element; static constexpr int TILE_K = 16, STAGES = 2; };
struct Tf32 { typedef float Element; static constexpr int TILE_K = 16, STAGES = 3, S = 1; };
struct Half { typedef __half Element; static constexpr int TILE_K = 32, STAGES = 3, S = 2; };

// From this number of elements of a tile on, a thread takes more of them than in a small tile.
constexpr int LARGE = 128 * 128;

// The sums of one thread, computed without the matrix units: rows ty, ty + TY, .. and columns tx,
// tx + 16, .. of the tile.
template <class Math, int BM, int BN>
struct SimpleSums {
    typedef typename Wide<typename Math::Element>::type Number;
    static constexpr int THREADS = BM * BN / (BM * BN >= LARGE ? 64 : 32), STRIDE = BN;
    static constexpr int TX = 16, TY = THREADS / TX, ROWS = BM / TY, COLUMNS = BN / TX;
    Number sum[ROWS][COLUMNS] = {};

    template <class TileA, class TileB, typename T>
    __device__ __forceinline__ void multiply(const T* a, const T* b) {
        const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
#pragma unroll 4
        for (int k = 0; k < Math::TILE_K; k++) {
            Number row[ROWS], column[COLUMNS];
            for (int i = 0; i < ROWS; i++) row[i] = Number(a[TileA::at(ty + TY * i, k)]);
            for (int j = 0; j < COLUMNS; j++) column[j] = Number(b[TileB::at(tx + TX * j, k)]);
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < COLUMNS; j++) sum[i][j] += row[i] * column[j];
        }
    }

    // Writes the sums into a tile of C, whose rows are STRIDE elements apart.
    __device__ __forceinline__ void lay_out(Number* tile) const {
        const int ty = threadIdx.x / TX, tx = threadIdx.x % TX;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                tile[(ty + TY * i) * STRIDE + tx + TX * j] = sum[i][j];
    }
};

// One 32-bit register of an operand of the matrix units: a TF32 number, or the halves at k and
// k + 1.
template <class Tile>
__device__ __forceinline__ unsigned fragment(const float* tile, int r, int k) {
    return to_tf32(tile[Tile::at(r, k)]);
}

template <class Tile>
__device__ __forceinline__ unsigned fragment(const __half* tile, int r, int k) {
    const unsigned short* bits = (const unsigned short*)tile;
    return bits[Tile::at(r, k)] | (unsigned)bits[Tile::at(r, k + 1)] << 16;
}

// The sums of one thread of a warp, computed by the matrix units; ptx.cu says which sums a thread
// holds.
template <class Math, int BM, int BN>
struct WarpSums {
    // rows and columns of one warp's part of the tile
    static constexpr int WM = BM * BN >= LARGE ? 64 : 32, WN = WM;
    static constexpr int S = Math::S, MT = WM / 16, NT = WN / 8,
                         THREADS = 32 * (BM / WM) * (BN / WN), STRIDE = BN + 8;
    float sum[MT][NT][4] = {};

    __device__ static int row() { return threadIdx.x / 32 / (BN / WN) * WM + threadIdx.x % 32 / 4; }
    __device__ static int column() { return threadIdx.x / 32 % (BN / WN) * WN; }

    template <class TileA, class TileB, typename T>
    __device__ __forceinline__ void multiply(const T* a, const T* b) {
        const int t = threadIdx.x % 4, g = threadIdx.x % 32 / 4;
        __syncwarp();                       // the matrix units need all threads of the warp
#pragma unroll
        for (int k = S * t; k < Math::TILE_K; k += 8 * S) {
            unsigned rows[MT][4], columns[NT][2];
#pragma unroll
            for (int i = 0; i < MT; i++)
#pragma unroll
                for (int q = 0; q < 4; q++)
                    rows[i][q] =
                        fragment<TileA>(a, row() + 16 * i + 8 * (q % 2), k + 4 * S * (q / 2));
#pragma unroll
            for (int j = 0; j < NT; j++)
#pragma unroll
                for (int q = 0; q < 2; q++)
                    columns[j][q] = fragment<TileB>(b, column() + 8 * j + g, k + 4 * S * q);
            warp_multiply<S>(sum, rows, columns);
        }
    }

    __device__ __forceinline__ void lay_out(float* tile) const {
        const int t = threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < NT; j++)
#pragma unroll
                for (int q = 0; q < 4; q += 2)
                    store(tile + (row() + 16 * i + 4 * q) * STRIDE + column() + 8 * j + 2 * t,
                          Vec<float, 2>{{sum[i][j][q], sum[i][j][q + 1]}});
    }
};

template <class Math, int BM, int BN> struct SumsOf { typedef WarpSums<Math, BM, BN> type; };
template <typename T, int BM, int BN> struct SumsOf<Fma<T>, BM, BN> {
    typedef SimpleSums<Fma<T>, BM, BN> type;
};

// --- bias, activation, store ---------------------------------------------------------------------

template <typename Number>
__device__ __forceinline__ Number activate(int activation, Number z) {
    switch (activation) {
        case RELU: return activate<RELU>(z);
        case SIGMOID: return activate<SIGMOID>(z);
        case TANH: return activate<TANH>(z);
        case SCALED_TANH: return activate<SCALED_TANH>(z);
        default: return z;
    }
}

// out = f(sum + bias), or out += f(sum + bias), V elements of a row at once.
template <typename T, int V, typename Number>
__device__ __forceinline__ void finish(const Vec<Number, V>& sum, const T* bias, T* out,
                                       const Product& p) {
    const Number shift = p.has_bias ? Number(*bias) : Number(0);
    Vec<T, V> y = {};
    if (p.accumulate) y = load<V>(out);
    for (int k = 0; k < V; k++) {
        const Number z = activate(p.activation, sum.at[k] + shift);
        y.at[k] = T(p.accumulate ? Number(y.at[k]) + z : z);
    }
    store(out, y);
}

// Writes the tile of sums of a block, whose first element is (row, column) of C: to the workspace
// if there are splits, else finished to C; V elements at a time.
template <class Sums, int BM, int BN, int V, typename T, typename Number>
__device__ __forceinline__ void finish_tile(const Number* tile, int row, int column, const T* bias,
                                            T* out, Number* workspace, const Product& p) {
    for (int q = threadIdx.x * V; q < BM * BN; q += Sums::THREADS * V) {
        const int i = q / BN, j = q % BN, m = row + i, n = column + j;
        if (m >= p.M || n >= p.N) continue;
        const Vec<Number, V> sum = load<V>(tile + i * Sums::STRIDE + j);
        if (p.splits > 1) store(workspace + (i64)m * p.N + n, sum);
        else finish(sum, bias + m, out + m * p.ldc + n, p);
    }
}

// --- the kernel ----------------------------------------------------------------------------------

// IMAGE: b is an image (channels, H, W, N) that is read through the window w; B is its columns
// (ACROSS_K) or their transpose (ALONG_K). There is one block of THREADS threads for each (tile,
// split, group).
template <class Math, int BM, int BN, int A, int B, bool IMAGE>
__global__ void __launch_bounds__(SumsOf<Math, BM, BN>::type::THREADS)
product(const typename Math::Element* __restrict__ a, const typename Math::Element* __restrict__ b,
        const typename Math::Element* __restrict__ bias, typename Math::Element* out,
        typename Wide<typename Math::Element>::type* workspace, Product p, Window w) {
    typedef typename Math::Element T;
    typedef typename Wide<T>::type Number;
    typedef Tile<T, BM, Math::TILE_K, A> TileA;
    typedef Tile<T, BN, Math::TILE_K, B> TileB;
    typedef typename SumsOf<Math, BM, BN>::type Sums;
    constexpr int THREADS = Sums::THREADS, STAGES = Math::STAGES, TILE_K = Math::TILE_K;

    T* tiles = (T*)shared_memory();                                     // STAGES pairs of tiles
    // positions of the BN columns of B (IMAGE)
    Place* columns = (Place*)(tiles + STAGES * (TileA::SIZE + TileB::SIZE));
    // positions of STAGES * TILE_K indices k
    Place* along = columns + BN;
    const unsigned tiles_m = (p.M + BM - 1) / BM;
    const int row = blockIdx.x % tiles_m * BM, column = blockIdx.x / tiles_m * BN;
    const int group = blockIdx.z, split = blockIdx.y;
    const int first = split * p.steps, last = min(first + p.steps, (p.K + TILE_K - 1) / TILE_K);
    a += group * p.a_group + (A == ALONG_K ? row * p.lda : row);
    b += group * p.b_group + (IMAGE ? 0 : B == ALONG_K ? column * p.ldb : column);

    // In a convolution k is a tap and a column is a pixel; in the filter gradient k is a pixel and
    // a column is a tap.
    auto place = [&](bool of_k, int at) {
        return (B == ACROSS_K) == of_k ? tap(at, of_k ? p.K : p.N, w)
                                       : pixel(at, of_k ? p.K : p.N, w);
    };
    auto look_up = [&](int step) {                                      // positions of its k
        const int k = threadIdx.x;
        if (IMAGE && k < TILE_K) along[step % STAGES * TILE_K + k] = place(true, step * TILE_K + k);
    };
    // Starts to copy the tiles of a step.
    auto fetch = [&](int step) {
        if (step < last) {
            T* to_a = tiles + step % STAGES * (TileA::SIZE + TileB::SIZE);
            T* to_b = to_a + TileA::SIZE;
            const int k = step * TILE_K;
            const T* from = a + (A == ALONG_K ? k : k * p.lda);
            if (p.wide_a)
                fill_from_matrix<TileA, THREADS, TileA::WIDE, A>(to_a, from, p.lda, p.M - row,
                                                                 p.K - k);
            else
                fill_from_matrix<TileA, THREADS, 1, A>(to_a, from, p.lda, p.M - row, p.K - k);
            if constexpr (IMAGE) {
                const Place* steps = along + step % STAGES * TILE_K;
                if (p.wide_b)
                    fill_from_image<TileB, THREADS, TileB::WIDE, B>(to_b, b, columns, steps, w);
                else
                    fill_from_image<TileB, THREADS, 1, B>(to_b, b, columns, steps, w);
            } else {
                const T* from = b + (B == ALONG_K ? k : k * p.ldb);
                if (p.wide_b)
                    fill_from_matrix<TileB, THREADS, TileB::WIDE, B>(to_b, from, p.ldb,
                                                                     p.N - column, p.K - k);
                else
                    fill_from_matrix<TileB, THREADS, 1, B>(to_b, from, p.ldb, p.N - column,
                                                           p.K - k);
            }
        }
        // Also if nothing was copied, because groups are counted.
        copies_commit();
    };

    if (IMAGE) {
        for (int n = threadIdx.x; n < BN; n += THREADS) columns[n] = place(false, column + n);
        for (int step = first; step < first + STAGES; step++) look_up(step);
        __syncthreads();
    }
    for (int step = first; step < first + STAGES - 1; step++) fetch(step);
    Sums sums;
    for (int step = first; step < last; step++) {
        copies_wait<STAGES - 2>();
        // This step's tiles have arrived, and the previous step's are free
        __syncthreads();
        fetch(step + STAGES - 1);
        if (step + STAGES < last) look_up(step + STAGES);
        const T* tile = tiles + step % STAGES * (TileA::SIZE + TileB::SIZE);
        sums.template multiply<TileA, TileB>(tile, tile + TileA::SIZE);
    }

    copies_wait<0>();
    // The tiles are no longer read; their memory is used for the sums.
    __syncthreads();
    Number* tile = (Number*)shared_memory();
    sums.lay_out(tile);
    __syncthreads();
    if (p.splits > 1) workspace += ((i64)split * gridDim.z + group) * p.M * p.N;
    out += group * p.c_group;
    bias += p.has_bias ? group * p.M : 0;
    if (p.wide_c) finish_tile<Sums, BM, BN, 4>(tile, row, column, bias, out, workspace, p);
    else finish_tile<Sums, BM, BN, 1>(tile, row, column, bias, out, workspace, p);
}

// Adds the sums of all splits. Thread ty of a column adds every blockDim.y-th sum, then thread 0
// adds the results of the others: the order depends only on the number of splits.
template <typename T>
__global__ void add_splits(const typename Wide<T>::type* __restrict__ workspace,
                           const T* __restrict__ bias, T* out, int groups, Product p) {
    typedef typename Wide<T>::type Number;
    __shared__ Number parts[MOST_THREADS];
    const i64 size = (i64)groups * p.M * p.N;
    const int rows = groups * p.M, tx = threadIdx.x, ty = threadIdx.y;
    for (int row = blockIdx.y; row < rows; row += gridDim.y)
        for (int first = blockIdx.x * blockDim.x; first < p.N; first += gridDim.x * blockDim.x) {
            const int n = first + tx;
            Number sum = 0;
#pragma unroll 8
            for (int split = n < p.N ? ty : p.splits; split < p.splits; split += blockDim.y)
                sum += workspace[split * size + (i64)row * p.N + n];
            parts[ty * blockDim.x + tx] = sum;
            __syncthreads();
            if (ty == 0 && n < p.N) {
                for (unsigned k = 1; k < blockDim.y; k++) sum += parts[k * blockDim.x + tx];
                finish(Vec<Number, 1>{{sum}}, bias + row,
                       out + row / p.M * p.c_group + row % p.M * p.ldc + n, p);
            }
            __syncthreads();
        }
}

// Flipped filters, with input and output channels exchanged:
//     turned[g, c, f, i, j] = W[g, f, c, KH - 1 - i, KW - 1 - j]
template <typename T>
__global__ void turn_filters(const T* __restrict__ W, T* __restrict__ turned, int groups, int F,
                             int C, int taps) {
    const int size = groups * F * C * taps;
    for (int k = blockIdx.x * blockDim.x + threadIdx.x; k < size; k += gridDim.x * blockDim.x) {
        const int tap = k % taps, f = k / taps % F, c = k / taps / F % C, g = k / taps / F / C;
        turned[k] = W[((g * F + f) * C + c) * taps + taps - 1 - tap];
    }
}
