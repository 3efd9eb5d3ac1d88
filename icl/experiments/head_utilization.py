"""Which heads does a trained transformer use? Every head masked in turn."""

from dataclasses import dataclass, replace
from itertools import product
from textwrap import fill

import pandas as pd
import seaborn as sns
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import CURVE_STEPS, Checkpoint
from icl.claims import CHEN, Claim, Criterion, Verdict, finding
from icl.configuration import USUAL
from icl.errors import require
from icl.experiments.comparison import Comparison, standings
from icl.experiments.models import EQUAL, FULL, trained, workhorse
from icl.heads import Importance, importance
from icl.intervals import AVERAGES, over_seeds

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


def smallest_first(found: Importance) -> Tensor:
    """Relative rise for the least important head of the first layer, (M,)."""
    return found.relative[:, 0].nan_to_num(torch.inf).amin(dim=-1)


def top_later(found: Importance) -> Tensor:
    """Top share in the later layer where it is smallest, (M,)."""
    require(found.rise.shape[1] > 1, "1 layer: there is no later one")
    return found.top_share[:, 1:].amin(dim=-1)


def contrast(found: Importance) -> Tensor:
    """Entropy of the first layer minus the mean entropy of the later ones, (M,)."""
    return found.entropy[:, 0] - found.entropy[:, 1:].mean(dim=-1)


A2 = Claim(
    "A2",
    CHEN,
    "Every head of the first layer matters.",
    (
        Criterion(
            "smallest relative rise of the mean excess risk when one first-layer head is masked",
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
            "top-1 share of importance, in the later layer where it is smallest",
            top_later,
            0.5,
            "Above one half, one head outweighs all others of its layer together.",
        ),
        Criterion(
            "normalised entropy of importance in layer 1 minus the mean of later layers",
            contrast,
            0.0,
            "Above zero, the first layer spreads its work over more heads than the later ones do.",
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
    or their mean; in `varied` those of four heads, masked to zero. `models` are those of eight.
    """

    verdicts: dict[str, Verdict]
    models: dict[str, Checkpoint]
    comparisons: dict[str, Comparison]
    zero: dict[str, Importance]
    mean: dict[str, Importance]
    varied: dict[str, Importance]

    @property
    def finding(self) -> tables.Text:
        """A sentence per verdict."""
        return finding(self.verdicts.values())

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
            low = found.relative.nan_to_num(torch.inf).amin(dim=-1).median(dim=0).values
            high = found.relative.nan_to_num(-1).amax(dim=-1).median(dim=0).values
            ends = [f"{a + 0:.2g} to {b:.2g}" for a, b in zip(low, high, strict=True)]
            rows.append({"model": label} | {f"layer {i}": end for i, end in enumerate(ends, 1)})
        return tables.show(pd.DataFrame(rows).fillna(""))

    def plot_conditions(self) -> None:
        """The top share of every layer and the risk, means over seeds: a row per model.

        Models of four heads per layer come after those of eight, by risk. Seeds in which no head
        of a layer matters have no top share, and are left out of its mean.
        """
        risks = {k: i.full.mean().item() for k, i in (self.zero | self.varied).items()}
        found = self.zero | {k: self.varied[k] for k in sorted(self.varied, key=risks.get)}
        # What nearly all labels have in common is said once, beside the axis.
        short = [label.replace(" heads", "").replace(", d = 8", "") for label in found]
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
                "smallest top share, later layers": over_seeds(top_later(i)),
                "entropy contrast": over_seeds(contrast(i)),
            }
            for output, found in (("zero", self.zero), ("mean", self.mean))
            for average in AVERAGES
            for label, i in ((label, whole.by(average)) for label, whole in found.items())
        ]
        return tables.show(pd.DataFrame(rows))

    def standings(self) -> tables.Text:
        """Risks of the models of eight heads per layer and of the baselines."""
        return tables.show(standings(self.models, self.comparisons))

    def plot_training(self) -> None:
        """Risk of the training batches: a panel per model, a line per seed and per reference."""
        fig, panels = figures.subplots(2, 2, figsize=(figures.WIDTH, 5.8), sharey=True)
        for axes, (label, model) in zip(panels.flat, self.models.items(), strict=True):
            steps = CURVE_STEPS * (torch.arange(len(model.curve)) + 1) / 1000
            axes.plot(steps, model.curve, linewidth=0.8, color=figures.INK, alpha=0.6)
            lines = self.comparisons[label].references(label)
            for name, risk, style in zip(lines.label, lines.value, figures.LINES, strict=True):
                axes.axhline(risk, linestyle=style, color="0.25", linewidth=1.4, label=name)
            axes.set(yscale="log", xlabel="thousand steps")
            axes.set_title(fill(label, 22), fontsize=12)
        for axes in panels[:, 0]:
            axes.set_ylabel("excess risk")
        handles, labels = axes.get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=11)


def run(contexts: int, examples: int, seed: int) -> Result:
    """Mask heads on so many contexts of this seed, of so many examples or, with 0, as trained."""
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
        return {k: importance(models[k].model, comparisons[k].contexts, output) for k in labels}

    zero, mean, varied = masked(eight, "zero"), masked(eight, "mean"), masked(four, "zero")
    verdicts = {"A2": A2.judge(zero), "A3": A3.judge(zero | varied)}
    return Result(verdicts, {k: models[k] for k in eight}, comparisons, zero, mean, varied)
