"""A model as GGUF, for llama.cpp: the language model, and tower and projector in a file beside it.

Source of fields and names: ggml-org/llama.cpp, `gguf-py/gguf/constants.py`, `conversion/llama.py`,
`tools/mtmd/clip-impl.h`, `tools/mtmd/clip.cpp` and `tools/mtmd/models/llava.cpp`.

llama.cpp computes GELU by its tanh form, from a table of half precision: its features differ from ours
in the fourth digit. Pictures of another shape it pads in its own colour. Its graph for CLIP has put the class
token behind the patches since its pull request 13321, while positions and the choice of patches count it in
front (issue 25814): until that is mended there, it sees any LLaVA's pictures wrongly, whoever wrote the file. SigLIP has none.
The chat template is written where turns simply follow each other; what it puts around a picture is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.core.atomic import atomic_folder
from sensorium.core.parts import EncoderConfig
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.siglip import SiglipConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.gguf import LAYER_NAMES, TOP_NAMES
from sensorium.interop.gguf_vocabulary import refusal, vocabulary
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.saved import load_model, read_model_config
from sensorium.media.resolution import FixedResolution
from sensorium.model.check import refuse_quantised
from sensorium.model.config import AdaptionPromptConfig, LaneConfig, ModelConfig, PrefixConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.written import refuse_written
from sensorium.text.chat import choose_template
from sensorium.text.jinja import as_jinja
from sensorium.text.tokenizer import Tokenizer

Number = Literal["f32", "f16", "q8_0"]
FILE_TYPES: dict[str, int] = {"f32": 0, "f16": 1, "q8_0": 7}
LLM, MMPROJ = "model-{}.gguf", "mmproj-{}.gguf"
# transformers' model type -> llama.cpp's architecture; `llama` has its rotary halves interleaved.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
SIGLIP_EPS = 1e-6
QUANT_ROW = 32
"""Numbers that share a scale in q8_0; rows of another length stay in half precision."""

LLM_KEYS = KeyMap(
    rules=(
        *(Rule(f"blk.#.{theirs}.*", f"model.layers.#.{ours}.*") for theirs, ours in LAYER_NAMES.items()),
        *(Rule(theirs, ours) for theirs, ours in TOP_NAMES.items()),
    )
)
EYE, PROJECTOR = "encoders.image.tower.", "projectors.image.layers."
MMPROJ_KEYS = KeyMap(
    rules=(
        Rule("v.class_embd", f"{EYE}embeddings.class_embedding"),
        Rule("v.patch_embd.*", f"{EYE}embeddings.patch_embedding.*"),
        Rule("v.position_embd.weight", f"{EYE}embeddings.position_embedding.weight"),
        Rule("v.pre_ln.*", f"{EYE}pre_layrnorm.*"),
        Rule("v.post_ln.*", f"{EYE}post_layernorm.*"),
        *(Rule(f"v.blk.#.{theirs}.*", f"{EYE}encoder.layers.#.{ours}.*")
          for theirs, ours in (
              ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"),
              ("attn_v", "self_attn.v_proj"), ("attn_out", "self_attn.out_proj"),
              ("ln1", "layer_norm1"), ("ln2", "layer_norm2"),
              ("ffn_up", "mlp.fc1"), ("ffn_down", "mlp.fc2"),
          )),
        Rule("mm.#.*", f"{PROJECTOR}#.*"),
    )
)  # fmt: skip


def export_gguf(folder: Path, out: Path, number: Number = "f16", *, llm_only: bool = False) -> list[str]:
    """Write a model of ours as GGUF files into a folder.

    Args:
        number: of matrices; vectors are always fp32.
        llm_only: leave tower and projector out.

    Returns:
        The names of the files.

    Raises:
        ConfigError: a part is none of llama.cpp's, or its tokenizer is not known there.
    """
    refuse_quantised(read_model_config(folder), "a GGUF file", str(folder))
    refuse_written(read_model_config(folder).written, str(folder))
    model, tokenizer = load_model(folder)
    config = model.config
    if isinstance(config.adapter, AdaptionPromptConfig):
        raise refusal("it has adaption prompts", "no adapter, or LoRA, which is merged")
    if isinstance(config.adapter, PrefixConfig):
        raise refusal("it has a prefix", "no adapter, or LoRA, which is merged")
    if config.tuning is not None and config.tuning.added:
        raise refusal("its LLM has biases of its own", "no adapter, or LoRA, which is merged")
    arch = llm_architecture(config)
    lane = None if llm_only or not config.lanes else vision_lane(config)
    names = [LLM.format(number)]
    with atomic_folder(out) as target:
        _write_llm(target / names[0], arch, model, tokenizer, number)
        if lane is not None:
            names.append(MMPROJ.format(number))
            _write_mmproj(target / names[1], lane, model, number)
    return names


def llm_architecture(config: ModelConfig) -> str:
    """llama.cpp's name of the language model's architecture.

    Raises:
        ConfigError: it is not written here, or has more than that.
    """
    backbone = config.backbone
    kind = backbone.arch.get("model_type") if isinstance(backbone, CausalLMConfig) else backbone.kind
    if not isinstance(backbone, CausalLMConfig) or kind not in ARCHITECTURES:
        raise refusal(f"its language model is {kind!r}", ", ".join(ARCHITECTURES))
    theirs = transformers_config(backbone.arch)
    rope = dict(getattr(theirs, "rope_parameters", None) or {})
    more = {
        "stretched positions": rope.get("rope_type", "default") != "default",
        "biases": bool(getattr(theirs, "attention_bias", False) or getattr(theirs, "mlp_bias", False)),
        "sliding windows": bool(getattr(theirs, "use_sliding_window", False)),
        f"activation {theirs.hidden_act}": theirs.hidden_act not in ("silu", "swish"),
    }
    for name, there in more.items():
        if there:
            raise refusal(f"its language model has {name}", f"a plain {kind}")
    return ARCHITECTURES[kind]


def vision_lane(config: ModelConfig) -> LaneConfig:
    """The lane that becomes a file of its own.

    Raises:
        ConfigError: llama.cpp has no such tower, projector, or way into the language model.
    """
    lane = config.lanes.get("image")
    encoder, projector = (lane.encoder, lane.projector) if lane else (None, None)
    found = ""
    if lane is None or set(config.lanes) != {"image"} or not config.fusion.fills_slots:
        found = "it needs one image lane and splice fusion"
    elif not _known_tower(encoder):
        found = f"its tower is {lane.encoder.kind!r}, not CLIP with patches of a chosen layer, or SigLIP with patches"
    elif not isinstance(projector, MlpConfig) or projector.depth != 2 or projector.norm_in:
        found = f"its projector is {lane.projector.kind!r}, not a plain two-layer MLP"
    elif projector.activation != "gelu":
        found = f"its projector's activation is {projector.activation!r}, not 'gelu'"
    elif lane.lookup is not None or not isinstance(lane.resolution, FixedResolution):
        found = "its pictures are not one input each, projected into the language model as they are"
    if found or lane is None:
        error = refusal(found, "LLaVA-1.5's parts: CLIP or SigLIP, a two-layer MLP, a LLaMA")
        error.fix = "write the language model alone with --llm-only"
        raise type(error)(error.found, expected=error.expected, fix=error.fix)
    return lane


def _known_tower(encoder: EncoderConfig | None) -> TypeGuard[ClipConfig | SiglipConfig]:
    if not isinstance(encoder, ClipConfig | SiglipConfig) or encoder.feature != "patch":
        return False
    return isinstance(encoder, SiglipConfig) or encoder.select_layer is not None


def _write_llm(
    file: Path, arch: str, model: MultimodalModel, tokenizer: Tokenizer, number: Number
) -> None:
    from gguf import GGUFWriter

    backbone = model.config.backbone
    assert isinstance(backbone, CausalLMConfig)
    config = transformers_config(backbone.arch)
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer = GGUFWriter(file, arch)
    writer.add_name(file.parent.name)
    writer.add_file_type(FILE_TYPES[number])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_tokenizer(writer, model, tokenizer, config.vocab_size)
    tensors = {k: v for k, v in model.backbone.lm.state_dict().items()
               if not (config.tie_word_embeddings and k == "lm_head.weight")}  # fmt: skip
    rows = {"attn_q": heads, "attn_k": keys} if arch == "llama" else {}

    def interleaved(name: str, value: Tensor) -> Tensor:
        count = next((n for part, n in rows.items() if f".{part}." in name), None)
        if count is None:
            return value
        return value.unflatten(0, (count, 2, -1)).transpose(1, 2).reshape(value.shape)

    _add_tensors(writer, LLM_KEYS.to_theirs(tensors), number, interleaved)


def _add_tokenizer(writer: Any, model: MultimodalModel, tokenizer: Tokenizer, size: int) -> None:
    words = vocabulary(tokenizer, size)
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    if words.scores:
        writer.add_token_scores(words.scores)
    else:
        writer.add_token_merges(words.merges)
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    template = choose_template(model.config.template, tokenizer)
    writer.add_add_bos_token(template.bos)
    text = as_jinja(template)
    if text is not None:
        writer.add_chat_template(text)


def _write_mmproj(file: Path, lane: LaneConfig, model: MultimodalModel, number: Number) -> None:
    from gguf import GGUFWriter

    encoder = lane.encoder
    assert _known_tower(encoder)
    chosen = encoder.layers if encoder.select_layer is None else encoder.select_layer
    layer = chosen if chosen >= 0 else encoder.layers + 1 + chosen
    writer = GGUFWriter(file, "clip")
    writer.add_type("mmproj")
    writer.add_name(file.parent.name)
    writer.add_file_type(FILE_TYPES[number])
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    # Neither gelu nor silu: quick_gelu. SigLIP's is the tanh form, as llama.cpp computes it.
    writer.add_bool("clip.use_gelu", isinstance(encoder, SiglipConfig) or encoder.activation == "gelu")
    numbers = {
        "image_size": encoder.image_size_px, "patch_size": encoder.patch_size_px,
        "embedding_length": encoder.width, "feed_forward_length": encoder.mlp_width,
        "projection_dim": model.config.backbone.d_model, "attention.head_count": encoder.heads,
        "block_count": layer,
    }  # fmt: skip
    for name, value in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    eps = SIGLIP_EPS if isinstance(encoder, SiglipConfig) else encoder.norm_eps
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", eps)
    # Without it llama.cpp leaves the last block out.
    writer.add_array("clip.vision.feature_layer", [layer])
    writer.add_array("clip.vision.image_mean", list(encoder.mean))
    writer.add_array("clip.vision.image_std", list(encoder.std))
    state = model.state_dict()
    # The norm behind the last block is not run on a chosen layer's tokens; the head gives what no token needs.
    normed = () if encoder.select_layer is None else (f"{EYE}post_layernorm.",)
    beyond = (f"{EYE}head.", *normed, *(f"{EYE}encoder.layers.{i}." for i in range(layer, encoder.layers)))
    tensors = {k: v for k, v in state.items() if k.startswith((EYE, PROJECTOR)) and not k.startswith(beyond)}
    _add_tensors(writer, MMPROJ_KEYS.to_theirs(tensors), number)


def _add_tensors(
    writer: Any,
    tensors: Mapping[str, Tensor],
    number: Number,
    change: Callable[[str, Tensor], Tensor] = lambda name, value: value,
) -> None:
    from gguf import GGMLQuantizationType, quantize

    for name, tensor in tensors.items():
        values = change(name, tensor).detach().float().cpu().contiguous().numpy()
        kind = _number_of(name, values, number)
        if kind == "q8_0":
            q8 = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(values, q8), raw_dtype=q8)
        else:
            writer.add_tensor(name, values.astype(np.float16 if kind == "f16" else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _number_of(name: str, values: np.ndarray[Any, Any], number: Number) -> Number:
    """The number format of one tensor."""
    # Positions are added to the patches, an operation that takes fp32 on both sides.
    if values.ndim < 2 or name == "v.position_embd.weight":
        return "f32"
    if number == "q8_0" and (values.ndim != 2 or values.shape[-1] % QUANT_ROW):
        return "f16"
    return number
