// Depthwise convolution: each filter reads one channel. `per` filters read the same channel.
//
//     x, dx (C, H, W, N)     W, dW (F, 1, KH, KW), F = per C     y, dy (F, OH, OW, N)
//
// A product would have one row for each group, and a tile of the matrix units would be almost
// empty. Here a thread computes V samples of some pixels, and a tap costs V multiply-adds. All
// threads of a warp read the same weight at the same time, in one access to the L1 cache.

#define STRIP 4     // output rows of a thread
#define HIGH 3      // rows of a tile of taps; it is AHEAD wide
// FOR_COLUMNS for a block that goes through whole rows: depthwise_dW, whose blockIdx.x is a piece.
#define WHOLE_ROW(ox, OW) for (int ox = threadIdx.y; ox < (OW); ox += blockDim.y)

// y[f, oy, ox] = g(bias[f] + sum over i, j of W[f, i, j] x[f / per, iy, ix]), g the activation.
//
// A thread computes STRIP rows of one column, and loads each element of x once for all of them: in
// a 3 x 3 window at stride 1 that is 4.5 loads for an output instead of 9.
//
// `terms` consecutive filters and their maps are added up, each with its taps in the opposite order
// if `flipped`. So the input gradient at stride 1 is dx[c] = the sum over the filters f that read c.
// A tap on padding adds nothing.
template <typename T, int V, int A>
__global__ void depthwise(const T* __restrict__ x, const T* __restrict__ W,
                          const T* __restrict__ bias, T* __restrict__ y, int channels, int per,
                          int terms, bool flipped, bool has_bias, Window w) {
    typedef typename Wide<T>::type Number;
    const int strips = (w.OH + STRIP - 1) / STRIP, taps = w.KH * w.KW, step = flipped ? -1 : 1;
    const int reach = (STRIP - 1) * w.stride_h + (w.KH - 1) * w.dilation_h + 1;
    FOR_CHANNELS(c, channels) FOR_ROWS(strip, strips) FOR_COLUMNS(ox, w.OW) FOR_SAMPLES(n, w.N, V) {
        const int oy = (int)strip * STRIP;
        Number sum[STRIP][V] = {};
        for (int term = 0; term < terms; term++) {
            const int f = c * terms + term;
            const T* filter = W + (i64)f * taps + (flipped ? taps - 1 : 0);
            const T* map = x + (i64)(f / per) * w.H * w.W * w.N;
            for (int t = 0; t < reach; t++) {
                const int iy = oy * w.stride_h - w.top + t;
                if (!inside(iy, w.H)) continue;
                int tap[STRIP];         // the row of the filter with which each output reads iy
                bool read = false;
#pragma unroll
                for (int r = 0; r < STRIP; r++) {
                    const int i = tap_at(t, r, w.stride_h, w.dilation_h);
                    tap[r] = oy + r < w.OH && inside(i, w.KH) ? i : -1;
                    read |= tap[r] >= 0;
                }
                if (!read) continue;
                for (int j = 0; j < w.KW; j += AHEAD) {
                    const Taps<T, V> row = load_taps<V>(map + (i64)iy * w.W * w.N, w, ox, j, n);
#pragma unroll
                    for (int r = 0; r < STRIP; r++) {
                        if (tap[r] < 0) continue;
                        const T* weights = filter + step * (tap[r] * w.KW + j);
#pragma unroll
                        for (int u = 0; u < AHEAD; u++) {
                            const Number weight =
                                row.on_input[u] ? Number(weights[step * u]) : Number(0);
                            for (int k = 0; k < V; k++)
                                sum[r][k] += weight * Number(row.value[u].at[k]);
                        }
                    }
                }
            }
        }
        const Number offset = has_bias ? Number(bias[c]) : Number(0);
#pragma unroll
        for (int r = 0; r < STRIP; r++) {
            if (oy + r >= w.OH) continue;
            Vec<T, V> value;
            for (int k = 0; k < V; k++) value.at[k] = T(activate<A>(sum[r][k] + offset));
            store_whole(y + (((i64)c * w.OH + oy + r) * w.OW + ox) * w.N + n, value);
        }
    }
}

