// Max pooling keeps the largest element of each window and its position; the backward pass adds dy
// to the gradient of that element.
//
//     x (C, H, W, N)     y, argmax, dy (C, OH, OW, N)     argmax = i * KW + j, the tap of y

// A NaN is larger than every number, so that it is not hidden, and the first of equal values wins.
// v != v is true only for a NaN.
template <typename Number>
__device__ __forceinline__ bool beats(Number v, Number best) {
    return v > best || (v != v && best == best);
}

// Index is the type of argmax: unsigned char for windows of up to 255 taps, else int.
template <typename T, typename Index, int V>
__global__ void max_pool(const T* __restrict__ x, T* __restrict__ y, Index* __restrict__ argmax,
                         int C, Window w) {
    typedef typename Wide<T>::type Number;
    FOR_CHANNELS(c, C) FOR_ROWS(oy, w.OH) FOR_COLUMNS(ox, w.OW) FOR_SAMPLES(n, w.N, V) {
        Vec<T, V> best = {};
        Vec<Index, V> winner = {};
        // The first element is taken without a comparison: all elements may be -inf.
        bool first = true;
        for (int tap = 0, i = 0, j = 0; i < w.KH; tap += AHEAD) {
            const Taps<T, V> taps =
                next_taps<V>(x + (i64)c * w.H * w.W * w.N, w, (int)oy, ox, i, j, n);
            for (int u = 0; u < AHEAD; u++) {
                if (!taps.on_input[u]) continue;
                for (int k = 0; k < V; k++)
                    if (first || beats(Number(taps.value[u].at[k]), Number(best.at[k]))) {
                        best.at[k] = taps.value[u].at[k];
                        winner.at[k] = Index(tap + u);
                    }
                first = false;
            }
        }
        const i64 target = (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n;
        store(y + target, best);
        store(argmax + target, winner);
    }
}

// As in col2im, one thread computes one element: the sum of the dy of all windows in which this
// element of x is the largest, in the order of the taps.
template <typename T, typename Index, int V>
__global__ void max_pool_dx(const T* __restrict__ dy, const Index* __restrict__ argmax,
                            T* __restrict__ dx, int C, Window w) {
    typedef typename Wide<T>::type Sum;
    FOR_CHANNELS(c, C) FOR_ROWS(iy, w.H) FOR_COLUMNS(ix, w.W) FOR_SAMPLES(n, w.N, V) {
        const int row = (int)iy + w.top, column = ix + w.left;
        Sum sum[V] = {};
        FOR_WINDOWS(oy, row, w.stride_h, w.dilation_h, w.KH, w.OH) {
            const int i = tap_at(row, oy, w.stride_h, w.dilation_h);
            FOR_WINDOWS(ox, column, w.stride_w, w.dilation_w, w.KW, w.OW) {
                const int j = tap_at(column, ox, w.stride_w, w.dilation_w);
                if (i < 0 || j < 0) continue;
                const i64 source = (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n;
                const Vec<Index, V> winner = load<V>(argmax + source);
                const Vec<T, V> term = load<V>(dy + source);
                for (int k = 0; k < V; k++)
                    if (winner.at[k] == i * w.KW + j) sum[k] += Sum(term.at[k]);
            }
        }
        Vec<T, V> value;
        for (int k = 0; k < V; k++) value.at[k] = T(sum[k]);
        store(dx + (((i64)c * w.H + iy) * w.W + ix) * w.N + n, value);
    }
}

// The same for windows that do not overlap and have no dilation.
template <typename T, typename Index, int V>
__global__ void max_pool_dx_of_cells(const T* __restrict__ dy, const Index* __restrict__ argmax,
                                     T* __restrict__ dx, int C, Window w) {
    typedef typename Wide<T>::type Sum;
    const int rows = cells(w.H, w.stride_h, w.top), columns = cells(w.W, w.stride_w, w.left);
    FOR_CHANNELS(c, C) FOR_ROWS(oy, rows) FOR_COLUMNS(ox, columns) FOR_SAMPLES(n, w.N, V) {
        const bool read = (int)oy < w.OH && ox < w.OW;
        const i64 source = (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n;
        Vec<T, V> term = {};
        Vec<Index, V> winner = {};
        if (read) term = load<V>(dy + source), winner = load<V>(argmax + source);
        // -0 becomes 0, as in a sum.
        for (int k = 0; k < V; k++) term.at[k] = T(Sum(0) + Sum(term.at[k]));
        for (int i = 0; i < w.stride_h; i++) {
            const int iy = (int)oy * w.stride_h - w.top + i;
            if (!inside(iy, w.H)) continue;
            for (int j = 0; j < w.stride_w; j++) {
                const int ix = ox * w.stride_w - w.left + j;
                if (!inside(ix, w.W)) continue;
                const int tap = i < w.KH && j < w.KW ? i * w.KW + j : -1;
                Vec<T, V> value;
                for (int k = 0; k < V; k++)
                    value.at[k] = (int)winner.at[k] == tap ? term.at[k] : T(0);
                store(dx + (((i64)c * w.H + iy) * w.W + ix) * w.N + n, value);
            }
        }
    }
}
