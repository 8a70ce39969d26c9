"""Loops that Numba compiles for the CPU, one subject per file. Their arguments are arrays and
numbers, described in base.py."""
