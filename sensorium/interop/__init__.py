"""Foreign checkpoints in and out, and where weights come from."""
