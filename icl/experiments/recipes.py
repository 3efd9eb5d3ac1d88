"""Do heads divide the work if a model is trained differently? Contexts, sizes and recipes."""

from dataclasses import dataclass, replace
from itertools import product

import pandas as pd
import seaborn as sns

from icl import figures, tables
from icl.claims import CHEN, Claim, judge
from icl.configuration import USUAL, Configuration, Plan
from icl.errors import require
from icl.experiments.comparison import Comparison, learned
from icl.experiments.measures import (
    FIRST_LAYER,
    LATER_LAYERS,
    Profile,
    Profiled,
    profiles,
    steady,
)
from icl.experiments.models import ALONE, EQUAL, GRID, MEMBERS, filed, trained, workhorse
from icl.heads import Importance, importance
from icl.intervals import trimmed
from icl.transformer import Architecture, Transformer

# The sparsest task, on which no first-layer head can be spared; one setting at a time is changed.
BASE = GRID[1, 0.5, "8-8-8"][1].config


def varied(*heads: int, **changes) -> Plan:
    """The base with other heads, or with changed settings of its task and its recipe."""
    known = vars(BASE.task) | vars(BASE.recipe)
    require(changes.keys() <= known.keys(), f"{[*changes]}: allowed are {', '.join(known)}")
    task, recipe = (
        replace(part, **{name: x for name, x in changes.items() if name in vars(part)})
        for part in (BASE.task, BASE.recipe)
    )
    model = Architecture(task.d, heads or BASE.architecture.heads, task.d + 1, 4 * task.d)
    return Plan(Configuration(task, model, recipe))


