"""Systems without a class that computes the same: what each of their parts counts, from a class of its own or
from the shapes in the original's code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from oracles import BERT, CLIP_L, LLAMA_13B, ORACLES


@dataclass(frozen=True)
class ByParts:
    """A system that no class of transformers is: each part is as large as a class of its own says,
    or as a sum of the shapes in the original's code."""

    model_type: str
    """The original's name in transformers, should it ever come there."""
    parts: dict[str, Callable[[], int]]

    def sizes(self) -> dict[str, int]:
        return {part: count() for part, count in self.parts.items()}


def size_of(class_name: str, config_name: str, **shape: Any) -> Callable[[], int]:
    """Parameters of a class of transformers."""

    def count() -> int:
        import transformers

        with torch.device("meta"):
            model = getattr(transformers, class_name)(getattr(transformers, config_name)(**shape))
        return sum(parameter.numel() for parameter in model.parameters())

    return count


def reading_queries(media: int = 1408, width: int = 768, inner: int = 3072) -> int:
    """BLIP-2's first stage, from its blip2_qformer.py and Qformer.py: queries, words and places, twelve layers of BERT with a feed-forward of
    the queries' own, cross-attention in every second, heads of contrast and of matching."""
    norm, feed_forward = 2 * width, linear(width, inner) + linear(inner, width) + 2 * width
    attention = 4 * linear(width, width) + norm
    seeing = 2 * linear(width, width) + 2 * linear(media, width) + norm
    words = (30522 + 1 + 512) * width + norm
    return 32 * width + words + 12 * (attention + 2 * feed_forward) + 6 * seeing + 2 * linear(width, 256) + linear(width, 2)


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def abstractor(width: int, inner: int, llm: int) -> int:
    """mPLUG-Owl's, from modeling_mplug_owl.py: 64 queries, six layers of query, key, value and
    out_proj, norm1 and normk, norm2, w1, w2, w3, ffn_ln; visual_fc and vit_eos."""
    attention = 4 * linear(width, width) + 2 * (2 * width)
    feed_forward = 2 * width + 2 * linear(width, inner) + linear(inner, width) + 2 * inner
    return 64 * width + 6 * (attention + feed_forward) + linear(width, llm) + llm


def resampler(width: int, inner: int = 512) -> int:
    """OpenFlamingo's, from its src/helpers.py: 64 latents, six layers of norm_media and norm_latents,
    to_q, to_kv and to_out of 8 heads x 64, a feed-forward of norm and two matrices; a norm."""
    attention = 2 * (2 * width) + 4 * width * inner
    return 64 * width + 6 * (attention + 2 * width + 2 * width * 4 * width) + 2 * width


def gated_blocks(count: int, width: int, media: int = 1024, inner: int = 512) -> int:
    """OpenFlamingo's, from the same file: norm, to_q, to_kv, to_out, a gate; norm, two matrices, a gate."""
    attention = 2 * width + 2 * width * inner + media * 2 * inner + 1
    return count * (attention + 2 * width + 2 * width * 4 * width + 1)


def openflamingo(blocks: int, width: int, backbone: Callable[[], int]) -> ByParts:
    return ByParts("openflamingo", {
        "encoders.image": size_of("CLIPVisionModel", "CLIPVisionConfig", **CLIP_L | {"image_size": 224}),
        "projectors.image": lambda: resampler(1024),
        "fusion": lambda: gated_blocks(blocks, width),
        "backbone": backbone,
    })  # fmt: skip


def mpt(width: int, layers: int, heads: int) -> Callable[[], int]:
    return size_of("MptForCausalLM", "MptConfig", d_model=width, n_layers=layers, n_heads=heads, vocab_size=50280)


def rice_vit() -> int:
    """MLCD's tower at this size, from the same makers, without the norm behind its pooled token."""
    shape = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    return size_of("MLCDVisionModel", "MLCDVisionConfig", **shape)() - 2 * 1024


