"""Samples -> Examples -> Batches, and token ids back to answers."""
