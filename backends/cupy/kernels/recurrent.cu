// One step of a recurrent layer, after its product s = U h: the gates and the new states in one
// kernel, and their gradients in another one, before the product U^T ds. The formulas are in
// cells.py, and each kernel has the name of its cell there.
//
// A thread computes one unit of one sample and adds up nothing, so the results do not depend on the
// launch. It reads the states before it overwrites them, and no other thread uses them.

// recurrent.py fills in this struct and has the same fields in the same order.
struct Step {
    i64 P, start;       // columns of the arrays of all steps; the first one of this step
    int H, N;           // units; samples of the states
    int count, t;       // samples in this step, the first ones of the N; its number
    int masked;         // samples whose `lengths` are at most t have ended and keep their states
    int keep;           // what backward needs is written
    int has_bias, has_dy;
};

// Where a unit of a sample is: in arrays of all steps, `all` of (H, P), and in those of one step,
// `one` of (H, N). The next block of H rows is one block further.
struct Unit {
    i64 all, all_block, one, one_block;
    bool ended;
};

template <typename T>
__device__ __forceinline__ Unit unit(const Step& p, i64 j, int n, const T* lengths) {
    typedef typename Wide<T>::type Number;
    return {j * p.P + p.start + n, p.H * p.P, j * p.N + n, (i64)p.H * p.N,
            p.masked && !(Number(p.t) < Number(lengths[n]))};
}

#define FOR_UNITS(j, n, p) FOR_ROWS(j, (p).H) FOR_SAMPLES(n, (p).count, 1)

// a + s of one block of rows
template <typename T>
__device__ __forceinline__ typename Wide<T>::type sum(const T* a, const T* s, const Unit& u,
                                                      int block) {
    typedef typename Wide<T>::type Number;
    return Number(a[u.all + block * u.all_block]) + Number(s[u.one + block * u.one_block]);
}

// dh of this step: from the step after it, and from the layer above
template <typename T>
__device__ __forceinline__ typename Wide<T>::type gradient(const T* dh, const T* dy, const Unit& u,
                                                           const Step& p) {
    typedef typename Wide<T>::type Number;
    return p.has_dy ? Number(dy[u.all]) + Number(dh[u.one]) : Number(dh[u.one]);
}

// Beyond the end of a sample the gradients of all gates are 0, whatever was computed there. Those
// with respect to the states pass unchanged.
template <int BLOCKS, typename T>
__device__ __forceinline__ void put_zeros(T* to, const Unit& u) {
    for (int block = 0; block < BLOCKS; block++) to[u.all + block * u.all_block] = T(0);
}

// h' in the output, which is 0 beyond the end, and in the state, which stays as it is there.
template <typename T>
__device__ __forceinline__ void put_state(T value, T* h, T* y, const Unit& u) {
    y[u.all] = u.ended ? T(0) : value;
    if (!u.ended) h[u.one] = value;
}

// --- LSTM ----------------------------------------------------------------------------------------

template <typename T>
__global__ void lstm(const T* __restrict__ a, const T* __restrict__ s, T* __restrict__ h,
                     T* __restrict__ c, T* __restrict__ y, T* __restrict__ h_before,
                     T* __restrict__ c_before, T* __restrict__ gates, T* __restrict__ tanh_c,
                     const T* __restrict__ lengths, Step p) {
    typedef typename Wide<T>::type Number;
    FOR_UNITS(j, n, p) {
        const Unit u = unit(p, j, n, lengths);
        const Number i = activate<SIGMOID>(sum(a, s, u, 0)), f = activate<SIGMOID>(sum(a, s, u, 1)),
                     g = activate<TANH>(sum(a, s, u, 2)), o = activate<SIGMOID>(sum(a, s, u, 3));
        const T old = c[u.one];
        const Number fresh = f * Number(old) + i * g, bent = activate<TANH>(fresh);
        if (p.keep) {
            h_before[u.all] = h[u.one];
            c_before[u.all] = old;
            gates[u.all] = T(i);
            gates[u.all + u.all_block] = T(f);
            gates[u.all + 2 * u.all_block] = T(g);
            gates[u.all + 3 * u.all_block] = T(o);
            tanh_c[u.all] = T(bent);
        }
        put_state(T(o * bent), h, y, u);
        if (!u.ended) c[u.one] = T(fresh);
    }
}

