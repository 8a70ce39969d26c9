// Softmax over the first axis, and the cross entropy with it: z (K, P), with P = H W N or P = N.
//
// Neighbouring threads threadIdx.x take neighbouring samples, V each. The classes are spread over
// threadIdx.y, and the results of these threads are merged. The values of a thread are needed
// several times. If it has at most R classes, it keeps them in registers; if R is 0, it may have
// any number, and loads them again.

// The loop over the classes k of a thread; r counts them.
#define FOR_CLASSES(r, k, K, R) \
    for (int r = 0, k = threadIdx.y; (R) ? r < (R) : k < (K); r++, k += blockDim.y) \
        if ((R) == 0 || k < (K))
// The same, with classes after the last one if they are kept in registers. Without a comparison for
// each class, the compiler computes several at the same time.
#define FOR_KEPT_CLASSES(r, k, K, R) \
    for (int r = 0, k = threadIdx.y; (R) ? r < (R) : k < (K); r++, k += blockDim.y)

// The values of V samples at the classes of a thread. After the last class they are -infinity,
// which is never the largest one and whose exp is 0.
template <typename T, int V, int R>
struct Classes {
    typedef typename Wide<T>::type Number;
    // Whether there is room for exp(z - largest) in the place of z.
    static constexpr bool KEEPS_EXP = R > 0 && sizeof(T) == sizeof(Number);
    const T* from;
    i64 P;
    Vec<T, V> kept[R ? R : 1];

    __device__ __forceinline__ Classes(const T* from, int K, i64 P) : from(from), P(P) {
        if constexpr (R > 0) {
#pragma unroll
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) kept[r].at[v] = T(-Number(1) / Number(0));
#pragma unroll
            FOR_CLASSES(r, k, K, R) kept[r] = load<V>(from + k * P);
        }
    }
    __device__ __forceinline__ Vec<T, V> at(int r, int k) const {
        if constexpr (R > 0) return kept[r];
        else return load<V>(from + k * P);
    }
};

// All threads of a block do the same number of turns: a thread without samples computes the last
// ones again and stores nothing.
#define FOR_SAMPLE_GROUPS(first, P, V) \
    for (i64 first = (i64)blockIdx.x * STEP(V); first < (P); first += STEP(V) * gridDim.x)

template <int V>
__device__ __forceinline__ i64 own_sample(i64 first, i64 P) {
    const i64 n = first + threadIdx.x * V;
    return n < P ? n : P - V;
}

// Merges the values of each sample over the threads that share its classes.
template <typename Number, int V, typename Merge>
__device__ __forceinline__ void over_classes(Number (&value)[V], Merge merge) {
    if (blockDim.y == 1) return;
    Vec<Number, V> all;
    for (int v = 0; v < V; v++) all.at[v] = value[v];
    all = over_lanes(all, threadIdx.y, blockDim.y, blockDim.x, [=](Vec<Number, V> a,
                                                                   const Vec<Number, V>& b) {
        for (int v = 0; v < V; v++) a.at[v] = merge(a.at[v], b.at[v]);
        return a;
    });
    for (int v = 0; v < V; v++) value[v] = all.at[v];
}

// The largest z of each sample, and the sum of exp(z - largest), which cannot overflow. If `keep`,
// the exponentials replace z.
template <bool keep, typename Number, typename T, int V, int R>
__device__ __forceinline__ void top_and_total(Classes<T, V, R>& z, int K, Number (&top)[V],
                                              Number (&total)[V]) {
    const Vec<T, V> some = load<V>(z.from);
    for (int v = 0; v < V; v++) top[v] = Number(some.at[v]), total[v] = 0;
#pragma unroll(R ? R : 4)
    FOR_KEPT_CLASSES(r, k, K, R) {
        const Vec<T, V> value = z.at(r, k);
        for (int v = 0; v < V; v++) top[v] = Largest()(top[v], Number(value.at[v]));
    }
    over_classes(top, Largest());
#pragma unroll(R ? R : 4)
    FOR_KEPT_CLASSES(r, k, K, R) {
        const Vec<T, V> value = z.at(r, k);
        for (int v = 0; v < V; v++) {
            const Number power = exp(Number(value.at[v]) - top[v]);
            if constexpr (keep) z.kept[r].at[v] = power;
            total[v] += power;
        }
    }
    over_classes(total, Sum());
}

