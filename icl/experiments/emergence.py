"""When in training does the pattern of heads emerge, and does it stay? Models along the way."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, Claim, Criterion, Judged, judge
from icl.contexts import check
from icl.experiments.comparison import Comparison
from icl.experiments.measures import EVERY_HEAD, MORE_EVEN, ONE_HEAD, Likeness, likeness, rivals
from icl.experiments.models import ALONE, GRID, PRACTICAL, trained, watched
from icl.heads import Importance, contrast, importance, least_first, top_later
from icl.intervals import estimate, over_seeds, trimmed
from icl.predictors import excess_risk
from icl.words import PERCENT

# The watched models by what to call them, and those of one head per layer on the same task.
CELLS = {
    f"linear, s = {s}, noise {noise:g}, {kind}": (s, noise, kind)
    for s, noise, kind in ((1, 0.5, "8-8-8, decay"), (2, 1.0, "8-8-8"))
}
WATCHED = {name: watched(*cell) for name, cell in CELLS.items()}
WATCHED |= {"ReLU, norm, s = 1, noise 0.5": ("relu-norm", PRACTICAL["relu-norm"])}
SINGLE = {name: GRID[s, noise, ALONE] for name, (s, noise, _) in CELLS.items()}
PLANS = dict([*WATCHED.values(), *SINGLE.values()])
QUERIES = 12  # per context, for models that need them: more than there are features
FEWER = 16  # times, are contexts that are answered token by token
SHOWN = 32  # times fewer are contexts that show heads before and after the middle of training
LEAST = 64  # contexts, where there are so many
BARS, NEAR = ("GD", "ridge"), ("GD", "preprocessed GD", "ridge", "Bayes")
ONE, STEPS = "one head per layer", "steps of training"


@dataclass(frozen=True)
class Course:
    """A model along its training, looked at after `steps` (T,).

    risks: (T, M, B) in every context; heads and likeness: at every look.
    bars: by what has it, a risk on the same contexts, (B,) of ridge and of GD, (M, B) of models
        with one head per layer.
    """

    steps: tuple[int, ...]
    risks: Tensor
    bars: dict[str, Tensor]
    heads: tuple[Importance, ...]
    likeness: tuple[Likeness, ...]

    def likeness_after(self, step: int) -> Likeness:
        """What the answers were like at one of the looks."""
        return self.likeness[self.steps.index(step)]

    def average(self, values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Mean over the looks in the middle, (M,), of what every look has by layer."""
        weight = middle(self.risks, self.bars["ridge"]).double()
        return {
            layer: (torch.stack([look[layer] for look in values]) * weight).sum(0) / weight.sum(0)
            for layer in values[0]
        }


def middle(risks: Tensor, ridge: Tensor) -> Tensor:
    """Whether each look (T, M) is in the middle of what is learned, by risks (T, M, B) and (B,).

    That is from the first one at which the risk is below ridge's until the first below the
    geometric mean of ridge's and the final risk; at least the first of these looks.
    """
    risk, bar = trimmed(risks.double(), dim=-1), trimmed(ridge.double(), dim=-1)
    below = (risk < bar).int().cummax(dim=0).values.bool()
    late = (risk < (bar * risk[-1]).sqrt()).int().cummax(dim=0).values.bool()
    at_first = below & (below.int().cumsum(dim=0) == 1)
    return (below & ~late) | at_first


def halfway(measure: Callable[[Importance], dict[str, Tensor]]) -> Callable[[Course], dict]:
    """A measure of a course, in the middle of training, of one that every look has."""

    def average(course: Course) -> dict[str, Tensor]:
        """Mean (M,) over the looks in the middle of training, by layer."""
        return course.average([measure(found) for found in course.heads])

    return average


def needed(heads: tuple[Importance, ...]) -> Tensor:
    """Whether no first-layer head can be spared at a look and at all later ones, (T, M)."""
    matter = torch.stack([least_first(found) > EVERY_HEAD.threshold for found in heads])
    return matter.int().flip(0).cummin(dim=0).values.flip(0).bool()


def fades(course: Course) -> dict[str, Tensor]:
    """By how much the top share (M,) of every later layer is larger in the middle."""
    looks = [top_later(found) for found in course.heads]
    return {layer: share - looks[-1][layer] for layer, share in course.average(looks).items()}


A3E = Claim(
    "A3e",
    AFTER_CHEN,
    "In the middle of training, between ridge and what is learned later, later layers rely on one "
    "head and the first is more even.",
    (
        replace(
            ONE_HEAD,
            statistic="top-1 share of importance in every later layer, in the middle of training",
            measure=halfway(top_later),
            said=f"in the middle of training {ONE_HEAD.said}",
        ),
        replace(
            MORE_EVEN,
            statistic=f"{MORE_EVEN.statistic}, in the middle of training",
            measure=halfway(contrast),
            said=f"in the middle of training {MORE_EVEN.said}",
        ),
        Criterion(
            "top-1 share of importance in every later layer in the middle of training, minus that "
            "at its end",
            fades,
            0.0,
            "Above zero, what is there in the middle has faded at the end.",
            (-1.0, 1.0),
            said="at the end of training the top head's share is smaller than in the "
            "middle by {} of the layer's importance",
            unit=PERCENT,
        ),
    ),
)
CLAIMS = (A3E,)


