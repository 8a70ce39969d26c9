// im2col writes every window as a column, so that a convolution becomes a matrix product; col2im is
// its adjoint.
//
//     x    (C, H, W, N)
//     cols (C, KH, KW, OH, OW, N)
//     cols[c, i, j, oy, ox] = x[c, iy, ix], or 0 if (iy, ix) is padding

// The index of cols[c, i, j, oy, ox] for the first sample.
__device__ __forceinline__ i64 column_at(int c, int i, int j, int oy, int ox, const Window& w) {
    return (((((i64)c * w.KH + i) * w.KW + j) * w.OH + oy) * w.OW + ox) * w.N;
}

// A thread reads an element of x once, or takes 0 in the padding, and writes it to every window that
// includes it: a thread that went through cols would read each element once for each window. `line`
// and `column` count from the edge of the padding to the last tap of the last window; conv.py
// computes how many there are.
template <typename T, int V>
__global__ void im2col(const T* __restrict__ x, T* __restrict__ cols, int C, Window w, int lines,
                       int columns) {
    FOR_CHANNELS(c, C) FOR_ROWS(line, lines) FOR_COLUMNS(column, columns) {
        const int iy = (int)line - w.top, ix = column - w.left;
        const bool on_input = inside(iy, w.H) && inside(ix, w.W);
        FOR_SAMPLES(n, w.N, V) {
            Vec<T, V> value = {};
            if (on_input) value = load<V>(x + (((i64)c * w.H + iy) * w.W + ix) * w.N + n);
            FOR_WINDOWS(oy, (int)line, w.stride_h, w.dilation_h, w.KH, w.OH) {
                const int i = tap_at(line, oy, w.stride_h, w.dilation_h);
                if (i < 0) continue;
                FOR_WINDOWS(ox, column, w.stride_w, w.dilation_w, w.KW, w.OW) {
                    const int j = tap_at(column, ox, w.stride_w, w.dilation_w);
                    if (j >= 0) store(cols + column_at(c, i, j, oy, ox, w) + n, value);
                }
            }
        }
    }
}

// im2col copies an element of x to several columns, so its gradient is the sum of their gradients.
// One thread adds them up for one element, in the order of the taps. A thread for each column would
// need atomic additions, whose order, and so the rounding, changes from run to run.
template <typename T, int V>
__global__ void col2im(const T* __restrict__ cols, T* __restrict__ x, int C, Window w) {
    typedef typename Wide<T>::type Sum;
    FOR_CHANNELS(c, C) FOR_ROWS(iy, w.H) FOR_COLUMNS(ix, w.W) FOR_SAMPLES(n, w.N, V) {
        const int line = (int)iy + w.top, column = ix + w.left;
        Sum sum[V] = {};
        FOR_WINDOWS(oy, line, w.stride_h, w.dilation_h, w.KH, w.OH) {
            const int i = tap_at(line, oy, w.stride_h, w.dilation_h);
            FOR_WINDOWS(ox, column, w.stride_w, w.dilation_w, w.KW, w.OW) {
                const int j = tap_at(column, ox, w.stride_w, w.dilation_w);
                if (i < 0 || j < 0) continue;
                const Vec<T, V> term = load<V>(cols + column_at(c, i, j, oy, ox, w) + n);
                for (int k = 0; k < V; k++) sum[k] += Sum(term.at[k]);
            }
        }
        Vec<T, V> value;
        for (int k = 0; k < V; k++) value.at[k] = T(sum[k]);
        store(x + (((i64)c * w.H + iy) * w.W + ix) * w.N + n, value);
    }
}
