"""Where does the sparse mechanism stop paying? One more non-zero weight at a time."""

from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, Claim, Criterion, Judged, judge
from icl.contexts import check
from icl.estimators import ESTIMATORS
from icl.experiments.comparison import Comparison, Pair, advantage
from icl.experiments.measures import later, rise
from icl.experiments.models import MEMBERS, trained_families
from icl.heads import Importance, importance
from icl.intervals import estimate, over_seeds, trimmed
from icl.words import FALL, LOWER, PERCENT, percent

PLANS = dict(plan for found in MEMBERS.values() for plan in found.values())
ALGORITHM = "preprocessed GD"


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
            said="with one non-zero weight, the risk of many heads, against ridge, is {}",
            unit=LOWER,
        ),
        Criterion(
            "reduction of the risk below ridge's, as a fraction, minus that on the next denser "
            "task",
            falls,
            0.0,
            "Above zero, fewer non-zero weights are worth more. Five steps are judged at once, so "
            "their intervals are wider than 95 %.",
            (-torch.inf, torch.inf),
            said="with every step to a denser task the gain over ridge shrinks by {} of "
            "ridge's risk",
            unit=PERCENT,
        ),
        Criterion(
            "reduction of the risk below ridge's, as a fraction, where all weights are non-zero, "
            "negated",
            left,
            -0.1,
            "The same tenth. Dense Gaussian weights leave Bayes itself nothing to gain; to know "
            "the sphere that weights lie on is worth a sixth of ridge's risk.",
            (-1.0, torch.inf),
            said="with all weights non-zero the gain over ridge is {}",
            unit=FALL,
        ),
    ),
)
CLAIMS = (A12,)


@dataclass(frozen=True)
class Family:
    """Models of one kind of weights, by the sparsity they were trained at.

    heads: importance there. risks: (M, B) of the models. ridge and others: (B,) of estimators.
    """

    models: dict[int, Checkpoint]
    heads: dict[int, Importance]
    risks: dict[int, Tensor]
    ridge: dict[int, Tensor]
    others: dict[int, dict[str, Tensor]]

    @property
    def pairs(self) -> dict[int, Pair]:
        """Risks of the models and of ridge."""
        return {s: (risk, self.ridge[s]) for s, risk in self.risks.items()}


@dataclass(frozen=True)
class Result(Judged):
    """The verdict, and a family of models by what their non-zero weights are."""

    families: dict[str, Family]

    def below(self, kind: str, s: int, estimator: str = "") -> str:
        """By what fraction the risk of the models, or of an estimator, is below that of ridge."""
        family = self.families[kind]
        risk = family.others[s][estimator] if estimator else family.risks[s]
        return percent(advantage((risk, family.ridge[s])).mean().item())

    def plot_risks(self) -> None:
        """Risk against sparsity, as a multiple of ridge's, of models trained at each."""
        rows = [
            {"panel": f"weights {kind}", "label": label, "s": s}
            | vars(estimate(risk / trimmed(family.ridge[s], dim=-1)))
            for kind, family in self.families.items()
            for s in family.models
            for label, risk in ({"8-8-8 heads": family.risks[s]} | family.others[s]).items()
        ]
        label = "risk as a multiple of ridge's"
        figures.curves(pd.DataFrame(rows), "s", "non-zero weights s of eight", label, log="")

    def numbers(self) -> tables.Text:
        """Risk, gain and heads of the models, over seeds."""
        rows = [
            {
                "model": model.label,
                "excess risk [95 %]": estimate(family.risks[s]),
                "ridge [95 %]": estimate(family.ridge[s]),
                "below ridge, as a fraction": over_seeds(advantage(family.pairs[s])),
                "rise without the least important first-layer head": rise(family.heads[s]),
                "top share in later layers, mean": over_seeds(later(family.heads[s].top_share)),
            }
            for family in self.families.values()
            for s, model in family.models.items()
        ]
        return tables.show(pd.DataFrame(rows))


def measured(models: dict[int, Checkpoint], contexts: int, seed: int) -> Family:
    """Every model and the estimators on contexts of its own task."""
    on = {s: Comparison.on(x.config.task, contexts, seed) for s, x in models.items()}
    few = max(2, contexts // 4)
    others = {
        s: {name: x.baselines[name] for name in ("lasso", "Bayes")}
        | {ALGORITHM: x.risk(ESTIMATORS[ALGORITHM].tuned(x.contexts.task))}
        for s, x in on.items()
    }
    return Family(
        models,
        {s: importance(found.model, on[s].contexts[:few]) for s, found in models.items()},
        {s: on[s].risk(found.model) for s, found in models.items()},
        {s: x.baselines["ridge"] for s, x in on.items()},
        others,
    )


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of every task, importances on a quarter of them."""
    check(contexts, seed)
    families = {
        kind: measured(models, contexts, seed) for kind, models in trained_families(MEMBERS).items()
    }
    pairs = {f"weights {kind}": found.pairs for kind, found in families.items()}
    return Result(judge(CLAIMS, pairs, shared=True), families)
