"""Output projectors: hidden states of signal tokens -> what a generator is steered by."""

from sensorium.core.tables import NameTable

OUTPUT_PROJECTORS = NameTable(
    "output projector",
    {
        "mapper": "sensorium.output_projectors.mapper:MapperConfig",
        "encoder_decoder": "sensorium.output_projectors.encoder_decoder:EncoderDecoderConfig",
        "regression": "sensorium.output_projectors.regression:RegressionConfig",
        "retrieval": "sensorium.output_projectors.retrieval:RetrievalConfig",
        "mask_prompt": "sensorium.output_projectors.mask_prompt:MaskPromptConfig",
    },
)
