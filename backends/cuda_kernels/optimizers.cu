// Optimizers on flat buffers, one pass each: see base.py for the formulas. `hyper` lies in device memory, because a number
// that is passed in would be a constant in a captured graph. It is cast first, as on the host: float32 stays float32.

// hyper = (lr, mu, decay); v is not touched without momentum
template <typename T, int V>
__global__ void sgd(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ v, const double* __restrict__ hyper,
                    bool momentum, bool nesterov, i64 decayed, i64 n) {
    typedef typename Wide<T>::type Number;
    const Number lr = Number(hyper[0]), mu = Number(hyper[1]), decay = Number(hyper[2]);
    const int U = 2;
    FOR_ARRAY(i, n, U, V) {
        Vec<T, V> weight[U], gradient[U], velocity[U];
        load_turn(weight, w, i, n);
        load_turn(gradient, g, i, n);
        if (momentum) load_turn(velocity, v, i, n);
        for (int u = 0; u < U; u++)
            for (int k = 0; k < V; k++) {
                const Number before = Number(weight[u].at[k]);
                Number step = Number(gradient[u].at[k]);
                if (i + u * STEP(V) + k < decayed) step += decay * before;
                if (momentum) {
                    const Number moved = Number(velocity[u].at[k]) * mu + step;
                    velocity[u].at[k] = T(moved);
                    step = nesterov ? step + mu * moved : moved;
                }
                weight[u].at[k] = T(before - lr * step);
            }
        if (momentum) store_turn(v, i, n, velocity);
        store_turn(w, i, n, weight);
    }
}

// hyper = (lr, b1, b2, eps, decay, c1, c2); 1 - b2 is subtracted in double: in float it would keep only four digits
template <typename T, int V>
__global__ void adam(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ m, T* __restrict__ v,
                     const double* __restrict__ hyper, bool decoupled, i64 decayed, i64 n) {
    typedef typename Wide<T>::type Number;
    const Number lr = Number(hyper[0]), b1 = Number(hyper[1]), b2 = Number(hyper[2]), eps = Number(hyper[3]);
    const Number decay = Number(hyper[4]), c1 = Number(hyper[5]), c2 = Number(hyper[6]);
    const Number new1 = Number(1 - hyper[1]), new2 = Number(1 - hyper[2]), rate = lr / c1;
    const int U = 2;
    FOR_ARRAY(i, n, U, V) {
        Vec<T, V> weight[U], gradient[U], first[U], second[U];
        load_turn(weight, w, i, n);
        load_turn(gradient, g, i, n);
        load_turn(first, m, i, n);
        load_turn(second, v, i, n);
        for (int u = 0; u < U; u++)
            for (int k = 0; k < V; k++) {
                Number value = Number(weight[u].at[k]), slope = Number(gradient[u].at[k]);
                if (i + u * STEP(V) + k < decayed) {
                    if (decoupled) value -= lr * decay * value;
                    else slope += decay * value;
                }
                const Number mean = b1 * Number(first[u].at[k]) + new1 * slope;
                const Number square = b2 * Number(second[u].at[k]) + new2 * slope * slope;
                first[u].at[k] = T(mean);
                second[u].at[k] = T(square);
                weight[u].at[k] = T(value - rate * mean / (sqrt(square / c2) + eps));
            }
        store_turn(m, i, n, first);
        store_turn(v, i, n, second);
        store_turn(w, i, n, weight);
    }
}
