// Convolutions in TF32 by the instructions of the Hopper architecture (sm_90a) for warpgroups and
// for copies of boxes.
//
//     convolution        y^T (P, F) = columns(x)^T W^T        P = OH*OW*N, index k = (tap, channel)
//     filter gradient    dW (F, KH*KW*C) = dy columns(x)^T                 index k = (oy, ox, n)
//
// A warpgroup, four warps, multiplies 64 rows by up to 256 columns with one instruction. It takes
// its columns from shared memory, where they must lie along k, and its rows from there, too, or
// from registers. Images lie along n. In the filter gradient that is along k. In a convolution it
// is across k, so the image gives the rows, 128 for each warpgroup, through registers.
//
// Operands in shared memory must have been rounded to TF32: boxes of the filter gradient by the
// copy engine, filters by pack_filters. Numbers that go through registers are rounded there.
//
// One more warpgroup, of which one thread works, starts all copies. A box of an image is one copy,
// some channels of all samples of a pixel; a tile of filters is one, because pack_filters has put
// it together. Two barriers for each pair of tiles say that it is full, and that it may be filled
// again.

constexpr int LANES = 32;               // samples in a line of a tile: 128 bytes
constexpr int WORKERS = 128;            // threads of a warpgroup, and columns of C that it computes

// Column (oy, ox, n) of C is element ((oy stride_h) W + ox stride_w) N + n + first of a row of C.
struct Spread {
    i64 first;
    int stride_h, stride_w, W;
};

// Registers of a thread that copies, and of one that multiplies: together those of the launch.
constexpr int FEW = 40;
constexpr int many(int columns, int blocks) {
    const int threads = columns + WORKERS, all = 65536 / (blocks * threads) / 8 * 8 * threads;
    const int each = (all - FEW * WORKERS) / columns / 8 * 8;
    return each < 240 ? each : 240;
}

// The products of a step: for each 8 indices k, two times 64 rows.
template <class TileA, int BM, int TILE_K>
__device__ __forceinline__ void start_products(float (&sums)[2][BM / 8][4],
                                               const unsigned (&rows)[TILE_K / 8][2][4],
                                               const float* tile) {
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE_K; k += 8)
#pragma unroll
        for (int half = 0; half < 2; half++)
            warpgroup_multiply<TileA, BM>(sums[half], rows[k / 8][half], tile, k);
    products_commit();
}

