"""Benchmarks against PyTorch: `python -m benchmarks cpu` and `python -m benchmarks gpu`; see
docs/performance.md."""
