"""Do transformers nearer to practice divide the work? Softmax and ReLU, normalisation and MLP."""

from dataclasses import dataclass, replace

import pandas as pd

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import CHEN, Claim, Criterion, Judged, judge
from icl.contexts import check, draw
from icl.experiments.comparison import Comparison, Pair, advantage, standings
from icl.experiments.measures import (
    EVERY_HEAD,
    MORE_EVEN,
    ONE_HEAD,
    Likeness,
    likeness,
    plot_shares,
    plot_top_shares,
    rivals,
)
from icl.experiments.models import PRACTICAL, SPARSEST, trained
from icl.heads import Importance, importance
from icl.intervals import estimate, over_seeds, trimmed
from icl.words import LOWER

PLANS = PRACTICAL
NAMES = {
    "relu-norm": "ReLU, k = 8",
    "relu-norm-k16": "ReLU, k = 16",
    "softmax-norm": "softmax, k = 8",
}
QUERIES = 8  # per context; implied weights need more than there are features
IMPLYING = 12
LENGTHS = (8, 16, 32, 64, 128)  # trained at 16 to 48
# Beside them no Bayes: from many examples it finds the one weight, ±1, up to errors of 10⁻²⁵.
AT_LENGTHS = ("GD", "ridge", "lasso")
NEAR = ("GD", "ridge", "lasso", "preprocessed GD", "re-weighted GD", "Bayes")

A2T = Claim(
    "A2t",
    CHEN,
    "Every head of the first layer matters, in transformers nearer to practice.",
    (EVERY_HEAD,),
)
A3T = Claim(
    "A3t",
    CHEN,
    "Later layers usually rely on one head, in transformers nearer to practice.",
    (ONE_HEAD, MORE_EVEN),
)
A8T = Claim(
    "A8t",
    CHEN,
    "Transformers nearer to practice beat gradient descent and ridge regression.",
    (
        Criterion(
            "reduction of the risk below the better of tuned gradient descent and tuned ridge, as "
            "a fraction",
            advantage,
            0.1,
            "As for A8: a tenth is the least that deserves to be called better.",
            (-float("inf"), 1.0),
            said="against the better of gradient descent and ridge, the risk is {}",
            unit=LOWER,
        ),
    ),
)
CLAIMS = (A2T, A3T, A8T)


@dataclass(frozen=True)
class Result(Judged):
    """By kind: models, importance of their heads, what answers imply; risks at other lengths."""

    models: dict[str, Checkpoint]
    comparison: Comparison
    heads: dict[str, Importance]
    implied: dict[str, Likeness]
    lengths: pd.DataFrame

    @property
    def largest_share(self) -> float:
        """The largest share of a later layer's importance that one head has in any seed."""
        return max(found.top_share[:, 1:].max().item() for found in self.heads.values())

    def plot_shares(self) -> None:
        """Heat-maps of importance shares: a panel per kind."""
        plot_shares({name: found.shares for name, found in self.heads.items()})

    def plot_seeds(self) -> None:
        """The largest share of every layer: a panel per kind."""
        plot_top_shares({name: found.top_share for name, found in self.heads.items()})

    def rises(self) -> tables.Text:
        """The rise without the least and the most important head of every layer, over seeds."""
        rows = []
        for name, found in self.heads.items():
            ends = zip(found.relative.amin(dim=-1).T, found.relative.amax(dim=-1).T, strict=True)
            rows += [
                {
                    "model": name,
                    "layer": layer,
                    "least important head": over_seeds(low),
                    "most important head": over_seeds(high),
                }
                for layer, (low, high) in enumerate(ends, 1)
            ]
        return tables.show(pd.DataFrame(rows))

    def nearest(self) -> tables.Text:
        """How much of the implied weights every estimator explains, and what is not linear."""
        rows = [
            {"model": name}
            | {near: found.estimate(near) for near in NEAR}
            | {"answers not linear in the query": over_seeds(trimmed(found.nonlinear, -1))}
            for name, found in self.implied.items()
        ]
        return tables.show(pd.DataFrame(rows))

    def plot_lengths(self) -> None:
        """Risk against the number of examples, inside and beyond the lengths of training."""
        figures.curves(self.lengths, "n", "examples n per context", log="xy")

    def standings(self) -> tables.Text:
        """Risks of the models and of the baselines, with their tails."""
        on = dict.fromkeys(self.models, self.comparison)
        return tables.show(standings(self.models, on))


def over_lengths(models: dict[str, Checkpoint], contexts: int, seed: int) -> pd.DataFrame:
    """Risks of models and references by the number of examples."""
    rows = []
    for n in LENGTHS:
        on = Comparison.on(replace(SPARSEST, n=n), contexts, seed, QUERIES, AT_LENGTHS)
        risks = {name: on.risk(found.model) for name, found in models.items()} | on.baselines
        rows += [
            {"panel": "", "label": name, "n": n, **vars(estimate(risk))}
            for name, risk in risks.items()
        ]
    return pd.DataFrame(rows)


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of this seed, importances on a quarter of them.

    What answers imply is shown for an eighth of them, and other lengths for a sixteenth.
    """
    check(contexts, seed, 32)
    shipped = {model.name: model for model in trained(PLANS).values()}
    models = {NAMES[name]: model for name, model in shipped.items()}
    comparison = Comparison.on(SPARSEST, contexts, seed, QUERIES)
    few = comparison.contexts[: max(2, contexts // 4)]
    heads = {name: importance(model.model, few) for name, model in models.items()}
    pairs: dict[str, Pair] = {
        name: (comparison.risk(model.model), comparison.naive) for name, model in models.items()
    }
    implying = draw(SPARSEST, contexts // 8, "evaluate", seed, queries=IMPLYING)
    others = rivals(implying, NEAR)
    return Result(
        judge((A2T, A3T), heads, shared=True) | judge((A8T,), pairs, shared=True),
        models,
        comparison,
        heads,
        {name: likeness(model.model, implying, others) for name, model in models.items()},
        over_lengths(models, contexts // 16, seed),
    )
