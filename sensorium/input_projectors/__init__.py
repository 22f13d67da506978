"""Input projectors: encoder features -> tokens of LLM width."""

from sensorium.core.tables import NameTable

INPUT_PROJECTORS = NameTable(
    "input projector",
    {
        "linear": "sensorium.input_projectors.linear:LinearConfig",
        "mlp": "sensorium.input_projectors.mlp:MlpConfig",
        "pixel_shuffle": "sensorium.input_projectors.pixel_shuffle:PixelShuffleConfig",
        "avg_pool": "sensorium.input_projectors.avg_pool:AvgPoolConfig",
        "perceiver": "sensorium.input_projectors.perceiver:PerceiverConfig",
        "qformer": "sensorium.input_projectors.qformer:QFormerConfig",
    },
)
