// Average pooling: the mean of each window, and its dy shared among the window's elements.
//
//     x, dx (C, H, W, N)     y, dy (C, OH, OW, N)

// Number of taps of the window at output position o that lie inside the input.
__device__ __forceinline__ int taps_inside(int o, int stride, int before, int dilation, int kernel, int size) {
    const int start = o * stride - before;
    const int first = start < 0 ? (dilation - 1 - start) / dilation : 0;
    const int last = start < size ? (size - 1 - start) / dilation : -1;
    return (last < kernel - 1 ? last : kernel - 1) - first + 1;
}

// `weight` is 1 / number of taps, or 0: then a window counts its elements inside x.
template <typename T, int V>
__global__ void avg_pool(const T* __restrict__ x, T* __restrict__ y, double weight, int C, Window w) {
    typedef typename Wide<T>::type Number;
    FOR_CHANNELS(c, C) FOR_ROWS(oy, w.OH) {
        const int rows = taps_inside(oy, w.stride_h, w.top, w.dilation_h, w.KH, w.H);
        FOR_COLUMNS(ox, w.OW) {
            const int columns = taps_inside(ox, w.stride_w, w.left, w.dilation_w, w.KW, w.W);
            const Number share = weight > 0 ? Number(weight) : Number(1) / Number(rows * columns);
            FOR_SAMPLES(n, w.N, V) {
                Number sum[V] = {};
                for (int i = 0; i < w.KH; i++) {
                    const int iy = (int)oy * w.stride_h - w.top + i * w.dilation_h;
                    if (!inside(iy, w.H)) continue;
#pragma unroll 4
                    for (int j = 0; j < w.KW; j++) {
                        const int ix = ox * w.stride_w - w.left + j * w.dilation_w;
                        if (!inside(ix, w.W)) continue;
                        const Vec<T, V> value = load<V>(x + (((i64)c * w.H + iy) * w.W + ix) * w.N + n);
                        for (int k = 0; k < V; k++) sum[k] += Number(value.at[k]);
                    }
                }
                Vec<T, V> mean;
                for (int k = 0; k < V; k++) mean.at[k] = T(sum[k] * share);
                store(y + (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n, mean);
            }
        }
    }
}

// A gather, like col2im: one thread adds up what its own element gets, in the order of the taps.
template <typename T, int V>
__global__ void avg_pool_dx(const T* __restrict__ dy, T* __restrict__ dx, double weight, int C, Window w) {
    typedef typename Wide<T>::type Number;
    FOR_CHANNELS(c, C) FOR_ROWS(iy, w.H) FOR_COLUMNS(ix, w.W) FOR_SAMPLES(n, w.N, V) {
        Number sum[V] = {};
        for (int i = 0; i < w.KH; i++) {
            const int oy = window_at((int)iy + w.top - i * w.dilation_h, w.stride_h, w.OH);
            if (oy < 0) continue;
            const int rows = taps_inside(oy, w.stride_h, w.top, w.dilation_h, w.KH, w.H);
            for (int j = 0; j < w.KW; j++) {
                const int ox = window_at(ix + w.left - j * w.dilation_w, w.stride_w, w.OW);
                if (ox < 0) continue;
                const int columns = taps_inside(ox, w.stride_w, w.left, w.dilation_w, w.KW, w.W);
                const Number share = weight > 0 ? Number(weight) : Number(1) / Number(rows * columns);
                const Vec<T, V> gradient = load<V>(dy + (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n);
                for (int k = 0; k < V; k++) sum[k] += Number(gradient.at[k]) * share;
            }
        }
        Vec<T, V> value;
        for (int k = 0; k < V; k++) value.at[k] = T(sum[k]);
        store(dx + (((i64)c * w.H + iy) * w.W + ix) * w.N + n, value);
    }
}
