"""Input projectors: encoder features -> tokens of LLM width."""

from sensorium.core.tables import NameTable

INPUT_PROJECTORS = NameTable(
    "input projector",
    {
        "linear": "sensorium.input_projectors.linear:LinearConfig",
        "mlp": "sensorium.input_projectors.mlp:MlpConfig",
        "pixel_shuffle": "sensorium.input_projectors.pixel_shuffle:PixelShuffleConfig",
        "patch_merger": "sensorium.input_projectors.patch_merger:PatchMergerConfig",
        "group_concat": "sensorium.input_projectors.group_concat:GroupConcatConfig",
        "glu": "sensorium.input_projectors.glu:GluConfig",
        "avg_pool": "sensorium.input_projectors.avg_pool:AvgPoolConfig",
        "perceiver": "sensorium.input_projectors.perceiver:PerceiverConfig",
        "latent_query": "sensorium.input_projectors.latent_query:LatentQueryConfig",
        "position_aware": "sensorium.input_projectors.position_aware:PositionAwareConfig",
        "abstractor": "sensorium.input_projectors.abstractor:AbstractorConfig",
        "c_abstractor": "sensorium.input_projectors.c_abstractor:CAbstractorConfig",
        "cformer": "sensorium.input_projectors.cformer:CFormerConfig",
        "query_vit": "sensorium.input_projectors.query_vit:QueryVitConfig",
        "grouping": "sensorium.input_projectors.grouping:GroupingConfig",
        "qformer": "sensorium.input_projectors.qformer:QFormerConfig",
    },
)
