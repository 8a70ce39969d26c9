// The activations of activations.py that other kernels can apply. `Number` is float or double. If z
// is NaN, so is f(z). The activation is a template argument, so the others cost nothing.

// 1 / (1 + exp(-z)), with full precision also for tiny results; t = exp(-|z|) cannot overflow.
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
    // If z is NaN, the comparison is false, and the result is NaN.
    if (A == RELU) return z < Number(0) ? Number(0) : z;
    if (A == SIGMOID) return logistic(z, t);
    if (A == TANH) return tanh(z);
    if (A == SCALED_TANH) return scale * tanh(slope * z);
    return z;
}

// f'(z), as a function of y = f(z): 0 if y was rounded to a limit of f
template <int A, typename Number>
__device__ __forceinline__ Number derivative(Number y) {
    const Number one = Number(1), scale = Number(1.7159);
    if (A == RELU) return y > Number(0) ? one : Number(0);
    if (A == SIGMOID) return y * (one - y);
    if (A == TANH) return (one - y) * (one + y);
    if (A == SCALED_TANH) return Number((2.0 / 3.0) / 1.7159) * (scale - y) * (scale + y);
    return one;
}
