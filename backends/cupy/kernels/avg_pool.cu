// Average pooling: the mean of each window; dx gives each element of a window an equal part of dy.
//
//     x, dx (C, H, W, N)     y, dy (C, OH, OW, N)

// Number of taps of the window at output position o that are inside the input, along one axis.
__device__ __forceinline__ int taps_inside(int o, int stride, int before, int dilation, int kernel,
                                           int size) {
    const int start = o * stride - before;
    const int first = start < 0 ? (dilation - 1 - start) / dilation : 0;
    const int last = start < size ? (size - 1 - start) / dilation : -1;
    return (last < kernel - 1 ? last : kernel - 1) - first + 1;
}

// The factor of each element of the window at (oy, ox): `weight`, or 1 / number of its taps inside
// x if weight is 0.
template <typename Number>
__device__ __forceinline__ Number share_of(double weight, int oy, int ox, const Window& w) {
    if (weight > 0) return Number(weight);
    return Number(1) / Number(taps_inside(oy, w.stride_h, w.top, w.dilation_h, w.KH, w.H)
                              * taps_inside(ox, w.stride_w, w.left, w.dilation_w, w.KW, w.W));
}

template <typename T, int V>
__global__ void avg_pool(const T* __restrict__ x, T* __restrict__ y, double weight, int C,
                         Window w) {
    typedef typename Wide<T>::type Number;
    FOR_CHANNELS(c, C) FOR_ROWS(oy, w.OH) FOR_COLUMNS(ox, w.OW) FOR_SAMPLES(n, w.N, V) {
        Number sum[V] = {};
        for (int i = 0, j = 0; i < w.KH;) {
            const Taps<T, V> taps =
                next_taps<V>(x + (i64)c * w.H * w.W * w.N, w, (int)oy, ox, i, j, n);
            for (int u = 0; u < AHEAD; u++)
                for (int k = 0; k < V; k++) sum[k] += Number(taps.value[u].at[k]);
        }
        const Number share = share_of<Number>(weight, oy, ox, w);
        Vec<T, V> mean;
        for (int k = 0; k < V; k++) mean.at[k] = T(sum[k] * share);
        store(y + (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n, mean);
    }
}

// As in col2im, one thread adds up the terms of one element, in the order of the taps.
template <typename T, int V>
__global__ void avg_pool_dx(const T* __restrict__ dy, T* __restrict__ dx, double weight, int C,
                            Window w) {
    typedef typename Wide<T>::type Number;
    FOR_CHANNELS(c, C) FOR_ROWS(iy, w.H) FOR_COLUMNS(ix, w.W) FOR_SAMPLES(n, w.N, V) {
        const int row = (int)iy + w.top, column = ix + w.left;
        Number sum[V] = {};
        FOR_WINDOWS(oy, row, w.stride_h, w.dilation_h, w.KH, w.OH) {
            if (tap_at(row, oy, w.stride_h, w.dilation_h) < 0) continue;
            FOR_WINDOWS(ox, column, w.stride_w, w.dilation_w, w.KW, w.OW) {
                if (tap_at(column, ox, w.stride_w, w.dilation_w) < 0) continue;
                const Number share = share_of<Number>(weight, oy, ox, w);
                const Vec<T, V> gradient =
                    load<V>(dy + (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n);
                for (int k = 0; k < V; k++) sum[k] += Number(gradient.at[k]) * share;
            }
        }
        Vec<T, V> value;
        for (int k = 0; k < V; k++) value.at[k] = T(sum[k]);
        store(dx + (((i64)c * w.H + iy) * w.W + ix) * w.N + n, value);
    }
}

// The same for windows that do not overlap and have no dilation.
template <typename T, int V>
__global__ void avg_pool_dx_of_cells(const T* __restrict__ dy, T* __restrict__ dx, double weight,
                                     int C, Window w) {
    typedef typename Wide<T>::type Number;
    const int rows = cells(w.H, w.stride_h, w.top), columns = cells(w.W, w.stride_w, w.left);
    FOR_CHANNELS(c, C) FOR_ROWS(oy, rows) FOR_COLUMNS(ox, columns) FOR_SAMPLES(n, w.N, V) {
        Vec<T, V> share = {};
        if ((int)oy < w.OH && ox < w.OW) {
            const Number factor = share_of<Number>(weight, oy, ox, w);
            share = load<V>(dy + (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n);
            for (int k = 0; k < V; k++) share.at[k] = T(Number(share.at[k]) * factor);
        }
        for (int i = 0; i < w.stride_h; i++) {
            const int iy = (int)oy * w.stride_h - w.top + i;
            if (!inside(iy, w.H)) continue;
            for (int j = 0; j < w.stride_w; j++) {
                const int ix = ox * w.stride_w - w.left + j;
                if (!inside(ix, w.W)) continue;
                const Vec<T, V> nothing = {};
                store(dx + (((i64)c * w.H + iy) * w.W + ix) * w.N + n,
                      i < w.KH && j < w.KW ? share : nothing);
            }
        }
    }
}
