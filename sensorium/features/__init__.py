"""The feature store: outputs of frozen encoders, computed once and kept on disk."""
