"""Tokens per second of nano's language model, ours and transformers' `generate`, in one run.

    python benchmarks/decode_speed.py [--threads 1] [--tokens 64]

Both continue the same prompt greedily in fp32; the order alternates, the best of three counts.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from sensorium.core.sample import parse_messages
from sensorium.inference.engine import Engine
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import ModelConfig
from sensorium.processing.processor import Processor
from sensorium.recipes.nano_parts import smollm2_135m


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = ModelConfig(backbone=smollm2_135m(), template="smol")
    model, tokenizer = build_pretrained(config)
    lm = model.backbone.lm
    processor = Processor(config, tokenizer)
    processor.stop_ids.clear()
    prompt = processor.prompt(parse_messages([{"role": "user", "content": "Tell me about cats."}]))
    ids = torch.tensor([prompt.input_ids])

    def theirs() -> list[int]:
        with torch.inference_mode():
            out = lm.generate(ids, max_new_tokens=options.tokens, do_sample=False, pad_token_id=2)
        return out[0, ids.shape[1] :].tolist()

    engine = Engine(model, processor)

    def ours() -> list[int]:
        return engine.generate([prompt], max_tokens=options.tokens)[0]

    best = {"ours": float("inf"), "theirs": float("inf")}
    answers: dict[str, list[int]] = {}
    for _ in range(3):
        for name, run in (("theirs", theirs), ("ours", ours)):
            start = time.perf_counter()
            answers[name] = run()
            best[name] = min(best[name], time.perf_counter() - start)
    assert answers["ours"] == answers["theirs"], "greedy text differs"
    rate = {name: round(options.tokens / seconds, 2) for name, seconds in best.items()}
    ratio = round(rate["ours"] / rate["theirs"], 3)
    print(json.dumps({"threads": options.threads, "tokens_per_s": rate, "ratio": ratio}))


if __name__ == "__main__":
    main()
