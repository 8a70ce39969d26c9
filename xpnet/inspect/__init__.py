"""Looking at networks: a table of layers, a memory report."""
