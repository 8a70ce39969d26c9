"""Weights of PyTorch and Keras in networks of the same architecture.

pickled.py and tensors.py read files without running their code, layouts.py has the names and shapes
that layers have elsewhere, and matching.py finds which arrays belong together.
"""
