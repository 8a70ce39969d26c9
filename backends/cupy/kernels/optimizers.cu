// The rules of rules.py, where the formulas are; each is one pass over the flat buffers. `hyper` is
// in device memory, because an argument would be a constant in a captured graph. The numbers are
// cast first, as on the host, so that float32 stays float32; but 1 - b is computed in double, so
// that no digits are lost.

// `larger` is the larger of two numbers, `sign` is -1, 0 or 1; both return NaN if there is one.
template <typename Number>
__device__ __forceinline__ Number larger(Number old, Number fresh) {
    return old < fresh || fresh != fresh ? fresh : old;
}
template <typename Number>
__device__ __forceinline__ Number sign(Number x) {
    return x > Number(0) ? Number(1) : x < Number(0) ? Number(-1) : x;
}

// A rule updates one weight w, given its gradient g and its slots; bit s of `held` says whether
// slot s is used. The backend finds the struct by the name of the rule: Sgd for "sgd".

// hyper = (lr, mu, decay)
template <typename Number, bool AHEAD>
struct Momentum {
    static const int SLOTS = 1;
    const Number lr, mu, decay;
    const bool momentum;
    __device__ Momentum(const double* hyper, int held)
        : lr(hyper[0]), mu(hyper[1]), decay(hyper[2]), momentum(held & 1) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        Number step = decays ? g + decay * w : g;
        if (momentum) {
            slot[0] = slot[0] * mu + step;
            step = AHEAD ? step + mu * slot[0] : slot[0];
        }
        w -= lr * step;
    }
};

template <typename Number>
struct Sgd : Momentum<Number, false> {
    using Momentum<Number, false>::Momentum;
};
template <typename Number>
struct Nesterov : Momentum<Number, true> {
    using Momentum<Number, true>::Momentum;
};

// hyper = (lr, b1, b2, eps, decay, c1, c2)
template <typename Number, bool DECOUPLED>
struct Moments {
    static const int SLOTS = 2;
    const Number rate, b1, b2, new1, new2, eps, decay, shrink, c2;
    __device__ Moments(const double* hyper, int)
        : rate(Number(hyper[0]) / Number(hyper[5])), b1(hyper[1]), b2(hyper[2]),
          new1(1 - hyper[1]), new2(1 - hyper[2]), eps(hyper[3]), decay(hyper[4]),
          shrink(Number(hyper[0]) * Number(hyper[4])), c2(hyper[6]) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        if (decays) {
            if (DECOUPLED) w -= shrink * w;
            else g += decay * w;
        }
        slot[0] = b1 * slot[0] + new1 * g;
        slot[1] = b2 * slot[1] + new2 * g * g;
        w -= rate * slot[0] / (sqrt(slot[1] / c2) + eps);
    }
};

template <typename Number>
struct Adam : Moments<Number, false> {
    using Moments<Number, false>::Moments;
};
template <typename Number>
struct Adamw : Moments<Number, true> {
    using Moments<Number, true>::Moments;
};

// hyper = (lr, b1, b2, eps, decay, c1, c2)
template <typename Number>
struct Amsgrad {
    static const int SLOTS = 3;
    const Number rate, b1, b2, new1, new2, eps, decay, c2;
    __device__ Amsgrad(const double* hyper, int)
        : rate(Number(hyper[0]) / Number(hyper[5])), b1(hyper[1]), b2(hyper[2]),
          new1(1 - hyper[1]), new2(1 - hyper[2]), eps(hyper[3]), decay(hyper[4]), c2(hyper[6]) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        if (decays) g += decay * w;
        slot[0] = b1 * slot[0] + new1 * g;
        slot[1] = b2 * slot[1] + new2 * g * g;
        slot[2] = larger(slot[2], slot[1]);
        w -= rate * slot[0] / (sqrt(slot[2] / c2) + eps);
    }
};

// hyper = (now, next, b1, b2, eps, decay, c2)
template <typename Number>
struct Nadam {
    static const int SLOTS = 2;
    const Number now, next, b1, b2, new1, new2, eps, decay, c2;
    __device__ Nadam(const double* hyper, int)
        : now(hyper[0]), next(hyper[1]), b1(hyper[2]), b2(hyper[3]), new1(1 - hyper[2]),
          new2(1 - hyper[3]), eps(hyper[4]), decay(hyper[5]), c2(hyper[6]) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        if (decays) g += decay * w;
        slot[0] = b1 * slot[0] + new1 * g;
        slot[1] = b2 * slot[1] + new2 * g * g;
        w -= (now * g + next * slot[0]) / (sqrt(slot[1] / c2) + eps);
    }
};

// hyper = (lr, b1, b2, eps, decay, c1)
template <typename Number>
struct Adamax {
    static const int SLOTS = 2;
    const Number rate, b1, b2, new1, eps, decay;
    __device__ Adamax(const double* hyper, int)
        : rate(Number(hyper[0]) / Number(hyper[5])), b1(hyper[1]), b2(hyper[2]),
          new1(1 - hyper[1]), eps(hyper[3]), decay(hyper[4]) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        if (decays) g += decay * w;
        slot[0] = b1 * slot[0] + new1 * g;
        slot[1] = larger(b2 * slot[1], Number(fabs(g)) + eps);
        w -= rate * slot[0] / slot[1];
    }
};

