"""Training in stages: objectives, loop, checkpoints."""
