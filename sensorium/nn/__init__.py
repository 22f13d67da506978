"""Layers that several parts share, one concept per file."""
