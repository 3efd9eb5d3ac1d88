"""The risks of all estimators on a grid of tasks, for the sliders of the page on baselines.

Tuning them on the whole grid takes minutes, so that the numbers are a file of the book, which
`python -m icl.site.explorer` writes anew; a test computes a cell of it again.
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

from icl.contexts import draw
from icl.estimators import ESTIMATORS
from icl.intervals import trimmed
from icl.predictors import LinearPredictor, excess_risk
from icl.site.chapters import root
from icl.tasks import SparseLinear

FILE = Path("book/_static/baseline-grid.json")
D, VALUES = 8, "sphere"  # the task of most models of the book, but for what is varied
GRID = {"n": (16, 32, 64, 128), "noise": (0.25, 0.5, 1.0, 2.0), "s": (1, 2, 4, 8)}
CONTEXTS = 4096
SHOWN = {"n": 32, "noise": 1.0, "s": 2}  # what the page shows first


def cell(n: int, noise: float, s: int) -> dict[str, tuple[float, str]]:
    """Every estimator's mean excess risk on one task, and how it was tuned for it."""
    task = SparseLinear(D, s, n, noise, VALUES)
    contexts = draw(task, CONTEXTS, "evaluate", seed=0)
    found = {}
    for name, known in ESTIMATORS.items():
        tuned = known.tuned(task)
        risk = trimmed(excess_risk(tuned, contexts), dim=-1)
        found[name] = float(f"{risk:.4g}"), _chosen(tuned)
    return found


def _chosen(tuned: LinearPredictor) -> str:
    """What tuning chose, in words: a penalty or a number of steps, or nothing."""
    about = vars(tuned)
    if "penalty" in about:
        return f"penalty {about['penalty']:.2g}"
    if "steps" in about:
        return f"{about['steps']:,} step" + "s" * (about["steps"] > 1)
    return ""


def record(folder: Path, say: Callable[[str], None] = print) -> Path:
    """Compute the whole grid, in minutes, and write it down. Returns the file."""
    cells = []
    for values in product(*GRID.values()):
        at = dict(zip(GRID, values, strict=True))
        say(", ".join(f"{name} = {value:g}" for name, value in at.items()))
        cells.append({"at": at, "found": cell(**at)})
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in cells)
    (folder / FILE).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return folder / FILE


def recorded(folder: Path) -> list[dict]:
    """What `record` wrote down."""
    return json.loads((folder / FILE).read_text(encoding="utf-8"))


if __name__ == "__main__":
    record(root())
