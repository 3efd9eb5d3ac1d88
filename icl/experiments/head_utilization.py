"""Which heads does a trained transformer use? Every head masked in turn."""

from dataclasses import dataclass, replace
from itertools import product

import pandas as pd
import seaborn as sns
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import CHEN, Claim, Criterion, Verdict, finding
from icl.configuration import USUAL
from icl.errors import require
from icl.experiments.comparison import Comparison, learned, standings
from icl.experiments.models import EQUAL, FULL, trained, workhorse
from icl.heads import Importance, contrast, importance, smallest_first, top_later
from icl.intervals import AVERAGES, Estimate, over_seeds, trimmed

EIGHT = {
    "workhorse-3": FULL["workhorse-3"],
    "workhorse-5": FULL["workhorse-5"],
    "workhorse-3-decay": workhorse(8, 8, 8, weight_decay=3e-4),
    "flagship": FULL["flagship"],
}
# When do later layers rely on one head? 4 heads per layer, one or more settings changed.
FOUR = {name: EQUAL[name] for name in ("heads-4-2", "heads-4-3", "heads-4-5")}
FOUR |= {
    f"decay-{w:g}-k{k}-{depth}-{steps}": workhorse(
        *[4] * depth, d_head=k, weight_decay=w, steps=steps
    )
    for w, k, depth, steps in (
        *product((0.0, 3e-4, 1e-3), (4, 9), (3,), (14_000, 3_500)),
        *product((0.0, 3e-4, 1e-3), (4, 9), (2,), (14_000,)),
        *product((6e-4,), (4, 9), (3,), (14_000,)),
        (1e-3, 9, 5, 14_000),
    )
    if (w, k, steps) != (0.0, 9, 14_000)  # that is heads-4-{depth}
}
OTHERS = {f"sgd-{w:g}": vars(USUAL["sgd"]) | {"weight_decay": w} for w in (0.0, 3e-5, 1e-4)}
OTHERS |= {"init-1": {"init_scale": 1.0}, "adamw-0.3": {"optimiser": "adamw", "weight_decay": 0.3}}
FOUR |= {name: workhorse(4, 4, 4, **recipe) for name, recipe in OTHERS.items()}
PLANS = EIGHT | FOUR


A2 = Claim(
    "A2",
    CHEN,
    "Every head of the first layer matters.",
    (
        Criterion(
            "smallest relative rise of the risk when one first-layer head is masked",
            smallest_first,
            0.1,
            "A head matters if the model is clearly worse without it: by a tenth. The rise "
            "is relative to the risk, not to the other heads' rises, because a head with a "
            "small share of a large rise can still not be spared.",
        ),
    ),
)
A3 = Claim(
    "A3",
    CHEN,
    "Later layers usually rely on one head.",
    (
        Criterion(
            "top-1 share of importance in every later layer",
            top_later,
            0.5,
            "Above one half, one head outweighs all others of its layer together. The layers are "
            "judged one by one; their intervals are so wide that all hold at once with 95 %.",
            (0.0, 1.0),
        ),
        Criterion(
            "normalised entropy of importance in layer 1 minus that of every later layer",
            contrast,
            0.0,
            "Above zero, the first layer spreads its work over more heads than the later one does. "
            "The layers are judged as before.",
            (-1.0, 1.0),
        ),
    ),
)
CLAIMS = (A2, A3)

CELLS = {"annot": True, "cbar": False, "linewidths": 1}  # of heat-maps
PERCENT = CELLS | {"vmin": 0, "vmax": 100, "cmap": "rocket_r", "fmt": ".0f"}