# By what is varied: the file, and the plan.
LARGER = {"d": 16, "n": 64}
SGD = {"optimiser": "sgd", "lr": USUAL["sgd"].lr, "init_scale": USUAL["sgd"].init_scale}
VARIED = {
    "as in the grid": GRID[1, 0.5, "8-8-8"],
    "16 examples": ("s1-noise0.5-888-n16", varied(n=16)),
    "64 examples": ("s1-noise0.5-888-n64", varied(n=64)),
    "16 to 48 examples": ("s1-noise0.5-888-lengths", varied(lengths=(16, 48))),
    "Gaussian weight": MEMBERS["Gaussian"][1],
    "2 layers": ("s1-noise0.5-88", varied(8, 8)),
    "5 layers": filed("s1-noise0.5-88888", varied(8, 8, 8, 8, 8)),
    "16 features, 64 examples": filed("s1-noise0.5-888-d16", varied(**LARGER)),
    "16 features, 64 examples, decay": filed(
        "s1-noise0.5-888-d16-decay0.0001",
        varied(**LARGER, weight_decay=1e-4),
    ),
    "1,500 steps": ("s1-noise0.5-888-1500", varied(steps=1_500)),
    "24,000 steps": ("s1-noise0.5-888-24000", varied(steps=24_000)),
    "24,000 steps, decay": filed(
        "s1-noise0.5-888-24000-decay0.0001",
        varied(steps=24_000, weight_decay=1e-4),
    ),
    "decay 0.0003": filed("s1-noise0.5-888-decay0.0003", varied(weight_decay=3e-4)),
    "AdamW, decay 0.3": (
        "s1-noise0.5-888-adamw0.3",
        varied(optimiser="adamw", weight_decay=0.3),
    ),
    "initial scale 1": ("s1-noise0.5-888-init1", varied(init_scale=1.0)),
    "SGD": ("s1-noise0.5-888-sgd", varied(**SGD)),
}
# One head per layer on every task among them.
SINGLE = dict(
    [
        GRID[1, 0.5, ALONE],
        ("s1-noise0.5-111-n16", varied(1, 1, 1, n=16)),
        ("s1-noise0.5-111-n64", varied(1, 1, 1, n=64)),
        ("s1-noise0.5-111-gaussian", varied(1, 1, 1, values="gaussian")),
        ("s1-noise0.5-111-d16", varied(1, 1, 1, **LARGER)),
    ]
)
# At s = 2 and noise 1, trained for longer: four heads per layer, one or more settings changed.
CHART = {name: EQUAL[name] for name in ("heads-4-2", "heads-4-3", "heads-4-5")}
CHART |= {
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
CHART |= {name: workhorse(4, 4, 4, **recipe) for name, recipe in OTHERS.items()}
PLANS = dict(VARIED.values()) | SINGLE | CHART

A2R = Claim(
    "A2r",
    CHEN,
    "Every head of the first layer matters, however a model is trained.",
    FIRST_LAYER,
)
A3R = Claim(
    "A3r",
    CHEN,
    "Later layers usually rely on one head, however a model is trained.",
    LATER_LAYERS,
)
CLAIMS = (A2R, A3R)


@dataclass(frozen=True)
class Result(Profiled):
    """Beside the profiles, a chart of models trained for longer.

    chart: importance, by label, in the seeds that learned. trained: the share of seeds that did.
    """

    chart: dict[str, Importance]
    trained: dict[str, float]

    @property
    def finding(self) -> tables.Text:
        """A sentence per verdict, and the models of the chart that did not train."""
        dead = "; ".join(label for label, share in self.trained.items() if share == 0)
        return tables.Text(f"{super().finding}\n\n**Did not train** in any seed: {dead or 'none'}.")

    def plot_chart(self) -> None:
        """The top share of every layer and the risk, means over seeds; a row per recipe."""
        risks = {k: trimmed(i.full, dim=-1).mean().item() for k, i in self.chart.items()}
        order = sorted(self.chart, key=risks.get)
        short = [
            label.replace(" heads", "").replace(", d = 8", "")
            + f" ({self.trained[label]:.0%} of seeds)" * (self.trained[label] < 1)
            for label in order
        ]
        tops = [(100 * self.chart[k].top_share.nanmean(dim=0)).tolist() for k in order]
        tops = pd.DataFrame(tops, index=short).rename(columns=lambda i: i + 1)
        size, ratios = (figures.WIDTH, 0.3 * len(order) + 0.8), (tops.shape[1], 1)
        _, (left, right) = figures.subplots(1, 2, figsize=size, width_ratios=ratios)
        look = {"annot": True, "cbar": False, "linewidths": 1, "annot_kws": {"size": 9}}
        sns.heatmap(tops, ax=left, vmin=0, vmax=100, cmap="rocket_r", fmt=".0f", **look)
        risks = pd.DataFrame({"risk": [risks[label] for label in order]})
        sns.heatmap(risks, ax=right, cmap="crest", fmt=".2f", yticklabels=False, **look)
        left.tick_params(axis="y", rotation=0, labelsize=10)
        left.set(ylabel="heads of every layer; d = 8", title="layer")
        for axes in (left, right):
            axes.grid(visible=False)
            axes.tick_params(axis="x", labelbottom=False, labeltop=True)


def measured(models: dict[str, Transformer], contexts: int, seed: int) -> dict[str, Profile]:
    """Profiles of the models by what was varied, each on contexts of its own task."""
    alone = {plan.config.task: name for name, plan in SINGLE.items()}
    tasks = {what: plan.config.task for what, (_, plan) in VARIED.items()}
    found = {}
    for task, single in alone.items():
        on = Comparison.on(task, contexts, seed)
        same = {what: models[VARIED[what][0]] for what in VARIED if tasks[what] == task}
        found |= profiles(same, models[single], on)
    return {what: found[what] for what in VARIED}


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of this seed, and importances on a quarter of them."""
    require(contexts >= 2, f"contexts={contexts}: allowed are 2 and more")
    models = {model.name: model for model in trained(PLANS).values()}
    found = measured({name: model.model for name, model in models.items()}, contexts, seed)
    on = Comparison.on(EQUAL["heads-4-3"].config.task, contexts, seed)
    few = on.contexts[: max(2, contexts // 4)]
    chart = {models[name].label: importance(steady(models[name].model), few) for name in CHART}
    fit = {k: learned(x.full, on.zero[: len(few)]) for k, x in chart.items()}
    return Result(
        judge(CLAIMS, found, shared=True),
        found,
        {k: x.only(fit[k]) for k, x in chart.items() if fit[k].any()},
        {k: which.double().mean().item() for k, which in fit.items()},
    )
