"""When do heads divide the work as Chen et al. (2024) say? Sparsity, noise, training varied."""

from dataclasses import dataclass, replace
from functools import wraps
from itertools import product
from typing import NamedTuple

import pandas as pd
import seaborn as sns
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import CHEN, Claim, Criterion, Verdict, finding
from icl.configuration import USUAL
from icl.errors import require
from icl.experiments.comparison import Comparison, learned
from icl.experiments.measures import EVERY_HEAD, MORE_EVEN, ONE_HEAD, steady
from icl.experiments.models import (
    ALONE,
    EQUAL,
    GRID,
    KINDS,
    NOISES,
    SPARSITIES,
    sparse,
    trained,
    workhorse,
)
from icl.heads import Importance, importance, smallest_first
from icl.intervals import estimate, over_seeds, reduction, trimmed

# At s = 2 and noise 1, trained for longer: four heads per layer, one or more settings changed.
RECIPES = {name: EQUAL[name] for name in ("heads-4-2", "heads-4-3", "heads-4-5")}
RECIPES |= {
    f"decay-{w:g}-k{k}-{depth}-{steps}": workhorse(
        *[4] * depth, d_head=k, weight_decay=w, steps=steps
    )
    for w, k, depth, steps in (
        (0.0, 4, 3, 14_000),
        *product((3e-4, 6e-4, 1e-3), (9,), (3,), (14_000,)),
        *product((0.0, 3e-4), (9,), (3,), (3_500,)),
        (1e-3, 9, 5, 14_000),
    )
}
OTHERS = {f"sgd-{w:g}": vars(USUAL["sgd"]) | {"weight_decay": w} for w in (0.0, 3e-5, 1e-4)}
OTHERS |= {"init-1": {"init_scale": 1.0}, "adamw-0.3": {"optimiser": "adamw", "weight_decay": 0.3}}
RECIPES |= {name: workhorse(4, 4, 4, **recipe) for name, recipe in OTHERS.items()}
PLANS = dict(GRID.values()) | RECIPES


class Cell(NamedTuple):
    """What a model shows in a cell of the grid.

    heads: importance of its heads, on some of the contexts.
    risk: (M, B) its risks; bar: (B,) those of ridge or of one head per layer, averaged over its
        seeds, whichever is better.
    """

    heads: Importance
    risk: Tensor
    bar: Tensor

    def gain(self) -> Tensor:
        """By what fraction (M,) the risk is below the bar."""
        return reduction(self.risk, self.bar)


def of_heads(criterion: Criterion) -> Criterion:
    """The same criterion of a cell's heads."""
    return replace(
        criterion, measure=wraps(criterion.measure)(lambda x: criterion.measure(x.heads))
    )


A2C = Claim(
    "A2c",
    CHEN,
    "Every head of the first layer matters, whatever the sparsity and the noise.",
    (of_heads(EVERY_HEAD),),
)
A3C = Claim(
    "A3c",
    CHEN,
    "Later layers usually rely on one head, whatever the sparsity and the noise.",
    (
        of_heads(ONE_HEAD),
        of_heads(MORE_EVEN),
        Criterion(
            "reduction of the risk, as a fraction, below the better of ridge and of a model with "
            "one head per layer",
            Cell.gain,
            0.0,
            "A head that rules is of interest only in a model that makes use of the others.",
            (-torch.inf, 1.0),
        ),
    ),
)
CLAIMS = (A2C, A3C)

SHOWN = {
    "risk below the better of ridge and one head, %": Cell.gain,
    "rise without the least important head of layer 1, %": lambda cell: smallest_first(cell.heads),
    "top share in later layers, mean, %": lambda cell: later(cell.heads.top_share),
    "entropy in layer 1 minus that of later layers, mean, %": lambda cell: (
        cell.heads.entropy[:, 0] - later(cell.heads.entropy)
    ),
}
CELLS = {"annot": True, "cbar": False, "linewidths": 1, "annot_kws": {"size": 9}}


def later(values: Tensor) -> Tensor:
    """Mean (M,) over layers after the first, of what layers have, (M, L)."""
    return values[:, 1:].nanmean(dim=1)


