"""What a recipe's model reads: a short conversation as its templates write it."""

from __future__ import annotations

import json

from sensorium.core.sample import parse_sample
from sensorium.model.config import ModelConfig
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.chat import TEMPLATES, ChatTemplate, choose_template, render
from sensorium.training.config import Recipe


def prompt_lines(recipe: Recipe) -> list[str]:
    """A line for each template of the model and its stages, as a JSON string, so that line breaks and spaces are seen."""
    model = recipe.model
    if model.text_frame is not None:
        return ["prompt: none; a text is read as it is"]
    where: dict[str, list[str]] = {model.template: ["answers"]}
    for stage in recipe.stages:
        where.setdefault(stage.objective.template or model.template, []).append(stage.name)
    lines: list[str] = []
    for name, users in where.items():
        head = f"prompt, {name} ({', '.join(users)})"
        template = _template(name, model)
        if template is None:
            lines.append(f"{head}: chatml, llama3 or plain, by the tokenizer's control tokens")
        else:
            lines.append(f"{head}: {json.dumps(_written(template, model), ensure_ascii=False)}")
    return lines


def _template(name: str, model: ModelConfig) -> ChatTemplate | None:
    """None: only the tokenizer, which is not at hand, can say."""
    if name != "auto":
        return TEMPLATES[name]
    backbone = model.backbone
    bytes_only = backbone.tokenizer == "bytes" or not (backbone.weights or backbone.tokenizer_from)
    return choose_template(name, byte_tokenizer()) if bytes_only else None


def _written(template: ChatTemplate, model: ModelConfig) -> str:
    said = [{"type": "text", "text": "What is this?"}]
    media = [{"type": kind, kind: f"{kind}.file"} for kind in model.takes]
    sample = parse_sample({"messages": [{"role": "user", "content": media + said},
                                        {"role": "assistant", "content": "A cat."}]})  # fmt: skip
    slot = "".join(model.image_markers)
    text = "".join(piece.value if isinstance(piece.value, str) else slot or f"[{piece.value.type}]"
                   for piece in render(sample.messages, template))  # fmt: skip
    return ("{bos}" if template.bos and not template.bos_behind else "") + text
