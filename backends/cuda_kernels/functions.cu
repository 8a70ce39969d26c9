// The activations of activations.py, for every kernel that ends or begins with one. `Number` is float or double, and a
// NaN goes through every one of them. The activation is a template argument: what is not asked for costs nothing.

enum Activation { NONE, RELU, SIGMOID, TANH, SCALED_TANH };

// y = f(z)
template <int A, typename Number>
__device__ __forceinline__ Number activate(Number z) {
    const Number half = Number(0.5), scale = Number(1.7159), slope = Number(2.0 / 3.0);
    if (A == RELU) return z < Number(0) ? Number(0) : z;                // no comparison with a NaN is true
    if (A == SIGMOID) return half * tanh(half * z) + half;              // tanh cannot overflow, exp(-z) can
    if (A == TANH) return tanh(z);
    if (A == SCALED_TANH) return scale * tanh(slope * z);
    return z;
}

// f'(z), as a function of y = f(z)
template <int A, typename Number>
__device__ __forceinline__ Number derivative(Number y) {
    const Number one = Number(1), scale = Number(1.7159), slope = Number(2.0 / 3.0);
    if (A == RELU) return y > Number(0) ? one : Number(0);
    if (A == SIGMOID) return y * (one - y);
    if (A == TANH) return one - y * y;
    if (A == SCALED_TANH) return scale * slope - Number((2.0 / 3.0) / 1.7159) * y * y;
    return one;
}