// hyper = (lr, eps, decay)
template <typename Number>
struct Adagrad {
    static const int SLOTS = 1;
    const Number lr, eps, decay;
    __device__ Adagrad(const double* hyper, int) : lr(hyper[0]), eps(hyper[1]), decay(hyper[2]) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        if (decays) g += decay * w;
        slot[0] += g * g;
        w -= lr * g / (sqrt(slot[0]) + eps);
    }
};

// hyper = (lr, rho, eps, decay)
template <typename Number>
struct Adadelta {
    static const int SLOTS = 2;
    const Number lr, rho, fresh, eps, decay;
    __device__ Adadelta(const double* hyper, int)
        : lr(hyper[0]), rho(hyper[1]), fresh(1 - hyper[1]), eps(hyper[2]), decay(hyper[3]) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        if (decays) g += decay * w;
        slot[0] = rho * slot[0] + fresh * g * g;
        const Number step = sqrt(slot[1] + eps) / sqrt(slot[0] + eps) * g;
        slot[1] = rho * slot[1] + fresh * step * step;
        w -= lr * step;
    }
};

// hyper = (lr, alpha, eps, decay, mu); the slots are the mean square, the mean (if centred) and the
// velocity (with momentum)
template <typename Number>
struct Rmsprop {
    static const int SLOTS = 3;
    const Number lr, alpha, fresh, eps, decay, mu;
    const bool centered, momentum;
    __device__ Rmsprop(const double* hyper, int held)
        : lr(hyper[0]), alpha(hyper[1]), fresh(1 - hyper[1]), eps(hyper[2]), decay(hyper[3]),
          mu(hyper[4]), centered(held & 2), momentum(held & 4) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        if (decays) g += decay * w;
        Number spread = slot[0] = alpha * slot[0] + fresh * g * g;
        if (centered) {
            slot[1] = alpha * slot[1] + fresh * g;
            spread -= slot[1] * slot[1];
            if (spread < Number(0)) spread = Number(0);
        }
        Number step = g / (sqrt(spread) + eps);
        if (momentum) step = slot[2] = mu * slot[2] + step;
        w -= lr * step;
    }
};

// hyper = (lr, less, more, least, most, decay)
template <typename Number>
struct Rprop {
    static const int SLOTS = 2;
    const Number lr, less, more, least, most, decay;
    __device__ Rprop(const double* hyper, int)
        : lr(hyper[0]), less(hyper[1]), more(hyper[2]), least(hyper[3]), most(hyper[4]),
          decay(hyper[5]) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        if (decays) g += decay * w;
        const Number zero = Number(0), same = g * slot[0];
        const Number grown = (slot[1] == zero ? lr : slot[1])
                           * (same > zero ? more : same < zero ? less : Number(1));
        slot[1] = grown < least ? least : grown > most ? most : grown;
        slot[0] = same < zero ? zero : g;
        w -= sign(slot[0]) * slot[1];
    }
};

// hyper = (lr, b1, b2, decay)
template <typename Number>
struct Lion {
    static const int SLOTS = 1;
    const Number lr, b1, b2, new1, new2, shrink;
    __device__ Lion(const double* hyper, int)
        : lr(hyper[0]), b1(hyper[1]), b2(hyper[2]), new1(1 - hyper[1]), new2(1 - hyper[2]),
          shrink(Number(hyper[0]) * Number(hyper[3])) {}
    __device__ void operator()(Number& w, Number g, Number (&slot)[SLOTS], bool decays) const {
        const Number c = b1 * slot[0] + new1 * g;
        if (decays) w -= shrink * w;
        w -= lr * sign(c);
        slot[0] = b2 * slot[0] + new2 * g;
    }
};

// A slot that is not used is neither read nor written.
template <typename T, int V, template <typename> class Rule>
__global__ void update(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ slot0,
                       T* __restrict__ slot1, T* __restrict__ slot2,
                       const double* __restrict__ hyper, int held, i64 decayed, i64 n) {
    typedef typename Wide<T>::type Number;
    const int U = 2, SLOTS = Rule<Number>::SLOTS;
    const Rule<Number> rule(hyper, held);
    T* const slots[] = {slot0, slot1, slot2};
    FOR_ARRAY(i, n, U, V) {
        Vec<T, V> weight[U], gradient[U], memory[SLOTS][U] = {};
        load_turn(weight, w, i, n);
        load_turn(gradient, g, i, n);
#pragma unroll
        for (int s = 0; s < SLOTS; s++)
            if (held >> s & 1) load_turn(memory[s], slots[s], i, n);
#pragma unroll
        for (int u = 0; u < U; u++)
#pragma unroll
            for (int k = 0; k < V; k++) {
                Number value = Number(weight[u].at[k]), slot[SLOTS];
                for (int s = 0; s < SLOTS; s++) slot[s] = Number(memory[s][u].at[k]);
                rule(value, Number(gradient[u].at[k]), slot, i + u * STEP(V) + k < decayed);
                for (int s = 0; s < SLOTS; s++) memory[s][u].at[k] = T(slot[s]);
                weight[u].at[k] = T(value);
            }
        store_turn(w, i, n, weight);
#pragma unroll
        for (int s = 0; s < SLOTS; s++)
            if (held >> s & 1) store_turn(slots[s], i, n, memory[s]);
    }
}
