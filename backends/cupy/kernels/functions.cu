// The activations of activations.py, for every kernel that ends or begins with one. `Number` is
// float or double, and a NaN goes through every one of them. The activation is a template argument:
// what is not asked for costs nothing.

// 1 / (1 + exp(-z)), all digits also where it is tiny; t is exp(-|z|), which cannot overflow.
template <typename Number>
__device__ __forceinline__ Number logistic(Number z, Number& t) {
    t = exp(-fabs(z));
    return (z < Number(0) ? t : Number(1)) / (Number(1) + t);
}

// y = f(z)
template <int A, typename Number>
__device__ __forceinline__ Number activate(Number z) {
    const Number scale = Number(1.7159), slope = Number(2.0 / 3.0);
    Number t;
    // no comparison with a NaN is true
    if (A == RELU) return z < Number(0) ? Number(0) : z;
    if (A == SIGMOID) return logistic(z, t);
    if (A == TANH) return tanh(z);
    if (A == SCALED_TANH) return scale * tanh(slope * z);
    return z;
}

// f'(z), as a function of y = f(z): 0 where y has been rounded to its limit
template <int A, typename Number>
__device__ __forceinline__ Number derivative(Number y) {
    const Number one = Number(1), scale = Number(1.7159);
    if (A == RELU) return y > Number(0) ? one : Number(0);
    if (A == SIGMOID) return y * (one - y);
    if (A == TANH) return (one - y) * (one + y);
    if (A == SCALED_TANH) return Number((2.0 / 3.0) / 1.7159) * (scale - y) * (scale + y);
    return one;
}
