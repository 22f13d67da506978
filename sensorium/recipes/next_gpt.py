"""NExT-GPT (Wu et al., arXiv:2309.05519): ImageBind's eye and ear, Vicuna, and signal tokens to pictures, videos and sound.

Source: github.com/NExT-GPT/NExT-GPT, version 1 (code/ and NExT-GPT-Lagacy/): config/*.yaml, dsconfig/*.json,
model/anyToImageVideoAudio.py.
"""

from __future__ import annotations

from sensorium.input_projectors.linear import LinearConfig
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.recipes.next_gpt_parts import ADDED, HANDS, imagebind_lane, next_stage, rows
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.generate import GenerateConfig
from sensorium.training.objectives.next_token import InstructConfig

ENCODE = ("cc3m_enc", "webvid_enc", "audiocap_enc")
DECODE = ("cc3m_dec", "webvid_dec", "audiocap_dec")
TALK = ("image_instruction", "video_instruction", "audio_instruction", "llava_instruction", "alpaca_instruction")
MAPS = tuple(f"hands.{kind}" for kind in HANDS)


def next_gpt() -> Recipe:
    """The map into the LLM; then what reads signal tokens, by captions; then both and an adapter."""
    decode = next_stage("decode", GenerateConfig(), DECODE, 4e-4, *MAPS)
    vicuna = llama("7b", "Vision-CAIR/vicuna-7b", vocab_size=32000 + len(ADDED))
    return Recipe(
        name="next-gpt",
        description="I/V/A+T→T+I/V/A: ImageBind-huge as one token, Vicuna-7B, mappers to Stable Diffusion, Zeroscope, AudioLDM",
        published=Published(
            paper="2309.05519", second="second writing (test_next_gpt_losses.py)",
            differs=(
                "whether the added tokens' rows learn in the second stage depends on the original's version of transformers; here they do",
                "a medium's distance weighs as its signal tokens among all that are learned; the original adds means, and a video's twice",
                "no </Img> in front of captions without a picture; ### stands twice in front of a second question",
                "rows hold the instruction of the first stage, 'generate a caption', and the captions that answers repeat",
                "marks around videos and sound are added words, as in its first code; later versions have none (`import` reads both)",
                "Vicuna v0's vocabulary is taken to be LLaMA's 32,000",
                "frames of videos are rounded to bytes; sound is its first channel, of ten minutes at most",
            ),
        ),
        model=ModelConfig(
            lanes={"image": imagebind_lane(LinearConfig(), "middle")},
            backbone=vicuna.model_copy(update={"added_tokens": ADDED}),
            hands=HANDS,
            adapter=LoraConfig(rank=32, alpha=32.0, dropout=0.1, targets=("q_proj", "k_proj", "v_proj", "o_proj")),
            template="next_gpt",
        ),
        stages=(
            next_stage("encode", InstructConfig(), ENCODE, 4e-4, "projectors.image"),
            decode.model_copy(update={"learns": (*decode.learns, *rows(4e-4))}),
            next_stage("instruct", GenerateConfig(), TALK, 5e-4, "adapter", "projectors.image", *MAPS),
        ),
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(next_gpt(), steps=8)
