// Activations, and their backward pass together with the gradient of a bias, which is a sum over each row.

template <typename T, int V, int A>
__global__ void activation_forward(const T* __restrict__ z, T* __restrict__ y, i64 n) {
    typedef typename Wide<T>::type Number;
    const int U = 4;
    FOR_ARRAY(i, n, U, V) {
        Vec<T, V> turn[U];
        load_turn(turn, z, i, n);
        for (int u = 0; u < U; u++)
            for (int k = 0; k < V; k++) turn[u].at[k] = T(activate<A>(Number(turn[u].at[k])));
        store_turn(y, i, n, turn);
    }
}

template <typename T, typename Number>
__device__ __forceinline__ void put(T* to, Number value, bool accumulate) {
    *to = T(accumulate ? Number(*to) + value : value);
}

// dz = dy f'(y), and sums of dz over each row, which go to `parts` (rows, per_row), or where a row is one piece straight
// to `sums`. Without an activation dz is dy, and only the sums are made.
template <typename T, int V, int A>
__global__ void activation_backward(const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dz,
                                    T* __restrict__ sums, bool accumulate, typename Wide<T>::type* __restrict__ parts,
                                    Pieces p) {
    typedef typename Wide<T>::type Number;
    const int U = 2;
    FOR_ROW_GROUPS(first, p) FOR_PIECES(piece, p) {
        const i64 row = first + threadIdx.y;
        const Span s = span(p, row, piece);
        Number mine = 0;
        FOR_SPAN(i, s, U, V) {
            Vec<T, V> gradient[U], output[U];
            load_turn(gradient, dy + row * p.size, i, s.end);
            if (A != NONE) load_turn(output, y + row * p.size, i, s.end);
            for (int u = 0; u < U; u++)
                for (int k = 0; k < V; k++) {
                    Number value = Number(gradient[u].at[k]);
                    if (A != NONE) value *= derivative<A>(Number(output[u].at[k]));
                    gradient[u].at[k] = T(value);
                    mine += value;                                      // 0 behind the end
                }
            if (A != NONE) store_turn(dz + row * p.size, i, s.end, gradient);
        }
        const Number all = over_row(mine, Sum());
        if (threadIdx.x != 0 || row >= p.rows) continue;
        if (p.per_row == 1) put(sums + row, all, accumulate);
        else parts[row * p.per_row + piece] = all;
    }
}

// sums (rows,) = the sum of each row's parts, in a fixed order
template <typename T>
__global__ void add_parts(const typename Wide<T>::type* __restrict__ parts, T* __restrict__ sums, bool accumulate, Pieces p) {
    typedef typename Wide<T>::type Number;
    FOR_ROW_GROUPS(first, p) {
        const i64 row = first + threadIdx.y;
        Number mine = 0;
        if (row < p.rows)
            for (int piece = threadIdx.x; piece < p.per_row; piece += blockDim.x) mine += parts[row * p.per_row + piece];
        const Number all = over_row(mine, Sum());
        if (threadIdx.x == 0 && row < p.rows) put(sums + row, all, accumulate);
    }
}
