"""What nobody has published of GPT-4o and Gemini, for which Chameleon and Janus stand in: models that take and give pictures themselves."""

from __future__ import annotations

STAND_IN = "what GPT-4o and Gemini do inside is unknown"
UNKNOWN = (
    "of GPT-4o and Gemini, sizes: parameters, layers and vocabulary of the language model, and whether experts share its layers",
    "of both, what reads: the encoders or tokenizers of pictures, sound and video, their sizes, and at how many pixels and frames they look",
    "of both, what draws: the tokenizer whose codes are written, or whether diffusion draws behind the LLM (Gemini's report has tokens, quoted from memory)",
    "of both, whether what reads and what draws share an encoder (Chameleon) or are apart (Janus)",
    "of both, data: the sets, their shares, the number of tokens, and how pictures and texts were put into rows",
    "of both, training: objectives, stages, what is frozen, rates, batches, steps, and how answers were tuned to what people prefer",
    "of both, prompts: the words that mark pictures, sound and turns",
    "speech and video, which both take or give, are left out here",
)
"""None of it is guessed: sizes, rates and prompts of the recipe are those of the published system that stands in."""
