// im2col writes every window as a column, so that a convolution becomes a matrix product; col2im is
// its adjoint.
//
//     x    (C, H, W, N)
//     cols (C, KH, KW, OH, OW, N)
//     cols[c, i, j, oy, ox] = x[c, iy, ix], or 0 if (iy, ix) is padding

template <typename T, int V>
__global__ void im2col(const T* __restrict__ x, T* __restrict__ cols, int C, Window w) {
    // rows (i, j, oy) of one channel
    const unsigned rows = (unsigned)w.KH * w.KW * w.OH;
    FOR_CHANNELS(c, C) FOR_ROWS(row, rows) {
        const int oy = row % w.OH, tap = row / w.OH;
        const int i = tap / w.KW, j = tap % w.KW;
        const int iy = oy * w.stride_h - w.top + i * w.dilation_h;
        const i64 source = ((i64)c * w.H + iy) * w.W * w.N;             // x[c, iy]
        const i64 target = ((i64)c * rows + row) * w.OW * w.N;          // cols[c, i, j, oy]
        FOR_COLUMNS(ox, w.OW) {
            const int ix = ox * w.stride_w - w.left + j * w.dilation_w;
            const bool on_input = inside(iy, w.H) && inside(ix, w.W);
            FOR_SAMPLES(n, w.N, V) {
                Vec<T, V> value = {};
                if (on_input) value = load<V>(x + source + (i64)ix * w.N + n);
                store(cols + target + (i64)ox * w.N + n, value);
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
                const i64 row = (((i64)c * w.KH + i) * w.KW + j) * w.OH + oy;
                const Vec<T, V> term = load<V>(cols + (row * w.OW + ox) * w.N + n);
                for (int k = 0; k < V; k++) sum[k] += Sum(term.at[k]);
            }
        }
        Vec<T, V> value;
        for (int k = 0; k < V; k++) value.at[k] = T(sum[k]);
        store(x + (((i64)c * w.H + iy) * w.W + ix) * w.N + n, value);
    }
}