def onevision_15(width: int, **text: Any) -> ByParts:
    """From ds/llavaonevision1_5 of the repository; in the merger four patches of 1024 in one."""
    shape = {"vocab_size": 151936, "hidden_size": width, "num_hidden_layers": 36, "head_dim": 128,
             "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False}  # fmt: skip
    return ByParts("llavaonevision1_5", {
        "encoders.image": rice_vit,
        "projectors.image": lambda: 2 * 1024 + linear(4096, 4096) + linear(4096, width),
        "backbone": size_of("Qwen3ForCausalLM", "Qwen3Config", **shape, **text),
    })  # fmt: skip


def qwen_tower() -> int:
    """Qwen-VL's visual.py up to its last block: conv1, 256 positions, ln_pre, 48 blocks of width 1664."""
    width, inner = 1664, int(1664 * 4.9231)
    block = linear(width, 3 * width) + linear(width, width) + linear(width, inner) + linear(inner, width)
    return 3 * 14 * 14 * width + 256 * width + 2 * width + 48 * (block + 4 * width)


def qwen_pool() -> int:
    """Its `attn_pool` without the fixed positions: query, kv_proj, attn, ln_q, ln_kv."""
    width = 4096
    return 256 * width + 1664 * width + linear(width, 3 * width) + linear(width, width) + 4 * width


def qwen_post() -> int:
    """Its ln_post and proj."""
    return 2 * 4096 + 4096 * 4096


def qwen_7b() -> int:
    """modeling_qwen.py: wte and lm_head, 32 layers of c_attn (with bias), c_proj, w1, w2, c_proj, two norms."""
    width, inner = 4096, 22016 // 2
    layer = linear(width, 3 * width) + width * width + 3 * width * inner + 2 * width
    return 2 * 151936 * width + 32 * layer + width


def c_abstractor(d_in: int, width: int, llm: int, places: int, depth: int = 3) -> int:
    """Honeybee's, with timm's RegStage: two stages of `depth` blocks, pos_emb, a readout of two layers."""

    def block(inner: int) -> int:
        squeeze = round(inner * 0.25)
        convs = inner * width + 9 * width + width * width + 3 * 2 * width
        shortcut = inner * width + 2 * width if inner != width else 0
        return convs + linear(width, squeeze) + linear(squeeze, width) + shortcut

    blocks = block(d_in) + (2 * depth - 1) * block(width)
    return places * d_in + blocks + linear(width, llm) + linear(llm, llm)


def vit_22b() -> int:
    """Table 1 of arXiv:2302.05442: 48 layers, width 6144, 24,576 inside; no biases on query, key and value."""
    width, inner = 6144, 24576
    block = 3 * width**2 + linear(width, width) + linear(width, inner) + linear(inner, width)
    norms = width + 2 * width // 48
    return linear(3 * 14 * 14, width) + 256 * width + 48 * (block + norms) + width


def mm1(width: int, inner: int, layers: int, heads: int) -> ByParts:
    """DFN's CLIP-H at 378 pixels is such a tower; the language models are stand-ins."""
    shape = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
             "num_attention_heads": heads}  # fmt: skip
    tower = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
             "num_attention_heads": 16, "patch_size": 14, "image_size": 378}  # fmt: skip
    return ByParts("mm1", {
        "encoders.image": size_of("CLIPVisionModel", "CLIPVisionConfig", **tower),
        "projectors.image": lambda: c_abstractor(1280, 1024, width, 27 * 27),
        "backbone": size_of("LlamaForCausalLM", "LlamaConfig", **shape),
    })  # fmt: skip


UL2 = {"vocab_size": 250112, "d_model": 4096, "d_kv": 256, "d_ff": 16384, "num_layers": 50, "num_heads": 16,
       "feed_forward_proj": "gated-silu", "tie_word_embeddings": False}  # fmt: skip


def eva2_e(side: int, width: int = 1792, inner: int = 15360, blocks: int = 63) -> int:
    """THUDM/CogVLM, eva_clip_model.py: patches of 14, CLS and positions, blocks of query_key_value,
    dense, two norms, fc1 and fc2; no norm behind."""
    block = linear(width, 3 * width) + linear(width, width) + 4 * width + linear(width, inner) + linear(inner, width)
    return linear(3 * 14 * 14, width) + (2 + side**2) * width + blocks * block


