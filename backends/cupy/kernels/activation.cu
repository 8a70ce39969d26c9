// Activations, sums of two arrays with an activation, and the backward pass of activations together with the gradient of a bias, which is a sum over
// each row.

// An activation of functions.cu, chosen at compile time (Known), or one of curves.cu, chosen at run
// time (Chosen).
template <int A, typename Number>
struct Known {
    static constexpr bool none = A == NONE;
    __device__ __forceinline__ Number value(Number z) const { return activate<A>(z); }
    __device__ __forceinline__ Number slope(Number y) const { return derivative<A>(y); }
};

template <typename Number>
struct Chosen {
    static constexpr bool none = false;
    int f;
    Number p, q;
    __device__ __forceinline__ Number value(Number z) const { return curve(f, z, p, q); }
    __device__ __forceinline__ Number slope(Number kept) const {
        return curve_derivative(f, kept, p, q);
    }
};

template <typename T, int V, typename F>
__device__ __forceinline__ void forward_pass(const T* __restrict__ z, T* __restrict__ y, i64 n,
                                             const F& f) {
    typedef typename Wide<T>::type Number;
    const int U = 4;
    FOR_ARRAY(i, n, U, V) {
        Vec<T, V> turn[U];
        load_turn(turn, z, i, n);
        for (int u = 0; u < U; u++)
            for (int k = 0; k < V; k++) turn[u].at[k] = T(f.value(Number(turn[u].at[k])));
        store_turn(y, i, n, turn);
    }
}

// y = f(a + b)
template <typename T, int V, int A>
__global__ void add(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ y, i64 n) {
    typedef typename Wide<T>::type Number;
    const int U = 2;
    FOR_ARRAY(i, n, U, V) {
        Vec<T, V> first[U], second[U];
        load_turn(first, a, i, n);
        load_turn(second, b, i, n);
        for (int u = 0; u < U; u++)
            for (int k = 0; k < V; k++)
                first[u].at[k] =
                    T(activate<A>(Number(first[u].at[k]) + Number(second[u].at[k])));
        store_turn(y, i, n, first);
    }
}

template <typename T, typename Number>
__device__ __forceinline__ void put(T* to, Number value, bool accumulate) {
    *to = T(accumulate ? Number(*to) + value : value);
}

// dz = dy f'(y), and sums of dz over each row, which are written to `parts` (rows, per_row), or
// directly to `sums` if a row is one piece. Without an activation dz is dy, and only the sums are
// computed.
template <typename T, int V, typename F>
__device__ __forceinline__ void backward_pass(const T* __restrict__ dy, const T* __restrict__ y,
                                              T* __restrict__ dz, T* __restrict__ sums,
                                              bool accumulate,
                                              typename Wide<T>::type* __restrict__ parts,
                                              const Pieces& p, const F& f) {
    typedef typename Wide<T>::type Number;
    const int U = 2;
    FOR_ROW_GROUPS(first, p) FOR_PIECES(piece, p) {
        const i64 row = first + threadIdx.y;
        const Span s = span(p, row, piece);
        Number mine = 0;
        FOR_SPAN(i, s, U, V) {
            Vec<T, V> gradient[U], output[U];
            load_turn(gradient, dy + row * p.size, i, s.end);
            if (!F::none) load_turn(output, y + row * p.size, i, s.end);
            for (int u = 0; u < U; u++)
                for (int k = 0; k < V; k++) {
                    Number value = Number(gradient[u].at[k]);
                    if (!F::none) value *= f.slope(Number(output[u].at[k]));
                    gradient[u].at[k] = T(value);
                    mine += value;                                      // 0 after the end
                }
            if (!F::none) store_turn(dz + row * p.size, i, s.end, gradient);
        }
        const Number all = over_row(mine, Sum());
        if (threadIdx.x != 0 || row >= p.rows) continue;
        if (p.per_row == 1) put(sums + row, all, accumulate);
        else parts[row * p.per_row + piece] = all;
    }
}

template <typename T, int V, int A>
__global__ void activation_forward(const T* __restrict__ z, T* __restrict__ y, i64 n) {
    forward_pass<T, V>(z, y, n, Known<A, typename Wide<T>::type>());
}

template <typename T, int V>
__global__ void curve_forward(const T* __restrict__ z, T* __restrict__ y, i64 n, int f, double p,
                              double q) {
    typedef typename Wide<T>::type Number;
    forward_pass<T, V>(z, y, n, Chosen<Number>{f, Number(p), Number(q)});
}

template <typename T, int V, int A>
__global__ void activation_backward(const T* __restrict__ dy, const T* __restrict__ y,
                                    T* __restrict__ dz, T* __restrict__ sums, bool accumulate,
                                    typename Wide<T>::type* __restrict__ parts, Pieces pieces) {
    backward_pass<T, V>(dy, y, dz, sums, accumulate, parts, pieces,
                        Known<A, typename Wide<T>::type>());
}

template <typename T, int V>
__global__ void curve_backward(const T* __restrict__ dy, const T* __restrict__ y,
                               T* __restrict__ dz, T* __restrict__ sums, bool accumulate,
                               typename Wide<T>::type* __restrict__ parts, Pieces pieces, int f,
                               double p, double q) {
    typedef typename Wide<T>::type Number;
    backward_pass<T, V>(dy, y, dz, sums, accumulate, parts, pieces,
                        Chosen<Number>{f, Number(p), Number(q)});
}

// sums (rows,) = the sum of each row's parts, in a fixed order
template <typename T>
__global__ void add_parts(const typename Wide<T>::type* __restrict__ parts, T* __restrict__ sums,
                          bool accumulate, Pieces p) {
    typedef typename Wide<T>::type Number;
    FOR_ROW_GROUPS(first, p) {
        const i64 row = first + threadIdx.y;
        Number mine = 0;
        if (row < p.rows)
            for (int piece = threadIdx.x; piece < p.per_row; piece += blockDim.x)
                mine += parts[row * p.per_row + piece];
        const Number all = over_row(mine, Sum());
        if (threadIdx.x == 0 && row < p.rows) put(sums + row, all, accumulate);
    }
}
