"""Objectives: batch in, named losses out. They live outside the model."""

from sensorium.core.tables import NameTable

OBJECTIVES = NameTable(
    "objective",
    {
        "vocabulary": "sensorium.training.objectives.vocabulary:VocabularyConfig",
        "places": "sensorium.training.objectives.places:PlacesObjectiveConfig",
        "caption": "sensorium.training.objectives.next_token:CaptionConfig",
        "query_pretrain": "sensorium.training.objectives.query_pretrain:QueryPretrainConfig",
        "sentences": "sensorium.training.objectives.sentences:SentencesConfig",
        "aligned": "sensorium.training.objectives.aligned:AlignedConfig",
        "contrastive": "sensorium.training.objectives.contrastive:ContrastiveConfig",
        "matching": "sensorium.training.objectives.matching:MatchingConfig",
        "blip_pretrain": "sensorium.training.objectives.blip_pretrain:BlipPretrainConfig",
        "generate": "sensorium.training.objectives.generate:GenerateConfig",
        "diffuse": "sensorium.training.objectives.diffuse:DiffuseConfig",
        "regress": "sensorium.training.objectives.regress:RegressConfig",
        "redraw": "sensorium.training.objectives.redraw:RedrawConfig",
        "seek": "sensorium.training.objectives.seek:SeekConfig",
        "picture_codes": "sensorium.training.objectives.picture_codes:PictureCodesConfig",
        "picture_latents": "sensorium.training.objectives.picture_latents:PictureLatentsConfig",
        "draw": "sensorium.training.objectives.draw:DrawConfig",
        "mask": "sensorium.training.objectives.masks:MaskConfig",
        "cut": "sensorium.training.objectives.cut:CutConfig",
        "retrieve": "sensorium.training.objectives.retrieve:RetrieveConfig",
        "when": "sensorium.training.objectives.when:WhenConfig",
        "decide": "sensorium.training.objectives.decide:DecideConfig",
        "instruct": "sensorium.training.objectives.next_token:InstructConfig",
    },
)