// p.K is the number of channels of a group. The last axis of the image has a multiple of LANES
// samples.
template <int BM, int BN, int TILE_K, int STAGES, int BLOCKS>
__global__ void __launch_bounds__(BN + WORKERS, BLOCKS)
warpgroup_convolution(const float* __restrict__ a, const __grid_constant__ BoxMap map,
                      const float* __restrict__ bias, float* out, Product p, Image image,
                      Spread spread) {
    typedef Tile<float, BM, TILE_K, ALONG_K> TileA;
    constexpr int PAIR = TileA::SIZE + TILE_K * BN;
    float* tiles = (float*)shared_memory();                             // STAGES pairs of tiles
    u64* full = (u64*)(tiles + STAGES * PAIR);
    u64* empty = full + STAGES;
    Place* corners = (Place*)(empty + STAGES);          // of the pieces of a tile: n, y, x
    const Window& w = image.window;
    const int tiles_m = (p.M + BM - 1) / BM, tile_m = blockIdx.x % tiles_m;
    const int row = tile_m * BM, column = blockIdx.x / tiles_m * BN, group = blockIdx.z;
    const int blocks = (p.K + TILE_K - 1) / TILE_K, steps = blocks * w.KH * w.KW;   // of channels
    const int lane = threadIdx.x % 32;
    // A piece is what one copy brings: as many samples of a pixel as divide the tile.
    const int length = min(w.N & -w.N, BN & -BN), pieces = BN / length;

    if (threadIdx.x == 0)
        for (int k = 0; k < STAGES; k++) {
            barrier_make(full + k, 1);
            barrier_make(empty + k, BN / 32);
        }
    if ((int)threadIdx.x < pieces) {
        const int at = column + threadIdx.x * length;
        const unsigned q = quotient(at, image.by_N), oy = quotient(q, image.by_OW);
        corners[threadIdx.x] = {at - (int)q * w.N,
                                at < p.N ? (int)oy * w.stride_h - w.top : NOWHERE,
                                (int)(q - oy * w.OW) * w.stride_w - w.left};
    }
    stores_are_visible();
    __syncthreads();

    if (threadIdx.x >= BN) {
        set_registers<FEW, false>();
        if (threadIdx.x > BN) return;
        a += group * p.a_group + (i64)tile_m * steps * TileA::SIZE;
        int slot = 0, round = 0, block = 0, i = 0, j = 0;
        for (int step = 0; step < steps; step++, a += TileA::SIZE) {
            float* to = tiles + slot * PAIR;
            if (round > 0) barrier_wait(empty + slot, round - 1);
            barrier_expect(full + slot, PAIR * sizeof(float));
            copy_bulk(to, a, TileA::SIZE * sizeof(float), full + slot);
            for (int k = 0; k < pieces; k++) {
                const Place corner = load_shared(corners + k);
                copy_box(to + TileA::SIZE + k * length * TILE_K, map, 0,
                         group * p.K + block * TILE_K, (int)corner.offset / LANES,
                         corner.x + j * w.dilation_w, corner.y + i * w.dilation_h, full + slot);
            }
            if (++block == blocks) {
                block = 0;
                if (++j == w.KW) j = 0, i++;
            }
            if (++slot == STAGES) slot = 0, round++;
        }
    } else {
        set_registers<many(BN, BLOCKS), true>();
        // Of each 8 channels, index k = t of the units is channel 2 t, k = t + 4 channel 2 t + 1:
        // so the lines that a warp reads at once are in different banks.
        const int g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
        int at[2][2];
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int q = 0; q < 2; q++)
                at[half][q] = keep(TileA::SIZE + (warp * TILE_K + 2 * t + q) * LANES
                                   + ((4 * half + g / 2) ^ (2 * t + q)) * 4 + g % 2 * 2);
        unsigned rows[2][TILE_K / 8][2][4];             // of this step and the one before
        float sums[2][BM / 8][4] = {};
        int slot = 0, round = 0;
        u64* before = nullptr;
        auto multiply = [&](unsigned (&now)[TILE_K / 8][2][4]) {
            const float* tile = tiles + slot * PAIR;
            barrier_wait(full + slot, round);
#pragma unroll
            for (int k = 0; k < TILE_K; k += 8)
#pragma unroll
                for (int half = 0; half < 2; half++)
#pragma unroll
                    for (int q = 0; q < 2; q++) {
                        const Vec<float, 2> v = load_shared<2>(tile + at[half][q] + k * LANES);
                        now[k / 8][half][2 * q] = nearest_tf32(v.at[0]);
                        now[k / 8][half][2 * q + 1] = nearest_tf32(v.at[1]);
                    }
            products_wait<0>();                         // of the step before
            __syncwarp();
            if (before && lane == 0) barrier_arrive(before);
            start_products<TileA, BM, TILE_K>(sums, now, tile);
            before = empty + slot;
            if (++slot == STAGES) slot = 0, round++;
        };
        for (int step = 0; step < steps; step += 2) {
            multiply(rows[0]);
            if (step + 1 < steps) multiply(rows[1]);
        }
        products_wait<0>();

        // Of each row of C, a thread has two times two neighbouring columns.
        out += group * p.c_group + spread.first;
        i64 place[2];                                   // of the columns in a row of C
        bool inside[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int n = column + 32 * warp + 16 * half + 2 * g;
            const unsigned q = quotient(n, image.by_N), oy = quotient(q, image.by_OW);
            inside[half] = n < p.N;
            place[half] = ((i64)oy * spread.stride_h * spread.W
                           + (i64)(q - oy * w.OW) * spread.stride_w) * w.N + n - (i64)q * w.N;
        }
#pragma unroll
        for (int i = 0; i < BM / 4; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int m = row + i / 2 * 8 + 2 * t + i % 2;
                const float (&d)[4] = sums[half][i / 2];
                if (m < p.M && inside[half])
                    store(out + m * p.ldc + place[half],
                          Vec<float, 2>{{d[i % 2], d[i % 2 + 2]}});
            }
        // Bias and activation in a second pass over what this thread has written, because the code
        // of all activations for each of the sums would be too long.
        if (p.has_bias || p.activation != NONE)
#pragma unroll 1
            for (int i = 0; i < BM / 4; i++)
#pragma unroll 1
                for (int half = 0; half < 2; half++) {
                    const int m = row + i / 2 * 8 + 2 * t + i % 2;
                    if (m >= p.M || !inside[half]) continue;
                    float* at = out + m * p.ldc + place[half];
                    finish(load<2>(at), bias + (p.has_bias ? group * p.M : 0) + m, at, p);
                }
    }
}

