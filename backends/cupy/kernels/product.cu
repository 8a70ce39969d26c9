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

// Number of indices k whose positions in an image are computed together: by one warp.
[[maybe_unused]] constexpr int BATCH = 32;

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

// Writes one slice of the sums of a block, whose first element is (row, column) of C: to the
// workspace if there are splits, else finished to C; V elements at a time.
template <class Sums, int V, typename T, typename Number>
__device__ __forceinline__ void finish_slice(const Number* slice, int row, int column,
                                             const T* bias, T* out, Number* workspace,
                                             const Product& p) {
    constexpr int COLUMNS = Sums::SLICE_COLUMNS;
    for (int q = threadIdx.x * V; q < Sums::SLICE_ROWS * COLUMNS; q += Sums::THREADS * V) {
        const int i = q / COLUMNS, j = q % COLUMNS, m = row + i, n = column + j;
        if (m >= p.M || n >= p.N) continue;
        const Vec<Number, V> sum = load_shared<V>(slice + i * Sums::STRIDE + j);
        if (p.splits > 1) store(workspace + (i64)m * p.N + n, sum);
        else finish(sum, bias + m, out + m * p.ldc + n, p);
    }
}

// --- the kernel ----------------------------------------------------------------------------------

// Where the share of a thread begins in a tile: of wide or narrow copies.
template <class Tile, int THREADS>
__device__ __forceinline__ int share_at(bool wide) {
    return keep(wide ? Share<Tile, THREADS, Tile::WIDE>::at() : Share<Tile, THREADS, 1>::at());
}

// An operand that is a matrix, as one thread copies it: where its share of the next tile begins,
// and what is left of the matrix from there. Both move on with each tile.
template <class Tile, int THREADS>
struct Source {
    typedef typename Tile::Element T;
    typedef Share<Tile, THREADS, Tile::WIDE> WideShare;
    typedef Share<Tile, THREADS, 1> NarrowShare;
    const T* from;
    i64 ld;
    int lines, places, at;
    bool wide;

    // The first tile begins at `first`; from there, the matrix has `rows` rows and `depth` elements
    // along k left.
    __device__ Source(const T* first, i64 ld, int rows, int depth, bool wide) : ld(ld), wide(wide) {
        const int line = wide ? WideShare::line() : NarrowShare::line();
        const int place = wide ? WideShare::place() : NarrowShare::place();
        from = first + line * ld + place;
        lines = (Tile::ORDER == ALONG_K ? rows : depth) - line;
        places = (Tile::ORDER == ALONG_K ? depth : rows) - place;
        at = share_at<Tile, THREADS>(wide);
    }

    __device__ __forceinline__ void fill(T* tile) {
        if (wide) fill_from_matrix<Tile, THREADS, Tile::WIDE>(tile, at, from, ld, lines, places);
        else fill_from_matrix<Tile, THREADS, 1>(tile, at, from, ld, lines, places);
        from += Tile::ORDER == ALONG_K ? Tile::LINE : Tile::LINES * ld;
        (Tile::ORDER == ALONG_K ? places : lines) -= Tile::ORDER == ALONG_K ? Tile::LINE
                                                                           : Tile::LINES;
    }
};

template <class Math, int BM, int BN, int A, int B>
using Sums = typename SumsOf<Math, Tile<typename Math::Element, BM, Math::TILE_K, A>,
                             Tile<typename Math::Element, BN, Math::TILE_K, B>>::type;

// IMAGE: b is an image (channels, H, W, N) that is read through a window; B is its columns
// (ACROSS_K) or their transpose (ALONG_K). There is one block of THREADS threads for each (tile,
// split, group).
template <class Math, int BM, int BN, int A, int B, bool IMAGE>
__global__ void __launch_bounds__(Sums<Math, BM, BN, A, B>::THREADS,
                                  Sums<Math, BM, BN, A, B>::BLOCKS)
