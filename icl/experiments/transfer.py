"""Does what was learned at one sparsity serve another, or tasks of another kind?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, Claim, Criterion, Judged, judge
from icl.contexts import check, draw
from icl.estimators import ESTIMATORS
from icl.experiments.comparison import Pair, advantage
from icl.experiments.models import MEMBERS, trained_families
from icl.intervals import over_seeds, reduction
from icl.predictors import Predictor, excess_risk
from icl.tasks import Nonlinear, SparseLinear, Task
from icl.words import GROWTH

PLANS = dict(plan for found in MEMBERS.values() for plan in found.values())
ALGORITHM = "preprocessed GD"
VARIANCES = np.geomspace(1, 16, 8) / np.geomspace(1, 16, 8).mean()
# Tasks of another kind, as large as one weight of size 1: no model was trained on any of them.
UNLIKE: dict[str, Task] = {
    "one weight, unequal variances": SparseLinear(
        8, 1, 32, 0.5, "sphere", covariance=tuple(VARIANCES)
    ),
    "dense Gaussian weights of length 1": SparseLinear(8, 8, 32, 0.5, prior=(1 / 8,) * 8),
    "polynomial of degree 2": Nonlinear(8, 32, 0.5, "hermite-1-2"),
    "polynomial of degree 3": Nonlinear(8, 32, 0.5, "hermite-1-3"),
}


def times(pair: Pair) -> Tensor:
    """How many times (M,) the second risk the first is."""
    return 1 - advantage(pair)


A13 = Claim(
    "A13",
    AFTER_CHEN,
    "What is learned is bound to the sparsity of training: on a task of another sparsity a model "
    "is worse than one that was trained there.",
    (
        Criterion(
            "risk as a multiple of that of the models trained on the task",
            times,
            1.1,
            "A model that has learned an algorithm for all sparsities would lose nothing; a "
            "tenth is the least that deserves to be called worse.",
            ratio=True,
            said="compared with models that were trained on the task, the risk is larger by {}",
            unit=GROWTH,
        ),
    ),
)
CLAIMS = (A13,)


@dataclass(frozen=True)
class Measured:
    """What is measured on the contexts of one task.

    risks: (M, B) of the models by the sparsity they were trained at. tuned: (B,) of preprocessed
    gradient descent by the sparsity it was tuned at. ridge: (B,) of ridge, tuned on the task.
    """

    risks: dict[int, Tensor]
    tuned: dict[int, Tensor]
    ridge: Tensor


@dataclass(frozen=True)
class Family:
    """Tests of models of one kind of weights, by the sparsity of the task.

    unlike: tests on tasks of another kind, by what they are.
    """

    tests: dict[int, Measured]
    unlike: dict[str, Measured]

    def pairs(self) -> dict[str, Pair]:
        """By where from and where to, risks of models and of those that were trained there."""
        return {
            f"s = {s} to {at}": (found.risks[s], found.risks[at])
            for at, found in self.tests.items()
            for s in found.risks
            if s != at
        }


@dataclass(frozen=True)
class Result(Judged):
    """The verdict, and a family of tests by what non-zero weights are."""

    families: dict[str, Family]

    def plot_transfer(self) -> None:
        """Heat-maps of what is gained over ridge, trained or tuned at one s and tested at each."""
        shown = [
            (f"{who}, weights {kind}", verb, _gains(family, part))
            for kind, family in self.families.items()
            for who, verb, part in (
                ("8-8-8 heads", "trained", "risks"),
                (ALGORITHM, "tuned", "tuned"),
            )
        ]
        _, panels = figures.subplots(len(shown), 1, figsize=(figures.WIDTH, 2.6 * len(shown)))
        for axes, (title, verb, table) in zip(panels, shown, strict=True):
            figures.percentages(axes, table)
            axes.set_title(f"{title}: % below ridge's risk")
            axes.set_ylabel(f"{verb} at s")
        panels[-1].set_xlabel("tested at s")

    def others(self) -> tables.Text:
        """What models gain over ridge on tasks of another kind, as a fraction, over seeds."""
        rows = [
            {"weights": kind, "trained at": f"s = {s}"}
            | {
                name: over_seeds(reduction(found.risks[s], found.ridge))
                for name, found in family.unlike.items()
            }
            for kind, family in self.families.items()
            for s in next(iter(family.unlike.values())).risks
        ]
        return tables.show(pd.DataFrame(rows))


def _gains(family: Family, part: str) -> pd.DataFrame:
    """What a part of the tests gains over ridge, in percent: made at, down, and tested at."""
    return pd.DataFrame(
        {
            at: {
                s: 100 * reduction(risk, test.ridge).mean().item()
                for s, risk in getattr(test, part).items()
            }
            for at, test in family.tests.items()
        }
    )


def measured(
    models: dict[int, Predictor], tuned: dict[int, Predictor], task: Task, contexts: int, seed: int
) -> Measured:
    """Risks on so many contexts of a task, of all models and of what was tuned elsewhere."""
    drawn = draw(task, contexts, "evaluate", seed)
    return Measured(
        {s: excess_risk(model, drawn) for s, model in models.items()},
        {s: excess_risk(estimator, drawn) for s, estimator in tuned.items()},
        excess_risk(ESTIMATORS["ridge"].tuned(task), drawn),
    )


def tested(models: dict[int, Checkpoint], contexts: int, seed: int) -> Family:
    """Test models and the algorithm where they were trained and tuned, and everywhere else."""
    tasks = {s: found.config.task for s, found in models.items()}
    plain = {s: found.model for s, found in models.items()}
    tuned = {s: ESTIMATORS[ALGORITHM].tuned(task) for s, task in tasks.items()}
    few = max(2, contexts // 4)
    return Family(
        {s: measured(plain, tuned, task, contexts, seed) for s, task in tasks.items()},
        {name: measured(plain, tuned, task, few, seed) for name, task in UNLIKE.items()},
    )


def run(contexts: int, seed: int) -> Result:
    """Measure on so many contexts of every task; on a quarter where nothing is judged."""
    check(contexts, seed)
    families = {
        kind: tested(models, contexts, seed) for kind, models in trained_families(MEMBERS).items()
    }
    pairs = {
        f"weights {kind}, {way}": pair
        for kind, family in families.items()
        for way, pair in family.pairs().items()
    }
    return Result(judge(CLAIMS, pairs, shared=True), families)