// The filters of a convolution, W (groups F, C, KH, KW): all elements as they are; or, if `turned`,
// for the gradient with respect to the input: C and F are exchanged, and the window of
// rows x columns positions has those at `first`, `first` + `apart`, .. of W, the last one first.
struct Filters {
    int groups, F, C, KH, KW;           // F and C of a group
    int rows, columns, first_i, first_j, apart_i, apart_j;
    int turned;
};

// Filters rounded to TF32, in tiles as they lie in shared memory: of each group, for each BM rows,
// each tap, and each TILE_K channels. After the last row and channel there are zeros.
template <int BM, int TILE_K>
__global__ void pack_filters(const float* __restrict__ W, float* packed, Filters f) {
    typedef Tile<float, BM, TILE_K, ALONG_K> TileA;
    const int M = f.turned ? f.C : f.F, channels = f.turned ? f.F : f.C;
    const int blocks = (channels + TILE_K - 1) / TILE_K, steps = blocks * f.rows * f.columns;
    const int tiles = (M + BM - 1) / BM * steps, size = f.groups * tiles * TileA::SIZE;
    for (int e = blockIdx.x * blockDim.x + threadIdx.x; e < size; e += gridDim.x * blockDim.x) {
        const int tile = e / TileA::SIZE, line = e % TileA::SIZE / TILE_K, place = e % TILE_K;
        const int group = tile / tiles, step = tile % tiles % steps, tap = step / blocks;
        const int m = tile % tiles / steps * BM + line;
        // Index k = t of the units is channel 2 t, k = t + 4 channel 2 t + 1.
        const int c = step % blocks * TILE_K + place / 8 * 8 + place % 4 * 2 + place % 8 / 4;
        int i = tap / f.columns, j = tap % f.columns;
        float v = 0;
        if (m < M && c < channels) {
            if (f.turned) {
                i = f.first_i + f.apart_i * (f.rows - 1 - i);
                j = f.first_j + f.apart_j * (f.columns - 1 - j);
            }
            const int filter = f.turned ? c : m, channel = f.turned ? m : c;
            v = W[(((i64)(group * f.F + filter) * f.C + channel) * f.KH + i) * f.KW + j];
        }
        packed[(i64)tile * TileA::SIZE + TileA::in_line(line, place)] = float_of(nearest_tf32(v));
    }
}

// dW (M, taps C) = dy (M, K) columns(x)^T, with K = OH*OW*N. All tiles are copied as boxes: of dy,
// BM filters, and of x, PIECES times BOX channels for a tap, each of LANES samples of a pixel. Each
// split writes its sums to the workspace (splits, groups, M, columns), in which the channels of a
// tap are neighbours; add_gradients adds them. p.N is the number of columns there, p.lda that of
// channels of a group.
constexpr int BOX = 64;

