"""Do heads divide the work if a model is trained differently? Contexts, sizes and recipes."""

from dataclasses import dataclass

from icl.claims import CHEN, Claim, judge
from icl.contexts import check
from icl.experiments.comparison import Comparison
from icl.experiments.measures import (
    FIRST_LAYER,
    LATER_LAYERS,
    Profile,
    Profiled,
    later,
    profiles,
)
from icl.experiments.models import ALONE, GRID, MEMBERS, SIZES, filed, trained, varied
from icl.intervals import estimate
from icl.recipe import USUAL
from icl.transformer import Transformer
from icl.words import percent

# By what is varied: the file, and the plan.
SGD = {"optimiser": "sgd", "lr": USUAL["sgd"].lr, "init_scale": USUAL["sgd"].init_scale}
VARIED = {
    "as in the grid": GRID[1, 0.5, "8-8-8"],
    "16 examples": ("s1-noise0.5-888-n16", varied(n=16)),
    "64 examples": SIZES["8-8-8"][8],
    "16 to 48 examples": ("s1-noise0.5-888-lengths", varied(lengths=(16, 48))),
    "Gaussian weight": MEMBERS["Gaussian"][1],
    "2 layers": ("s1-noise0.5-88", varied(8, 8)),
    "5 layers": filed("s1-noise0.5-88888", varied(8, 8, 8, 8, 8)),
    "16 features, 64 examples": SIZES["8-8-8"][16],
    "16 features, 64 examples, decay": filed(
        "s1-noise0.5-888-d16-decay0.0001",
        varied(d=16, n=64, weight_decay=1e-4),
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
        SIZES[ALONE][8],
        ("s1-noise0.5-111-gaussian", varied(1, 1, 1, values="gaussian")),
        SIZES[ALONE][16],
    ]
)
PLANS = dict(VARIED.values()) | SINGLE

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
    """Profiles by what was varied."""

    def risk(self, what: str, than: str = "as in the grid") -> float:
        """The average risk of one row's models as a fraction of that of another row's."""
        found = self.varied
        return estimate(found[what].risk).value / estimate(found[than].risk).value

    def top_share(self, what: str) -> str:
        """The top head's share in one row, mean over later layers and seeds, in percent."""
        return percent(later(self.varied[what].heads.top_share).mean().item())


def measured(models: dict[str, Transformer], contexts: int, seed: int) -> dict[str, Profile]:
    """Profiles of the models by what was varied, each on contexts of its own task."""
    alone = {plan.config.task: name for name, plan in SINGLE.items()}
    tasks = {what: plan.config.task for what, (_, plan) in VARIED.items()}
    found = {}
    for task, single in alone.items():
        on = Comparison.on(task, contexts, seed, names=["ridge"])
        same = {what: models[VARIED[what][0]] for what in VARIED if tasks[what] == task}
        found |= profiles(same, models[single], on)
    return {what: found[what] for what in VARIED}


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of this seed, and importances on a quarter of them."""
    check(contexts, seed)
    models = {model.name: model.model for model in trained(PLANS).values()}
    found = measured(models, contexts, seed)
    return Result(judge(CLAIMS, found, shared=True), found)
