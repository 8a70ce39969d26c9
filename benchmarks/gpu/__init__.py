"""The benchmarks on a GPU: `python -m benchmarks gpu`; see docs/performance.md."""
