"""Generators: a condition, or picture tokens -> pictures, sound, video."""

from sensorium.core.tables import NameTable

GENERATORS = NameTable(
    "generator",
    {
        "sam": "sensorium.generators.sam:SamConfig",
        "cutter": "sensorium.generators.cutter:CutterConfig",
        "stable_diffusion": "sensorium.generators.stable_diffusion:StableDiffusionConfig",
        "instruct_pix2pix": "sensorium.generators.instruct_pix2pix:InstructPix2PixConfig",
        "unclip": "sensorium.generators.unclip:UnclipConfig",
        "sdxl": "sensorium.generators.sdxl:SdxlConfig",
        "text_to_video": "sensorium.generators.text_to_video:TextToVideoConfig",
        "audioldm": "sensorium.generators.audioldm:AudioLdmConfig",
        "audioldm2": "sensorium.generators.audioldm2:AudioLdm2Config",
        "text_route": "sensorium.generators.text_route:TextRouteConfig",
        "vits": "sensorium.generators.vits:VitsConfig",
        "speecht5": "sensorium.generators.speecht5:SpeechT5Config",
        "piper": "sensorium.generators.piper:PiperConfig",
        "espeak": "sensorium.generators.espeak:EspeakConfig",
        "small_diffusion": "sensorium.generators.small_diffusion:SmallDiffusionConfig",
        "drawer": "sensorium.generators.drawer:DrawerConfig",
        "retrieval_index": "sensorium.generators.found_pictures:RetrievalIndexConfig",
    },
)

PICTURE_TOKENIZERS = NameTable(
    "picture tokenizer",
    {
        "vq": "sensorium.generators.vq:VqConfig",
        "chameleon_vq": "sensorium.generators.chameleon_vq:ChameleonVqConfig",
        "emu3_vq": "sensorium.generators.emu3_vq:Emu3VqConfig",
        "seed": "sensorium.generators.seed:SeedConfig",
        "janus_vq": "sensorium.generators.janus_vq:JanusVqConfig",
    },
)
