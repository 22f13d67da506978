"""Chat templates of LLMs that read and write pictures as tokens, whose markers are not the template's but the picture's."""

from __future__ import annotations

from sensorium.core.sample import ROLES
from sensorium.text.template import ChatTemplate

# DeepSeek's format as Janus has it (github.com/deepseek-ai/Janus, janus/models/processing_vlm.py, janus/utils/conversation.py).
_JANUS = ChatTemplate(
    before={"system": "", "user": "<|User|>: ", "assistant": "<|Assistant|>:"},
    after={"system": "\n\n", "user": "\n\n", "assistant": "{eos}"},
    answer_prefix=" ",
    bos=True,
    default_system="You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.",
    media_before="<begin_of_image>",
    media_after="<end_of_image>\n",
    control=("{eos}", "<begin_of_image>", "<end_of_image>"),
)
# github.com/AILab-CVC/SEED, MultiModalLLM/src/data/torchdata_sft.py and gradio_demo/conversation.py: one end of text, behind the last answer.
_SEED = ChatTemplate(
    before={"system": "", "user": "USER: ", "assistant": "ASSISTANT:"},
    after={"system": "\n", "user": "\n", "assistant": "{eos}"},
    between="\n",
    answer_prefix=" ",
    bos=True,
    control=("{eos}",),
)
PICTURE_TEMPLATES: dict[str, ChatTemplate] = {
    "seed_llama": _SEED,
    # The same, and scripts/seed_llama_inference_14B.py: Llama 2's brackets.
    "seed_llama_14b": _SEED.model_copy(
        update={
            "before": {"system": "<<SYS>>\n", "user": "[INST] ", "assistant": ""},
            "after": {"system": "\n<</SYS>>\n\n", "user": " [/INST]\n", "assistant": "{eos}"},
            "answer_prefix": "",
        }
    ),
    # Emu3-Chat's (github.com/baaivision/Emu3, emu3/mllm/processing_emu3.py); of further turns nothing is known.
    "emu3": ChatTemplate(
        before={"system": "", "user": "USER: ", "assistant": " ASSISTANT:"},
        after={"system": " ", "user": ".", "assistant": "{eos}"},
        bos=True,
        default_system="You are a helpful assistant.",
        control=("{eos}",),
    ),
    # Chameleon's (github.com/facebookresearch/chameleon, chameleon/inference/vocab.py): a token ends a turn.
    "chameleon": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "\n", "user": "<reserved08706>", "assistant": "{eos}"},
        bos=True,
        control=("<reserved08706>", "{eos}"),
    ),
    "janus": _JANUS,
    # Without a system message: what it draws behind (github.com/deepseek-ai/Janus, generation_inference.py).
    "janus_draw": _JANUS.model_copy(update={"default_system": None}),
    # What Emu3-Gen draws behind: begin of text and the description, no more (the same file).
    "emu3_gen": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        control=("{eos}",),
    ),
}
