"""The backend of the CPU with NumPy."""
