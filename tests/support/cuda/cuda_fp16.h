// Stands in for CUDA's header when g++ compiles the kernels (tests only): the kernels' own #include <cuda_fp16.h> finds
// this file first, so their text is compiled as it is. __half is the compiler's own 16-bit float, which rounds as the
// GPU does; arithmetic is left out, because the kernels do theirs in float.
#pragma once
#ifndef __FLT16_MAX__
#error "the CUDA shim needs a compiler with _Float16: g++ 12 or newer on x86-64, or any recent one on ARM"
#endif
#include "cuda_shim.h"
#include "ptx_shim.h"

struct __half {
    _Float16 value;
    __half() = default;
    explicit __half(float v) : value((_Float16)v) {}
    explicit __half(double v) : value((_Float16)v) {}
    explicit __half(int v) : value((_Float16)v) {}
    explicit operator float() const { return (float)value; }
};

namespace shim {
template <> inline std::string code<__half>() { return "f2"; }
}  // namespace shim
