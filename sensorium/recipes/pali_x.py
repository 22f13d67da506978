"""PaLI-X (Chen et al., arXiv:2305.18565): ViT-22B, its patches in front of the text of an encoder-decoder of
32B; pictures grow from stage to stage.

Sources: the paper, section 3; ViT-22B (arXiv:2302.05442), table 1; UL2 (arXiv:2205.05131) and its config.json.
No weights and no code were published.
"""

from __future__ import annotations

from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.encoders.vit_22b import Vit22bConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.pali_x_stages import DIFFERS, FINE, FIRST, MISSING, pali_x_stage
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe

# UL2-20B's, of which it is a variant, with 50 layers on each side in place of 32.
UL2_32B = {
    "model_type": "t5", "vocab_size": 250112, "d_model": 4096, "d_kv": 256, "d_ff": 16384, "num_layers": 50,
    "num_decoder_layers": 50, "num_heads": 16, "feed_forward_proj": "gated-silu", "dropout_rate": 0.0,
    "tie_word_embeddings": False, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


def pali_x() -> Recipe:
    """Many tasks at 224 pixels, then reading and finding things at 448, 672 and 756."""
    lane = LaneConfig(
        encoder=Vit22bConfig(image_size_px=756),
        projector=LinearConfig(),
        resolution=FixedResolution(fit="stretch"),
    )
    return Recipe(
        name="pali-x",
        description="I+T→T: ViT-22B/756, linear, encoder-decoder of 32B",
        published=Published(paper="2305.18565", second="of parts alone (test_vit_22b.py)", missing=MISSING, differs=DIFFERS),
        model=ModelConfig(
            lanes={"image": lane},
            backbone=Seq2SeqLMConfig(arch=dict(UL2_32B)),
            template="seq2seq",
        ),
        stages=(
            pali_x_stage("mix", FIRST, 224),
            *(pali_x_stage(f"fine_{size_px}", FINE, size_px) for size_px in (448, 672, 756)),
        ),
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(pali_x(), lr=3e-3)
