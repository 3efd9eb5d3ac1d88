"""Where does the sparse mechanism stop paying, and does it serve tasks it was not trained on?"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, Claim, Criterion, Verdict, finding
from icl.contexts import draw
from icl.errors import require
from icl.estimators import ESTIMATORS
from icl.experiments.comparison import Comparison, Pair, advantage
from icl.experiments.models import named, sparse, trained
from icl.heads import Importance, importance, smallest_first
from icl.intervals import estimate, over_seeds, reduction, trimmed
from icl.predictors import Predictor, excess_risk
from icl.tasks import Nonlinear, SparseLinear, Task

NOISE, HEADS = 0.5, (8, 8, 8)
NAMES = {s: named(s, NOISE, HEADS, 0.0) for s in (1, 2, 3, 4, 6, 8)}  # by sparsity; of 8 features
PLANS = {name: sparse(s, NOISE, HEADS) for s, name in NAMES.items()}
TASKS = {s: PLANS[name].config.task for s, name in NAMES.items()}
VARIANCES = np.geomspace(1, 16, 8) / np.geomspace(1, 16, 8).mean()
ALGORITHM = "preprocessed GD"
# Tasks of another kind, as large as one weight of size 1: no model was trained on any of them.
UNLIKE: dict[str, Task] = {
    "one weight, unequal variances": replace(TASKS[1], covariance=tuple(VARIANCES)),
    "dense Gaussian weights": SparseLinear(8, 8, 32, NOISE, prior=(1 / 8,) * 8),
    "polynomial of degree 2": Nonlinear(8, 32, NOISE, "hermite-1-2"),
    "polynomial of degree 3": Nonlinear(8, 32, NOISE, "hermite-1-3"),
}


def sparsest(pairs: dict[int, Pair]) -> Tensor:
    """By what fraction (M,) the risk is below ridge's where the fewest weights are non-zero."""
    return advantage(pairs[min(pairs)])


def falls(pairs: dict[int, Pair]) -> dict[str, Tensor]:
    """How much less is gained over ridge, (M,), at every step to denser tasks."""
    steps = pairwise(sorted(pairs))
    return {f"s = {a} to {b}": advantage(pairs[a]) - advantage(pairs[b]) for a, b in steps}


def left(pairs: dict[int, Pair]) -> Tensor:
    """What is gained over ridge where all weights are non-zero, negated, (M,)."""
    return -advantage(pairs[max(pairs)])


def loss(pair: Pair) -> Tensor:
    """By what fraction (M,) the first risk is above the second."""
    return -advantage(pair)


