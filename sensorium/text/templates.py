"""Chat templates as data: the strings around what is said, by name."""

from __future__ import annotations

from typing import Literal

from sensorium.core.sample import ROLES
from sensorium.text.emu_templates import EMU_TEMPLATES
from sensorium.text.picture_templates import PICTURE_TEMPLATES
from sensorium.text.template import EOS, ChatTemplate

TemplateName = Literal[
    "auto", "chatml", "qwen", "smol", "vicuna", "llama3", "mistral", "minigpt4", "minigpt_v2", "next_gpt",
    "mplug_owl", "qwen2_vl", "alpaca", "question", "bare", "plain", "seq2seq", "kosmos2", "flamingo",
    "openflamingo", "caption", "caption_line", "caption_behind", "captioned", "document", "pair", "picture_of", "blip_vqa",
    "vicuna_markers", "shikra", "qwen_vl", "qwen_vl_caption", "cogvlm", "cogvlm_vqa", "cogvlm_base",
    "emu", "emu2", "emu2_ground", "emu_document", "emu2_document", "emu3", "emu3_gen", "chameleon", "janus", "janus_draw", "lisa", "seed_llama", "seed_llama_14b",
]  # fmt: skip

_CHATML_BEFORE = {role: f"<|im_start|>{role}\n" for role in ROLES}
_CHATML_AFTER = dict.fromkeys(ROLES, "<|im_end|>\n")

_VICUNA = ChatTemplate(
    before={"system": "", "user": "USER: ", "assistant": "ASSISTANT:"},
    after={"system": " ", "user": " ", "assistant": "{eos}"},
    answer_prefix=" ",
    bos=True,
    default_system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    media_after="\n",
    control=("{eos}",),
)
_MARKS = ("<im_start>", "<im_end>")
_MARKED = _VICUNA.model_copy(
    update={"media_before": _MARKS[0], "media_after": _MARKS[1], "control": (EOS, *_MARKS)}
)


def _flamingo(chunk_end: str) -> ChatTemplate:
    return ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": chunk_end},
        chunk_end=chunk_end,
        control=(chunk_end,),
    )


