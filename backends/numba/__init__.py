"""The backend of the CPU with kernels that Numba compiles."""
