"""Loops that Numba compiles for the CPU, one subject per file. They take arrays and numbers;
base.py says what these mean.
"""
