"""MiniGPT-5's checkpoints: of MiniGPT-4's names and its own what learns, in a file of Lightning.

`stage1_cc3m.ckpt` holds both tables of words and the way to Stable Diffusion; `stage2_vist.ckpt` low-rank matrices, the
tables again and the transformer of that way: it lies over the first one. What sees is MiniGPT-4's: the map (`prerained_minigpt4_7b.pth`),
the Q-Former of a BLIP-2 before Flan-T5-XXL, and `eva_vit_g.pth`; the LLM is Vicuna v0. All but LLM and tower are named with
`--with`, earlier ones first. Alpha of the low-rank matrices and the transformer's heads are in the code alone.

Source: github.com/eric-ai-lab/MiniGPT-5, model.py (`MiniGPT5_Model`, `on_save_checkpoint`), minigpt4/models/mini_gpt5.py, constants.py,
config/minigpt4.yaml, examples/playground.py; github.com/huggingface/peft 0.10 (`ModulesToSaveWrapper`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sensorium.core.weights import HubSource
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.interop.key_map import KeyMap
from sensorium.interop.originals.base import Beside, Found, count, need
from sensorium.interop.originals.lavis import Lavis
from sensorium.interop.originals.words import words_of
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import LORA_MARK
from sensorium.output_projectors.encoder_decoder import EncoderDecoderConfig

MODEL, PEFT, KEPT = "model.", "llama_model.base_model.model.", ".modules_to_save.default."
TRANSFORMER, QUERIES, SEES = "llm_to_t2i_mapping.", "t2i_decoder_prompt", "llama_proj.weight"
TABLES = ("llama_model.model.embed_tokens.weight", "llama_model.lm_head.weight")
ALPHA, HEADS = 16.0, 8
IMG = tuple(f"[IMG{i}]" for i in range(8))
WORDS = ((*IMG, "<ImageHere>"),)


class MiniGpt5(Lavis):
    """MiniGPT-4 with eight words behind which Stable Diffusion 2.1 draws."""

    def fits(self, names: Collection[str]) -> bool:
        return any(name.startswith(TRANSFORMER) for name in names)

    def canonical(self, name: str) -> str:
        name = name.removeprefix(MODEL)
        if name.startswith(PEFT):
            name = name.replace(PEFT, "llama_model.", 1)
        return name.replace(KEPT, ".")

    def gather(self, found: Found, beside: Beside) -> Found:
        gathered = super().gather(found, beside)
        rank = next((len(v) for k, v in gathered.tensors.items() if f"{LORA_MARK}A." in k), None)
        return replace(gathered, config={}, lora=LoraConfig(rank=rank, alpha=ALPHA) if rank else None)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        queries = need(found.tensors, QUERIES, found.path, "name the first stage's checkpoint, stage1_cc3m.ckpt, with --with")
        need(found.tensors, SEES, found.path, "name MiniGPT-4's checkpoint, prerained_minigpt4_7b.pth, with --with")
        seeing = super().model(found, beside)
        rows, added = words_of(found, beside, TABLES, WORDS)
        arch = {**seeing.backbone.to_dict()["arch"], "vocab_size": rows}
        _, length, width = queries.shape
        inner = need(found.tensors, f"{TRANSFORMER}encoder.layers.0.linear1.weight", found.path, "take a checkpoint with the whole transformer")
        projector = EncoderDecoderConfig(layers=count(found.tensors, f"{TRANSFORMER}encoder.layers."), heads=HEADS, mlp_factor=len(inner) // width)
        generator = StableDiffusionConfig(length=length, width=width, weights=(HubSource(id="stabilityai/stable-diffusion-2-1-base"),))
        hand = HandConfig(signals=IMG, projector=projector, generator=generator)
        backbone = seeing.backbone.model_copy(update={"arch": arch, "added_tokens": added})
        lane = seeing.lane("image")
        # What it sees is cut, where MiniGPT-4 squeezes.
        encoder = lane.encoder.model_copy(update={"interpolation": "bilinear"})
        cut = lane.model_copy(update={"encoder": encoder, "resolution": FixedResolution(fit="middle")})
        return seeing.model_copy(update={"lanes": {"image": cut}, "backbone": backbone, "hands": {"image": hand}})

    def key_map(self, names: Collection[str]) -> KeyMap:
        # A file of its own may be without the map that says what the language model is called.
        seeing, draws = super().key_map({*names, SEES}), PROJECTOR_KEYS["minigpt5"].behind("", "hands.image.")
        return replace(seeing, rules=(*seeing.rules, *draws.rules), splits=(*seeing.splits, *draws.splits))