template <typename T>
__global__ void lstm_backward(const T* __restrict__ dy, T* __restrict__ dh, T* __restrict__ dc,
                              const T* __restrict__ c_before, const T* __restrict__ gates,
                              const T* __restrict__ tanh_c, const T* __restrict__ lengths,
                              T* __restrict__ da, Step p) {
    typedef typename Wide<T>::type Number;
    FOR_UNITS(j, n, p) {
        const Unit u = unit(p, j, n, lengths);
        if (u.ended) {
            put_zeros<4>(da, u);
            continue;
        }
        const Number i = Number(gates[u.all]), f = Number(gates[u.all + u.all_block]),
                     g = Number(gates[u.all + 2 * u.all_block]),
                     o = Number(gates[u.all + 3 * u.all_block]), bent = Number(tanh_c[u.all]);
        const Number up = gradient(dh, dy, u, p);
        const Number memory = Number(dc[u.one]) + up * o * derivative<TANH>(bent);
        da[u.all] = T(memory * g * derivative<SIGMOID>(i));
        da[u.all + u.all_block] = T(memory * Number(c_before[u.all]) * derivative<SIGMOID>(f));
        da[u.all + 2 * u.all_block] = T(memory * i * derivative<TANH>(g));
        da[u.all + 3 * u.all_block] = T(up * bent * derivative<SIGMOID>(o));
        dh[u.one] = T(0);                                   // all of it goes through the product
        dc[u.one] = T(memory * f);
    }
}

// --- GRU -----------------------------------------------------------------------------------------

template <typename T>
__global__ void gru(const T* __restrict__ a, const T* __restrict__ s, const T* __restrict__ bias,
                    T* __restrict__ h, T* __restrict__ y, T* __restrict__ h_before,
                    T* __restrict__ gates, T* __restrict__ m, const T* __restrict__ lengths,
                    Step p) {
    typedef typename Wide<T>::type Number;
    FOR_UNITS(j, n, p) {
        const Unit u = unit(p, j, n, lengths);
        const Number r = activate<SIGMOID>(sum(a, s, u, 0)), z = activate<SIGMOID>(sum(a, s, u, 1));
        const Number part = Number(s[u.one + 2 * u.one_block]);
        const Number term = p.has_bias ? part + Number(bias[j]) : part;
        const Number fresh = activate<TANH>(Number(a[u.all + 2 * u.all_block]) + r * term);
        const T old = h[u.one];
        if (p.keep) {
            h_before[u.all] = old;
            gates[u.all] = T(r);
            gates[u.all + u.all_block] = T(z);
            gates[u.all + 2 * u.all_block] = T(fresh);
            m[u.all] = T(term);
        }
        put_state(T(fresh + z * (Number(old) - fresh)), h, y, u);
    }
}

template <typename T>
__global__ void gru_backward(const T* __restrict__ dy, T* __restrict__ dh,
                             const T* __restrict__ h_before, const T* __restrict__ gates,
                             const T* __restrict__ m, const T* __restrict__ lengths,
                             T* __restrict__ da, T* __restrict__ ds, Step p) {
    typedef typename Wide<T>::type Number;
    FOR_UNITS(j, n, p) {
        const Unit u = unit(p, j, n, lengths);
        if (u.ended) {
            put_zeros<3>(da, u);
            put_zeros<3>(ds, u);
            continue;
        }
        const Number r = Number(gates[u.all]), z = Number(gates[u.all + u.all_block]),
                     fresh = Number(gates[u.all + 2 * u.all_block]);
        const Number up = gradient(dh, dy, u, p);
        const Number dn = up * (Number(1) - z) * derivative<TANH>(fresh);
        const Number dr = dn * Number(m[u.all]) * derivative<SIGMOID>(r);
        const Number dz = up * (Number(h_before[u.all]) - fresh) * derivative<SIGMOID>(z);
        da[u.all] = ds[u.all] = T(dr);
        da[u.all + u.all_block] = ds[u.all + u.all_block] = T(dz);
        da[u.all + 2 * u.all_block] = T(dn);
        ds[u.all + 2 * u.all_block] = T(dn * r);
        dh[u.one] = T(up * z);                              // the product adds the rest
    }
}

// --- simple recurrent layers ---------------------------------------------------------------------

template <typename T, int A>
__global__ void simple(const T* __restrict__ a, const T* __restrict__ s, T* __restrict__ h,
                       T* __restrict__ y, T* __restrict__ h_before, T* __restrict__ kept,
                       const T* __restrict__ lengths, Step p) {
    FOR_UNITS(j, n, p) {
        const Unit u = unit(p, j, n, lengths);
        const T value = T(activate<A>(sum(a, s, u, 0)));
        if (p.keep) {
            h_before[u.all] = h[u.one];
            kept[u.all] = value;
        }
        put_state(value, h, y, u);
    }
}

template <typename T, int A>
__global__ void simple_backward(const T* __restrict__ dy, T* __restrict__ dh,
                                const T* __restrict__ kept, const T* __restrict__ lengths,
                                T* __restrict__ da, Step p) {
    typedef typename Wide<T>::type Number;
    FOR_UNITS(j, n, p) {
        const Unit u = unit(p, j, n, lengths);
        if (u.ended) {
            put_zeros<1>(da, u);
            continue;
        }
        da[u.all] = T(gradient(dh, dy, u, p) * derivative<A>(Number(kept[u.all])));
        dh[u.one] = T(0);
    }
}
