"""What the authors call the tensors of their output projectors, as data.

Sources: the files named in `sensorium/output_projectors/*.py`. Names are those inside the authors' module that holds the
projector: `GILLModel`, `FromageModel`, MGIE's `LlavaLlamaForCausalLM`, MiniGPT-5's Lightning module, the `lm` of Emu's decoder, `LisaModel`. NExT-GPT's are those
inside one mapper, of which there is one for each medium: `gen_text_hidden_fcs.0.`, `gen_text_hidden_fcs_video.0.` and
`gen_text_hidden_fcs_audio.0.` stand before those of version 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from sensorium.interop.key_map import KeyMap, Rule, Split

ENCODER_NAMES = (("norm1.*", "norm_self.*"), ("norm2.*", "norm_ff.*"))
DECODER_NAMES = (("norm1.*", "norm_self.*"), ("norm2.*", "norm_cross.*"), ("norm3.*", "norm_ff.*"))
LAYER_NAMES = (
    ("linear1.*", "up.*"),
    ("linear2.*", "down.*"),
    ("self_attn.out_proj.*", "self_attention.out.*"),
    ("multihead_attn.out_proj.*", "cross_attention.out.*"),
)


def torch_transformer(theirs: str, ours: str) -> KeyMap:
    """The map from `nn.Transformer` to `nn.encoder_decoder.EncoderDecoder`, behind prefixes."""
    rules: list[Rule] = []
    splits: list[Split] = []
    for stack, norms in (("encoder", ENCODER_NAMES), ("decoder", DECODER_NAMES)):
        layer, mine = f"{theirs}{stack}.layers.#.", f"{ours}{stack}.#."
        rules.append(Rule(f"{theirs}{stack}.norm.*", f"{ours}{stack}_norm.*"))
        rules += [Rule(layer + a, mine + b) for a, b in (*norms, *LAYER_NAMES)]
        for name, called in (("self_attn", "self_attention"), ("multihead_attn", "cross_attention")):
            splits += [
                Split(f"{layer}{name}.in_proj_{kind}", tuple(f"{mine}{called}.{part}.{kind}" for part in "qkv"))
                for kind in ("weight", "bias")
            ]
    return KeyMap(rules=tuple(rules), splits=tuple(splits))


def _mapper(before: str, enter: str, out: str, stack: str = "tfm", queries: str = "query_embs") -> KeyMap:
    inner = torch_transformer(f"{before}{stack}.", "mapping.")
    return KeyMap(
        rules=(
            *inner.rules,
            Rule(f"{before}{enter}.*", "enter.*"),
            Rule(f"{before}{out}.*", "out.*"),
            Rule(f"{before}{queries}", "queries_LE", lead=1),
        ),
        splits=inner.splits,
    )


def _minigpt5() -> KeyMap:
    inner = torch_transformer("llm_to_t2i_mapping.", "mapping.")
    rules = (*inner.rules, Rule("fc.*", "enter.*"), Rule("t2i_decoder_prompt", "queries_LC", lead=1))
    return KeyMap(rules=rules, splits=inner.splits)


def _retrieval(text: str) -> KeyMap:
    return KeyMap((Rule(f"{text}.*", "text.*"), Rule("visual_fc.*", "image.*"), Rule("logit_scale", "logit_scale")))


PROJECTOR_KEYS: Mapping[str, KeyMap] = {
    "gill": _mapper("gen_text_hidden_fcs.0.", "fc", "model"),
    "next_gpt": _mapper("", "fc", "model"),
    "next_gpt_15": _mapper("", "in_fc", "out_fc"),
    "mgie": _mapper("edit_head.", "llm2hid", "hid2feat", stack="mapper", queries="query"),
    "minigpt5": _minigpt5(),
    "emu": KeyMap((Rule("stu_regress_head.*", "out.*"),)),
    "emu2": KeyMap((Rule("project_down.*", "out.*"),)),
    "fromage": _retrieval("text_hidden_fcs.0.0"),
    "gill_retrieval": _retrieval("ret_text_hidden_fcs.0.model"),
    "lisa": KeyMap((Rule("text_hidden_fcs.0.#.*", "layers.#.*"),)),
}
"""System -> the map of its projector."""
