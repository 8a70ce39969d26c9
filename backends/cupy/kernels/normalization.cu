// Batch normalisation of rows, which are channels: x (C, P). The first pass computes sums, one
// result for each piece of a row; the second uses them. Each block of the second pass merges the
// results of its rows itself, always in the same order, which costs less than another launch.

// Number of elements, mean, and sum of squared differences from the mean. Sums of x and x^2 would
// lose all digits of the variance if the mean is much larger than the standard deviation.
template <typename Number>
struct Moments {
    Number n, mean, squares;
};

// The moments of the union of two sets (Chan, Golub and LeVeque 1983).
struct Together {
    template <typename Number>
    __device__ Moments<Number> operator()(const Moments<Number>& a,
                                          const Moments<Number>& b) const {
        const Number n = a.n + b.n, share = n > Number(0) ? b.n / n : Number(0),
                     delta = b.mean - a.mean;
        return {n, a.mean + delta * share, a.squares + b.squares + delta * (delta * (a.n * share))};
    }
};

// parts (C, per_row, 2): mean and squares of each piece
template <typename T, int V>
__global__ void batch_norm_moments(const T* __restrict__ x,
                                   typename Wide<T>::type* __restrict__ parts, Pieces p) {
    typedef typename Wide<T>::type Number;
    const int U = 4;
    FOR_ROW_GROUPS(first, p) FOR_PIECES(piece, p) {
        const i64 row = first + threadIdx.y;
        const Span s = span(p, row, piece);
        Moments<Number> mine = {};
        FOR_SPAN(i, s, U, V) {
            Vec<T, V> turn[U];
            load_turn(turn, x + row * p.size, i, s.end);
            Moments<Number> some = {};
            // The sums are relative to this element: the mean of equal elements is then exact.
            const Number first = Number(turn[0].at[0]);
            for (int u = 0; u < U; u++) {
                const bool there = i + u * STEP(V) < s.end;
                for (int k = 0; k < V; k++)
                    some.mean += there ? Number(turn[u].at[k]) - first : Number(0);
                if (there) some.n += Number(V);
            }
            some.mean = first + some.mean / some.n;
            for (int u = 0; u < U; u++)
                for (int k = 0; k < V; k++) {
                    const Number far =
                        i + u * STEP(V) < s.end ? Number(turn[u].at[k]) - some.mean : Number(0);
                    some.squares += far * far;
                }
            mine = Together()(mine, some);
        }
        const Moments<Number> all = over_row(mine, Together());
        if (threadIdx.x == 0 && row < p.rows) {
            parts[2 * (row * p.per_row + piece)] = all.mean;
            parts[2 * (row * p.per_row + piece) + 1] = all.squares;
        }
    }
}

// y = f(gamma (x - mean) / sqrt(var + eps) + beta). With from_parts, mean and var are computed from
// the moments of the pieces and written; else they are given.
template <typename T, int V, int A>
__global__ void batch_norm(const T* __restrict__ x, T* __restrict__ y, const T* __restrict__ gamma,
                           const T* __restrict__ beta, T* mean, T* var, double eps, bool from_parts,
                           const typename Wide<T>::type* __restrict__ parts, Pieces p) {
    typedef typename Wide<T>::type Number;
    const int U = 4;
    FOR_ROW_GROUPS_BACK(first, p) {
        const i64 row = first + threadIdx.y;
        Number centre = 0, variance = 1;
        if (from_parts) {
            Moments<Number> mine = {};
            for (int piece = threadIdx.x; piece < p.per_row; piece += blockDim.x) {
                const Span s = span(p, row, piece);
                if (s.begin == s.end) break;
                const Number* part = parts + 2 * (row * p.per_row + piece);
                mine = Together()(mine, Moments<Number>{Number(s.end - s.begin), part[0], part[1]});
            }
            const Moments<Number> all = over_row(mine, Together());
            centre = all.mean;
            variance = all.squares / Number(p.size);
            if (row < p.rows && blockIdx.x == 0 && threadIdx.x == 0) {
                mean[row] = T(centre);
                var[row] = T(variance);
            }
        } else if (row < p.rows) {
            centre = Number(mean[row]);
            variance = Number(var[row]);
        }
        if (row >= p.rows) continue;
        const Number scale = Number(gamma[row]) / sqrt(variance + Number(eps)),
                     shift = Number(beta[row]);
        FOR_PIECES(piece, p) {
            const Span s = span(p, row, piece);
            FOR_SPAN(i, s, U, V) {
                Vec<T, V> turn[U];
                load_turn(turn, x + row * p.size, i, s.end);
                for (int u = 0; u < U; u++)
                    for (int k = 0; k < V; k++)
                        turn[u].at[k] =
                            T(activate<A>((Number(turn[u].at[k]) - centre) * scale + shift));
                store_turn(y + row * p.size, i, s.end, turn);
            }
        }
    }
}

// A turn of dz = dy f'(y); y is not read if there is no activation.
template <int A, int U, int V, typename T, typename Number>
__device__ __forceinline__ void load_dz(Number (&dz)[U][V], const T* dy, const T* y, i64 i,
                                        i64 end) {
    Vec<T, V> gradient[U], output[U];
    load_turn(gradient, dy, i, end);
    if (A != NONE) load_turn(output, y, i, end);
    for (int u = 0; u < U; u++)
        for (int k = 0; k < V; k++) {
            dz[u][k] = Number(gradient[u].at[k]);
            if (A != NONE) dz[u][k] *= derivative<A>(Number(output[u].at[k]));
        }
}

