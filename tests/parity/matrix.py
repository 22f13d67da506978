"""Every system whose original we are measured against, what is compared, and why something cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

POSITIONS = ("start", "middle", "end")
COUNTS = ("1", "2", "3")
LAYOUTS = ("left", "right", "packed")
FUNCTION = (*POSITIONS, *COUNTS, *LAYOUTS, "greedy", "export")
PROCESSING = ("pixels", "ids", "placeholders")
ASPECTS = (*FUNCTION, *PROCESSING)
MADE = ("weights", "made", "loss", *PROCESSING)
"""Of systems whose media are compared, in a table of their own: tensors by their authors' names, what they make, what teaches that, and how
prompts and pictures are prepared."""
DRAWN = ("codes", "values", "pictures", "guidance")
"""Of pictures that a language model writes as tokens, in a table of their own: the tokens, what they are decoded to, that as bytes, and
tokens that are led away from others."""


@dataclass(frozen=True)
class Oracle:
    """`reference` is the class that computed the other side; `cannot` says why aspects have no proof."""

    reference: str
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    aspects: tuple[str, ...] = ASPECTS
    bytes_apart: int = 0
    """How far two bytes of a drawn picture may be from each other."""

    @property
    def proven(self) -> tuple[str, ...]:
        return tuple(aspect for aspect in self.aspects if aspect not in self.cannot)


IN_FRONT = "one picture, which all of the text sees: there is no place in the text, and no second one"
APART = "pictures and texts meet in their vectors: no picture stands in a text"
SILENT = "it compares and writes nothing"
ONE_ROW = "encoder-decoders refuse packed rows by name (test_seq2seq.py)"
PROMPTS = "peft adapts language models: what prepares pictures is the model's own (`llava`)"
WRITTEN = "its numbers were written down once, for prompts of up to two pictures (golden/make_*.py)"

MADER = "it makes media of what another model says: what teaches that one is compared in its own row (`lisa`)"
FROZEN = "it makes vectors and stays as it is: losses of models that read them are compared in their rows (`next-gpt`)"
STEERED = "what steers it learns conditions (tests/unit/test_condition_loss.py): no loss goes through it"
HEARD = "the loss through it is compared with NExT-GPT 1.5's (`next-gpt-1.5`)"
REDRAWN = "the loss through it, which Emu2's decoder learns by, is compared with diffusers' scheduler (tests/unit/test_redraw.py)"
EDITS = "the loss through it is compared with MGIE's (`mgie`)"
UNASKED = "it is asked by another model's vectors, and reads no prompt: prompts and pictures are prepared by that model, in its row"
SPOKEN = "its folder's own tokenizer, which is transformers', prepares texts, and there are no pictures"
MUTE = "speakers do not learn here"
WORDED = "rows are worded as MiniGPT-4's: a space stands in front of the first voken, and none behind the last"
MEAN_GREY = "pictures are padded with white, its own with the mean colour"
SEES_ONLY = "it reads no text, and its clips, which are rounded to bytes here, lie within half a step of its own (test_imagebind.py)"


def why(reason: str, *aspects: str) -> dict[str, str]:
    return dict.fromkeys(aspects, reason)


TEXT_BESIDE = why(IN_FRONT, *POSITIONS, "2", "3", "placeholders")
UNTAUGHT = why(STEERED, "loss")
ALONE = why(UNASKED, *PROCESSING)
SPEAKER = why(MUTE, "loss") | why(SPOKEN, *PROCESSING)
COMPARED = why(APART, *POSITIONS, "2", "3", "placeholders") | why(SILENT, "greedy")
ORACLES: dict[str, Oracle] = {
    "clip": Oracle("transformers.CLIPModel", COMPARED),
    "siglip": Oracle(
        "transformers.SiglipModel",
        COMPARED | why("its tokenizer reads a SentencePiece model, which is not at hand", "ids"),
    ),
    "blip-caption": Oracle("transformers.BlipForConditionalGeneration", TEXT_BESIDE),
    "blip-vqa": Oracle("transformers.BlipForQuestionAnswering", TEXT_BESIDE | why(ONE_ROW, "packed")),
    "blip-retrieval": Oracle(
        "transformers.BlipForImageTextRetrieval",
        COMPARED | why("ours begins all texts with [ENC], as the paper does where they are read over a picture", "ids"),
    ),
    "blip2-opt": Oracle("transformers.Blip2ForConditionalGeneration (OPT)"),
    "blip2-t5": Oracle("transformers.Blip2ForConditionalGeneration (T5)", why(ONE_ROW, "packed")),
    "blip2-retrieval": Oracle(
        "transformers.Blip2ForImageTextRetrieval",
        COMPARED,
    ),
    "instructblip-vicuna": Oracle("transformers.InstructBlipForConditionalGeneration (Llama)"),
    "instructblip-t5": Oracle("transformers.InstructBlipForConditionalGeneration (T5)", why(ONE_ROW, "packed")),
    "llava": Oracle("transformers.LlavaForConditionalGeneration"),
    "llava-next": Oracle("transformers.LlavaNextForConditionalGeneration"),
    "llava-onevision": Oracle("transformers.LlavaOnevisionForConditionalGeneration"),
    "idefics": Oracle(
        "transformers.IdeficsForVisionText2Text",
        why("pictures are attended to: they have two marks each, and no slots", "placeholders"),
    ),
    "kosmos-2": Oracle("transformers.Kosmos2ForConditionalGeneration"),
    "qwen2-vl": Oracle("transformers.Qwen2VLForConditionalGeneration"),
    "qwen2.5-vl": Oracle("transformers.Qwen2_5_VLForConditionalGeneration"),
    "emu3": Oracle("transformers.Emu3ForConditionalGeneration"),
    "chameleon": Oracle("transformers.ChameleonForConditionalGeneration"),
    "janus": Oracle("transformers.JanusForConditionalGeneration"),
    "adaption-prompt": Oracle(
        "peft.AdaptionPromptConfig in transformers.LlavaForConditionalGeneration",
        why(PROMPTS, *PROCESSING)
        | why("foreign layouts have no place for prompts: refused by name (test_adaption_prompt.py)", "export"),
    ),
    "open-flamingo": Oracle(
        "open_flamingo.Flamingo (golden/openflamingo.json.gz)",
        why(WRITTEN, "3") | why("its eyes are open_clip's, which need torchvision", *PROCESSING),
    ),
    "qwen-vl": Oracle("QWenLMHeadModel of Qwen-VL-Chat (golden/qwen_vl.json.gz)", why(WRITTEN, "3")),
    "lisa": Oracle("model/LISA.py of LISA, a second time (test_lisa.py)", aspects=MADE),
    "mgie": Oracle("mgie_llava.py of MGIE, a second time (test_mgie.py)", aspects=MADE),
    "emu": Oracle("Emu1/models/modeling_emu.py of Emu, a second time (test_emu.py)", aspects=MADE),
    "emu2": Oracle("emu/emu.py of Emu2, a second time (test_emu.py)", aspects=MADE),
    "seed": Oracle("Blip2QformerQuantizer of SEED, a second time (test_seed_file.py)", aspects=MADE),
    "fromage": Oracle("fromage/models.py of FROMAGe, a second time (any_to_any_originals.py, test_koh_losses.py)", aspects=MADE),
    "gill": Oracle("gill/models.py and layers.py of GILL, a second time (any_to_any_originals.py, test_koh_losses.py)", aspects=MADE),
    "next-gpt": Oracle("anyToImageVideoAudio.py and layers.py of NExT-GPT, a second time (any_to_any_originals.py, test_next_gpt_losses.py)", aspects=MADE),
    "next-gpt-1.5": Oracle("NExT-GPT 1.5's projectors and losses, a second time (test_next_gpt_15.py, test_next_gpt_losses.py)", why(MEAN_GREY, "pixels"), MADE),
    "imagebind": Oracle("ImageBindModel and data.py of ImageBind (golden/imagebind.json.gz)", why(FROZEN, "loss") | why(SEES_ONLY, *PROCESSING), MADE),
    "minigpt-5": Oracle("model.py of MiniGPT-5, a second time (any_to_any_originals.py, test_minigpt5_loss.py)", why(WORDED, "ids"), MADE),
    "sam": Oracle("transformers.SamModel", why(MADER, "loss") | ALONE, MADE),
    "sam-file": Oracle("segment_anything.modeling.Sam (golden/sam.safetensors.gz)", why(MADER, "loss") | ALONE, MADE),
    "stable_diffusion": Oracle("diffusers.StableDiffusionPipeline (1.5: noise foretold)", ALONE, MADE),
    "stable_diffusion-2.1": Oracle("diffusers.StableDiffusionPipeline (2.1: velocity foretold)", ALONE, MADE),
    "unclip": Oracle("diffusers.StableUnCLIPImg2ImgPipeline", UNTAUGHT | ALONE, MADE),
    "sdxl": Oracle("diffusers.StableDiffusionXLPipeline", why(REDRAWN, "loss") | ALONE, MADE),
    "text_to_video": Oracle("diffusers.TextToVideoSDPipeline", why(HEARD, "loss") | ALONE, MADE),
    "audioldm": Oracle("diffusers.AudioLDMPipeline", why(HEARD, "loss") | ALONE, MADE),
    "audioldm2": Oracle("diffusers.AudioLDM2Pipeline", UNTAUGHT | ALONE, MADE),
    "instruct_pix2pix": Oracle("diffusers.StableDiffusionInstructPix2PixPipeline", why(EDITS, "loss") | ALONE, MADE),
    "vits": Oracle("transformers.VitsModel", SPEAKER, MADE),
    "speecht5": Oracle("transformers.SpeechT5ForTextToSpeech", SPEAKER, MADE),
    # Theirs cuts values off to whole numbers; ours rounds.
    "emu3-draws": Oracle("transformers.Emu3ForConditionalGeneration", aspects=DRAWN, bytes_apart=1),
    "chameleon-draws": Oracle("transformers.ChameleonForConditionalGeneration, JanusVQVAEDecoder", aspects=DRAWN),
    "janus-draws": Oracle("transformers.JanusForConditionalGeneration", aspects=DRAWN),
}  # fmt: skip


@dataclass(frozen=True)
class Proofs:
    """Where the four proofs of a recipe lie: its size and its learning in tests/recipes, the others in rows of oracles.

    `prepared` is the test of its prompts and pictures; `form` the recipe whose tiny form learns for it, if that is another one.
    """

    rows: tuple[str, ...]
    prepared: str = "test_any_to_any_processing.py"
    form: str | None = None


WORDS_TEST = "test_picture_words_parity.py"
PROOFS: dict[str, Proofs] = {
    "fromage": Proofs(("fromage",)), "gill": Proofs(("gill", "stable_diffusion")), "next-gpt": Proofs(("next-gpt", "imagebind")),
    "next-gpt-1.5": Proofs(("next-gpt-1.5", "imagebind")), "minigpt-5": Proofs(("minigpt-5", "stable_diffusion-2.1")),
    "emu": Proofs(("emu", "stable_diffusion")), "emu2": Proofs(("emu2", "sdxl")), "emu3": Proofs(("emu3", "emu3-draws"), WORDS_TEST),
    "seed-llama": Proofs(("seed", "unclip")), "chameleon": Proofs(("chameleon", "chameleon-draws"), WORDS_TEST),
    "janus": Proofs(("janus", "janus-draws"), WORDS_TEST), "janus-pro": Proofs(("janus", "janus-draws"), WORDS_TEST, form="janus"),
    "lisa": Proofs(("lisa", "sam")), "kosmos-2": Proofs(("kosmos-2",), "test_kosmos2.py"), "qwen-vl": Proofs(("qwen-vl",), "test_qwen_vl.py"),
    "mgie": Proofs(("mgie", "instruct_pix2pix")),
}  # fmt: skip
"""Of the systems that read and make media or write places; the first row is that of its prompts and pictures."""
