"""When do heads divide the work as Chen et al. (2024) say? Sparsity, noise and decay varied."""

from dataclasses import dataclass
from itertools import product

import pandas as pd
import torch

from icl import figures
from icl.claims import CHEN, Claim, judge
from icl.contexts import check
from icl.experiments.comparison import Comparison
from icl.experiments.measures import (
    EVERY_HEAD,
    FIRST_LAYER,
    LATER_LAYERS,
    ONE_HEAD,
    SHOWN,
    Profile,
    Profiled,
    later,
    profiles,
)
from icl.experiments.models import ALONE, GRID, KINDS, NOISES, SPARSITIES, sparse, trained
from icl.intervals import over_seeds
from icl.threads import side_by_side
from icl.transformer import Transformer
from icl.words import percent

PLANS = dict(GRID.values())
FIRST = "#c77d0a"  # the colour of first-layer heads at a glance
CROWDED = [kind for kind in KINDS if kind != ALONE]  # what is compared with one head per layer

# What is shown at a glance, by what to call it: much gained, one later head, nothing to gain.
GLANCE = {
    "sparse, noise 0.5": "s = 1, noise 0.5, 8-8-8",
    "sparse, noise 0.3, decay": "s = 1, noise 0.3, 8-8-8, decay",
    "half dense, noise 1": "s = 4, noise 1, 8-8-8",
}

A2C = Claim(
    "A2c",
    CHEN,
    "Every head of the first layer matters, whatever the sparsity and the noise.",
    FIRST_LAYER,
)
A3C = Claim(
    "A3c",
    CHEN,
    "Later layers usually rely on one head, whatever the sparsity and the noise.",
    LATER_LAYERS,
)
CLAIMS = (A2C, A3C)


@dataclass(frozen=True)
class Result(Profiled):
    """Profiles by setting, and what (sparsity, noise, kind) a setting is."""

    settings: dict[str, tuple[int, float, str]]

    def frame(self) -> pd.DataFrame:
        """A row per setting: what it is, and means over seeds of what is shown of it, in %."""
        about = pd.DataFrame(self.settings, index=["s", "noise", "model"]).T
        return about.join(super().frame())

    def extremes(self, what: str, s: int) -> tuple[str, str]:
        """The least and the largest of what is shown, among the means of one sparsity's models."""
        found = self.frame()
        found = found[found.s == s][what] / 100
        return percent(found.min()), percent(found.max())

    def plot_glance(self) -> None:
        """By how much masking a head raises the risk, to 100 %: the paper beside three cells."""
        count = KINDS["8-8-8"][0][0]
        every, one = torch.ones(count), (torch.arange(count) == 0).double()
        pictures = {"what the paper says": torch.stack([every, one, one])[None]}
        for title, name in GLANCE.items():
            gain = percent(over_seeds(self.varied[name].gain()).value)
            pictures[f"{title}:\ngains {gain} over ridge"] = self.varied[name].heads.relative
        _, panels = figures.subplots(2, 2, figsize=(figures.WIDTH, 6), sharex=True, sharey=True)
        for axes, (title, rises) in zip(panels.flat, pictures.items(), strict=True):
            shown = rises.clamp(0, 1).sort(dim=-1, descending=True).values.mean(dim=0)
            needed = (rises > EVERY_HEAD.threshold - 1).double().sum(dim=-1).mean(dim=0)
            for row, (bars, mean) in enumerate(zip(shown.tolist(), needed.tolist(), strict=True)):
                axes.bar(range(count), bars, bottom=-1.6 * row, color=figures.INK if row else FIRST)
                text = f"{mean:.2g} of {count} matter"
                axes.text(count - 0.5, 1.1 - 1.6 * row, text, ha="right", fontsize=11)
            axes.set_yticks([-1.6 * row for row in range(3)], [f"layer {i}" for i in (1, 2, 3)])
            axes.set(xticks=[], ylim=(-3.3, 1.5))
            axes.grid(visible=False)
            axes.set_title(title, fontsize=11, loc="left")

    def plot_grid(self) -> None:
        """Heat-maps of what is shown of every cell: a row per kind, a column per task."""
        found = self.frame()
        tasks = [f"{noise:g}" for _, noise in product(SPARSITIES, NOISES)]
        _, panels = figures.subplots(len(SHOWN), 1, figsize=(figures.WIDTH, 7.2))
        for axes, what in zip(panels, SHOWN, strict=True):
            table = found.pivot(index="model", columns=["s", "noise"], values=what)
            figures.percentages(axes, table.reindex(index=CROWDED), xticklabels=tasks)
            axes.set_title(f"{what}, %")
            axes.set(xlabel="", ylabel="")
            for group in range(1, len(SPARSITIES)):
                axes.axvline(group * len(NOISES), color="0.3", linewidth=2)
        groups = ", ".join(f"{s}" for s in SPARSITIES)
        panels[-1].set_xlabel(f"noise, in groups of s = {groups} non-zero weights")

    def plot_map(self) -> None:
        """How even the first layer is and how concentrated later ones are, coloured by the gain."""
        fig, axes = figures.subplots(figsize=(figures.WIDTH, 4.4))
        look = {"cmap": figures.HUES, "vmin": 0, "vmax": 1, "s": 50}
        handles = {}
        for kind, marker in zip(CROWDED, "osD", strict=True):
            found = [cell for name, cell in self.varied.items() if self.settings[name][2] == kind]
            x = [cell.heads.entropy[:, 0].mean() for cell in found]
            y = [later(cell.heads.top_share).mean() for cell in found]
            gain = [cell.gain().mean() for cell in found]
            handles[kind] = axes.scatter(x, y, c=gain, marker=marker, **look)
        fig.colorbar(handles[kind], label="gain over ridge and one head")
        axes.axhline(ONE_HEAD.threshold, color="0.4", linestyle="--", linewidth=1)
        axes.set(xlim=(-0.02, 1), ylim=(0, 1), xlabel="entropy in layer 1")
        axes.set_ylabel("top share in later layers")
        figures.key(fig, handles)


def measured(models: dict[str, Transformer], on: Comparison) -> dict[str, Profile]:
    """The models of one task by kind, judged on the same contexts."""
    at = (on.contexts.task.s, on.contexts.task.noise)
    found = {kind: models[GRID[*at, kind][0]] for kind in KINDS}
    return profiles({kind: found[kind] for kind in CROWDED}, found[ALONE], on)


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of this seed, and importances on a quarter of them."""
    check(contexts, seed)
    models = {model.name: model.model for model in trained(PLANS).values()}
    tasks = list(product(SPARSITIES, NOISES))

    def one_task(at: tuple[int, float]) -> dict[str, Profile]:
        task = sparse(*at, (1,)).config.task
        return measured(models, Comparison.on(task, contexts, seed, names=["ridge"]))

    cells, settings = {}, {}
    for (s, noise), found in zip(tasks, side_by_side(one_task, tasks), strict=True):
        for kind, cell in found.items():
            name = f"s = {s}, noise {noise:g}, {kind}"
            cells[name], settings[name] = cell, (s, noise, kind)
    return Result(judge(CLAIMS, cells, shared=True), cells, settings)
