"""How projected features meet the LLM: at token level or inside its layers."""

from sensorium.core.tables import NameTable

FUSIONS = NameTable(
    "fusion",
    {
        "splice": "sensorium.fusion.splice:SpliceConfig",
        "gated_cross_attention": (
            "sensorium.fusion.gated_cross_attention:GatedCrossAttentionConfig"
        ),
        "match": "sensorium.fusion.match:MatchConfig",
        "query_match": "sensorium.fusion.query_match:QueryMatchConfig",
        "cross_attention": "sensorium.fusion.cross_attention:CrossAttentionConfig",
        "apart": "sensorium.fusion.apart:ApartConfig",
        "visual_prompt": "sensorium.fusion.visual_prompt:VisualPromptConfig",
        "visual_expert": "sensorium.fusion.visual_expert:VisualExpertConfig",
        "visual_expert_detail": (
            "sensorium.fusion.visual_expert_detail:VisualExpertDetailConfig"
        ),
    },
)
