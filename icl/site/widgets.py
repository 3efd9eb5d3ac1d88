"""What the interactive pages load, and what they show where no script runs.

The script of the head switchboard runs real models in the reader's browser, so everything it needs
is exported when the site is built: weights in half precision, in which they ship, and contexts
rounded to single precision, which for the page *are* the contexts.
"""

import json
import math
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from icl.errors import require
from icl.estimators import ESTIMATORS
from icl.heads import Kept
from icl.site import explorer, switchboard
from icl.site.switchboard import MODELS, RANDOM_SEEDS, Shown
from icl.tables import table
from icl.tasks import require_alike
from icl.transformer import LinearTransformer

NEGLIGIBLE = 1e-6  # a risk that is shown as zero


def write(book: Path) -> None:
    """Write what the interactive pages load and include into a staged `book` that has them."""
    if (book / "head-switchboard.md").exists():
        _script(book, "SWITCHBOARD", "switchboard", [exported(shown) for shown in MODELS])
        _text(book, "head-switchboard", switchboard.finding())
        _text(book, "head-switchboard-figure", figure(switchboard.standings()))
    if (book / "baseline-explorer.md").exists():
        cells = explorer.recorded(book.parent)
        data = {"grid": explorer.GRID, "shown": explorer.SHOWN, "cells": cells}
        _script(book, "BASELINES", "explorer", data)
        _text(book, "baseline-explorer", first_cell(cells))


def _script(book: Path, name: str, widget: str, data: list | dict) -> None:
    """Data as a script: a page that is opened as a file may load scripts and nothing else."""
    looks = {n: {"colour": e.colour, "marker": e.marker} for n, e in ESTIMATORS.items()}
    content = json.dumps({"looks": looks, "data": data}, ensure_ascii=False)
    path = book / "_static" / f"{widget}-data.js"
    path.write_text(f"const {name} = {content};\n", encoding="utf-8")


def _text(book: Path, name: str, content: str) -> None:
    (book / f"{name}.txt").write_text(content, encoding="utf-8")


def exported(shown: Shown) -> dict:
    """All that the script needs of a model; numbers in bulk as base64, little-endian."""
    model, contexts, config = shown.model, shown.contexts, shown.model.config
    require_alike(shown.task)
    require(config.inputs == "raw", f"inputs={config.inputs!r}: the script computes raw ones only")
    rows, columns = torch.tril_indices(*contexts.gram.shape[-2:])
    ridge = shown.estimators["ridge"].weights(contexts)
    task = shown.task
    return {
        "title": shown.title,
        "about": shown.about,
        "task": f"d = {task.d}, s = {task.s}, n = {task.n}, noise {task.noise:g}",
        "file": f"{shown.file}, seed {shown.seed}",
        "features": config.d,
        "width": config.d_model,
        "headWidth": config.d_head,
        "heads": config.heads,
        "weights": packed(flat(model), torch.float16),
        "contexts": len(contexts),
        "grams": packed(contexts.gram[:, rows, columns], torch.float32),
        "truth": packed(contexts.w, torch.float32),
        "ridge": packed(ridge.float(), torch.float32),
        "references": shown.references,
        "factors": list(_by_layer(shown, 1 + shown.importance.relative)),
        "shares": list(_by_layer(shown, shown.importance.shares.nan_to_num(0.0))),
        "presets": {name: switches(kept) for name, kept in shown.presets.items()},
        "random": [switches(shown.at_random(seed)) for seed in RANDOM_SEEDS],
    }


def flat(model: LinearTransformer) -> Tensor:
    """One model's weights in the order in which the script reads them.

    First `embed`; then head by head, layer by layer, `query`, `key`, `value` and `output`; then
    `readout`.
    """
    parts = [model.embed.weight]
    for block in model.blocks:
        for h in range(block.output.weight.shape[1]):
            maps = (block.query, block.key, block.value)
            parts += [*(each.weight[0, :, h] for each in maps), block.output.weight[0, h]]
    return torch.cat([part.flatten() for part in (*parts, model.readout.weight)])


