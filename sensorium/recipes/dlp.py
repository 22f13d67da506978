"""DLP (Jian et al., arXiv:2307.07063): BLIP-2 whose Q-Former is drawn to what a P-Former, taught by
sentences alone, makes of the captions.

Source: github.com/yiren-jian/BLIText, lavis/projects/blip-T/train/pretrain_stage{1,2}.yaml;
training_logs/BLIP-T/training_stage0.txt, which is all there is of the first stage's settings. The authors' P-Former
(`pformer.pth`, imported) may teach in place of ours: `teacher_folder` of the two objectives `aligned`.
"""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.blip2_opt import blip2_opt
from sensorium.recipes.blip2_parts import lavis_stage
from sensorium.recipes.blip2_represent import DIFFERS, LR, represent, seeing
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.aligned import AlignedConfig
from sensorium.training.objectives.next_token import CaptionConfig
from sensorium.training.objectives.query_pretrain import QueryPretrainConfig
from sensorium.training.objectives.sentences import SentencesConfig

SETS = ("coco", "visual_genome", "cc3m", "sbu")


def dlp() -> Recipe:
    """Sentences teach the P-Former; it teaches the Q-Former in both of BLIP-2's stages."""
    base, data = blip2_opt(), mixed(dict.fromkeys(SETS), "webdataset")
    teacher = (Learn(part="objective", lr=LR, weight_decay=0.05),)
    aligned = AlignedConfig(objective=QueryPretrainConfig(), weight=10)
    speaking = AlignedConfig(objective=CaptionConfig(layout="caption_behind"), weight=100)
    settings = {"steps": None, "epochs": 10, "final_ratio": 0.1, "betas": (0.9, 0.999)}
    seen = {**settings, "batch_size": 1024}  # 128 on each of eight GPUs.
    stage = represent(data, aligned, warmup_steps=5000, **seen)
    (*eyes, own) = stage.learns
    inner = own.model_copy(update={"module": "inner"})
    published = Published(
        paper="2307.07063", oracle="Blip2ForConditionalGeneration",
        differs=(*DIFFERS[:1], "the P-Former begins at random, not as BERT-base", DIFFERS[1],
                 "pictures are squeezed to a square, not cropped at random",
                 "gradients are clipped at a norm of 1",
                 "the loss does not count OPT's </s> in front of a text"),
    )  # fmt: skip
    return base.model_copy(update={
        "name": "dlp", "published": published,
        "description": "I+T→T: BLIP-2 with OPT-2.7B, aligned to a P-Former's prompts",
        "stages": (
            lavis_stage("sentences", SentencesConfig(), mixed({"laion_sentences": None}, "samples", suffix=".jsonl"),
                        teacher, batch_size=384,  # 128 on each of three GPUs.
                        max_length=64, warmup_steps=2000, **(settings | {"epochs": 5})),
            stage.model_copy(update={"learns": (*eyes, inner)}),
            lavis_stage("generate", speaking, data, seeing(), max_length=64, warmup_steps=2000, **seen),
        ),
    })  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(dlp())
