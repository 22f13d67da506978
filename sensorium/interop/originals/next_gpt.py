"""NExT-GPT's checkpoint, version 1: what learns of it, `pytorch_model.pt`.

It lies over Vicuna (`--llm`) and `imagebind_huge.pth` (`--tower`), of which eye and ear are taken. Whether both tables of words are in it
depends on the version of transformers that it was trained with; a last stage without them lies over an earlier one (`--with`). The
first code that was published adds marks around videos and sound, later ones don't: the number of rows says which.
Alpha of the low-rank matrices and the mappers' heads are in the code alone.

Source: github.com/NExT-GPT/NExT-GPT, NExT-GPT-Lagacy/code/model/ (anyToImageVideoAudio.py, agent.py: `save_model`, `load_parameters`;
layers.py), config/base.yaml, config/stage_3.yaml; history of code/model/anyToImageVideoAudio.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.clips import FrameClips
from sensorium.core.errors import WeightsError
from sensorium.core.hands import MadeKind
from sensorium.core.weights import HubSource
from sensorium.encoders.imagebind import ImageBindConfig
from sensorium.encoders.imagebind_sound import SoundConfig
from sensorium.generators.audioldm import AudioLdmConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.generators.text_to_video import TextToVideoConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.interop.families.base import text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.originals.base import Beside, Found, count, llm_folder, need, read_json
from sensorium.interop.originals.mapper import mapper_of
from sensorium.interop.originals.words import words_of
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.interop.torch_file import read_checkpoint
from sensorium.interop.tower_files import IMAGEBIND, IMAGEBIND_SOUND, POST
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, LoraConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import LORA_MARK

LLM, PEFT, EYE = "llama_model.", "llama_model.base_model.model.", "visual_encoder."
TABLES = (f"{LLM}model.embed_tokens.weight", f"{LLM}lm_head.weight")
ALPHA, HEADS, SOUND_HEADS = 32.0, 16, 12
"""Constants of the code, of its low-rank matrices and of ImageBind."""
MAPPERS: Mapping[MadeKind, str] = {
    "image": "gen_text_hidden_fcs.0.", "video": "gen_text_hidden_fcs_video.0.", "audio": "gen_text_hidden_fcs_audio.0.",
}  # fmt: skip
IMG, VID, AUD = (tuple(f"[{name}{i}]" for i in range(number)) for name, number in (("IMG", 4), ("VID", 24), ("AUD", 8)))
SIGNALS: Mapping[MadeKind, tuple[str, ...]] = {"image": IMG, "video": VID, "audio": AUD}
WORDS = (("<Img>", "</Img>", *IMG, *VID, *AUD), ("<Img>", "</Img>", *IMG, "<Vid>", "</Vid>", *VID, "<Aud>", "</Aud>", *AUD))


class NextGpt:
    """ImageBind's pooled vector as one token of Vicuna, three mappers behind it."""

    def fits(self, names: Collection[str]) -> bool:
        return any(name.startswith(MAPPERS["video"]) for name in names)

    def canonical(self, name: str) -> str:
        return name.replace(PEFT, LLM, 1) if name.startswith(PEFT) else name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {EYE + k: v for k, v in imagebind_senses(beside.tower).items()} if beside.tower is not None else {}
        for part in (*(read_checkpoint(path) for path in beside.more), found.tensors):
            tensors |= {self.canonical(k): v for k, v in part.items()}
        rank = next((len(v) for k, v in tensors.items() if f"{LORA_MARK}A." in k), None)
        lora = LoraConfig(rank=rank, alpha=ALPHA) if rank else None
        return replace(found, config={}, tensors=tensors, lora=lora)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        encoder = imagebind_encoder(found, EYE)
        need(found.tensors, "llama_proj.weight", found.path, "take a checkpoint with the map to the LLM")
        rows, added = words_of(found, beside, TABLES, WORDS)
        arch = text_arch(read_json(llm_folder(beside, found.path) / "config.json")) | {"vocab_size": rows}
        return ModelConfig(
            lanes={"image": LaneConfig(encoder=encoder, projector=LinearConfig(), resolution=FixedResolution(fit="middle"))},
            backbone=CausalLMConfig(arch=arch, added_tokens=added),
            hands={kind: _hand(found, kind) for kind in MAPPERS}, template="next_gpt",
        )  # fmt: skip

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        return {"backbone": llm_folder(beside, found.path)}

    def key_map(self, names: Collection[str]) -> KeyMap:
        parts = [IMAGEBIND.behind(EYE, "encoders.image.tower."), IMAGEBIND_SOUND.behind(EYE, "encoders.image.sound."),
                 *(PROJECTOR_KEYS["next_gpt"].behind(before, f"hands.{kind}.") for kind, before in MAPPERS.items())]  # fmt: skip
        return KeyMap(
            rules=(Rule("llama_proj.*", "projectors.image.linear.*"), Rule(f"{LLM}*", "backbone.lm.*"), *(r for part in parts for r in part.rules)),
            splits=tuple(s for part in parts for s in part.splits),
        )


