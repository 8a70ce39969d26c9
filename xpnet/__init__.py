"""xpnet: convolutional networks on plain arrays."""
