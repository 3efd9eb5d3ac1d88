"""The models that chapters speak of most: how good they are, where they are used, how trained."""

from functools import cache
from pathlib import Path

import icl
from icl.bayes import PosteriorMean
from icl.checkpoints import Checkpoint
from icl.contexts import Contexts, draw
from icl.estimators import tuned_ridge
from icl.experiments import experiments
from icl.files import TRAINED, file_in, load
from icl.intervals import estimate
from icl.predictors import excess_risk
from icl.recipe import OPTIMISERS, USUAL
from icl.site.chapters import Chapter
from icl.site.digests import digest
from icl.tables import Text, table
from icl.tasks import SparseLinear
from icl.threads import one_thread

# What to call them in words, by the names of their files.
FAMILIAR = {
    "lsa-d8-n32-noise1": "One layer",
    "heads-8-2": "Two layers",
    "heads-1-3": "One head per layer",
    "heads-811": "Many heads in the first layer only",
    "workhorse-3": "Three layers",
    "workhorse-5": "Five layers",
    "flagship": "Sixteen features",
    "relu-norm": "ReLU transformer",
    "softmax-norm": "Softmax transformer",
}
CONTEXTS, SEED = 4096, 1  # as in most chapters; a quarter where answers take tokens
QUERIES = 8


def standings(kept: Path) -> str:
    """Their labels and tasks, and their risks beside those of ridge and Bayes.

    It takes a while, so the table is kept in a file until the models or the core change.
    """
    core = sorted(Path(icl.__file__).parent.glob("*.py"))
    mark = digest([Path(__file__), *core, *(file_in(TRAINED, name) for name in FAMILIAR)])
    first = f"<!-- {mark} -->\n"
    if not kept.exists() or not kept.read_text(encoding="utf-8").startswith(first):
        rows = [standing(name, load(file)) for file, name in FAMILIAR.items()]
        header = ["model", "label in figures", "task", "risk [95 %]", "ridge", "Bayes"]
        kept.write_text(first + table(header, rows), encoding="utf-8")
    return kept.read_text(encoding="utf-8").removeprefix(first)


@one_thread()
def standing(name: str, model: Checkpoint, count: int = CONTEXTS) -> list[str]:
    """One row: risks are averages over the model's seeds and so many contexts."""
    task = model.config.task
    if model.config.architecture.queries:
        contexts = _contexts(task, count // 4, QUERIES)
    else:
        contexts = _contexts(task, count, 0)
    risk = estimate(excess_risk(model.model, contexts))
    about = f"{'dense' if task.s == task.d else f's = {task.s}'}, noise {task.noise:g}"
    unbroken = (
        x.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}") for x in (model.label, about)
    )
    return [f"**{name}**", *unbroken, str(risk), *_bounds(contexts)]


@cache
def _contexts(task: SparseLinear, count: int, queries: int) -> Contexts:
    return draw(task, count, "evaluate", SEED, queries=queries)


@cache
def _bounds(contexts: Contexts) -> list[str]:
    """The risks of ridge and of Bayes."""
    both = tuned_ridge(contexts.task), PosteriorMean(contexts.task)
    risks = (estimate(excess_risk(predictor, contexts)).value for predictor in both)
    return [f"{risk:.3f}" if risk >= 0.001 else "< 0.001" for risk in risks]


def uses(found: dict[str, Chapter]) -> Text:
    """The chapters, of those found, that each of the models is used in."""
    planned = {name: experiment.PLANS for name, experiment in experiments().items()}
    lines = []
    for file, name in FAMILIAR.items():
        places = [f"[](./{chapter})" for chapter in found if file in planned.get(chapter, {})]
        lines.append(f"- **{name}:** {'; '.join(places)}")
    return Text("\n".join(lines))


def recipes() -> Text:
    """The usual recipes, which labels compare with."""
    rows = [
        [
            OPTIMISERS[recipe.optimiser],
            f"{recipe.steps:,}",
            recipe.batch,
            f"{recipe.lr:g}",
            f"{recipe.init_scale:g}",
            f"{recipe.weight_decay:g}",
            " to ".join(map(str, recipe.lengths)) or "the task's",
        ]
        for recipe in USUAL.values()
    ]
    header = ["optimiser", "steps", "contexts per step", "rate", "initial scale", "decay", "n"]
    return table(header, rows)
