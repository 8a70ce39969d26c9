// Reading the elements of a window, and finding the windows that read an element.

// Several taps of a window are loaded together before they are used: a load takes long, so several
// should be in flight.
#define AHEAD 4

template <typename T, int V>
struct Taps {
    Vec<T, V> value[AHEAD];
    bool on_input[AHEAD];
};

// Taps j .. j + AHEAD - 1 of the window at column ox, in one row of x; a tap outside the window or
// outside the input is 0.
template <int V, typename T>
__device__ __forceinline__ Taps<T, V> load_taps(const T* row, const Window& w, int ox, int j,
                                                int n) {
    Taps<T, V> taps;
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        const int ix = ox * w.stride_w - w.left + (j + u) * w.dilation_w;
        taps.on_input[u] = j + u < w.KW && inside(ix, w.W);
        taps.value[u] = {};
        if (taps.on_input[u]) taps.value[u] = load<V>(row + (i64)ix * w.N + n);
    }
    return taps;
}

// The next AHEAD taps of the window at (oy, ox), row by row. They begin with tap (i, j), which is
// moved on. A tap after the last one or outside the input is 0.
template <int V, typename T>
__device__ __forceinline__ Taps<T, V> next_taps(const T* map, const Window& w, int oy, int ox,
                                                int& i, int& j, int n) {
    Taps<T, V> taps;
#pragma unroll
    for (int u = 0; u < AHEAD; u++) {
        const int iy = oy * w.stride_h - w.top + i * w.dilation_h;
        const int ix = ox * w.stride_w - w.left + j * w.dilation_w;
        taps.on_input[u] = i < w.KH && inside(iy, w.H) && inside(ix, w.W);
        taps.value[u] = {};
        if (taps.on_input[u]) taps.value[u] = load<V>(map + ((i64)iy * w.W + ix) * w.N + n);
        if (++j == w.KW) j = 0, i++;
    }
    return taps;
}

// FOR_WINDOWS loops over the windows that read an input position, from the last one to the first,
// which is the order of their taps. `position` counts from the edge of the padding: window o reads
// it with tap i if o * stride + i * dilation = position. tap_at returns that tap, or -1 if dilation
// skips the position.
#define FOR_WINDOWS(o, position, stride, dilation, kernel, windows) \
    for (int o = last_window(position, stride, windows); \
         o >= 0 && position - o * stride <= (kernel - 1) * dilation; o--)

__device__ __forceinline__ int last_window(int position, int stride, int windows) {
    const int o = (unsigned)position / (unsigned)stride;
    return o < windows ? o : windows - 1;
}

__device__ __forceinline__ int tap_at(int position, int o, int stride, int dilation) {
    const int distance = position - o * stride;
    // The most frequent case by far, and divisions are slow.
    if (dilation == 1) return distance;
    const int tap = distance / dilation;
    return tap * dilation == distance ? tap : -1;
}

// Windows that do not overlap cut the input into cells of stride_h x stride_w, one for each window,
// and some at the end that no window reads. One thread can then write a whole cell and reads its dy
// only once. cells() is the number of cells along one axis.
__device__ __forceinline__ int cells(int size, int stride, int before) {
    return (size - 1 + before) / stride + 1;
}