product(const typename Math::Element* __restrict__ a, const typename Math::Element* __restrict__ b,
        const typename Math::Element* __restrict__ bias, typename Math::Element* out,
        typename Wide<typename Math::Element>::type* workspace, Product p, Image image) {
    typedef typename Math::Element T;
    typedef typename Wide<T>::type Number;
    typedef Tile<T, BM, Math::TILE_K, A> TileA;
    typedef Tile<T, BN, Math::TILE_K, B> TileB;
    typedef Sums<Math, BM, BN, A, B> Own;
    constexpr int THREADS = Own::THREADS, STAGES = Math::STAGES, TILE_K = Math::TILE_K;
    constexpr int PAIR = TileA::SIZE + TileB::SIZE;
    typedef Share<TileB, THREADS, TileB::WIDE> WideShare;
    typedef Share<TileB, THREADS, 1> NarrowShare;

    T* tiles = (T*)shared_memory();                                     // STAGES pairs of tiles
    // IMAGE: positions of 2 * BATCH indices k; of the BN columns of B, if ALONG_K
    Place* along = (Place*)(tiles + STAGES * PAIR);
    Place* columns = along + 2 * BATCH;
    const unsigned tiles_m = (p.M + BM - 1) / BM;
    const int row = blockIdx.x % tiles_m * BM, column = blockIdx.x / tiles_m * BN;
    const int group = blockIdx.z, split = blockIdx.y, k0 = split * p.steps * TILE_K;
    const int steps = min(p.steps, (p.K - k0 + TILE_K - 1) / TILE_K);
    b += group * p.b_group;
    Source<TileA, THREADS> source_a(a + group * p.a_group
                                    + (A == ALONG_K ? row * p.lda + k0 : k0 * p.lda + row),
                                    p.lda, p.M - row, p.K - k0, p.wide_a);
    Source<TileB, THREADS> source_b(b + (B == ALONG_K ? column * p.ldb + k0 : k0 * p.ldb + column),
                                    p.ldb, p.N - column, p.K - k0, p.wide_b);

    // In a convolution k is a tap and a column is a pixel; in the filter gradient k is a pixel and
    // a column is a tap.
    auto position = [&](bool of_k, int at) {
        return (B == ACROSS_K) == of_k ? tap(at, of_k ? p.K : p.N, image)
                                       : pixel(at, of_k ? p.K : p.N, image);
    };
    // The positions of one batch of k; the warps take turns.
    auto look_up = [&](unsigned batch) {
        const unsigned lane = threadIdx.x % BATCH;
        if (threadIdx.x / BATCH == batch % (THREADS / BATCH))
            along[batch % 2 * BATCH + lane] = position(true, k0 + batch * BATCH + lane);
    };
    // Of an image: where this thread's share begins in a tile, and the positions of its places,
    // which are the same in all steps of a convolution.
    const int at_b = share_at<TileB, THREADS>(p.wide_b);
    Spot<T> own[NarrowShare::PLACES];
    auto spot = [&](const Place& at) { return Spot<T>{b + at.offset, at.y, at.x}; };
    // The pairs of tiles are filled and read in turn.
    int filled = 0, arrived = 0;
    auto next = [](int pair) { return pair == (STAGES - 1) * PAIR ? 0 : pair + PAIR; };
    // Starts to copy the tiles of a step. Before each call there is a barrier.
    auto fetch = [&](int step) {
        if (step < steps) {
            source_a.fill(tiles + filled);
            T* to = tiles + filled + TileA::SIZE;
            if constexpr (!IMAGE) source_b.fill(to);
            else {
                const int at = step * TILE_K;
                const Place* of_k = along + at % (2 * BATCH);
                const Place* by_line = B == ACROSS_K ? of_k : columns;
                if (p.wide_b) {
                    if (B == ALONG_K) own[0] = spot(load_shared(of_k + WideShare::place()));
                    fill_from_image<TileB, THREADS, TileB::WIDE>(to, at_b, own, by_line,
                                                                image.window);
                } else {
                    if (B == ALONG_K) own[0] = spot(load_shared(of_k + NarrowShare::place()));
                    fill_from_image<TileB, THREADS, 1>(to, at_b, own, by_line, image.window);
                }
                // The previous batch was used before the barrier.
                if (at % BATCH == 0) look_up(at / BATCH + 1);
            }
        }
        filled = next(filled);
        // Also if nothing was copied, because groups are counted.
        copies_commit();
    };

    if constexpr (IMAGE) {
        look_up(0);
        if (B == ALONG_K)
            for (int n = threadIdx.x; n < BN; n += THREADS)
                columns[n] = position(false, column + n);
        else
            for (int d = 0; d < NarrowShare::PLACES; d++)
                own[d] = spot(position(false, column + (p.wide_b ? WideShare::place()
                                                        : NarrowShare::place() + d * THREADS)));
    }
    for (int step = 0; step < STAGES - 1; step++) {
        __syncthreads();
        fetch(step);
    }
    Own sums;
    for (int step = 0; step < steps; step++) {
        copies_wait<STAGES - 2>();
        // This step's tiles have arrived, and the previous step's are free
        __syncthreads();
        fetch(step + STAGES - 1);
        sums.multiply(tiles + arrived, tiles + arrived + TileA::SIZE);
        arrived = next(arrived);
    }

    copies_wait<0>();
    if (p.splits > 1) workspace += ((i64)split * gridDim.z + group) * p.M * p.N;
    out += group * p.c_group;
    bias += p.has_bias ? group * p.M : 0;
    // The tiles are no longer read. Their memory is used for the sums, one slice after another.
    Number* slice = (Number*)shared_memory();
    constexpr int ACROSS = BN / Own::SLICE_COLUMNS, SLICES = BM / Own::SLICE_ROWS * ACROSS;
    for (unsigned s = 0; s < SLICES; s++) {
        const int m = row + s / ACROSS * Own::SLICE_ROWS;
        const int n = column + s % ACROSS * Own::SLICE_COLUMNS;
        __syncthreads();
        if (Own::slice() == s) sums.lay_out(slice);
        __syncthreads();
        if (p.wide_c) finish_slice<Own, 4>(slice, m, n, bias, out, workspace, p);
        else finish_slice<Own, 1>(slice, m, n, bias, out, workspace, p);
    }
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