template <int BM, int PIECES, int STAGES, int BLOCKS>
__global__ void __launch_bounds__(BM / 64 * WORKERS + WORKERS, BLOCKS)
warpgroup_filter_gradient(const __grid_constant__ BoxMap of_dy, const __grid_constant__ BoxMap of_x,
                          float* workspace, Product p, Image image) {
    constexpr int BN = PIECES * BOX, THREADS = BM / 64 * WORKERS, PAIR = (BM + BN) * LANES;
    typedef Tile<float, BN, LANES, ALONG_K> Lines;
    float* tiles = (float*)shared_memory();                             // STAGES pairs of tiles
    u64* full = (u64*)(tiles + STAGES * PAIR);
    u64* empty = full + STAGES;
    const Window& w = image.window;
    const int tiles_m = (p.M + BM - 1) / BM;
    const int row = blockIdx.x % tiles_m * BM, tile_n = blockIdx.x / tiles_m;
    const int group = blockIdx.z, split = blockIdx.y, first_step = split * p.steps;
    const int steps = min(p.steps, p.K / LANES - first_step), lane = threadIdx.x % 32;

    if (threadIdx.x == 0)
        for (int k = 0; k < STAGES; k++) {
            barrier_make(full + k, 1);
            barrier_make(empty + k, THREADS / 32);
        }
    stores_are_visible();
    __syncthreads();

    if (threadIdx.x >= THREADS) {
        set_registers<FEW, false>();
        if (threadIdx.x > THREADS) return;
        const int channels = (int)p.lda, blocks = (channels + BOX - 1) / BOX;
        int c[PIECES], y[PIECES], x[PIECES];        // of each piece; after the last tap, outside
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            const int tap = (tile_n * PIECES + k) / blocks, i = tap / w.KW;
            c[k] = group * channels + (tile_n * PIECES + k) % blocks * BOX;
            y[k] = i < w.KH ? i * w.dilation_h - w.top : NOWHERE;
            x[k] = (tap - i * w.KW) * w.dilation_w - w.left;
        }
        const int lines = w.N / LANES;                  // of a pixel
        int line = first_step % lines;
        int oy = first_step / lines / w.OW, ox = first_step / lines % w.OW;
        int slot = 0, round = 0;
        for (int step = 0; step < steps; step++) {
            float* to = tiles + slot * PAIR;
            if (round > 0) barrier_wait(empty + slot, round - 1);
            barrier_expect(full + slot, PAIR * sizeof(float));
            copy_box(to, of_dy, 0, group * p.M + row, line, ox, oy, full + slot);
#pragma unroll
            for (int k = 0; k < PIECES; k++)
                copy_box(to + (BM + k * BOX) * LANES, of_x, 0, c[k], line, x[k] + ox * w.stride_w,
                         y[k] + oy * w.stride_h, full + slot);
            if (++line == lines) {
                line = 0;
                if (++ox == w.OW) ox = 0, oy++;
            }
            if (++slot == STAGES) slot = 0, round++;
        }
    } else {
        set_registers<many(THREADS, BLOCKS), true>();
        float sums[BN / 8][4] = {};
        const int own = threadIdx.x / WORKERS * 64;     // first filter of the warpgroup
        int slot = 0, round = 0;
        u64* before = nullptr;
        for (int step = 0; step < steps; step++) {
            const float* tile = tiles + slot * PAIR;
            barrier_wait(full + slot, round);
            products_begin();
#pragma unroll
            for (int k = 0; k < LANES; k += 8)
                warpgroup_multiply_tiles<Lines, BN>(sums, tile + own * LANES, tile + BM * LANES, k);
            products_commit();
            products_wait<1>();                         // for those of the step before
            __syncwarp();
            if (before && lane == 0) barrier_arrive(before);
            before = empty + slot;
            if (++slot == STAGES) slot = 0, round++;
        }
        products_wait<0>();
        workspace += ((i64)split * gridDim.z + group) * p.M * p.N + tile_n * BN;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int m = row + own + (int)threadIdx.x % WORKERS / 32 * 16 + 8 * half + lane / 4;
            if (m < p.M)
#pragma unroll
                for (int i = 0; i < BN / 8; i++)
                    store(workspace + (i64)m * p.N + 8 * i + lane % 4 * 2,
                          Vec<float, 2>{{sums[i][2 * half], sums[i][2 * half + 1]}});
        }
    }
}

// Adds the sums of all splits, always in the same order, and puts them where they belong in dW, or
// adds them to what is there.
__global__ void add_gradients(const float* __restrict__ workspace, float* dW, int rows,
                              int channels, int taps, int line, int splits, bool accumulate) {
    const int blocks = (channels + BOX - 1) / BOX, columns = taps * blocks * BOX;
    const i64 size = (i64)rows * line;
    for (i64 e = blockIdx.x * (i64)blockDim.x + threadIdx.x; e < (i64)rows * columns;
         e += (i64)gridDim.x * blockDim.x) {
        const int row = (int)(e / columns), column = (int)(e % columns);
        const int tap = column / (blocks * BOX), c = column % (blocks * BOX);
        if (c >= channels) continue;
        float sum = 0;
#pragma unroll 8
        for (int split = 0; split < splits; split++)
            sum += workspace[split * size + (i64)row * line + column];
        float* to = dW + ((i64)row * channels + c) * taps + tap;
        *to = accumulate ? *to + sum : sum;
    }
}
