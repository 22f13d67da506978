"""LISA beside a second writing of its forward pass: model/LISA.py's steps, and its tensors' names, over transformers' CLIP, LLaMA and SAM.

Shape legend: B rows, T tokens, D width, F features of a picture, N masks, C width of a prompt, H/W pixels, S side of SAM's square.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.batch import Batch
from sensorium.core.masks import Mask, read_mask
from sensorium.core.sample import parse_sample
from sensorium.core.weights import FolderSource
from sensorium.generators.sam import SamConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.key_map import KeyMap
from sensorium.interop.originals.llava_repository import PROJECTOR, TOWER, LlavaRepository
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.interop.sam_file import LISA, SAM
from sensorium.interop.saved import save_model
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import from_config
from sensorium.processing.collate import collate
from sensorium.processing.masks import mask_part
from sensorium.processing.processor import Processor
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives.masks import MaskConfig
from sensorium.training.objectives.next_token import next_token_losses

SIZES = ((40, 60), (31, 97))
"""Height and width of the pictures."""


def config() -> ModelConfig:
    """The recipe's tiny form without its adapter, which is merged when it answers."""
    model = TINY_FORMS.find("lisa")().model
    hand = model.hands["mask"].model_copy(update={"generator": SamConfig.tiny().model_copy(update={"decoder_norm_eps": 1e-5})})
    return model.model_copy(update={"adapter": None, "hands": {"mask": hand}})


