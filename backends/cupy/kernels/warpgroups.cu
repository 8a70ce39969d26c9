// Convolutions in TF32 by the instructions of the Hopper architecture (sm_90a) for warpgroups and for
// copies of boxes.
//
//     convolution        y^T (P, F) = columns(x)^T W^T        P = OH*OW*N, index k = (tap, channel)
//     filter gradient    dW^T (C*KH*KW, F) = columns(x) dy^T                index k = (oy, ox, n)
//
// A warpgroup, four warps, multiplies 64 rows by BM columns with one instruction. It takes its rows
// from registers, its columns from shared memory, where they must lie along k. So the image gives
// the rows, 128 for each warpgroup, and the results C (M, N) are written transposed, which suits
// the registers. Numbers from the image are rounded to TF32 when they are loaded into registers.
//
// In a convolution, one more warpgroup, of which one thread works, starts all copies: one box of
// TILE_K channels and all samples of a pixel at once, and one tile of filters, which pack_filters
// has put together. Two barriers for each pair of tiles say that it is full, and that it may be
// filled again.

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
// for the gradient with respect to the input: C and F are exchanged, and the window of rows x columns
// positions has those at `first`, `first` + `apart`, .. of W, the last one first.
struct Filters {
    int groups, F, C, KH, KW;           // F and C of a group
    int rows, columns, first_i, first_j, apart_i, apart_j;
    int turned;
};

// Filters rounded to TF32, in tiles as they lie in shared memory: of each group, for each BM rows,
// each tap, and each TILE_K channels. Behind the last row and channel there are zeros.
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

// dW (M, N) = dy (M, K) columns(x)^T (K, N). Images and dy are copied as in product.cu; the splits
// are added by add_splits. dy is rounded in shared memory by the threads that have copied it.
template <int BM, int BN, int TILE_K, int STAGES, int BLOCKS>
__global__ void __launch_bounds__(BN, BLOCKS)
warpgroup_filter_gradient(const float* __restrict__ a, const float* __restrict__ b, float* out,
                          float* workspace, Product p, Image image) {
    typedef Tile<float, BM, TILE_K, ALONG_K> TileA;
    typedef Tile<float, BN, TILE_K, ALONG_K> TileB;
    typedef Share<TileA, BN, 4> ShareA;
    typedef Share<TileB, BN, 4> ShareB;
    constexpr int PAIR = TileA::SIZE + TileB::SIZE;
    float* tiles = (float*)shared_memory();                             // STAGES pairs of tiles
    // positions of 2 * BATCH indices k, and of the BN columns
    Place* along = (Place*)(tiles + STAGES * PAIR);
    Place* columns = along + 2 * BATCH;
    const unsigned tiles_m = (p.M + BM - 1) / BM;
    const int row = blockIdx.x % tiles_m * BM, column = blockIdx.x / tiles_m * BN;
    const int group = blockIdx.z, split = blockIdx.y, k0 = split * p.steps * TILE_K;
    const int steps = min(p.steps, (p.K - k0 + TILE_K - 1) / TILE_K);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    b += group * p.b_group;
    Source<TileA, BN> source_a(a + group * p.a_group + row * p.lda + k0, p.lda, p.M - row, p.K - k0,
                               true);
    auto look_up = [&](unsigned batch) {                // the warps take turns
        if (warp == batch % (BN / BATCH))
            along[batch % 2 * BATCH + lane] = pixel(k0 + batch * BATCH + lane, p.K, image);
    };
    const int at_a = keep(ShareA::at()), at_b = keep(ShareB::at());
    int filled = 0, rounded = 0, arrived = 0;
    auto next = [](int pair) { return pair == (STAGES - 1) * PAIR ? 0 : pair + PAIR; };
    // Starts to copy the tiles of a step. Before each call there is a barrier.
    auto fetch = [&](int step) {
        if (step < steps) {
            const int at = step * TILE_K;
            source_a.fill(tiles + filled);
            const Place of_k = load_shared(along + at % (2 * BATCH) + ShareB::place());
            const Spot<float> own[1] = {{b + of_k.offset, of_k.y, of_k.x}};
            fill_from_image<TileB, BN, 4>(tiles + filled + TileA::SIZE, at_b, own, columns,
                                          image.window);
            if (at % BATCH == 0) look_up(at / BATCH + 1);
        }
        filled = next(filled);
        copies_commit();
    };
    // Waits for this thread's copies for the next step, and rounds its share of dy.
    auto receive = [&] {
        copies_wait<STAGES - 3>();
#pragma unroll
        for (int l = 0; l < ShareA::LINES; l++) {
            float* at = tiles + rounded + TileA::after(at_a, l * ShareA::APART, 0);
            Vec<float, 4> v = load_shared<4>(at);
#pragma unroll
            for (int c = 0; c < 4; c++) v.at[c] = float_of(nearest_tf32(v.at[c]));
            store_shared(at, v);
        }
        rounded = next(rounded);
        stores_are_visible();
    };

    look_up(0);
    columns[threadIdx.x] = tap(column + threadIdx.x, p.N, image);
    for (int step = 0; step < STAGES - 2; step++) {
        __syncthreads();
        fetch(step);
    }
    const int at_rows = keep(TileB::at(32 * warp + lane % 16, lane / 16 * 4));
    unsigned rows[2][TILE_K / 8][2][4];                 // of this step and the one before
    float sums[2][BM / 8][4] = {};
    auto multiply = [&](int step, unsigned (&now)[TILE_K / 8][2][4]) {
        // The tiles of this step have arrived, and nobody reads those of the last step but one.
        __syncthreads();
#pragma unroll
        for (int k = 0; k < TILE_K; k += 8)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                unsigned (&to)[4] = now[k / 8][half];
                load_matrices<false>(to, tiles + arrived + TileA::SIZE,
                                     TileB::beyond(at_rows, 16 * half, k));
#pragma unroll
                for (int m = 0; m < 4; m++) to[m] = nearest_tf32(float_of(to[m]));
            }
        products_wait<0>();                             // of the step before
        start_products<TileA, BM, TILE_K>(sums, now, tiles + arrived);
        arrived = next(arrived);
        fetch(step + STAGES - 2);
        receive();
    };
    receive();
    for (int step = 0; step < steps; step += 2) {
        multiply(step, rows[0]);
        if (step + 1 < steps) multiply(step + 1, rows[1]);
    }
    products_wait<0>();
    copies_wait<0>();

    const bool whole = p.splits == 1;
    const i64 line = whole ? p.ldc : p.N;
    float* to = whole ? out + group * p.c_group
                      : workspace + ((i64)split * gridDim.z + group) * p.M * p.N;
#pragma unroll
    for (int i = 0; i < BM / 4; i++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int m = row + i / 2 * 8 + lane % 4 * 2 + i % 2;
            const int n = column + 32 * warp + 8 * c + lane / 4;
            const float sum = sums[c / 2][i / 2][c % 2 * 2 + i % 2];
            if (m >= p.M || n >= p.N) continue;
            float* at = to + m * line + n;
            *at = whole && p.accumulate ? *at + sum : sum;
        }
}