def eva2_l(side: int, width: int = 1024, inner: int = 2730, blocks: int = 23) -> int:
    """The same, eva_clip_L_hf.py: no bias of keys; inner_attn_ln, w1, w2, ffn_ln and w3."""
    attention = 4 * width * width + 3 * width + 2 * width
    feed_forward = 2 * linear(width, inner) + 2 * inner + linear(inner, width)
    return linear(3 * 14 * 14, width) + (2 + side**2) * width + blocks * (attention + feed_forward + 4 * width)


def cross_module(llm: int, inner: int, layers: int) -> int:
    """modeling_cogagent.py: query, key_value, dense and a norm in every layer."""
    return layers * (2 * llm * inner + 2 * inner * inner + llm)


def glu_with_ends(inputs: int, llm: int, inner: int) -> int:
    """The same, cogvlm_model.py: linear_proj, norm1, three maps as in a LLaMA, boi and eoi."""
    return inputs * llm + 2 * llm + 3 * llm * inner + 2 * llm


def visual_expert(llm: int, inner: int, layers: int) -> int:
    """The same, mixin.py: query, key, value and dense, and three maps of the feed-forward layer."""
    return layers * (4 * llm * llm + 3 * llm * inner)


def cogvlm(side: int) -> ByParts:
    return ByParts("cogvlm", {
        "encoders.image": lambda: eva2_e(side),
        "projectors.image": lambda: glu_with_ends(1792, 4096, 11008),
        "fusion": lambda: visual_expert(4096, 11008, 32),
        "backbone": LLAMA_7B,
    })  # fmt: skip


LLAMA_7B = size_of("LlamaForCausalLM", "LlamaConfig")
def blip_med() -> int:
    """What reads, as `blip-retrieval` has it, and of the decoder that transformers has too: self-attention, and
    the head without its matrix, which is the words'."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    with torch.device("meta"):
        decoder = BlipForConditionalGeneration(BlipConfig(text_config=BERT)).text_decoder
    own = {id(p): p.numel() for layer in decoder.bert.encoder.layer for p in layer.attention.parameters()}
    head = {id(p): p.numel() for p in decoder.cls.parameters()}
    words = decoder.bert.embeddings.word_embeddings.weight
    reads = ORACLES["blip-retrieval"].sizes()["backbone"]
    return reads + sum(own.values()) + sum(size for key, size in head.items() if key != id(words))


def llava_lightning(model_type: str, tokens: int, hand: str, size: Callable[[], int]) -> ByParts:
    """LLaVA with one linear map, as many tokens as there are after more were added, and an output projector."""
    return ByParts(model_type, {
        "encoders.image": size_of("CLIPVisionModel", "CLIPVisionConfig", **CLIP_L | {"image_size": 224}),
        "projectors.image": lambda: linear(1024, 4096),
        "backbone": size_of("LlamaForCausalLM", "LlamaConfig", vocab_size=tokens),
        hand: size,
    })  # fmt: skip


def t5_causal_former(tokens: int, media: int, llm: int) -> int:
    """Emu's, from causal_former.py and modeling_t5.py: T5-base's decoder without its table of words, whose cross-attention reads
    features of another width; the tokens, and a projection."""
    from transformers import T5Config, T5ForConditionalGeneration

    with torch.device("meta"):
        decoder = T5ForConditionalGeneration(T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12)).decoder
    words = {id(p) for p in decoder.embed_tokens.parameters()}
    own = sum(p.numel() for p in decoder.parameters() if id(p) not in words)
    return own + 12 * 2 * (media - 768) * 768 + tokens * 768 + linear(768, llm)


def seed_tokenizer() -> int:
    """qformer_quantizer.py: ln_vision behind EVA-CLIP-g without its last block; BERT's layers for queries, cross-attention in every
    second; codes, two maps, two stacks of four blocks with places, and what gathers them."""
    width, inner, media, codes = 768, 3072, 1408, 32
    attention = 4 * linear(width, width) + 2 * width
    seeing = 2 * linear(width, width) + 2 * linear(media, width) + 2 * width
    layer = attention + linear(width, inner) + linear(inner, width) + 2 * width
    queries = 32 * width + 2 * width + 12 * layer + 6 * seeing
    block = linear(width, 3 * width) + linear(width, width) + linear(width, inner) + linear(inner, width) + 4 * width
    maps = linear(width, width) + linear(width, codes) + linear(codes, codes) + linear(codes, width)
    gather = width * 256 + 256 * 128 + 128 * 32 + linear(32 * 32, 1024)
    tower = size_of("Blip2VisionModel", "Blip2VisionConfig", image_size=224)()
    return tower + queries + 8192 * codes + maps + 2 * (32 * width + 4 * block) + gather


def llama_of(**shape: int) -> Callable[[], int]:
    return size_of("LlamaForCausalLM", "LlamaConfig", tie_word_embeddings=False, **shape)


LLAMA_33B = {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52,
             "num_key_value_heads": 52}  # fmt: skip


def opt_with_clip(added: int, tokens: int, hands: dict[str, Callable[[], int]]) -> ByParts:
    """FROMAGe's and GILL's: a pooled picture as so many tokens; OPT's 50,265 tokens, one for pictures, and those added."""
    return ByParts("opt_with_clip", {
        "encoders.image": size_of("CLIPVisionModel", "CLIPVisionConfig", **CLIP_L | {"image_size": 224}),
        "projectors.image": lambda: linear(1024, tokens * 4096),
        "backbone": size_of("OPTForCausalLM", "OPTConfig", hidden_size=4096, word_embed_proj_dim=4096, ffn_dim=16384,
                            num_hidden_layers=32, num_attention_heads=32, vocab_size=50265 + 1 + added),
        **hands,
    })  # fmt: skip


