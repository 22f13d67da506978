"""FROMAGe's, GILL's and NExT-GPT's modules once more, by their authors' names, as tiny as can be.

What is under test is where each tensor lands: these modules save their own state, and answer for themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sensorium.text.byte_tokenizer import byte_tokenizer

WIDTH, SEEN = 32, 24
"""Of the language model, and of what CLIP sees."""


def opt(folder: Path) -> Path:
    """OPT with more rows than its tokenizer has words, as the published ones."""
    from transformers import OPTConfig, OPTForCausalLM

    words = len(byte_tokenizer())
    torch.manual_seed(1)
    model = OPTForCausalLM(OPTConfig(
        vocab_size=words + 5, hidden_size=WIDTH, word_embed_proj_dim=WIDTH, ffn_dim=40, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=0, eos_token_id=0, init_std=0.2,
    ))  # fmt: skip
    model.save_pretrained(folder)
    byte_tokenizer().save(folder)
    return folder


def clip(folder: Path) -> Path:
    """CLIP's tower alone."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(2)
    CLIPVisionModel(CLIPVisionConfig(
        hidden_size=SEEN, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14,
    )).save_pretrained(folder)  # fmt: skip
    return folder


class TextFcLayer(nn.Module):
    """gill/layers.py, and the same of NExT-GPT: modes `gill_mapper` and `linear`."""

    def __init__(self, out: int, length: int, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        if linear:
            self.model = nn.Linear(WIDTH, out)
            return
        self.fc = nn.Linear(WIDTH, 16)
        self.tfm = nn.Transformer(batch_first=True, norm_first=True, d_model=16, num_encoder_layers=2, num_decoder_layers=2,
                                  dim_feedforward=20, dropout=0.0, nhead=4)  # fmt: skip
        self.model = nn.Linear(16, out)
        self.query_embs = nn.Parameter(torch.randn(1, length, 16))

    def forward(self, x: Tensor, input_embs: Tensor) -> Tensor:
        if self.linear:
            return self.model(x)
        x = self.fc(x + input_embs)
        return self.model(self.tfm(x, self.query_embs.repeat(len(x), 1, 1)))


class Koh(nn.Module):
    """`Fromage` and `GILL`: everything lies under `model`."""

    def __init__(self, llm: Path, tower: Path, *, tokens: int, gill: bool) -> None:
        from transformers import CLIPVisionModel, OPTForCausalLM

        super().__init__()
        model: Any = nn.Module()
        self.model = model
        model.lm = OPTForCausalLM.from_pretrained(llm)
        self.words = len(byte_tokenizer()) + 1
        model.lm.resize_token_embeddings(self.words + (8 if gill else 1), mean_resizing=False)
        model.input_embeddings = model.lm.get_input_embeddings()
        model.visual_model = CLIPVisionModel.from_pretrained(tower)
        if gill:
            model.ret_text_hidden_fcs = nn.ModuleList([TextFcLayer(6, 1, linear=True)])
            model.gen_text_hidden_fcs = nn.ModuleList([TextFcLayer(12, 5)])
        else:
            model.text_hidden_fcs = nn.ModuleList([nn.Sequential(nn.Linear(WIDTH, 6), nn.Dropout(0.0))])
        model.visual_embeddings = nn.Linear(SEEN, WIDTH * tokens)
        model.visual_fc = nn.Linear(SEEN, 6)
        model.logit_scale = nn.Parameter(torch.tensor(1.5))
        with torch.no_grad():
            model.input_embeddings.weight[self.words :].normal_(0, 0.3)
        self.eval()

    def states(self, pixels: Tensor, ids: list[int]) -> Tensor:
        """States behind a picture and words."""
        seen = self.model.visual_embeddings(self.model.visual_model(pixels).pooler_output).reshape(1, -1, WIDTH)
        rows = torch.cat([seen, self.model.input_embeddings(torch.tensor([ids]))], dim=1)
        return self.model.lm(inputs_embeds=rows, output_hidden_states=True).hidden_states[-1]

    def learnt(self) -> dict[str, Tensor]:
        state = {k: v.detach().clone() for k, v in self.state_dict().items() if ".lm" not in k and ".visual_model" not in k}
        rows = state.pop("model.input_embeddings.weight")[self.words :].clone()
        return state | {"model.input_embeddings.weight" if len(rows) > 1 else "ret_input_embeddings.weight": rows}

    def save(self, folder: Path, wrapper: str = "", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """`pretrained_ckpt.pth.tar` and `model_args.json`."""
        folder.mkdir()
        tensors = {wrapper + k: v.to(dtype) for k, v in self.learnt().items()}
        torch.save({"state_dict": tensors}, folder / "pretrained_ckpt.pth.tar")
        ids = list(range(self.words, len(self.model.input_embeddings.weight)))
        (folder / "model_args.json").write_text(json.dumps({"retrieval_token_idx": ids if len(ids) > 1 else ids[0]}))
        return tensors


def vicuna(folder: Path) -> Path:
    """LLaMA's form, with a row for each word of its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(4)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=len(byte_tokenizer()), hidden_size=WIDTH, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.2,
    )).save_pretrained(folder)  # fmt: skip
    byte_tokenizer().save(folder)
    return folder


def imagebind() -> dict[str, Tensor]:
    """The names of `imagebind_huge.pth`, of eye, ear and something beside them; two blocks of 16 heads, and two of 12."""
    width, inner, heard = 32, 40, 24
    names = {
        "modality_preprocessors.vision.cls_token": (1, 1, width),
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": (width, 3, 2, 7, 7),
        "modality_preprocessors.vision.pos_embedding_helper.pos_embed": (1, 17, width),
        "modality_heads.vision.2.weight": (SEEN, width),
        "modality_preprocessors.audio.cls_token": (1, 1, heard),
        "modality_preprocessors.audio.rgbt_stem.proj.weight": (heard, 1, 16, 16),
        "modality_preprocessors.audio.pos_embedding_helper.pos_embed": (1, 229, heard),
        "modality_heads.audio.2.weight": (SEEN, heard),
        "modality_heads.depth.2.weight": (SEEN, 12),
        "modality_postprocessors.audio.1.log_logit_scale": (),
    }
    norms = dict.fromkeys(("modality_trunks.vision.pre_transformer_layer.0", "modality_heads.vision.0"), width)
    norms |= dict.fromkeys(("modality_preprocessors.audio.rgbt_stem.norm_layer", "modality_heads.audio.0"), heard)
    for kind, size in (("vision", width), ("audio", heard)):
        for i in range(2):
            block = f"modality_trunks.{kind}.blocks.{i}."
            names |= {f"{block}attn.in_proj_weight": (3 * size, size), f"{block}attn.in_proj_bias": (3 * size,)}
            names |= {f"{block}attn.bias_{x}": (1, 1, size) for x in "kv" if kind == "audio"}
            for part, rows, columns in (("attn.out_proj", size, size), ("mlp.fc1", inner, size), ("mlp.fc2", size, inner)):
                names |= {f"{block}{part}.weight": (rows, columns), f"{block}{part}.bias": (rows,)}
            norms |= {f"{block}{norm}": size for norm in ("norm_1", "norm_2")}
    names |= {f"{norm}.{end}": (size,) for norm, size in norms.items() for end in ("weight", "bias")}
    return {name: torch.randn(shape) * 0.3 for name, shape in names.items()}


class NextGpt(nn.Module):
    """What learns of `NextGPTModel`, but the language model; `pytorch_model.pt` has names as they are here."""

    def __init__(self) -> None:
        super().__init__()
        self.llama_proj = nn.Linear(SEEN, WIDTH)
        self.gen_text_hidden_fcs = nn.ModuleList([TextFcLayer(12, 5)])
        self.gen_text_hidden_fcs_video = nn.ModuleList([TextFcLayer(14, 5)])
        self.gen_text_hidden_fcs_audio = nn.ModuleList([TextFcLayer(10, 1)])
        self.eval()

    def mapper(self, kind: str) -> TextFcLayer:
        named: Any = {"image": self.gen_text_hidden_fcs, "video": self.gen_text_hidden_fcs_video, "audio": self.gen_text_hidden_fcs_audio}
        return named[kind][0]


class MiniGpt5(nn.Module):
    """What learns of `MiniGPT5_Model`, but the language model: 8 heads and 4 times the width inside, the width of the condition."""

    def __init__(self, d_model: int = WIDTH, length: int = 5, width: int = 16, layers: int = 2, **smaller: Any) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"dim_feedforward": 4 * width} | smaller
        self.t2i_decoder_prompt = nn.Parameter(torch.randn(1, length, width))
        self.llm_to_t2i_mapping = nn.Transformer(batch_first=True, norm_first=True, d_model=width, num_encoder_layers=layers,
                                                 num_decoder_layers=layers, dropout=0.0, **sizes)  # fmt: skip
        self.fc = nn.Sequential(nn.Linear(d_model, width), nn.GELU(), nn.Linear(width, width))
        self.eval()

    def forward(self, states: Tensor) -> Tensor:
        return self.llm_to_t2i_mapping(src=self.fc(states), tgt=self.t2i_decoder_prompt.repeat(len(states), 1, 1))


def low_rank(targets: tuple[str, ...], rank: int = 4) -> dict[str, Tensor]:
    """Of two layers, by peft's names inside the language model."""
    made: dict[str, Tensor] = {}
    for i in range(2):
        for name in targets:
            for x, shape in (("A", (rank, WIDTH)), ("B", (WIDTH, rank))):
                made[f"model.layers.{i}.self_attn.{name}.lora_{x}.default.weight"] = torch.randn(shape) * 0.2
    return made


def merge(lm: Any, matrices: dict[str, Tensor], alpha: float) -> None:
    """W + BA * alpha / rank."""
    state = lm.state_dict()
    with torch.no_grad():
        for name, a in matrices.items():
            if ".lora_A." in name:
                b = matrices[name.replace("lora_A", "lora_B")]
                state[name.replace("lora_A.default.", "")] += b @ a * alpha / len(a)