@dataclass(frozen=True)
class Result:
    """Importance of the heads of every model, by its label, and the verdicts.

    In `zero` and `mean` are the models of eight heads per layer, whose masked heads put out zero
    or their mean; in `varied` those of four heads, masked to zero, in the seeds that learned
    anything; `trained` is the share of them. `models` are those of eight.
    """

    verdicts: dict[str, Verdict]
    models: dict[str, Checkpoint]
    comparisons: dict[str, Comparison]
    zero: dict[str, Importance]
    mean: dict[str, Importance]
    varied: dict[str, Importance]
    trained: dict[str, float]

    @property
    def finding(self) -> tables.Text:
        """A sentence per verdict, and the models that did not train."""
        dead = [label for label, share in self.trained.items() if share == 0]
        none = f"**Did not train** in any seed: {'; '.join(dead) or 'none'}."
        return tables.Text(f"{finding(self.verdicts.values())}\n\n{none}")

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

    def plot_conditions(self) -> None:
        """The top share of every layer and the risk, means over seeds: a row per model.

        Models of four heads per layer come after those of eight, by risk. Seeds in which no head
        of a layer matters have no top share, and are left out of its mean.
        """
        found = self.zero | self.varied
        risks = {k: trimmed(i.full, dim=-1).mean().item() for k, i in found.items()}
        order = [*self.zero, *sorted(self.varied, key=risks.get)]
        # What nearly all labels have in common is said once, beside the axis.
        short = [label.replace(" heads", "").replace(", d = 8", "") for label in order]
        shares = [self.trained.get(label, 1.0) for label in order]
        short = [
            name + f" ({share:.0%} of seeds)" * (share < 1)
            for name, share in zip(short, shares, strict=True)
        ]
        found = {label: found[label] for label in order}
        tops = [(100 * i.top_share.nanmean(dim=0)).tolist() for i in found.values()]
        tops = pd.DataFrame(tops, index=short).rename(columns=lambda i: i + 1)
        size, ratios = (figures.WIDTH, 0.3 * len(found) + 0.8), (tops.shape[1], 1)
        _, (left, right) = figures.subplots(1, 2, figsize=size, width_ratios=ratios)
        sns.heatmap(tops, ax=left, annot_kws={"size": 10}, **PERCENT)
        look = CELLS | {"annot_kws": {"size": 10}, "fmt": ".2f", "yticklabels": False}
        risks = pd.DataFrame({"risk": [risks[label] for label in found]})
        sns.heatmap(risks, ax=right, cmap="crest", **look)
        left.tick_params(axis="y", rotation=0, labelsize=10)
        left.set_ylabel("heads of every layer; d = 8 unless given")
        left.set_title("layer", fontsize=11)
        for axes in (left, right):
            axes.grid(visible=False)
            axes.tick_params(axis="x", labelbottom=False, labeltop=True)

    def robustness(self) -> tables.Text:
        """The deciding statistics under every way to mask a head and to average over contexts."""
        rows = [
            {
                "model": label,
                "masked head puts out": output,
                "average over contexts": average,
                "smallest relative rise, layer 1": over_seeds(smallest_first(i)),
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
    for deep in (found.model for found in models.values() if len(found.model.blocks) > 4):
        deep.double()  # without a head, answers of five layers can leave the range of float32
    tasks = {m.config.task for m in models.values()}
    on = {t: Comparison.on(replace(t, n=examples or t.n), contexts, seed) for t in tasks}
    comparisons = {k: on[m.config.task] for k, m in models.items()}
    eight, four = ([plan.config.label for plan in plans.values()] for plans in (EIGHT, FOUR))

    def masked(labels: list[str], output: str) -> dict[str, Importance]:
        few = {k: on.contexts[: max(2, contexts // 4)] for k, on in comparisons.items()}
        return {k: importance(models[k].model, few[k], output) for k in labels}

    zero, mean, varied = masked(eight, "zero"), masked(eight, "mean"), masked(four, "zero")
    zeros = {k: on.zero[: max(2, contexts // 4)] for k, on in comparisons.items()}
    masks = {k: learned(i.full, zeros[k]) for k, i in varied.items()}
    return Result(
        {"A2": A2.judge(zero, shared=True), "A3": A3.judge(zero, shared=True)},
        {k: models[k] for k in eight},
        comparisons,
        zero,
        mean,
        {k: i.only(masks[k]) for k, i in varied.items() if masks[k].any()},
        {k: mask.double().mean().item() for k, mask in masks.items()},
    )
