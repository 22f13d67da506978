"""SEED-LLaMA-8B (Ge et al., arXiv:2310.01218): Vicuna-7B that reads and writes pictures as 32 causal codes each.

Source: github.com/AILab-CVC/SEED, MultiModalLLM/configs and scripts. Its tokenizer: recipe `seed-queries`, then `sensorium tokenizer train`."""

from __future__ import annotations

from sensorium.core.hands import Drawing
from sensorium.core.video import VideoConfig
from sensorium.core.weights import FileSource
from sensorium.generators.seed import SeedConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.model.picture_words import PictureWordsConfig
from sensorium.recipes.emu_parts import both_ways, with_tokens
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

MARKS, WHOLE, DRAWING = ("<img>", "</img>"), FixedResolution(fit="stretch"), Drawing(top_p=0.5)
CODES = SeedConfig(weights=(FileSource(path="weights/seed_quantizer.pt", format="seed"),))
ADAPTED = LoraConfig(rank=16, alpha=32.0, dropout=0.05)
CHATS = {"mimicit": 0.15, "vist": 0.08, "edits": 0.5, "llava": 0.15, "svit": 0.2, "vqav2": 0.2, "okvqa_vizwiz_aokvqa": 0.1, "visdial": 0.15, "coco": 0.2,
         "msrvtt_msvd": 0.1, "nextqa_activitynet": 0.15, "video_chatgpt": 0.2, "llava_cc3m_lrv": 0.4, "journeydb": 0.5, "laion_aesthetic": 0.5,
         "textcaps_textvqa_ocrvqa": 0.1, "llavar": 0.08, "vsr": 0.05}
DOCUMENTS = {"mmc4": 2.0, "obelics": 1.0, "webvid_10m": 0.5, "wikipedia": 1.0}


def stage(name: str, steps: int, lr: float, warmup: float, last: float) -> StageConfig:
    reads = name == "pretrain"
    pairs = tuple(one.model_copy(update={"weight": w}) for one, w in zip(both_ways("cc3m_coco", "laion_coco"), (0.5, 5.0), strict=True))
    full = (Learn(part="backbone", lr=lr, weight_decay=0.05, layers=("embed_tokens", "lm_head", "*norm*")),) if reads else ()
    return StageConfig(
        name=name, objective=CaptionConfig(layout="document") if reads else InstructConfig(),
        data=(*pairs, *mixed(DOCUMENTS, "samples", suffix=".jsonl")) if reads else mixed(CHATS, "samples", suffix=".jsonl"),
        learns=(Learn(part="adapter", lr=lr, weight_decay=0.05), *full), steps=steps, batch_size=512 if reads else 128, max_length=1024,
        betas=(0.9, 0.95), precision="bf16", schedule=ScheduleConfig(warmup_ratio=warmup, final_ratio=last),
    )  # fmt: skip


def seed_llama() -> Recipe:
    words = PictureWordsConfig(tokenizer=CODES, words=((32002, CODES.codes),), begin=MARKS[:1], end=MARKS[1:], resolution=WHOLE, interpolation="bilinear", drawing=DRAWING)
    plain = with_tokens(llama("7b", "lmsys/vicuna-7b-v1.1", vocab_size=32000 + CODES.codes), *MARKS)
    return Recipe(
        name="seed-llama",
        description="I+T→T+I: EVA-CLIP-g, causal Q-Former and 8,192 codes, Vicuna-7B that writes 32 of them, unCLIP",
        published=Published(
            paper="2310.01218", second="second writing (test_seed_file.py)",
            differs=("sets of instructions that share a weight share a file, and their videos have four frames, as WebVid's; batches are of one device",
                     "marks of pictures are words in front of the codes (released: behind); the adapter is not merged between the stages"),
        ),
        model=ModelConfig(backbone=plain, picture_words=words, template="seed_llama", adapter=ADAPTED, video=VideoConfig(frames=4, pick="middles")),
        stages=(stage("pretrain", 30_000, 1.5e-4, 0.03, 0.05), stage("instruct", 50_000, 1e-4, 0.07, 0.1)),
    )


def tiny() -> Recipe:
    return shrink(seed_llama())