TEMPLATES: dict[str, ChatTemplate] = {
    "chatml": ChatTemplate(
        before=_CHATML_BEFORE,
        after=_CHATML_AFTER,
        media_after="\n",
        control=("<|im_start|>", "<|im_end|>"),
    ),
    # chatml with the system message of Qwen2, as LLaVA-OneVision uses it
    # (github.com/LLaVA-VL/LLaVA-NeXT, train.py, preprocess_qwen).
    "qwen": ChatTemplate(
        before=_CHATML_BEFORE,
        after=_CHATML_AFTER,
        default_system="You are a helpful assistant.",
        media_after="\n",
        control=("<|im_start|>", "<|im_end|>"),
    ),
    # The same with marks around each picture (Qwen2-VL, chat_template.json).
    "qwen2_vl": ChatTemplate(
        before=_CHATML_BEFORE,
        after=_CHATML_AFTER,
        default_system="You are a helpful assistant.",
        media_before="<|vision_start|>",
        media_after="<|vision_end|>",
        control=("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    ),
    # Qwen-VL-Chat's: pictures between marks, numbered (github.com/QwenLM/Qwen-VL, README.md, and
    # tokenization_qwen.py beside the weights, from_list_format).
    "qwen_vl": ChatTemplate(
        before=_CHATML_BEFORE,
        after=_CHATML_AFTER,
        default_system="You are a helpful assistant.",
        media_before="Picture {n}: <img>",
        media_after="</img>\n",
        control=("<|im_start|>", "<|im_end|>", "<img>", "</img>"),
    ),
    # Before it was a chat: picture, text, end of text (the paper, appendix B).
    "qwen_vl_caption": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "\n", "user": "", "assistant": "{eos}"},
        media_before="<img>",
        media_after="</img>",
        control=("<img>", "</img>", "{eos}"),
    ),
    # chatml without a line break after a medium: shorter rows for small models.
    "smol": ChatTemplate(
        before=_CHATML_BEFORE, after=_CHATML_AFTER, control=("<|im_start|>", "<|im_end|>")
    ),
    # Vicuna v1.1 as LLaVA-1.5 uses it (github.com/haotian-liu/LLaVA, conversation.py).
    "vicuna": _VICUNA,
    # The same with the markers of LLaVA's first checkpoints around a picture (llava/constants.py).
    "vicuna_markers": _MARKED.model_copy(update={"media_after": "<im_end>\n"}),
    # Of a human, not a user (github.com/dvlab-research/LISA, model/llava/conversation.py, llava_v1).
    "lisa": _MARKED.model_copy(
        update={
            "media_after": "<im_end>\n",
            "default_system": "A chat between a curious human and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the human's questions.",
        }
    ),
    # No line break (github.com/shikras/shikra, mllm/dataset/process_function/shikra_process_function.py).
    "shikra": _MARKED,
    "llama3": ChatTemplate(
        before={
            r: f"<|start_header_id|>{r}<|end_header_id|>\n\n" for r in ROLES
        },
        after=dict.fromkeys(ROLES, "<|eot_id|>"),
        bos=True,
        media_after="\n",
        control=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    # Mistral-Instruct as LLaVA-Med uses it (github.com/microsoft/LLaVA-Med, conversation.py).
    "mistral": ChatTemplate(
        before={"system": "", "user": "[INST] ", "assistant": ""},
        after={"system": "", "user": " [/INST]", "assistant": " {eos}"},
        answer_prefix=" ",
        bos=True,
        media_after="\n",
        control=("{eos}",),
    ),
    # github.com/Vision-CAIR/MiniGPT-4, train_configs/minigpt4_stage2_finetune.yaml. The hashes that
    # end an answer are plain text.
    "minigpt4": ChatTemplate(
        before={"system": "", "user": "###Human: ", "assistant": "###Assistant: "},
        after={"system": "", "user": " ", "assistant": "###"},
        bos=True,
        media_before="<Img>",
        media_after="</Img> ",
    ),
    # NExT-GPT's (github.com/NExT-GPT/NExT-GPT, code/model/common/utils.py and anyToImageVideoAudio.py).
    "next_gpt": ChatTemplate(
        before={"system": "", "user": "### Human: ", "assistant": "### Assistant: "},
        after={"system": "", "user": "\n", "assistant": "\n###"},
        bos=True,
        media_before="<Img>",
        media_after="</Img> ",
        control=("<Img>", "</Img>"),
    ),
    # The same repository as MiniGPT-4's, minigpt_v2.py and datasets/: the question begins with its task in
    # brackets, `[vqa]`, which rows bring along, and has a space behind it.
    "minigpt_v2": ChatTemplate(
        before={"system": "", "user": "[INST] ", "assistant": ""},
        after={"system": "", "user": "  [/INST]", "assistant": "{eos}"},
        answer_prefix=" ",
        bos=True,
        media_before="<Img>",
        media_after="</Img> ",
        control=("{eos}",),
    ),
    # github.com/X-PLUG/mPLUG-Owl, mPLUG-Owl/README.md: each picture is a turn of its own.
    "mplug_owl": ChatTemplate(
        before={"system": "", "user": "\nHuman: ", "assistant": "\nAI: "},
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        default_system="The following is a conversation between a curious human and AI assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        media_after="\nHuman: ",
        control=("{eos}",),
    ),
    # Stanford Alpaca's, as LLaMA-Adapter uses it (github.com/OpenGVLab/LLaMA-Adapter,
    # alpaca_finetuning_v1/finetuning.py, a prompt without `input`).
    "alpaca": ChatTemplate(
        before={"system": "", "user": "### Instruction:\n", "assistant": "### Response:"},
        after={"system": "\n\n", "user": "\n\n", "assistant": "{eos}"},
        bos=True,
        default_system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.",
        control=("{eos}",),
    ),
    # github.com/THUDM/CogVLM, utils/utils/language.py: the picture stands in front of everything.
    "cogvlm": ChatTemplate(
        before={"system": "", "user": " [INST] ", "assistant": ""},
        after={"system": "", "user": " [/INST] ", "assistant": "{eos}"},
        bos=True,
        media_first=True,
        control=("{eos}",),
    ),
    # The same file: short answers, for which one question at a time is asked.
    "cogvlm_vqa": ChatTemplate(
        before={"system": "", "user": "Question: ", "assistant": ""},
        after={"system": "", "user": " Short answer:", "assistant": "{eos}"},
        bos=True,
        media_first=True,
        control=("{eos}",),
    ),
    # The same file: caption, or text to be continued, behind the picture.
    "cogvlm_base": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        media_first=True,
        control=("{eos}",),
    ),
    # One question about one picture in front of it, as BLIP-2 is asked
    # (github.com/salesforce/LAVIS, vqav2_zeroshot_opt_eval.yaml).
    "question": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": " Short answer:", "assistant": "\n"},
        answer_prefix=" ",
        bos=True,
        bos_behind=True,
        media_after="Question: ",
    ),
    # For language models without chat tokens.
    "plain": ChatTemplate(
        before={"system": "", "user": "User: ", "assistant": "Assistant:"},
        after={"system": "\n", "user": "\n", "assistant": "{eos}"},
        answer_prefix=" ",
        media_after="\n",
        control=("{eos}",),
    ),
    # Encoder-decoders: an end of text closes what the encoder reads, and the answer.
    "seq2seq": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "\n", "user": "{eos}", "assistant": "{eos}"},
        control=("{eos}",),
    ),
    # Kosmos-2 continues what is written (arXiv:2306.14824, table 1): a picture between its tags, then
    # text, which begins with `<grounding>` where boxes are wanted. All tags are the vocabulary's own.
    "kosmos2": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        media_before="<image>",
        media_after="</image>",
        control=("{eos}",),
    ),
    # Each picture is followed by what is written about it, and this by a token of its own
    # (arXiv:2204.14198, section 3.1; github.com/mlfoundations/open_flamingo, train/data.py).
    "flamingo": _flamingo("<EOC>"),
    "openflamingo": _flamingo("<|endofchunk|>"),
    # Alignment by captions: picture, then caption, no roles (LLaVA stage 1's `plain`).
    "caption": ChatTemplate(
        before={"system": "", "user": "", "assistant": ""},
        after={"system": "\n", "user": "", "assistant": "{eos}"},
        control=("{eos}",),
    ),
    # The same as LLaVA and MiniGPT-4 write it: begin of text, picture, caption, line break. The
    # instruction that LLaVA's rows have beside the picture is not shown.
    "caption_line": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "\n"},
        bos=True,
        user_text=False,
    ),
    # A picture and a text that are compared: the text with its begin and its end.
    "pair": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        user_text=False,
        control=("{eos}",),
    ),
    # BLIP's captions (github.com/salesforce/BLIP, configs/caption_coco.yaml).
    "picture_of": ChatTemplate(
        before={"system": "", "user": "", "assistant": "a picture of "},
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        user_text=False,
        control=("{eos}",),
    ),
    # BLIP's questions (github.com/salesforce/BLIP, models/blip_vqa.py): what the encoder reads, closed,
    # and the answer.
    "blip_vqa": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "{eos}", "assistant": "{eos}"},
        bos=True,
        control=("{eos}",),
    ),
    # Text and pictures in any order, learned as a whole: Flamingo's and IDEFICS' web pages.
    "document": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        control=("{eos}",),
    ),
}
# With the begin of text behind the picture: BLIP-2's captions, and InstructBLIP's bare question
# (github.com/salesforce/LAVIS, blip2_opt.py, blip2_vicuna_instruct.py).
TEMPLATES["caption_behind"] = TEMPLATES["caption_line"].model_copy(update={"bos_behind": True})
# The same without an end, which FROMAGe and GILL do not teach (github.com/kohjingyu/fromage, fromage/models.py).
TEMPLATES["captioned"] = TEMPLATES["caption_behind"].model_copy(update={"after": dict.fromkeys(ROLES, "")})
TEMPLATES["bare"] = TEMPLATES["document"].model_copy(update={"bos_behind": True})
TEMPLATES |= EMU_TEMPLATES | PICTURE_TEMPLATES
