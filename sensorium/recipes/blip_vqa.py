"""BLIP that answers questions (Li et al., arXiv:2201.12086), tuned on VQA v2 and Visual Genome.

Sources: the paper, section 5; github.com/salesforce/BLIP, configs/vqa.yaml, models/blip_vqa.py and
README.md.
"""

from __future__ import annotations

from sensorium.backbones.cross_seq2seq import CrossSeq2SeqConfig
from sensorium.data.config import FileSource
from sensorium.recipes.blip_parts import DIFFERS, MARKS, SMOOTHING, seeing, text, tune
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import InstructConfig

# What Visual Genome's only answers weigh beside the shares of VQA v2's ten.
SETS = {"vqa_train": 1.0, "vqa_val": 1.0, "vg_qa": 0.2}


def blip_vqa() -> Recipe:
    """One BERT reads the question over the picture, another writes the answer; 16 questions on each of
    16 GPUs."""
    data = tuple(FileSource(path=f"data/{name}.jsonl", media_root="data", loss_weight=weight)
                 for name, weight in SETS.items())  # fmt: skip
    return Recipe(
        name="blip-vqa",
        description="I+T→T: ViT-B/16 at 480 pixels, BERT encoder over picture and question, BERT decoder",
        published=Published(
            paper="2201.12086",
            oracle="BlipForQuestionAnswering",
            differs=(*DIFFERS, "questions keep their punctuation",
                     "`--rank 128` compares plain likelihoods, the original its smoothed losses (`Ranking.smoothing`)",
                     "questions begin with [ENC], in imported checkpoints with [CLS]"),
        ),
        model=seeing(480, CrossSeq2SeqConfig(**text(MARKS[1])), "blip_vqa"),
        stages=(tune("vqa", InstructConfig(smoothing=SMOOTHING), data, lr=2e-5,
                     epochs=10, batch_size=256, max_length=64, loss_per="question"),),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(blip_vqa())