def torch_mapper(tokens: int, width: int, llm: int = 4096, inside: int = 512) -> int:
    """GILL's and NExT-GPT's: fc, tfm with torch's own layers, model, query_embs."""
    with torch.device("meta"):
        tfm: torch.nn.Module = torch.nn.Transformer(inside, 4, 4, 4, 4 * inside, batch_first=True, norm_first=True)
    return linear(llm, inside) + sum(p.numel() for p in tfm.parameters()) + linear(inside, width) + tokens * inside


def grouping(media: int, llm: int, width: int = 512) -> int:
    """NExT-GPT 1.5's, from projector.py and group.py: in_fc and out_fc; 6, 3 and 3 blocks of norm1, qkv without bias, proj, norm2, mlp;
    64 and 8 tokens, what carries them on, and what gathers behind them; norm."""
    def mlp(inputs: int, inner: int) -> int:
        return linear(inputs, inner) + linear(inner, inputs)

    norm = 2 * width
    block = 2 * norm + 3 * width * width + linear(width, width) + mlp(width, 4 * width)
    # norm_tokens, norm_post_tokens, norm_x, norm_new_x; norm2 and norm_post; pre_assign_attn; assign; mlp_channels.
    gather = 6 * norm + 8 * linear(width, width) + 2 * mlp(width, 4 * width)
    mixed = sum(mlp(count, width // 2) for count in (64, 8))
    carry = norm + linear(64, width // 2) + linear(width // 2, 8)
    return linear(media, width) + 12 * block + (64 + 8) * width + carry + 2 * gather + mixed + norm + linear(width, llm)


def retrieval_head() -> int:
    """text_hidden_fcs, visual_fc and logit_scale."""
    return linear(4096, 256) + linear(1024, 256) + 1


def imagebind_eye(width: int = 1280, joint: int = 1024) -> int:
    """imagebind_huge's part `vision`: patches of two frames, class token, 257 positions, pre_transformer_layer, 32 blocks, head."""
    block = linear(width, 3 * width) + linear(width, width) + linear(width, 4 * width) + linear(4 * width, width) + 4 * width
    return 3 * 2 * 14 * 14 * width + width + 257 * width + 2 * width + 32 * block + 2 * width + width * joint


def imagebind(width: int = 768, joint: int = 1024) -> int:
    """Its parts `vision` and `audio`: of the latter overlapping patches of 128 bands and 204 rows, a norm of them, class token, 229 positions, 12 blocks
    with a key and a value more, head."""
    block = linear(width, 3 * width) + linear(width, width) + linear(width, 4 * width) + linear(4 * width, width) + 6 * width
    return imagebind_eye() + 16 * 16 * width + 2 * width + width + 229 * width + 12 * block + 2 * width + width * joint


def voken_mapper(width: int = 1024, llm: int = 4096) -> int:
    """MiniGPT-5's fc, llm_to_t2i_mapping and t2i_decoder_prompt."""
    with torch.device("meta"):
        mapping = torch.nn.Transformer(width, 8, 4, 4, 4 * width, batch_first=True, norm_first=True)
    return linear(llm, width) + linear(width, width) + sum(p.numel() for p in mapping.parameters()) + 77 * width


def emu2(words: int) -> ByParts:
    """eva_vit.py has no bias of keys; lm.py adds 272 tokens, 257 of them places, and of Emu2-Chat two roles."""
    return ByParts("emu2", {
        "encoders.image": lambda: eva2_e(32, blocks=64) - 64 * 1792,
        "projectors.image": lambda: 1792 * 6656,
        "hands.image": lambda: 6656 * 1792,
        "backbone": llama_of(vocab_size=words, **LLAMA_33B),
    })  # fmt: skip


BY_PARTS: dict[str, ByParts] = {
    # What sees is MiniGPT-4's; eight vokens and a token for pictures.
    "minigpt-5": ByParts("minigpt5", {
        **{part: partial(lambda part: ORACLES["minigpt4"].sizes()[part], part) for part in ("encoders.image", "projectors.image")},
        "backbone": size_of("LlamaForCausalLM", "LlamaConfig", vocab_size=32000 + 9),
        "hands.image": voken_mapper,
    }),
    "next-gpt": ByParts("next_gpt", {
        "encoders.image": imagebind,
        "projectors.image": lambda: linear(1024, 4096),
        # <Img>, </Img>, <Vid>, </Vid>, <Aud>, </Aud> and 4 + 24 + 8 signal tokens.
        "backbone": size_of("LlamaForCausalLM", "LlamaConfig", vocab_size=32000 + 6 + 36),
        "hands.image": lambda: torch_mapper(77, 768),
        "hands.video": lambda: torch_mapper(77, 1024),
        "hands.audio": lambda: torch_mapper(1, 512),
    }),
    "next-gpt-1.5": ByParts("nextgpt_llama", {
        "encoders.image": imagebind,
        "projectors.image": lambda: grouping(1024, 4096),
        "backbone": size_of("LlamaForCausalLM", "LlamaConfig", vocab_size=32000 + 4 + 24 + 8),
        "hands.image": lambda: torch_mapper(77, 1024),
        "hands.video": lambda: torch_mapper(77, 1024),
        "hands.audio": lambda: torch_mapper(1, 512),
    }),
    "fromage": opt_with_clip(1, 1, {"hands.image": retrieval_head}),
    "gill": opt_with_clip(8, 4, {
        "hands.image": lambda: torch_mapper(77, 768),
        "hands.image_other": retrieval_head,
        "hands.image_choice": lambda: linear(4096, 2),
    }),
    # model/LISA.py: text_hidden_fcs.
    "lisa": llava_lightning("lisa", 32004, "hands.mask", lambda: linear(4096, 4096) + linear(4096, 256)),
    # mgie_llava.py: llm2hid, mapper, hid2feat, query.
    "mgie": llava_lightning("mgie", 32011, "hands.image", lambda: torch_mapper(77, 768)),
    # 32,000 words, the mark that fills up, three marks of pictures and two of turns. Its tower has ln_visual behind its 40 blocks;
    # the norm and the head that the file holds besides are not used.
    "emu": ByParts("emu", {
        "encoders.image": size_of("Blip2VisionModel", "Blip2VisionConfig", num_hidden_layers=40, image_size=224),
        "projectors.image": lambda: t5_causal_former(32, 1408, 5120),
        "hands.image": lambda: 5120 * 5120,
        "backbone": llama_of(vocab_size=32006, **LLAMA_13B),
    }),
    # Its class leaves out the head of matching, which comes with the checkpoint that it begins with and learns nothing here.
    "seed-queries": ByParts("blip2_casual", {
        "encoders.image": size_of("Blip2VisionModel", "Blip2VisionConfig", image_size=224),
        "backbone": reading_queries,
    }),
    # The tokenizer is `seed_tokenizer` alone, of what its authors' class holds; 8,192 codes and two marks are words.
    "seed-llama": ByParts("seed-llama", {
        "picture_tokenizer": seed_tokenizer,
        "backbone": size_of("LlamaForCausalLM", "LlamaConfig", vocab_size=32000 + 8192 + 2),
    }),
    "seed-llama-14b": ByParts("seed-llama", {
        "picture_tokenizer": seed_tokenizer,
        "backbone": llama_of(vocab_size=32000 + 8192 + 2, **LLAMA_13B),
    }),
    "emu2": emu2(32272),
    "emu2-chat": emu2(32274),
    "emu2-gen": emu2(32272),
    "blip": ByParts("blip_pretrain", {
        "encoders.image": size_of("BlipVisionModel", "BlipVisionConfig", image_size=224),
        "backbone": blip_med,
        "fusion": lambda: linear(768, 256),
    }),
    # Four neighbours of width 1408 in one token; the tower is BLIP-2's at 448 pixels.
    "minigpt-v2": ByParts("minigpt_v2", {
        "encoders.image": size_of("Blip2VisionModel", "Blip2VisionConfig", image_size=448),
        "projectors.image": lambda: linear(5632, 4096),
        "backbone": LLAMA_7B,
    }),
    # Tower and language model are those that stand in for the closed ones.
    "flamingo": ByParts("flamingo", {
        "encoders.image": size_of("SiglipVisionModel", "SiglipVisionConfig", hidden_size=1536, num_hidden_layers=40,
                                  num_attention_heads=16, intermediate_size=6144, image_size=384, patch_size=16),
        "projectors.image": lambda: resampler(1536, inner=2048),
        "fusion": lambda: gated_blocks(24, 2048, media=1536, inner=2048),
        "backbone": size_of(
            "GPTNeoXForCausalLM", "GPTNeoXConfig", hidden_size=2048, num_hidden_layers=24, num_attention_heads=16,
            intermediate_size=8192, vocab_size=50279),
    }),
    # MPT-1B has two norms more in each layer than transformers' MPT.
    "openflamingo-3b": openflamingo(24, 2048, lambda: mpt(2048, 24, 16)() + 24 * 2 * 2048),
    "openflamingo-4b": openflamingo(16, 2560, size_of(
        "GPTNeoXForCausalLM", "GPTNeoXConfig", hidden_size=2560, num_hidden_layers=32, num_attention_heads=32,
        intermediate_size=10240, vocab_size=50280)),
    "openflamingo-9b": openflamingo(8, 4096, mpt(4096, 32, 32)),
    "llava-onevision-1.5": onevision_15(2560, intermediate_size=9728),
    "llava-onevision-1.5-8b": onevision_15(4096, intermediate_size=12288),
    "mm1-3b": mm1(3200, 8640, 26, 32),
    "mm1-7b": mm1(4096, 11008, 32, 32),
    "mm1-30b": mm1(6656, 17920, 60, 52),
    "pali-x": ByParts("pali_x", {
        "encoders.image": vit_22b,
        "projectors.image": lambda: linear(6144, 4096),
        "backbone": size_of("T5ForConditionalGeneration", "T5Config", **UL2),
    }),
    "qwen-vl": ByParts("qwen", {
        "encoders.image": qwen_tower,
        "projectors.image": lambda: qwen_pool() + qwen_post(),
        "backbone": qwen_7b,
    }),
    # Its tower has CLIP's tensors, with q, k and v in one.
    "mplug-owl": ByParts("mplug-owl", {
        "encoders.image": size_of("CLIPVisionModel", "CLIPVisionConfig", **CLIP_L | {"image_size": 224}),
        "projectors.image": lambda: abstractor(1024, 4096, 4096),
        "backbone": LLAMA_7B,
    }),
    "cogvlm-224": cogvlm(16),
    "cogvlm": cogvlm(35),
    # Both towers with pos_embed behind them.
    "cogagent": ByParts("cogagent", cogvlm(16).parts | {
        "encoders.image": lambda: eva2_e(16) + 16**2 * 1792,
        "encoders.image_detail": lambda: eva2_l(80) + 80**2 * 1024,
        "fusion": lambda: visual_expert(4096, 11008, 32) + cross_module(4096, 1024, 32),
    }),
}  # fmt: skip
