"""NExT-GPT 1.5 (Wu et al., arXiv:2309.05519, its code of October 2024): eight groups in front of Vicuna v1.5, signal tokens with spaces between.

Source: github.com/NExT-GPT/NExT-GPT, scripts/*.sh, train.py, nextgpt/dataset/ and nextgpt/model/: LLaVA's training code with more media."""

from __future__ import annotations

from sensorium.input_projectors.grouping import GroupingConfig
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.recipes.emu_parts import with_tokens
from sensorium.recipes.llava_stages import stage
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.next_gpt import DECODE, ENCODE, MAPS, TALK
from sensorium.recipes.next_gpt_parts import HANDS_15, NOISE_15, WORDS_15, imagebind_lane, rows
from sensorium.recipes.published_parts import vicuna_15
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.generate import GenerateConfig
from sensorium.training.objectives.next_token import InstructConfig

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROWS = {"max_length": 1024, "epochs": 1}


def next_gpt_15() -> Recipe:
    """The groups; then what reads signal tokens, by captions; then both, slowly, and an adapter."""
    decode = stage("decode", GenerateConfig(denoise=NOISE_15), mixed(dict.fromkeys(DECODE), "samples"), dict.fromkeys(MAPS, 2e-4), batch_size=2, **ROWS)
    rates = {"adapter": 2e-4, "projectors.image": 2e-5, **dict.fromkeys(MAPS, 2e-5)}
    return Recipe(
        name="next-gpt-1.5",
        description="I/V/A+T→T+I/V/A: ImageBind-huge, 64 and 8 learned groups, Vicuna-7B v1.5, mappers to SD 2, Zeroscope, AudioLDM",
        published=Published(
            paper="2309.05519", second="second writing (test_next_gpt_15.py)",
            differs=(
                "what learns is what the authors' page says; as published, the second script trains sound's mapper alone, and the third nothing",
                "both tables of words learn in the first two stages, and the next takes the first one's added rows; here the rows learn in the second",
                "states are read at an answer's tokens; the original forgets that a picture in the question became eight",
                "a medium's distance and its noise weigh as its tokens among all that are learned; the original adds means",
                "Stable Diffusion 2 foretells velocity, weighed picture by picture; the original wants noise of it, of latents not scaled, and multiplies two means",
                "noise is the second stage's: prepare_data.py gives the third's answers no media; MosIT's file was not seen",
                "of a longer video or sound the beginning is learned, from the first frame on (the original: a random part, its last frame black)",
                "videos' frames are rounded to bytes; sound is a first channel, at most ten minutes, and no layer of ImageBind's ear is left out at random",
                "pictures are padded with white (the original: the mean colour); rows are not grouped by length",
                "the token between two signals is taken to be ▁ (the original says that there is one)",
            ),
        ),
        model=ModelConfig(
            lanes={"image": imagebind_lane(GroupingConfig(), "letterbox")}, template="vicuna",
            backbone=with_tokens(vicuna_15("7b"), *WORDS_15), hands=HANDS_15,
            adapter=LoraConfig(rank=128, alpha=256.0, dropout=0.05, targets=LINEAR),
        ),
        stages=(
            stage("encode", InstructConfig(), mixed(dict.fromkeys(ENCODE), "samples"), {"projectors.image": 1e-3}, batch_size=8, **ROWS),
            decode.model_copy(update={"learns": (*decode.learns, *rows(2e-4, len(WORDS_15)))}),
            stage("instruct", GenerateConfig(), mixed(dict.fromkeys((*TALK, "videochat_instruction", "mosit_instruction")), "samples"), rates, batch_size=56, **ROWS),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    return shrink(next_gpt_15(), lr=2e-2, steps=5)
