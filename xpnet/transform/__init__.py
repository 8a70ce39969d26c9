"""New networks from old ones: batch norms folded, statistics of a data set."""