class SecondLisa(nn.Module):
    """One row at a time, each with its picture in front."""

    def __init__(self, ours: MultimodalModel, seg: int) -> None:
        from transformers import CLIPVisionModel, LlamaForCausalLM, SamModel

        super().__init__()
        parts: Any = ours
        lm, tower = parts.backbone.lm.config, parts.encoders["image"].tower.config
        self.llm, self.clip = from_config(LlamaForCausalLM, lm, None).eval(), from_config(CLIPVisionModel, tower, None).eval()
        self.mm_projector = nn.Linear(tower.hidden_size, lm.hidden_size)
        self.fcs = nn.Sequential(nn.Linear(lm.hidden_size, lm.hidden_size), nn.ReLU(), nn.Linear(lm.hidden_size, 32))
        self.sam = from_config(SamModel, parts.config.hands["mask"].generator.native(), None).eval()
        self.seg = seg

    def named(self) -> dict[str, Tensor]:
        """All tensors by the names of LISA's checkpoint."""
        clip = {TOWER + name.removeprefix("vision_model."): value for name, value in self.clip.state_dict().items()}
        sam = {k: v for k, v in self.sam.state_dict().items() if "shared_embedding" not in k}
        beside = {PROJECTOR + name: value for name, value in self.mm_projector.state_dict().items()}
        fcs = {f"model.text_hidden_fcs.0.{name}": value for name, value in self.fcs.state_dict().items()}
        return self.llm.state_dict() | clip | beside | fcs | {LISA + k: v for k, v in SAM.to_theirs(sam).items()}

    def states(self, ids_T: Tensor, picture_1CHW: Tensor) -> Tensor:
        """Last hidden states (T + F - 1, D), ids having -200 where the picture stands."""
        features_FD = self.mm_projector(self.clip(picture_1CHW, output_hidden_states=True).hidden_states[-2][0, 1:])
        place = int((ids_T == -200).nonzero())
        words = self.llm.get_input_embeddings()
        embeds_TD = torch.cat([words(ids_T[:place]), features_FD, words(ids_T[place + 1 :])])
        return self.llm.model(inputs_embeds=embeds_TD[None]).last_hidden_state[0]

    def masks(self, ids_T: Tensor, picture: np.ndarray[Any, Any], pixels_1CHW: Tensor) -> Tensor:
        """Logits (N, H, W)."""
        states_TD = self.states(ids_T, pixels_1CHW)
        features = len(states_TD) - len(ids_T) + 1
        # Where a token comes behind, shifted by what one token of the picture became.
        found_T = torch.cat([torch.zeros(features - 1), ids_T[1:] == self.seg, torch.zeros(1)]).bool()
        prompts_N1C = self.fcs(states_TD)[found_T][:, None]
        height, width = picture.shape[:2]
        side = self.sam.config.vision_config.image_size
        inner = int(height * side / max(height, width) + 0.5), int(width * side / max(height, width) + 0.5)
        small = np.asarray(Image.fromarray(picture).resize((inner[1], inner[0]), Image.Resampling.BILINEAR), dtype=np.float32)
        values = (small - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
        square = F.pad(torch.from_numpy(values).float().permute(2, 0, 1), (0, side - inner[1], 0, side - inner[0]))[None]
        embedding = self.sam.vision_encoder(square).last_hidden_state
        dense = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(embedding)
        low, _ = self.sam.mask_decoder(
            image_embeddings=embedding, image_positional_embeddings=self.sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompts_N1C[None], dense_prompt_embeddings=dense, multimask_output=False,
        )  # fmt: skip
        whole = F.interpolate(low[0], (side, side), mode="bilinear", align_corners=False)[..., : inner[0], : inner[1]]
        return F.interpolate(whole, (height, width), mode="bilinear", align_corners=False)[:, 0]


MAPS: dict[str, KeyMap] = {"": LlavaRepository().key_map(()), "hands.mask.": PROJECTOR_KEYS["lisa"], "sam.": SAM}


def prefix_of(name: str) -> str:
    return "sam." if name.startswith(LISA) else "hands.mask." if "text_hidden_fcs" in name else ""


def to_ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for prefix, keys in MAPS.items():
        mine = {name.removeprefix(LISA).removeprefix("model.") if prefix else name: value
                for name, value in theirs.items() if prefix_of(name) == prefix}  # fmt: skip
        ours |= {prefix + name: value for name, value in keys.to_ours(mine).items()}
    return ours


@pytest.fixture(scope="module")
def pair() -> tuple[MultimodalModel, Processor, SecondLisa]:
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(config())
    processor = Processor(model.config, tokenizer)
    second = SecondLisa(model, processor.signals["mask"][0]).eval()
    with torch.no_grad():
        for name, weight in second.sam.named_parameters():
            if "norm" not in name or "bias" in name:
                weight.normal_(0, 0.2)
    ours = to_ours(second.named())
    sam: Any = model.generators["mask"]
    sam.model.load_state_dict({k.removeprefix("sam."): v for k, v in ours.items() if k.startswith("sam.")}, strict=False)
    model.load_state_dict({k: v for k, v in ours.items() if not k.startswith("sam.")})
    return model.eval(), processor, second


def rows(processor: Processor) -> list[Any]:
    """Two masks in one answer, and one in another, of pictures of two sizes."""
    drawn = np.random.default_rng(1)
    examples = []
    for size, count in zip(SIZES, (2, 1), strict=True):
        picture = Image.fromarray(drawn.integers(0, 256, (*size, 3), dtype=np.uint8))
        inside = [mask_part(Mask.from_array(drawn.random(size) < 0.3)).to_json() for _ in range(count)]
        said = [one for mask in inside for one in ({"type": "text", "text": "Sure, it is "}, mask)]
        asked = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Please segment it."}]}
        examples.append(processor.encode(parse_sample({"messages": [
            asked, {"role": "assistant", "content": [*said, {"type": "text", "text": "."}]}]})))  # fmt: skip
    return examples


def second_masks(second: SecondLisa, example: Any, model: MultimodalModel) -> Tensor:
    """The second writing's masks of one row."""
    slots = example.slots["image"]
    ids_T = torch.tensor([*example.input_ids[: slots[0]], -200, *example.input_ids[slots[-1] + 1 :]])
    picture = np.asarray(example.wanted[0].picture)
    lane = model.config.lanes["image"].encoder.preprocess()
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (lane.mean, lane.std))
    return second.masks(ids_T, picture, (example.media["image"].pixels_NCHW.float() / 255 - mean) / std)


def test_no_tensor_is_lost_there_and_back(pair: tuple[MultimodalModel, Processor, SecondLisa], record: Callable[..., None]) -> None:
    model, _, second = pair
    theirs = second.named()
    sam: Any = model.generators["mask"]
    state = model.state_dict() | {f"sam.{k}": v for k, v in sam.model.state_dict().items() if "shared_embedding" not in k}
    back: dict[str, Tensor] = {}
    for prefix, keys in MAPS.items():
        mine = {k.removeprefix(prefix): v for k, v in state.items()
                if (k.startswith(prefix) if prefix else not k.startswith(("sam.", "hands.")))}  # fmt: skip
        front = {"": "", "hands.mask.": "model.", "sam.": LISA}[prefix]
        back |= {front + name: value for name, value in keys.to_theirs(mine).items()}
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())
    record("lisa", "weights")