// The input gradient at other strides: as in col2im, a thread adds up the terms of one element, in
// the order of the taps.
template <typename T, int V>
__global__ void depthwise_dx(const T* __restrict__ dy, const T* __restrict__ W,
                             T* __restrict__ dx, int C, int per, Window w) {
    typedef typename Wide<T>::type Number;
    FOR_CHANNELS(c, C) FOR_ROWS(iy, w.H) FOR_COLUMNS(ix, w.W) FOR_SAMPLES(n, w.N, V) {
        const int line = (int)iy + w.top, column = ix + w.left;
        Number sum[V] = {};
        for (int term = 0; term < per; term++) {
            const i64 f = (i64)c * per + term;
            FOR_WINDOWS(oy, line, w.stride_h, w.dilation_h, w.KH, w.OH) {
                const int i = tap_at(line, oy, w.stride_h, w.dilation_h);
                if (i < 0) continue;
                FOR_WINDOWS(ox, column, w.stride_w, w.dilation_w, w.KW, w.OW) {
                    const int j = tap_at(column, ox, w.stride_w, w.dilation_w);
                    if (j < 0) continue;
                    const Number weight = Number(W[(f * w.KH + i) * w.KW + j]);
                    const Vec<T, V> gradient =
                        load<V>(dy + ((f * w.OH + oy) * w.OW + ox) * w.N + n);
                    for (int k = 0; k < V; k++) sum[k] += weight * Number(gradient.at[k]);
                }
            }
        }
        Vec<T, V> value;
        for (int k = 0; k < V; k++) value.at[k] = T(sum[k]);
        store_whole(dx + (((i64)c * w.H + iy) * w.W + ix) * w.N + n, value);
    }
}

// Sums of a tile of taps.
template <typename Number>
struct TapSums {
    Number at[HIGH][AHEAD];
};

struct AddTaps {
    template <typename Number>
    __device__ TapSums<Number> operator()(TapSums<Number> a, const TapSums<Number>& b) const {
        for (int i = 0; i < HIGH; i++)
            for (int u = 0; u < AHEAD; u++) a.at[i][u] += b.at[i][u];
        return a;
    }
};

// dW[f, i, j] = the sum over oy, ox, n of dy[f, oy, ox] x[f / per, iy, ix].
//
// The rows of a map are cut into `pieces` of `length` rows. A block computes the sums of one piece
// for one tile of taps, so that dy and x are read once for a window of up to HIGH x AHEAD; they go
// to `parts` (F, KH, KW, pieces), which add_parts adds up.
template <typename T, int V>
__global__ void depthwise_dW(const T* __restrict__ x, const T* __restrict__ dy,
                             typename Wide<T>::type* __restrict__ parts, int F, int per, int pieces,
                             int length, Window w) {
    typedef typename Wide<T>::type Number;
    const int across = (w.KW + AHEAD - 1) / AHEAD, tiles = (w.KH + HIGH - 1) / HIGH * across;
    const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
    FOR_CHANNELS(f, F) for (int unit = blockIdx.x; unit < pieces * tiles; unit += gridDim.x) {
        const int piece = unit % pieces, tile = unit / pieces;
        const int i0 = tile / across * HIGH, j0 = tile % across * AHEAD;
        const int begin = piece * length, end = min(begin + length, w.OH);
        const T* map = x + (i64)(f / per) * w.H * w.W * w.N;
        TapSums<Number> mine = {};
        for (int oy = begin; oy < end; oy++) WHOLE_ROW(ox, w.OW) FOR_SAMPLES(n, w.N, V) {
            const Vec<T, V> gradient = load<V>(dy + (((i64)f * w.OH + oy) * w.OW + ox) * w.N + n);
#pragma unroll
            for (int i = 0; i < HIGH; i++) {
                const int iy = oy * w.stride_h - w.top + (i0 + i) * w.dilation_h;
                if (i0 + i >= w.KH || !inside(iy, w.H)) continue;
                const Taps<T, V> row = load_taps<V>(map + (i64)iy * w.W * w.N, w, ox, j0, n);
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    if (!row.on_input[u]) continue;
                    for (int k = 0; k < V; k++)
                        mine.at[i][u] += Number(gradient.at[k]) * Number(row.value[u].at[k]);
                }
            }
        }
        const TapSums<Number> all =
            over_lanes(mine, thread, blockDim.x * blockDim.y, 1, AddTaps());
        if (thread != 0) continue;
        for (int i = 0; i < HIGH && i0 + i < w.KH; i++)
            for (int u = 0; u < AHEAD && j0 + u < w.KW; u++)
                parts[(((i64)f * w.KH + i0 + i) * w.KW + j0 + u) * pieces + piece] = all.at[i][u];
    }
}
