"""The multimodal model: parts assembled, what learns, saving and loading."""
