// How windows are read, and from the other side: which windows read an element.

// Neighbouring taps of one row of a window are loaded together and looked at afterwards: what comes
// from memory arrives late, so that several loads should be on their way.
#define AHEAD 4

template <typename T, int V>
struct Taps {
    Vec<T, V> value[AHEAD];
    bool on_input[AHEAD];
};

// Taps j .. j + AHEAD - 1 of the window at column ox, on one row of x; zeros where there is no tap
// or no input.
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

// The windows that read an input position with one of their taps, the last one first, which is the
// order of the taps. `position` counts from the edge of the padding: window o reads it with tap i
// where o * stride + i * dilation = position. FOR_WINDOWS runs through them; tap_at says with which
// tap, or -1 where dilation jumps over the position.
#define FOR_WINDOWS(o, position, stride, dilation, kernel, windows) \
    for (int o = last_window(position, stride, windows); \
         o >= 0 && position - o * stride <= (kernel - 1) * dilation; o--)

__device__ __forceinline__ int last_window(int position, int stride, int windows) {
    const int o = (unsigned)position / (unsigned)stride;
    return o < windows ? o : windows - 1;
}

__device__ __forceinline__ int tap_at(int position, int o, int stride, int dilation) {
    const int distance = position - o * stride;
    // by far the most frequent case, and divisions are slow
    if (dilation == 1) return distance;
    const int tap = distance / dilation;
    return tap * dilation == distance ? tap : -1;
}

// Windows that do not overlap cut the input into cells of stride_h x stride_w, one for each window,
// and some at the end that no window reads. One thread can then write a whole cell, and needs its
// dy only once. cells() counts them.
__device__ __forceinline__ int cells(int size, int stride, int before) {
    return (size - 1 + before) / stride + 1;
}
