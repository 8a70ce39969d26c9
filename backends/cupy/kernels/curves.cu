// The activations of activations.py that are not fused into other kernels. The number f chooses one
// at run time; all threads take the same branch. Lost digits, overflows and NaNs are avoided as in
// activations.py; p and q are the constants of an activation. The two functions at the end are not
// inlined: every kernel would contain their code many times. The numbers f follow from the order of
// the cases below (launch.curves).

#define SELU_SCALE Number(1.0507009873554805)
#define SELU_ALPHA Number(1.6732632423543772)
#define FAR Number(1e4)

// With comparisons, because fmin and fmax would drop a NaN.
template <typename Number>
__device__ __forceinline__ Number at_least(Number z, Number low) { return z < low ? low : z; }

template <typename Number>
__device__ __forceinline__ Number between(Number z, Number low, Number high) {
    return z < low ? low : z > high ? high : z;
}

// log(1 + exp(k z)) / k
template <typename Number>
__device__ __forceinline__ Number softplus(Number z, Number k) {
    return at_least(z, Number(0)) + log1p(exp(-k * fabs(z))) / k;
}

// s + change s (1 - s) for s = logistic(u): the derivative of z logistic(u), where `change` is z du
template <typename Number>
__device__ __forceinline__ Number gated_derivative(Number u, Number change) {
    Number t;
    const Number s = logistic(u, t), one = Number(1);
    return s + change * t / ((one + t) * (one + t));
}

// u of the tanh form of GELU, which is z logistic(u), and du
template <typename Number>
__device__ __forceinline__ Number bend(Number z, Number& du) {
    const Number a = Number(1.5957691216057308);                        // 2 sqrt(2 / pi)
    z = between(z, -FAR, FAR);
    du = a * (Number(1) + Number(0.134145) * z * z);
    return a * (z + Number(0.044715) * z * z * z);
}

// tanh(log(1 + exp(z))) and its derivative, rational in t = exp(-|z|)
template <typename Number>
__device__ __forceinline__ Number mish_weight(Number z, Number& derivative) {
    const Number t = exp(-fabs(z)), one = Number(1), two = Number(2);
    const Number above = z < Number(0) ? t * (t + two) : one + two * t;
    const Number below = z < Number(0) ? above + two : above + two * t * t;
    derivative = Number(4) * t * (one + t) * (z < Number(0) ? one : t) / (below * below);
    return above / below;
}

template <typename Number>
__device__ __forceinline__ Number softsign(Number z) {
    z = between(z, Number(-9007199254740992.0), Number(9007199254740992.0));
    return z / (Number(1) + fabs(z));
}

template <typename Number>
__device__ __forceinline__ Number softsign_derivative(Number z) {
    const Number r = Number(1) / (Number(1) + fabs(z));
    return r * r;
}

// z - tanh(z); near 0, where digits cancel, z w / (1 + w): tanh(z) = z / (1 + w),
// w = z^2 / (3 + z^2 / (5 + ...))
template <typename Number>
__device__ __forceinline__ Number tanhshrink(Number z) {
    const Number square = z * z;
    Number w = Number(0);
    for (int odd = 17; odd > 1; odd -= 2) w = square / (Number(odd) + w);
    return fabs(z) < Number(1) ? z * w / (Number(1) + w) : z - tanh(z);
}

template <typename Number>
__device__ __forceinline__ Number gauss(Number z) {
    z = between(z, Number(-100), Number(100));
    return exp(-z * z);
}

