"""Which heads does a trained transformer use? Every head masked in turn."""

from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from icl import tables
from icl.checkpoints import Checkpoint
from icl.claims import CHEN, Claim, Judged, judge
from icl.contexts import check
from icl.errors import whole
from icl.experiments.comparison import Comparison, standings
from icl.experiments.measures import (
    EVERY_HEAD,
    MORE_EVEN,
    ONE_HEAD,
    plot_shares,
    plot_top_shares,
    rise,
    steady,
)
from icl.experiments.models import DECAYED, FULL, trained
from icl.heads import FILLS, Importance, contrast, importance, top_later
from icl.intervals import AVERAGES, Estimate, number, over_seeds

PLANS = {
    "workhorse-3": FULL["workhorse-3"],
    "workhorse-5": FULL["workhorse-5"],
    **DECAYED,
    "flagship": FULL["flagship"],
}


A2 = Claim("A2", CHEN, "Every head of the first layer matters.", (EVERY_HEAD,))
A3 = Claim("A3", CHEN, "Later layers usually rely on one head.", (ONE_HEAD, MORE_EVEN))
CLAIMS = (A2, A3)


@dataclass(frozen=True)
class Result(Judged):
    """Importance of the heads of every model, by its label, and the verdicts.

    Masked heads put out zero in `zero`, and their mean in `mean`.
    """

    models: dict[str, Checkpoint]
    comparisons: dict[str, Comparison]
    zero: dict[str, Importance]
    mean: dict[str, Importance]

    def plot_shares(self) -> None:
        """Heat-maps of importance shares: a panel per model."""
        plot_shares({label: found.shares for label, found in self.zero.items()})

    def plot_top_shares(self) -> None:
        """The largest share of every layer: a panel per model."""
        plot_top_shares({label: found.top_share for label, found in self.zero.items()})

    @property
    def most_of_three(self) -> float:
        """The largest mean share of a later layer's top head, of the models of three layers."""
        three = [found for found in self.zero.values() if found.masked.shape[1] == 3]
        return max(top.mean().item() for found in three for top in top_later(found).values())

    @property
    def ruled(self) -> str:
        """In how many seeds, of all, one head of the first layer outweighs all others together."""
        tops = torch.cat([found.top_share[:, 0] for found in self.zero.values()])
        return f"{(tops > ONE_HEAD.threshold).sum()} of {len(tops)}"

    def fragility(self) -> tables.Text:
        """The smallest and largest relative rise in every layer, each the median over seeds."""
        rows = []
        for label, found in self.zero.items():
            low = found.relative.nan_to_num(torch.inf).amin(dim=-1).quantile(0.5, dim=0)
            high = found.relative.nan_to_num(-1).amax(dim=-1).quantile(0.5, dim=0)
            ends = [f"{number(a, 2)} to {number(b, 2)}" for a, b in zip(low, high, strict=True)]
            rows.append({"model": label} | {f"layer {i}": end for i, end in enumerate(ends, 1)})
        return tables.show(pd.DataFrame(rows).fillna(""))

    def robustness(self) -> tables.Text:
        """The deciding statistics under every way to mask a head and to average over contexts."""
        rows = [
            {
                "model": label,
                "masked head puts out": output,
                "average over contexts": average,
                "smallest relative rise, layer 1": rise(i),
                "smallest share, layer 1": over_seeds(i.shares[:, 0].amin(dim=-1)),
                "smallest top share, later layers": _least(top_later(i)),
                "smallest entropy contrast": _least(contrast(i)),
            }
            for output, found in (("zero", self.zero), ("mean", self.mean))
            for average in AVERAGES
            for label, i in ((label, whole.by(average)) for label, whole in found.items())
        ]
        return tables.show(pd.DataFrame(rows))

    def standings(self) -> tables.Text:
        """Risks of the models of eight heads per layer and of the baselines."""
        return tables.show(standings(self.models, self.comparisons))


def _least(parts: dict[str, Tensor]) -> Estimate:
    """The estimate of the layer where it is smallest."""
    return min(map(over_seeds, parts.values()), key=lambda estimate: estimate.value)


def run(contexts: int, examples: int, seed: int) -> Result:
    """Measure risks on so many contexts of this seed, and importances on a quarter of them.

    They have so many examples or, with 0, as many as a model was trained on.
    """
    check(contexts, seed)
    whole("examples", examples, 0)
    models = {model.label: model for model in trained(PLANS).values()}
    tasks = {m.config.task for m in models.values()}
    on = {t: Comparison.on(replace(t, n=examples or t.n), contexts, seed) for t in tasks}
    comparisons = {k: on[m.config.task] for k, m in models.items()}
    few = {k: on.contexts[: max(2, contexts // 4)] for k, on in comparisons.items()}
    zero, mean = (
        {k: importance(steady(model.model), few[k], output) for k, model in models.items()}
        for output in FILLS
    )
    return Result(
        judge(CLAIMS, zero, shared=True),
        models,
        comparisons,
        zero,
        mean,
    )
