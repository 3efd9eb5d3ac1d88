"""Is preprocessing what the heads buy? Models of one head that are given preprocessed inputs."""

import math
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, Claim, Criterion, Judged, judge
from icl.contexts import check
from icl.experiments.comparison import TAIL, Comparison
from icl.experiments.models import FULL, SINGLE_HEAD, flagship, trained, workhorse
from icl.intervals import estimate, number, over_seeds, reduction
from icl.words import PERCENT

PLANS = {
    "heads-1-3": SINGLE_HEAD["heads-1-3"],
    "preprocessed-2": workhorse(1, 1, inputs="preprocessed"),
    "preprocessed-3": workhorse(1, 1, 1, inputs="preprocessed"),
    "scaled-2": workhorse(1, 1, inputs="scaled"),
    "scaled-3": workhorse(1, 1, 1, inputs="scaled"),
    "workhorse-3": FULL["workhorse-3"],
    "flagship-1": SINGLE_HEAD["flagship-1"],
    "flagship-preprocessed": flagship(1, 1, 1, inputs="preprocessed"),
    "flagship-scaled": flagship(1, 1, 1, inputs="scaled"),
    "flagship": FULL["flagship"],
}
# For every setting: one head on raw inputs, one head on preprocessed ones, many heads.
SETTINGS = {
    "3 layers": ("heads-1-3", "preprocessed-3", "workhorse-3"),
    "2 layers after preprocessing": ("heads-1-3", "preprocessed-2", "workhorse-3"),
    "3 layers, scaled": ("heads-1-3", "scaled-3", "workhorse-3"),
    "2 layers after preprocessing, scaled": ("heads-1-3", "scaled-2", "workhorse-3"),
    "d = 16": ("flagship-1", "flagship-preprocessed", "flagship"),
    "d = 16, scaled": ("flagship-1", "flagship-scaled", "flagship"),
}


def advantage(risks: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """By what fraction (M,) many heads have a lower risk than one; risks as for `bought`."""
    raw, _, many = risks
    return reduction(many, raw)


def bought(risks: tuple[Tensor, Tensor, Tensor], average: str = "trimmed") -> Tensor:
    """Share (M,) of many heads' advantage over one that given preprocessing has as well.

    From risks (M, B) of one head on raw inputs, one on preprocessed ones, and many heads.
    """
    raw, given, many = risks
    return reduction(given, raw, average) / reduction(many, raw, average)


A9 = Claim(
    "A9",
    AFTER_CHEN,
    "Preprocessing is what many heads buy.",
    (
        Criterion(
            "reduction of the risk from one head per layer to many, as a fraction",
            advantage,
            0.0,
            "Only of an advantage can a share be bought.",
            (-math.inf, 1.0),
            said="from one head per layer to many the risk falls by {}",
            unit=PERCENT,
        ),
        Criterion(
            "share of the multi-head model's advantage over a one-head model that "
            "preprocessed inputs give to the one-head model",
            bought,
            0.5,
            "Above one half, preprocessing accounts for most of what the heads buy.",
            said="preprocessed inputs give a model with one head per layer {} of the "
            "advantage of many heads",
            unit=PERCENT,
        ),
    ),
)
CLAIMS = (A9,)


@dataclass(frozen=True)
class Result(Judged):
    """Excess risks (M, B) of every model on the contexts of its own task, and the verdict."""

    models: dict[str, Checkpoint]
    risks: dict[str, Tensor]
    comparisons: dict[str, Comparison]

    @property
    def finding(self) -> tables.Text:
        """The verdict in a sentence, and the same share by medians."""
        shares = (
            f"{over_seeds(bought([self.risks[name] for name in names], 'median'))} ({setting})"
            for setting, names in SETTINGS.items()
        )
        medians = f"**By medians over contexts** the share is {'; '.join(shares)}."
        return tables.Text(f"{super().finding}\n\n{medians}")

    def plot_medians(self) -> None:
        """Median risks, a dot per seed, beside the references' medians."""
        rows, references = [], {}
        for name, risk in self.risks.items():
            task = self.models[name].config.task
            panel = f"d = {task.d}, n = {task.n}"
            medians = risk.quantile(0.5, dim=-1).tolist()
            about = {"panel": panel, "label": self.models[name].label}
            rows += [about | {"value": median} for median in medians]
            references[panel] = self.comparisons[name].references(panel, "median")
        figures.dots(pd.DataFrame(rows), pd.concat(references.values()), "median excess risk")

    def numbers(self) -> tables.Text:
        """Every risk with its tail."""
        rows = [
            {"model": self.models[name].label, "excess risk [95 %]": estimate(risk)}
            | {k: number(v(risk, self.comparisons[name].zero).mean()) for k, v in TAIL.items()}
            for name, risk in self.risks.items()
        ]
        return tables.show(pd.DataFrame(rows))


def run(contexts: int, seed: int) -> Result:
    """Compare all models on so many evaluation contexts of this seed."""
    check(contexts, seed)
    models = trained(PLANS)
    tasks = {model.config.task for model in models.values()}
    on = {task: Comparison.on(task, contexts, seed) for task in tasks}
    comparisons = {name: on[model.config.task] for name, model in models.items()}
    risks = {name: comparisons[name].risk(model.model) for name, model in models.items()}
    measured = {
        setting: tuple(risks[name] for name in names) for setting, names in SETTINGS.items()
    }
    return Result(judge(CLAIMS, measured, shared=True), models, risks, comparisons)