def test_masks_are_the_originals_alone_packed_and_padded(pair: tuple[MultimodalModel, Processor, SecondLisa], record: Callable[..., None]) -> None:
    model, processor, second = pair
    examples, pad = rows(processor), processor.tokenizer.pad_id
    sam: Any = model.generators["mask"]
    with torch.no_grad():
        theirs = [second_masks(second, example, model) for example in examples]
        for batch in (collate([examples], pad), collate([[one] for one in examples], pad)):
            hidden_BTD = model(batch).hidden_BTD
            prompts_N1C = model.condition("mask", hidden_BTD, batch.input_ids_BT, [(one.row, one.start) for one in batch.wanted])
            for example, own, wanted in zip(examples, prompts_N1C.split([2, 1]), theirs, strict=True):
                looked = sam.look(np.asarray(example.wanted[0].picture))
                found = sam.to_picture(sam.decode(looked, own)[0], looked)[:, 0]
                record("lisa", "made", ours=found, theirs=wanted)
                assert torch.equal(found > 0, wanted > 0)


def test_the_loss_is_the_originals(pair: tuple[MultimodalModel, Processor, SecondLisa], record: Callable[..., None]) -> None:
    model, processor, second = pair
    examples = rows(processor)
    batch: Batch = collate([[one] for one in examples], processor.tokenizer.pad_id)
    with torch.no_grad():
        losses = MaskConfig().build(model, processor, ())(model, batch)
        bce = dice = 0.0
        for example in examples:
            found = second_masks(second, example, model)
            truth = torch.from_numpy(np.stack([one.medium.array() for one in example.wanted])).float()
            bce += float(F.binary_cross_entropy_with_logits(found, truth, reduction="none").flatten(1).mean(1).sum())
            chance, truth = found.sigmoid().flatten(1) / 1000, truth.flatten(1)
            dice += float((1 - (2 * (chance * truth).sum(1) + 1e-6) / (chance.sum(1) + truth.sum(1) / 1000 + 1e-6)).sum())
        words = next_token_losses(model, batch).parts["next_token"]
    record("lisa", "loss", ours=losses.total / losses.count, theirs=torch.tensor(words + 2.0 * bce / 3 + 0.5 * dice / 3))


def test_ask_saves_a_mask_and_draws_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = config()
    made = plain.hands["mask"].generator
    made.build().save(tmp_path / "sam")  # pyright: ignore[reportAttributeAccessIssue]
    generator = made.model_copy(update={"weights": (FolderSource(path=str(tmp_path / "sam")),)})
    hand = plain.hands["mask"].model_copy(update={"generator": generator})
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(plain.model_copy(update={"hands": {"mask": hand}}))
    processor = Processor(model.config, tokenizer)
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    asked = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Please segment it."}]}
    mask = {"size": [30, 50], "counts": [0, 1500]}
    batch = collate([[processor.encode(parse_sample({"messages": [asked, {"role": "assistant", "content": [{"type": "mask", "mask": mask}]}]}))]], 0)
    optimiser = torch.optim.Adam(model.backbone.parameters(), lr=1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        losses = next_token_losses(model, batch)
        (losses.total / losses.count).backward()
        optimiser.step()
    save_model(model, tokenizer, tmp_path / "lisa", learnt=set())
    picture.save(tmp_path / "lawn.png")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["ask", "lawn.png", "Please segment it.", "--model", "lisa", "--save", "out", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    sample = json.loads((tmp_path / "out" / "sample.json").read_text())
    numbers = [i for i, part in enumerate(sample["messages"][1]["content"], start=1) if part["type"] == "mask"]
    assert numbers, sample
    said = sample["messages"][1]["content"][numbers[0] - 1]["mask"]
    assert (said["size"], said["picture"]) == ([30, 50], 1)
    inside = np.asarray(Image.open(tmp_path / "out" / f"part{numbers[0]}.png"))
    assert np.array_equal(inside, read_mask({key: said[key] for key in ("size", "counts")}, "mask").array())
    drawn = np.asarray(Image.open(tmp_path / "out" / "drawn.png").convert("RGB"))
    assert drawn.shape == (30, 50, 3)
    assert (drawn != np.asarray(picture)).any()