@dataclass(frozen=True)
class Result:
    """The verdicts, the cells by setting, and the models trained in other ways.

    settings: what (sparsity, noise, kind) every setting is.
    recipes: importance, by label, of models trained in other ways, in the seeds that learned.
    trained: the share of their seeds that learned anything.
    """

    verdicts: dict[str, Verdict]
    cells: dict[str, Cell]
    settings: dict[str, tuple[int, float, str]]
    recipes: dict[str, Importance]
    trained: dict[str, float]

    @property
    def finding(self) -> tables.Text:
        """A sentence per verdict, and the models that did not train."""
        dead = "; ".join(label for label, share in self.trained.items() if share == 0)
        sentence = f"\n\n**Did not train** in any seed: {dead or 'none'}."
        return tables.Text(finding(self.verdicts.values()) + sentence)

    def frame(self) -> pd.DataFrame:
        """A row per setting: what it is, and means over seeds of what is shown of it."""
        rows = [
            dict(zip(("s", "noise", "model"), self.settings[name], strict=True))
            | {what: 100 * measure(cell).mean().item() for what, measure in SHOWN.items()}
            for name, cell in self.cells.items()
        ]
        return pd.DataFrame(rows)

    def plot_grid(self) -> None:
        """Heat-maps of what is shown of every cell: a row per kind, a column per task."""
        found = self.frame()
        tasks = [f"{noise:g}" for _, noise in product(SPARSITIES, NOISES)]
        _, panels = figures.subplots(len(SHOWN), 1, figsize=(figures.WIDTH, 7))
        for axes, what in zip(panels, SHOWN, strict=True):
            table = found.pivot(index="model", columns=["s", "noise"], values=what)
            table = table.reindex(index=[kind for kind in KINDS if kind != ALONE])
            look = {"vmin": -100, "vmax": 100, "cmap": "vlag", "fmt": ".0f"}
            table = table.clip(-999, 999).round() + 0.0  # no −0
            sns.heatmap(table, ax=axes, xticklabels=tasks, **look, **CELLS)
            axes.set_title(what, loc="left", fontsize=11)
            axes.set(xlabel="", ylabel="")
            axes.tick_params(axis="y", rotation=0)
            axes.axvline(len(NOISES), color="0.3", linewidth=2)
        panels[-1].set_xlabel("noise; left s = 1, right s = 2")

    def plot_map(self) -> None:
        """How even the first layer is and how concentrated later ones are, coloured by the gain."""
        fig, axes = figures.subplots(figsize=(figures.WIDTH, 4.4))
        look = {"cmap": "viridis", "vmin": 0, "vmax": 1, "s": 60, "edgecolor": "0.3"}
        for kind, marker in zip(KINDS, "os", strict=False):
            found = [cell for name, cell in self.cells.items() if self.settings[name][2] == kind]
            x = [cell.heads.entropy[:, 0].mean() for cell in found]
            y = [later(cell.heads.top_share).mean() for cell in found]
            gain = [cell.gain().mean() for cell in found]
            drawn = axes.scatter(x, y, c=gain, marker=marker, label=kind, **look)
        fig.colorbar(drawn, label="gain over ridge and one head")
        axes.axhline(ONE_HEAD.threshold, color="0.4", linestyle="--", linewidth=1)
        axes.set(xlim=(-0.02, 1), ylim=(0, 1), xlabel="entropy in layer 1")
        axes.set_ylabel("top share in later layers")
        fig.legend(loc="outside upper center", ncols=3, fontsize=10)

    def numbers(self) -> tables.Text:
        """Risk and what is shown of every setting, with intervals over seeds."""
        rows = [
            {"setting": name, "excess risk [95 %]": estimate(cell.risk)}
            | {what.rstrip(" %,"): over_seeds(measure(cell)) for what, measure in SHOWN.items()}
            | {claim: verdict.settings[name] for claim, verdict in self.verdicts.items()}
            for name, cell in self.cells.items()
        ]
        return tables.show(pd.DataFrame(rows))

    def plot_recipes(self) -> None:
        """The top share of every layer and the risk, means over seeds; a row per recipe."""
        risks = {k: trimmed(i.full, dim=-1).mean().item() for k, i in self.recipes.items()}
        order = sorted(self.recipes, key=risks.get)
        short = [
            label.replace(" heads", "").replace(", d = 8", "")
            + f" ({self.trained[label]:.0%} of seeds)" * (self.trained[label] < 1)
            for label in order
        ]
        tops = [(100 * self.recipes[k].top_share.nanmean(dim=0)).tolist() for k in order]
        tops = pd.DataFrame(tops, index=short).rename(columns=lambda i: i + 1)
        size, ratios = (figures.WIDTH, 0.3 * len(order) + 0.8), (tops.shape[1], 1)
        _, (left, right) = figures.subplots(1, 2, figsize=size, width_ratios=ratios)
        sns.heatmap(tops, ax=left, vmin=0, vmax=100, cmap="rocket_r", fmt=".0f", **CELLS)
        risks = pd.DataFrame({"risk": [risks[label] for label in order]})
        sns.heatmap(risks, ax=right, cmap="crest", fmt=".2f", yticklabels=False, **CELLS)
        left.tick_params(axis="y", rotation=0, labelsize=10)
        left.set(ylabel="heads of every layer; d = 8", title="layer")
        for axes in (left, right):
            axes.grid(visible=False)
            axes.tick_params(axis="x", labelbottom=False, labeltop=True)


def measured(models: dict[str, Checkpoint], on: Comparison) -> dict[str, Cell]:
    """The models of one task by kind, judged on the same contexts, a quarter of them for heads."""
    task = on.contexts.task
    at = (task.s, task.noise)
    found = {kind: models[name] for (*cell, kind), (name, _) in GRID.items() if (*cell,) == at}
    risks = {kind: on.risk(model.model) for kind, model in found.items()}
    bar = min(on.baselines["ridge"], risks[ALONE].mean(dim=0), key=lambda risk: trimmed(risk, -1))
    few = on.contexts[: max(2, len(on.contexts) // 4)]
    return {
        kind: Cell(importance(model.model, few), risks[kind], bar)
        for kind, model in found.items()
        if kind != ALONE
    }


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of this seed, and importances on a quarter of them."""
    require(contexts >= 2, f"contexts={contexts}: allowed are 2 and more")
    models = {model.name: model for model in trained(PLANS).values()}
    cells, settings = {}, {}
    for s, noise in product(SPARSITIES, NOISES):
        on = Comparison.on(sparse(s, noise, (1,)).config.task, contexts, seed)
        for kind, cell in measured(models, on).items():
            name = f"s = {s}, noise {noise:g}, {kind}"
            cells[name], settings[name] = cell, (s, noise, kind)
    on = Comparison.on(EQUAL["heads-4-3"].config.task, contexts, seed)
    few = on.contexts[: max(2, contexts // 4)]
    recipes = {models[name].label: importance(steady(models[name].model), few) for name in RECIPES}
    fit = {k: learned(found.full, on.zero[: len(few)]) for k, found in recipes.items()}
    return Result(
        {claim.id: claim.judge(cells, shared=True) for claim in CLAIMS},
        cells,
        settings,
        {k: found.only(fit[k]) for k, found in recipes.items() if fit[k].any()},
        {k: which.double().mean().item() for k, which in fit.items()},
    )