A12 = Claim(
    "A12",
    AFTER_CHEN,
    "What many heads gain over ridge regression is sparsity: it falls with every further weight "
    "that is not zero, and nothing of it is left where all are.",
    (
        Criterion(
            "reduction of the risk below ridge's, as a fraction, with one non-zero weight",
            sparsest,
            0.1,
            "As for A8: a tenth is the least that deserves to be called better.",
            (-torch.inf, 1.0),
        ),
        Criterion(
            "reduction of the risk below ridge's, as a fraction, minus that on the next denser "
            "task",
            falls,
            0.0,
            "Above zero, fewer non-zero weights are worth more. Five steps are judged at once, so "
            "their intervals are wider than 95 %.",
            (-torch.inf, torch.inf),
        ),
        Criterion(
            "reduction of the risk below ridge's, as a fraction, where all weights are non-zero, "
            "negated",
            left,
            -0.1,
            "The same tenth. It is not zero that is asked for: all weights lie on a sphere, and "
            "to know its radius is worth a sixth of ridge's risk to Bayes.",
            (-1.0, torch.inf),
        ),
    ),
)
A13 = Claim(
    "A13",
    AFTER_CHEN,
    "What is learned is bound to the sparsity of training: on a task of another sparsity a model "
    "is worse than one that was trained there.",
    (
        Criterion(
            "rise of the risk, as a fraction, above that of the models trained on the task",
            loss,
            0.1,
            "A model that has learned an algorithm for all sparsities would lose nothing; a "
            "tenth is the least that deserves to be called worse.",
            (-1.0, torch.inf),
        ),
    ),
)
CLAIMS = (A12, A13)


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
class Result:
    """By the sparsity of training: models, their heads, and baselines; tests by task."""

    verdicts: dict[str, Verdict]
    models: dict[int, Checkpoint]
    heads: dict[int, Importance]
    baselines: dict[int, dict[str, Tensor]]
    tests: dict[int, Measured]
    unlike: dict[str, Measured]

    @property
    def finding(self) -> tables.Text:
        """A sentence per verdict."""
        return finding(self.verdicts.values())

    def plot_risks(self) -> None:
        """Risk against sparsity, as a multiple of ridge's, of models trained at each."""
        rows = []
        for s, test in self.tests.items():
            bar = trimmed(test.ridge, dim=-1)
            risks = {"8-8-8 heads, trained at s": test.risks[s]} | self.baselines[s]
            for label, risk in risks.items():
                rows.append({"panel": "", "label": label, "s": s, **vars(estimate(risk / bar))})
        label = "risk as a multiple of ridge's"
        figures.curves(pd.DataFrame(rows), "s", "non-zero weights s of eight", label, log="")

    def plot_transfer(self) -> None:
        """Heat-maps of what is gained over ridge, trained or tuned at one s and tested at each."""
        kinds = {
            "8-8-8 heads": lambda test: test.risks,
            ALGORITHM: lambda test: test.tuned,
        }
        _, panels = figures.subplots(len(kinds), 1, figsize=(figures.WIDTH, 6.4))
        for axes, (name, of) in zip(panels, kinds.items(), strict=True):
            gains = {
                s: {at: 100 * reduction(x, test.ridge).mean().item() for at, x in of(test).items()}
                for s, test in self.tests.items()
            }
            shown = pd.DataFrame(gains).clip(-999, 99).round() + 0.0  # no −0
            look = {"vmin": -100, "vmax": 100, "cmap": "vlag_r", "fmt": ".0f", "linewidths": 1}
            sns.heatmap(shown, ax=axes, annot=True, cbar=False, **look)
            axes.set_title(f"{name}: % below ridge's risk", loc="left", fontsize=12)
            axes.set(ylabel="trained at s" if name != ALGORITHM else "tuned at s", xlabel="")
            axes.tick_params(axis="y", rotation=0)
        panels[-1].set_xlabel("tested at s")

    def others(self) -> tables.Text:
        """What models gain over ridge on tasks of another kind, as a fraction, over seeds."""
        rows = [
            {"trained at": f"s = {s}"}
            | {
                name: over_seeds(reduction(test.risks[s], test.ridge))
                for name, test in self.unlike.items()
            }
            for s in self.models
        ]
        return tables.show(pd.DataFrame(rows))

    def numbers(self) -> tables.Text:
        """Risk, gain and heads of the models where they were trained, over seeds."""
        rows = [
            {
                "model": model.label,
                "excess risk [95 %]": estimate(self.tests[s].risks[s]),
                "ridge [95 %]": estimate(self.tests[s].ridge),
                "below ridge, as a fraction": over_seeds(
                    reduction(self.tests[s].risks[s], self.tests[s].ridge)
                ),
                "rise without the least important first-layer head": over_seeds(
                    smallest_first(self.heads[s])
                ),
                "top share in later layers, mean": over_seeds(
                    self.heads[s].top_share[:, 1:].nanmean(dim=1)
                ),
            }
            for s, model in self.models.items()
        ]
        return tables.show(pd.DataFrame(rows))


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


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of every task, importances on a quarter of them."""
    require(contexts >= 2, f"contexts={contexts}: allowed are 2 and more")
    shipped = {model.name: model for model in trained(PLANS).values()}
    checkpoints = {s: shipped[name] for s, name in NAMES.items()}
    models = {s: found.model for s, found in checkpoints.items()}
    tuned = {s: ESTIMATORS[ALGORITHM].tuned(task) for s, task in TASKS.items()}
    tests = {s: measured(models, tuned, task, contexts, seed) for s, task in TASKS.items()}
    baselines, heads = {}, {}
    for s, task in TASKS.items():
        on = Comparison.on(task, contexts, seed)
        baselines[s] = {k: on.baselines[k] for k in ("lasso", "Bayes")}
        baselines[s][ALGORITHM] = tests[s].tuned[s]
        heads[s] = importance(models[s], on.contexts[: max(2, contexts // 4)])
    native = {s: (found.risks[s], found.ridge) for s, found in tests.items()}
    foreign = {
        f"s = {s} to {at}": (found.risks[s], found.risks[at])
        for at, found in tests.items()
        for s in found.risks
        if s != at
    }
    return Result(
        {
            "A12": A12.judge({"eight features, noise 0.5": native}, shared=True),
            "A13": A13.judge(foreign, shared=True),
        },
        checkpoints,
        heads,
        baselines,
        tests,
        {name: measured(models, tuned, task, contexts, seed) for name, task in UNLIKE.items()},
    )