template <typename Number>
struct Pair {
    Number dz, dz_far;              // sums of dz and of dz (x - mean)
};

struct SumOfPairs {
    template <typename Number>
    __device__ Pair<Number> operator()(const Pair<Number>& a, const Pair<Number>& b) const {
        return {a.dz + b.dz, a.dz_far + b.dz_far};
    }
};

// parts (C, per_row, 2): the two sums over each piece
template <typename T, int V, int A>
__global__ void batch_norm_sums(const T* __restrict__ dy, const T* __restrict__ x,
                                const T* __restrict__ y, const T* __restrict__ mean,
                                typename Wide<T>::type* __restrict__ parts, Pieces p) {
    typedef typename Wide<T>::type Number;
    const int U = 2;
    FOR_ROW_GROUPS(first, p) FOR_PIECES(piece, p) {
        const i64 row = first + threadIdx.y;
        const Span s = span(p, row, piece);
        const Number centre = row < p.rows ? Number(mean[row]) : Number(0);
        Pair<Number> mine = {};
        FOR_SPAN(i, s, U, V) {
            Vec<T, V> input[U];
            Number dz[U][V];
            load_turn(input, x + row * p.size, i, s.end);
            load_dz<A>(dz, dy + row * p.size, y + row * p.size, i, s.end);
            for (int u = 0; u < U; u++)
                for (int k = 0; k < V; k++) {
                    mine.dz += dz[u][k];                                // dz is 0 after the end
                    mine.dz_far += dz[u][k] * (Number(input[u].at[k]) - centre);
                }
        }
        const Pair<Number> all = over_row(mine, SumOfPairs());
        if (threadIdx.x == 0 && row < p.rows) {
            parts[2 * (row * p.per_row + piece)] = all.dz;
            parts[2 * (row * p.per_row + piece) + 1] = all.dz_far;
        }
    }
}

// dbeta = sum of dz, dgamma = sum of dz x_hat,
// dx = gamma / std (dz - dbeta / n - x_hat dgamma / n)
template <typename T, int V, int A>
__global__ void batch_norm_dx(const T* __restrict__ dy, const T* __restrict__ x,
                              const T* __restrict__ y, T* __restrict__ dx,
                              const T* __restrict__ gamma, const T* __restrict__ mean,
                              const T* __restrict__ var, double eps, T* __restrict__ gamma_grad,
                              T* __restrict__ beta_grad, bool accumulate,
                              const typename Wide<T>::type* __restrict__ parts, Pieces p) {
    typedef typename Wide<T>::type Number;
    const int U = 2;
    FOR_ROW_GROUPS_BACK(first, p) {
        const i64 row = first + threadIdx.y;
        Pair<Number> mine = {};
        if (row < p.rows)
            for (int piece = threadIdx.x; piece < p.per_row; piece += blockDim.x) {
                const Number* part = parts + 2 * (row * p.per_row + piece);
                mine = SumOfPairs()(mine, Pair<Number>{part[0], part[1]});
            }
        const Pair<Number> all = over_row(mine, SumOfPairs());
        if (row >= p.rows) continue;
        const Number std = sqrt(Number(var[row]) + Number(eps)), n = Number(p.size);
        const Number dbeta = all.dz, dgamma = all.dz_far / std;
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            gamma_grad[row] = T(accumulate ? Number(gamma_grad[row]) + dgamma : dgamma);
            beta_grad[row] = T(accumulate ? Number(beta_grad[row]) + dbeta : dbeta);
        }
        const Number centre = Number(mean[row]), scale = Number(gamma[row]) / std;
        const Number slope = dgamma / (n * std), level = dbeta / n;
        FOR_PIECES(piece, p) {
            const Span s = span(p, row, piece);
            FOR_SPAN(i, s, U, V) {
                Vec<T, V> input[U];
                Number dz[U][V];
                load_turn(input, x + row * p.size, i, s.end);
                load_dz<A>(dz, dy + row * p.size, y + row * p.size, i, s.end);
                for (int u = 0; u < U; u++)
                    for (int k = 0; k < V; k++)
                        input[u].at[k] = T(scale * (dz[u][k] - level
                                                    - (Number(input[u].at[k]) - centre) * slope));
                store_turn(dx + row * p.size, i, s.end, input);
            }
        }
    }
}

// running += momentum (value of the batch - running); correction = n / (n - 1) makes the variance
// unbiased. A running mean that rounding would leave unchanged moves by one unit in its last place:
// see Backend.update_running.
template <typename T>
__global__ void update_running(T* __restrict__ running_mean, T* __restrict__ running_var,
                               const T* __restrict__ mean, const T* __restrict__ var,
                               double momentum, double correction, i64 C) {
    typedef typename Wide<T>::type Number;
    const Number m = Number(momentum), unbiased = Number(correction);
    for (i64 c = (i64)blockIdx.x * blockDim.x + threadIdx.x; c < C;
         c += (i64)gridDim.x * blockDim.x) {
        const Number before = Number(running_mean[c]), spread = Number(running_var[c]);
        const Number target = Number(mean[c]), moved = before + m * (target - before);
        running_mean[c] = T(moved == before && m > Number(0) ? nextafter(before, target) : moved);
        running_var[c] = T(spread + m * (Number(var[c]) * unbiased - spread));
    }
}