// y = f(z)
template <typename Number>
__device__ __noinline__ Number curve(int f, Number z, Number p, Number q) {
    const Number zero = Number(0), half = Number(0.5), one = Number(1);
    const bool positive = z > zero;
    const Number cut = at_least(z, Number(-1e30)), near = between(z, Number(-1e30), Number(1e30)),
                 below = z > zero ? zero : z;
    Number t, du;
    switch (f) {
        case LINEAR: return z;
        case LOGISTIC: return logistic(z, t);
        case LOGGY: return tanh(half * z);
        case ELU: return positive ? z : p * expm1(below);
        case SELU: return SELU_SCALE * (positive ? z : SELU_ALPHA * expm1(below));
        case CELU: return positive ? z : p * expm1(below / p);
        case RELIE: return positive ? z : Number(0.01) * z;
        case RAMP: return positive ? Number(1.1) * z : Number(0.1) * z;
        case LEAKY_RELU: return positive ? z : p * z;
        case ABS: return fabs(z);
        case PLSE:
            return z < Number(-4) ? Number(0.01) * (z + Number(4))
                 : z > Number(4) ? Number(0.01) * (z - Number(4)) + one : Number(0.125) * z + half;
        case STAIR: {
            const Number m = floor(half * z);
            return isinf(z) ? z : at_least(z - (m + one), m);
        }
        case HARDTANH: return between(z, p, q);
        case LHTAN:
            return z < zero ? Number(0.001) * z : z > one ? Number(0.001) * (z - one) + one : z;
        case RELU6: return between(z, zero, p);
        // Not p z + q, which as a fused operation is not exactly 0 at the end of the slope.
        case HARD_SIGMOID: return between(p * (z + q / p), zero, one);
        case HARD_SWISH:
            return at_least(z, Number(-3)) * (between(z + Number(3), zero, Number(6)) / Number(6));
        case SOFTPLUS: return softplus(z, p);
        case LOG_SIGMOID: return -softplus(-z, one);
        case SMOOTH_ABS: {
            const Number u = half * p * fabs(z), s = sinh(half * (u < one ? u : one)),
                         twice = Number(2) / p;
            return u < one ? twice * log1p(Number(2) * s * s)
                 : fabs(z) + twice * log1p(half * expm1(Number(-2) * u));
        }
        case SOFTSIGN: return softsign(z);
        case SYMMELLIOT: return softsign(p * z);
        case ELLIOT: {
            const Number part = half / (one + fabs(p * z));
            return z < zero ? part : one - part;
        }
        case ARCTAN: return atan(z);
        case SILU: return cut * logistic(z, t);
        case SWISH: return (p * near < zero ? near : z) * logistic(p * near, t);
        case GELU: return cut * (half * erfc(Number(-0.7071067811865476) * z));
        case GELU_TANH: return cut * logistic(bend(z, du), t);
        case MISH: return cut * mish_weight(z, t);
        case SOFTSHRINK: return z - between(z, -p, p);
        case HARDSHRINK: return fabs(z) <= p ? zero : z;
        case THRESHOLDED_RELU: return z <= p ? zero : z;
        case TANHSHRINK: return tanhshrink(z);
        case STEP: return ceil(between(z, zero, one));
        case GAUSSIAN: return gauss(z);
        default: return z;
    }
}

// f'(z); `kept` is y = f(z), or z if the derivative is a function of z
template <typename Number>
__device__ __noinline__ Number curve_derivative(int f, Number kept, Number p, Number q) {
    const Number zero = Number(0), half = Number(0.5), one = Number(1);
    const Number y = kept, z = kept, near = between(z, -FAR, FAR), below = z > zero ? zero : z;
    const bool positive = kept > zero;
    switch (f) {
        case LOGISTIC: return y * (one - y);
        case LOGGY: {
            const Number t = exp(-fabs(z));
            return Number(2) * t / ((one + t) * (one + t));
        }
        case ELU: return positive ? one : p * exp(below);
        case SELU: return SELU_SCALE * (positive ? one : SELU_ALPHA * exp(below));
        case CELU: return exp(below / p);
        case RELIE: return positive ? one : Number(0.01);
        case RAMP: return positive ? Number(1.1) : Number(0.1);
        case LEAKY_RELU: return positive ? one : p;
        case ABS: return positive ? one : z < zero ? -one : z;          // 0, or NaN
        case PLSE: return fabs(z) > Number(4) ? Number(0.01) : Number(0.125);
        case STAIR: return y != floor(y) ? one : zero;
        case HARDTANH: return y > p && y < q ? one : zero;
        case LHTAN: return positive && z < one ? one : Number(0.001);
        case RELU6: return positive && y < p ? one : zero;
        case HARD_SIGMOID: return positive && y < one ? p : zero;
        case HARD_SWISH:
            return z <= Number(-3) ? zero
                 : z >= Number(3) ? one : (Number(2) * z + Number(3)) / Number(6);
        case SOFTPLUS: return -expm1(-p * y);
        case LOG_SIGMOID: return -expm1(y);
        case SMOOTH_ABS: return tanh(half * p * z);
        case SOFTSIGN: return softsign_derivative(z);
        case SYMMELLIOT: return p * softsign_derivative(p * z);
        case ELLIOT: return half * p * softsign_derivative(p * z);
        case ARCTAN: {
            const Number r = one / hypot(z, one);
            return r * r;
        }
        case SILU: return gated_derivative(near, near);
        case SWISH: {
            const Number u = between(p * between(z, Number(-1e30), Number(1e30)), -FAR, FAR);
            return gated_derivative(u, u);
        }
        case GELU:
            return half * erfc(Number(-0.7071067811865476) * z)
                 + near * exp(-half * near * near) * Number(0.3989422804014327);
        case GELU_TANH: {
            Number du;
            const Number u = bend(z, du);
            return gated_derivative(u, near * du);
        }
        case MISH: {
            Number dw;
            const Number w = mish_weight(z, dw);
            return w + near * dw;
        }
        case SOFTSHRINK: case HARDSHRINK: return y != zero ? one : zero;
        case THRESHOLDED_RELU: return positive ? one : zero;
        case TANHSHRINK: return tanh(z) * tanh(z);
        case STEP: return zero;
        case GAUSSIAN: return Number(-2) * near * gauss(z);
        default: return one;
    }
}
