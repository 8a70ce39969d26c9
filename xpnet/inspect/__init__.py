"""Inspecting networks: the table of layers and the memory report."""