// exp(z - largest) of a value after top_and_total<KEEPS_EXP>.
template <typename T, int V, int R, typename Number>
__device__ __forceinline__ Number power_of(const Classes<T, V, R>&, Number value, Number top) {
    if constexpr (Classes<T, V, R>::KEEPS_EXP) return value;
    else return exp(value - top);
}

template <typename T, int V, int R>
__global__ void __launch_bounds__(MOST_THREADS, R ? 2 : 1)
softmax(const T* __restrict__ z, T* __restrict__ y, int K, i64 P) {
    typedef typename Wide<T>::type Number;
    FOR_SAMPLE_GROUPS(first, P, V) {
        const i64 n = own_sample<V>(first, P);
        Classes<T, V, R> values(z + n, K, P);
        Number top[V], total[V];
        top_and_total<Classes<T, V, R>::KEEPS_EXP>(values, K, top, total);
        if (first + threadIdx.x * V >= P) continue;
        // One division per sample, because divisions are slow.
        for (int v = 0; v < V; v++) total[v] = Number(1) / total[v];
#pragma unroll(R ? R : 4)
        FOR_CLASSES(r, k, K, R) {
            Vec<T, V> value = values.at(r, k);
            for (int v = 0; v < V; v++)
                value.at[v] = T(power_of(values, Number(value.at[v]), top[v]) * total[v]);
            store(y + k * P + n, value);
        }
    }
}

// dz = y (dy - sum over k of dy y)
template <typename T, int V, int R>
__global__ void softmax_backward(const T* __restrict__ dy, const T* __restrict__ y,
                                 T* __restrict__ dz, int K, i64 P) {
    typedef typename Wide<T>::type Number;
    FOR_SAMPLE_GROUPS(first, P, V) {
        const i64 n = own_sample<V>(first, P);
        const Classes<T, V, R> gradients(dy + n, K, P), outputs(y + n, K, P);
        Number sum[V] = {};
#pragma unroll(R ? R : 4)
        FOR_CLASSES(r, k, K, R) {
            const Vec<T, V> gradient = gradients.at(r, k), output = outputs.at(r, k);
            for (int v = 0; v < V; v++) sum[v] += Number(gradient.at[v]) * Number(output.at[v]);
        }
        over_classes(sum, Sum());
        if (first + threadIdx.x * V >= P) continue;
#pragma unroll(R ? R : 4)
        FOR_CLASSES(r, k, K, R) {
            Vec<T, V> gradient = gradients.at(r, k);
            const Vec<T, V> output = outputs.at(r, k);
            for (int v = 0; v < V; v++)
                gradient.at[v] = T(Number(output.at[v]) * (Number(gradient.at[v]) - sum[v]));
            store(dz + k * P + n, gradient);
        }
    }
}

// losses (N,) = -log softmax(z)_label of each sample; dz = (softmax(z) - 1 at the label) / N. As in
// base.py, a label that is not a class is a target of zeros.
template <typename T, int V, int R>
__global__ void __launch_bounds__(MOST_THREADS, R ? 2 : 1)
cross_entropy_of_labels(const T* __restrict__ z, const i64* __restrict__ labels,
                        T* __restrict__ dz, typename Wide<T>::type* __restrict__ losses, int K,
                        i64 N) {
    typedef typename Wide<T>::type Number;
    FOR_SAMPLE_GROUPS(first, N, V) {
        const i64 n = own_sample<V>(first, N);
        Classes<T, V, R> values(z + n, K, N);
        Number top[V], total[V];
        top_and_total<Classes<T, V, R>::KEEPS_EXP>(values, K, top, total);
        if (first + threadIdx.x * V >= N) continue;
        int label[V];
        for (int v = 0; v < V; v++) {
            const i64 given = labels[n + v];
            label[v] = 0 <= given && given < K ? (int)given : -1;
            if (threadIdx.y == 0)
                losses[n + v] = label[v] >= 0
                    ? log(total[v]) - (Number(z[given * N + n + v]) - top[v]) : Number(0);
            total[v] = Number(1) / total[v];
        }
        const Number mean = Number(1) / Number(N);
#pragma unroll(R ? R : 4)
        FOR_CLASSES(r, k, K, R) {
            Vec<T, V> value = values.at(r, k);
            for (int v = 0; v < V; v++) {
                const Number share = power_of(values, Number(value.at[v]), top[v]) * total[v];
                value.at[v] = T(label[v] < 0 ? Number(0) : (share - Number(k == label[v])) * mean);
            }
            store(dz + k * N + n, value);
        }
    }
}