@dataclass(frozen=True)
class Result(Judged):
    """The verdict, and the course of every watched model by its name."""

    courses: dict[str, Course]

    def plot_risks(self) -> None:
        """Risk along the training, beside what it passes."""
        rows = []
        for name, course in self.courses.items():
            for step, risk in zip(course.steps, course.risks, strict=True):
                about = {"panel": name, "step": step}
                for label, found in ({"model": risk} | course.bars).items():
                    rows.append(about | {"label": label} | vars(estimate(found)))
        figures.curves(pd.DataFrame(rows), "step", STEPS, log="xy")

    def plot_heads(self) -> None:
        """Top share and entropy of every layer along the training."""
        measures = {"top share": lambda i: i.top_share, "entropy": lambda i: i.entropy}
        rows = [
            {
                "panel": name,
                "column": what,
                "step": step,
                "label": f"layer {layer}",
                **vars(over_seeds(values.nan_to_num(0.0)).within(0.0, 1.0)),
            }
            for name, course in self.courses.items()
            for what, measure in measures.items()
            for step, found in zip(course.steps, course.heads, strict=True)
            for layer, values in enumerate(measure(found).unbind(dim=1), 1)
        ]
        figures.curves(pd.DataFrame(rows), "step", STEPS, "share or entropy", "x", (0.0, 1.0))

    def plot_likeness(self) -> None:
        """How much of the answers' weights algorithms explain along the training."""
        rows = [
            {"panel": name, "step": step, "label": near, **vars(over_seeds(found.explained(near)))}
            for name, course in self.courses.items()
            for step, found in zip(course.steps, course.likeness, strict=True)
            for near in NEAR
        ]
        figures.curves(pd.DataFrame(rows), "step", STEPS, "fraction explained", "x", (0.0, 1.0))

    def milestones(self) -> tables.Text:
        """When the median seed passes every bar, is halfway, and needs all heads of layer 1."""
        rows = []
        for name, course in self.courses.items():
            steps = torch.tensor(course.steps)
            risk = trimmed(course.risks.double(), dim=-1)
            passed = {
                label: first(risk < trimmed(bar.double(), -1).mean(), steps)
                for label, bar in course.bars.items()
            }
            last = torch.where(middle(course.risks, course.bars["ridge"]), steps[:, None], 0)
            rows.append(
                {"model": name}
                | {f"below {label} from step": passed.get(label, "") for label in (*BARS, ONE)}
                | {
                    "in the middle until step": f"{last.amax(dim=0).median():.0f}",
                    "all first-layer heads needed from step": first(needed(course.heads), steps),
                    "final risk": over_seeds(risk[-1]),
                }
            )
        return tables.show(pd.DataFrame(rows))


def first(reached: Tensor, steps: Tensor) -> str:
    """The step of the first look at which the median seed has reached something, (T, M)."""
    when = torch.where(reached.any(dim=0), steps[reached.int().argmax(dim=0)].double(), np.inf)
    median = when.quantile(0.5, interpolation="nearest").item()
    return f"{median:.0f}" if median < np.inf else "never"


def course(model: Checkpoint, single: Checkpoint | None, contexts: int, seed: int) -> Course:
    """Look at a model after every kept step and at its end, always on the same contexts."""
    queries = QUERIES if model.config.architecture.queries else 0
    on = Comparison.on(model.config.task, contexts, seed, queries, BARS)
    bars = dict(on.baselines)
    if single:
        bars[ONE] = on.risk(single.model)
    few = on.contexts[: max(2, contexts // 4)]
    others = rivals(few, NEAR)
    looks = [*(model.at(step) for step in model.snapshots), model.model]
    risks = torch.stack([excess_risk(look, on.contexts) for look in looks])
    judged = middle(risks, bars["ridge"]).any(dim=1)
    judged[-1] = True
    counts = torch.where(judged, len(few), max(LEAST, contexts // SHOWN)).tolist()
    return Course(
        (*model.snapshots, model.config.recipe.steps),
        risks,
        bars,
        tuple(importance(look, few[:n]) for look, n in zip(looks, counts, strict=True)),
        tuple(likeness(look, few, others) for look in looks),
    )


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of this seed, heads and likeness on a quarter of them.

    Heads before and after the middle of training are shown on fewer. Token by token all this would
    take minutes, so models that need tokens are shown on fewer contexts, and not judged.
    """
    check(contexts, seed)
    courses, judged = {}, {}
    models = trained(PLANS)
    for name, (file, _) in WATCHED.items():
        model, single = models[file], models[SINGLE[name][0]] if name in SINGLE else None
        linear = model.config.architecture.collapses
        count = contexts if linear else max(2, contexts // FEWER)
        courses[name] = course(model, single, count, seed)
        if linear:
            judged[name] = courses[name]
    return Result(judge(CLAIMS, judged, shared=True), courses)
