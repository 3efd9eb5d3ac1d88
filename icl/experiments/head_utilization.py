"""Which heads does a trained transformer use? Every head masked in turn."""

from dataclasses import dataclass, replace

import pandas as pd
import seaborn as sns
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import CHEN, Claim, Judged, judge
from icl.errors import require
from icl.experiments.comparison import Comparison, standings
from icl.experiments.measures import EVERY_HEAD, MORE_EVEN, ONE_HEAD, rise, steady
from icl.experiments.models import DECAYED, FULL, trained
from icl.heads import FILLS, Importance, contrast, importance, top_later
from icl.intervals import AVERAGES, Estimate, over_seeds

PLANS = {
    "workhorse-3": FULL["workhorse-3"],
    "workhorse-5": FULL["workhorse-5"],
    **DECAYED,
    "flagship": FULL["flagship"],
}


A2 = Claim("A2", CHEN, "Every head of the first layer matters.", (EVERY_HEAD,))
A3 = Claim("A3", CHEN, "Later layers usually rely on one head.", (ONE_HEAD, MORE_EVEN))
CLAIMS = (A2, A3)

CELLS = {"annot": True, "cbar": False, "linewidths": 1}  # of heat-maps
PERCENT = CELLS | {"vmin": 0, "vmax": 100, "cmap": "rocket_r", "fmt": ".0f"}


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
        """Heat-maps of importance shares: a panel per model, a row per layer, heads by rank.

        Heads are ranked within each layer and seed: their labels mean nothing across seeds.
        """
        depths = [found.rise.shape[1] for found in self.zero.values()]
        size = figures.WIDTH, 0.9 * len(depths) + 0.42 * sum(depths)
        ratios = [depth + 1 for depth in depths]
        fig, panels = figures.subplots(len(depths), 1, figsize=size, height_ratios=ratios)
        for axes, (label, found) in zip(panels, self.zero.items(), strict=True):
            ranked = found.shares.nan_to_num(0).sort(dim=-1, descending=True).values
            mean = pd.DataFrame(100 * ranked.mean(dim=0).numpy())
            mean = mean.rename(columns=lambda i: i + 1, index=lambda i: f"layer {i + 1}")
            sns.heatmap(mean, ax=axes, annot_kws={"size": 11}, **PERCENT)
            axes.set_title(f"{label} ({len(ranked)} seeds)", loc="left", fontsize=12)
            axes.tick_params(axis="y", rotation=0)
        axes.set_xlabel("head, by rank within its layer")
        fig.supylabel("share of the layer's importance, %", fontsize=11)

    def plot_top_shares(self) -> None:
        """The largest share of every layer: a dot per seed, the mean and its 95 % interval."""
        fig, axes = figures.subplots(figsize=(figures.WIDTH, 4))
        ticks = []
        for label, look in figures.looks(self.zero).items():
            for layer, top in enumerate(self.zero[label].top_share.unbind(dim=1), 1):
                figures.mark_seeds(axes, len(ticks), top, look["color"])
                ticks.append(layer)
            ticks.append("")  # a gap before the next model
            axes.plot([], [], "o", color=look["color"], label=label)
        axes.axhline(A3.criteria[0].threshold, color="0.4", linestyle="--", linewidth=1)
        axes.set(ylim=(0, 1.05), xlabel="layer", ylabel="share of the top head")
        axes.set_xticks(range(len(ticks)), ticks)
        axes.grid(axis="x", visible=False)
        fig.legend(loc="outside upper center", ncols=2, fontsize=10)

    def fragility(self) -> tables.Text:
        """The smallest and largest relative rise in every layer, each the median over seeds."""
        rows = []
        for label, found in self.zero.items():
            low = found.relative.nan_to_num(torch.inf).amin(dim=-1).quantile(0.5, dim=0)
            high = found.relative.nan_to_num(-1).amax(dim=-1).quantile(0.5, dim=0)
            ends = [f"{a + 0:.2g} to {b:.2g}" for a, b in zip(low, high, strict=True)]
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
    require(contexts >= 2, f"contexts={contexts}: allowed are 2 and more")
    require(examples >= 0, f"examples={examples}: allowed are 0 (as trained) and more")
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
