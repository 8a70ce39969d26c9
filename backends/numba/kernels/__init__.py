"""Loops compiled for the CPU by Numba, one subject per file. They take arrays and numbers; what
they mean stands in base.py."""
