// Max-pooling keeps the largest element of each window and where it stood; its backward pass sends dy back there.
//
//     x (C, H, W, N)     y, argmax, dy (C, OH, OW, N)     argmax = i * KW + j, the tap that won

// A NaN beats every number, so that it cannot hide, and the first of equal values stays. All comparisons with a NaN
// are false, which is what makes v != v true for it.
template <typename Number>
__device__ __forceinline__ bool beats(Number v, Number best) {
    return v > best || (v != v && best == best);
}

// Index is the type of argmax: unsigned char for windows of up to 255 taps, else int.
template <typename T, typename Index, int V>
__global__ void max_pool(const T* __restrict__ x, T* __restrict__ y, Index* __restrict__ argmax, int C, Window w) {
    typedef typename Wide<T>::type Number;
    FOR_CHANNELS(c, C) FOR_ROWS(oy, w.OH) FOR_COLUMNS(ox, w.OW) FOR_SAMPLES(n, w.N, V) {
        Vec<T, V> best = {};
        Vec<Index, V> winner = {};
        bool first = true;              // taken whatever it is: -inf beats nothing, and yet it may be all there is
        for (int i = 0; i < w.KH; i++) {
            const int iy = (int)oy * w.stride_h - w.top + i * w.dilation_h;
            if (!inside(iy, w.H)) continue;
            for (int j = 0; j < w.KW; j++) {
                const int ix = ox * w.stride_w - w.left + j * w.dilation_w;
                if (!inside(ix, w.W)) continue;
                const Vec<T, V> value = load<V>(x + (((i64)c * w.H + iy) * w.W + ix) * w.N + n);
                for (int k = 0; k < V; k++)
                    if (first || beats(Number(value.at[k]), Number(best.at[k]))) {
                        best.at[k] = value.at[k];
                        winner.at[k] = Index(i * w.KW + j);
                    }
                first = false;
            }
        }
        const i64 target = (((i64)c * w.OH + oy) * w.OW + ox) * w.N + n;
        store(y + target, best);
        store(argmax + target, winner);
    }
}

// As in col2im one thread gathers for one element of x: the dy of those windows that it won, in the order of the taps.
template <typename T, typename Index, int V>
__global__ void max_pool_dx(const T* __restrict__ dy, const Index* __restrict__ argmax, T* __restrict__ dx, int C,
                            Window w) {
    typedef typename Wide<T>::type Sum;
    FOR_CHANNELS(c, C) FOR_ROWS(iy, w.H) FOR_COLUMNS(ix, w.W) FOR_SAMPLES(n, w.N, V) {
        Sum sum[V] = {};
        for (int i = 0; i < w.KH; i++) {
            const int oy = window_at((int)iy + w.top - i * w.dilation_h, w.stride_h, w.OH);
            if (oy < 0) continue;
            for (int j = 0; j < w.KW; j++) {
                const int ox = window_at(ix + w.left - j * w.dilation_w, w.stride_w, w.OW);
                if (ox < 0) continue;
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
