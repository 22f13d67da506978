"""Metrics, one concept per file."""
