"""Changes to trained networks: folded batch norms, population statistics."""