def packed(values: Tensor, dtype: torch.dtype) -> str:
    """Numbers as base64, which `dtype` must hold exactly."""
    small = values.to(dtype)
    require(bool((small == values).all()), f"values that {dtype} rounds: they must be exact in it")
    content = small.contiguous().numpy()
    return b64encode(content.astype(content.dtype.newbyteorder("<")).tobytes()).decode()


def switches(kept: Kept) -> list[str]:
    """A choice of heads as the script writes it: a string of 0 and 1 per layer."""
    return ["".join(str(int(on)) for on in layer[0]) for layer in kept]


def _by_layer(shown: Shown, values: Tensor) -> Iterator[list[float]]:
    for row, heads in zip(values[0], shown.model.config.heads, strict=True):
        yield [float(f"{x:.4g}") for x in row[:heads].tolist()]


def first_cell(cells: list[dict]) -> str:
    """The cell that the sliders show first, as a table."""
    (found,) = (cell["found"] for cell in cells if cell["at"] == explorer.SHOWN)
    rows = [[name, risk_in_words(risk), chosen] for name, (risk, chosen) in found.items()]
    at = ", ".join(f"{name} = {value:g}" for name, value in explorer.SHOWN.items())
    return f"At {at}:\n\n{table(['estimator', 'excess risk', 'tuned to'], rows)}\n"


def risk_in_words(risk: float) -> str:
    """A risk as a reader wants it: three digits, and no more zeros than that takes.

    >>> [risk_in_words(x) for x in (0.27991, 1435.9, 4e-24)]
    ['0.280', '1,436', '0']
    """
    if risk < NEGLIGIBLE:
        return "0"
    return f"{risk:,.0f}" if risk >= 100 else f"{risk:#.3g}"


# The static figure in pixels: as wide as a phone's column, so that its text is never shrunk.
WIDE, LEFT, RIGHT, ROW = 360, 150, 304, 17
AXIS = (1e-2, 1e4)


def figure(panels: dict[str, dict[str, float]]) -> str:
    """A dot plot as HTML: a panel per model, a row per choice of heads and per reference.

    It takes the page's colours, so that it is right in the light and in the dark.
    """
    y, parts = 0, []
    for title, risks in panels.items():
        y += ROW + 8
        parts.append(f'<text x="0" y="{y}" font-weight="bold">{escape(title)}</text>')
        for name, risk in risks.items():
            y += ROW
            parts += _row(y, name, risk)
    summary = "; ".join(
        f"{title}: {', '.join(f'{name} {risk_in_words(risk)}' for name, risk in risks.items())}"
        for title, risks in panels.items()
    )
    label = f"Mean excess risks on a logarithmic axis. {summary}."
    drawn = "\n".join(parts)
    return (
        "```{raw} html\n"
        f'<svg class="static" role="img" viewBox="0 0 {WIDE} {y + 8}" fill="currentColor" '
        f'font-size="11.5" aria-label="{escape(label)}">\n{drawn}\n</svg>\n```\n'
    )


def _row(y: int, name: str, risk: float) -> list[str]:
    """A name, a line with a dot, or with an arrow where it lies beyond the axis, and a number."""
    low, high = map(math.log, AXIS)
    place = (math.log(max(risk, 1e-300)) - low) / (high - low)
    x, middle = LEFT + (RIGHT - LEFT) * min(max(place, 0), 1), y - 4
    mark = f'<circle cx="{x:.1f}" cy="{middle}" r="4.5"/>'
    if not 0 <= place <= 1:
        tip = 6 if place > 1 else -6
        mark = f'<path d="M{x:.1f} {middle}m{-tip} -5l{2 * tip} 5l{-2 * tip} 5z"/>'
    colour = ESTIMATORS[name].colour if name in ESTIMATORS else "currentColor"
    return [
        f'<text x="8" y="{y}">{escape(name)}</text>',
        f'<path d="M{LEFT} {middle}H{RIGHT}" stroke="currentColor" stroke-opacity="0.2"/>',
        f'<g fill="{colour}" stroke="currentColor" stroke-width="0.7">{mark}</g>',
        f'<text x="{WIDE}" y="{y}" text-anchor="end">{risk_in_words(risk)}</text>',
    ]