// weight value, but 0 if the weight is 0, also if the value is infinite or NaN.
template <typename Number>
__device__ __forceinline__ Number weighed(Number weight, Number value) {
    return weight == Number(0) ? Number(0) : weight * value;
}

// losses (N,) = -sum over k of t_k log softmax(z)_k; dz = (softmax(z) sum(t) - t) / N
template <typename T, int V, int R>
__global__ void cross_entropy(const T* __restrict__ z, const T* __restrict__ t, T* __restrict__ dz,
                              typename Wide<T>::type* __restrict__ losses, int K, i64 N) {
    typedef typename Wide<T>::type Number;
    FOR_SAMPLE_GROUPS(first, N, V) {
        const i64 n = own_sample<V>(first, N);
        Classes<T, V, R> values(z + n, K, N);
        const Classes<T, V, R> targets(t + n, K, N);
        Number top[V], total[V], level[V], loss[V] = {}, weight[V] = {};
        top_and_total<false>(values, K, top, total);        // the loss needs every z once more
        for (int v = 0; v < V; v++) level[v] = log(total[v]);
#pragma unroll(R ? R : 4)
        FOR_CLASSES(r, k, K, R) {
            const Vec<T, V> value = values.at(r, k), target = targets.at(r, k);
            for (int v = 0; v < V; v++) {
                loss[v] += weighed(Number(target.at[v]), level[v] - (Number(value.at[v]) - top[v]));
                weight[v] += Number(target.at[v]);
            }
        }
        over_classes(loss, Sum());
        over_classes(weight, Sum());
        if (first + threadIdx.x * V >= N) continue;
        for (int v = 0; v < V; v++) {
            if (threadIdx.y == 0) losses[n + v] = loss[v];
            level[v] = weighed(weight[v], Number(1) / total[v]);
        }
        const Number mean = Number(1) / Number(N);
#pragma unroll(R ? R : 4)
        FOR_CLASSES(r, k, K, R) {
            Vec<T, V> value = values.at(r, k);
            const Vec<T, V> target = targets.at(r, k);
            for (int v = 0; v < V; v++)
                value.at[v] = T((weighed(level[v], exp(Number(value.at[v]) - top[v]))
                                 - Number(target.at[v])) * mean);
            store(dz + k * N + n, value);
        }
    }
}

// loss () = mean of losses (N,), of which a block adds up a piece. If there are several pieces,
// their sums go to `parts`, and a second launch with `parts` as the only piece adds these up.
template <typename T>
__global__ void mean_of_losses(const typename Wide<T>::type* __restrict__ losses,
                               T* __restrict__ loss, typename Wide<T>::type* __restrict__ parts,
                               i64 N, Pieces p) {
    typedef typename Wide<T>::type Number;
    const int U = 4;
    FOR_PIECES(piece, p) {
        const Span s = span(p, 0, piece);
        Number mine = 0;
        FOR_SPAN(i, s, U, 1) {
            Vec<Number, 1> turn[U];
            load_turn(turn, losses, i, s.end);
            for (int u = 0; u < U; u++) mine += turn[u].at[0];          // 0 after the end
        }
        const Number all = over_row(mine, Sum());
        if (threadIdx.x != 0) continue;
        if (p.per_row == 1) *loss = T(all / Number(N));
        else parts[piece] = all;
    }
}
