"""The HTML report: one file, with the pictures, the questions and the answers."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from sensorium.core.atomic import write_text
from sensorium.core.sample import LOCATED_KINDS
from sensorium.evaluation.report_parts import answer_html, thumbnail
from sensorium.evaluation.runner import Result
from sensorium.media.image import load_image

EXAMPLES = 24
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1100px;padding:0 1rem;
color:#1c2430;background:#fff}
h1{font-size:1.6rem}h2{margin-top:2.4rem;font-size:1.2rem}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.3rem .8rem;text-align:left;
border-bottom:1px solid #dde3ea}td.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{background:#e8edf3;width:160px;height:10px;border-radius:5px;overflow:hidden}
.bar i{display:block;height:10px;background:#2f6db3}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(245px,1fr));gap:.8rem}
.card{border:1px solid #dde3ea;border-radius:8px;padding:.6rem;font-size:13px}
.card img{max-height:132px;display:block;margin:0 auto .5rem}.card audio{width:100%}.lost{color:#a3362a}
.ok{border-left:5px solid #2e9e5b}.bad{border-left:5px solid #cf4a3c}
.q{color:#51607a}.dim{color:#8290a5}
"""


def write_report(
    title: str,
    columns: Sequence[tuple[str, Sequence[Result]]],
    path: Path,
    *,
    notes: Sequence[str] = (),
    picture: Path | None = None,
) -> None:
    """Write the report.

    Args:
        columns: (name, results) of each model, the same benchmarks in the same order; the
            last one's answers are shown.
        picture: a PNG to show under the scores, such as the loss curve.
    """
    parts = [
        "<!doctype html><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        _summary(columns),
    ]
    if picture is not None and picture.exists():
        encoded = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f"<h2>Training</h2><img alt='loss curve' style='max-width:100%' "
                     f"src='data:image/png;base64,{encoded}'>")  # fmt: skip
    for result in columns[-1][1]:
        parts.append(_section(result))
    write_text(path, "\n".join(parts))


def _summary(columns: Sequence[tuple[str, Sequence[Result]]]) -> str:
    heads = "".join(f"<th>{html.escape(name)}</th><th></th>" for name, _ in columns)
    rows = [f"<tr><th>benchmark</th>{heads}<th>without picture</th><th>constant</th>"
            "<th>questions</th></tr>"]  # fmt: skip
    for i, last in enumerate(columns[-1][1]):
        shown = [results[i] for _, results in columns]
        rows.append(_line(last.benchmark.headline, last.benchmark.counted(last.items), shown, [r.interval("model") for r in shown]))
        for group, count in last.groups().items():
            rows.append(_line(group, count, shown, [r.group_interval("model", group) for r in shown]))
    return f"<table>{''.join(rows)}</table><p class=dim>Small figures: 95 % Wilson interval.</p>"


def _line(score: str, count: int, results: Sequence[Result], intervals: Sequence[tuple[float, float]]) -> str:
    """One score of all models, beside the last one's baselines."""
    cells, last = "", results[-1]
    for result, (low, high) in zip(results, intervals, strict=True):
        value = result.scores["model"][score]
        cells += (f"<td class=n><b>{value:.1%}</b> <span class=dim>{low:.0%}–{high:.0%}</span>"
                  f"</td><td><div class=bar><i style='width:{value:.0%}'></i></div></td>")  # fmt: skip
    name = f"{last.benchmark.kind} ({score.replace('_', ' ')})"
    return (f"<tr><td>{html.escape(name)}</td>{cells}<td class=n>{last.scores['blind'][score]:.1%}</td>"
            f"<td class=n>{last.scores['constant'][score]:.1%}</td><td class=n>{count}</td></tr>")  # fmt: skip


def _section(result: Result) -> str:
    step = max(1, len(result.items) // EXAMPLES)
    cards = [_card(result, i) for i in range(0, len(result.items), step)][:EXAMPLES]
    table = "".join(
        f"<tr><td>{html.escape(name)}</td><td class=n>{_score(result, name, value)}</td></tr>"
        for name, value in result.scores["model"].items()
    )
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in result.sheets.get("said", ()))
    return (f"<h2>{html.escape(result.benchmark.kind)}</h2><table>{table}</table>{said}"
            f"<div class=cards>{''.join(cards)}</div>")  # fmt: skip


def _score(result: Result, name: str, value: float) -> str:
    return f"{value:.1%}" if result.benchmark.is_share(name) else f"{value:.3g}"


def _card(result: Result, i: int) -> str:
    item = result.items[i]
    right = result.benchmark.right(item, result.answers["model"][i])
    gold = ", ".join(item.gold[:4])
    return (
        f"<div class='card {'ok' if right else 'bad'}'>{_picture(result, i)}"
        f"<div class=q>{html.escape(item.request.messages[-1].text)}</div>"
        f"<div>{answer_html(result.answers['model'][i])}</div>"
        f"<div class=dim>right: {html.escape(gold)}<br>without picture: "
        f"{html.escape(result.answers['blind'][i].text) or '—'}</div></div>"
    )


def _picture(result: Result, i: int) -> str:
    """A picture of a question, the one that its answer points into or else the first, as the benchmark shows it beside that."""
    item, answer = result.items[i], result.answers["model"][i]
    pictures = [part.value for message in item.request.messages for part in message.content if part.type == "image"]
    if not pictures:
        return ""
    number = next((part.value.get("picture", 1) for part in answer.parts if part.type in LOCATED_KINDS), 1)
    picture = load_image(pictures[number - 1], root=item.request.root).to_pil()
    return thumbnail([result.benchmark.drawn(item, answer, picture)])