def imagebind_senses(file: Path) -> dict[str, Tensor]:
    """What sees and hears, of `imagebind_huge.pth`."""
    return {k: v for k, v in read_checkpoint(file).items() if is_sense(k)}


def is_sense(name: str) -> bool:
    """Whether a tensor of ImageBind sees or hears; by how much its own comparisons lengthen vectors, nothing here asks."""
    return (".vision." in name or ".audio." in name) and POST not in name


def imagebind_encoder(found: Found, before: str) -> ImageBindConfig:
    """The sizes of eye and ear; their names in the checkpoint begin so.

    Raises:
        WeightsError: it is not there.
    """
    fix = "name ImageBind's file, imagebind_huge.pth, with --tower"
    patches, places, joint, inner = (need(found.tensors, before + name, found.path, fix) for name in (
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight", "modality_preprocessors.vision.pos_embedding_helper.pos_embed",
        "modality_heads.vision.2.weight", "modality_trunks.vision.blocks.0.mlp.fc1.weight"))  # fmt: skip
    side = round((places.shape[1] - 1) ** 0.5)
    return ImageBindConfig(
        width=len(patches), layers=count(found.tensors, f"{before}modality_trunks.vision.blocks."), heads=HEADS, mlp_width=len(inner),
        image_size_px=side * patches.shape[-1], patch_size_px=patches.shape[-1], joint=len(joint), video=FrameClips(), audio=_ear(found, before),
    )  # fmt: skip


def _ear(found: Found, before: str) -> SoundConfig | None:
    """None where the file has none."""
    patches = found.tensors.get(f"{before}modality_preprocessors.audio.rgbt_stem.proj.weight")
    if patches is None:
        return None
    inner = need(found.tensors, f"{before}modality_trunks.audio.blocks.0.mlp.fc1.weight", found.path, "take the whole of imagebind_huge.pth")
    return SoundConfig(width=len(patches), layers=count(found.tensors, f"{before}modality_trunks.audio.blocks."), heads=SOUND_HEADS,
                       mlp_width=len(inner), patch=patches.shape[-1])  # fmt: skip


def _hand(found: Found, kind: MadeKind) -> HandConfig:
    mapper, length, width = mapper_of(found, MAPPERS[kind])
    if kind == "image":
        generator = StableDiffusionConfig(length=length, width=width, weights=(HubSource(id="stable-diffusion-v1-5/stable-diffusion-v1-5"),))
    elif kind == "video":
        generator = TextToVideoConfig(length=length, width=width, weights=(HubSource(id="cerspense/zeroscope_v2_576w"),))
    elif length == 1:
        generator = AudioLdmConfig(width=width, weights=(HubSource(id="cvssp/audioldm-l-full"),))
    else:
        raise WeightsError(f"{MAPPERS[kind]}query_embs has {length} rows", expected="1, as AudioLDM's condition", where=str(found.path))
    return HandConfig(signals=SIGNALS[kind], projector=mapper, generator=generator)
