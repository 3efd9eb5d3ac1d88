"""What can an answer of each degree do? The exact optimum, and how near trained networks come."""

from dataclasses import dataclass, replace
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.architecture import Architecture
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, OURS, Claim, Criterion, Judged, judge
from icl.configuration import Configuration, Plan, Written
from icl.contexts import check
from icl.estimators import ESTIMATORS
from icl.experiments.comparison import Comparison, Pair
from icl.experiments.models import (
    BY_HEADS,
    EQUAL,
    EVERY_S,
    VALUES,
    WORKHORSE,
    filed,
    trained,
    workhorse,
)
from icl.intervals import estimate, trimmed
from icl.moments import mean_risk, optimum
from icl.polynomials import Monomial, monomials
from icl.predictors import LinearPredictor
from icl.recipe import USUAL
from icl.tasks import SparseLinear
from icl.threads import one_thread
from icl.two_layers import TwoLayers
from icl.words import FALL, PERCENT, percent

DEGREES = (1, 2, 3, 4)
NOTHING = 1e-3  # of ridge's risk: Bayes' where the only weight is 1 or −1
CUBE = Monomial(0, (), (0, 0, 0))  # r̂³, which Algorithm 1 answers after one step
# Two layers with twice the heads and with four times the training.
MORE = dict([filed("heads-16-2", workhorse(16, 16))])
MORE |= [filed("heads-8-2-56000", workhorse(8, 8, steps=56_000))]
# Where descent on the exact risk of two layers that treat features alike ended: a start.
ELEVEN = Written((-0.381, -0.248, 0.249, 1.64, -0.43, -0.0642, -0.234, 0.551, 0.108, 0.833, 2.85))
ALIKE = Configuration(WORKHORSE, Architecture(8, (10, 9), 9, 18), USUAL["workhorse"])
MORE |= {
    "two-layers-drawn": Plan(ALIKE),
    "two-layers-written": Plan(replace(ALIKE, written=ELEVEN)),
}
# The degree of ŵ by layers of linear attention: every layer takes degree q to 3q + 1, from 0.
REACH = {layers: (3**layers - 1) // 2 for layers in (1, 2)}
PLANS = {n: EQUAL[n] for layers in REACH for n in BY_HEADS[layers].values()} | MORE
SETTINGS = {
    f"s = {s}, noise {noise:g}, {kind}": SparseLinear(8, s, 32, noise, values)
    for (kind, values), s, noise in product(VALUES.items(), (1, 2, 4), (0.3, 1.0))
}


def least(task: SparseLinear, degree: int, without: Monomial | None = None) -> float:
    """The least mean risk of all polynomials of a degree, or of those that lack a monomial."""
    of = tuple(m for m in monomials(degree) if m != without)
    return mean_risk(task, optimum(task, of)).item()


def dense(task: SparseLinear, degree: int) -> float:
    """The least mean risk for dense Gaussian weights of the same mean square and the same noise.

    Labels divided by √(s/d) have weights N(0, 1) and a noise that is larger by as much.
    """
    scale = task.s / task.d
    noise = task.noise / scale**0.5
    return scale * least(SparseLinear(task.d, task.d, task.n, noise, "gaussian"), degree)


def worth(task: SparseLinear, degree: int, without: Monomial | None = None) -> Tensor:
    """By what fraction, (), sparsity makes the least risk of a degree smaller: exact."""
    return torch.tensor(1 - least(task, degree, without) / dense(task, degree))


def before(task: SparseLinear) -> Tensor:
    """What sparsity is worth at degree 2, negated, (): exact."""
    return -worth(task, 2)


def then(task: SparseLinear) -> Tensor:
    """What sparsity is worth at degree 3, (): exact."""
    return worth(task, 3)


def owed(task: SparseLinear) -> Tensor:
    """What share, (), of the worth of sparsity at degree 3 is lost without r̂³: exact."""
    return 1 - worth(task, 3, without=CUBE) / worth(task, 3)


def reached(pair: Pair) -> Tensor:
    """The least risk as a share (M,) of a model's, of risks (M, B) and least risks (B,)."""
    model, floor = pair
    return trimmed(floor, dim=-1) / trimmed(model, dim=-1)


C1 = Claim(
    "C1",
    AFTER_CHEN,
    "Sparsity begins to pay at degree 3 in the context, by the preprocessing term r̂³.",
    (
        Criterion(
            "fraction by which sparsity lowers the least risk of degree 2, negated",
            before,
            -0.05,
            "Less than a twentieth is hardly anything. The comparison is with dense Gaussian "
            "weights of the same mean square and the same noise.",
            said="at degree 2 sparsity lowers the least risk by {}",
            unit=FALL,
        ),
        Criterion(
            "fraction by which sparsity lowers the least risk of degree 3",
            then,
            0.1,
            "As for A8: a tenth is the least that deserves to be called better.",
            said="at degree 3 sparsity lowers the least risk by {}",
            unit=PERCENT,
        ),
        Criterion(
            "share of that which is lost without r̂³",
            owed,
            0.5,
            "Above one half, r̂³ matters more than the 20 other monomials together, which are "
            "fitted again without it.",
            said="of what sparsity is worth at degree 3, {} is lost without r̂³",
            unit=PERCENT,
        ),
    ),
)
C2 = Claim(
    "C2",
    OURS,
    "A trained network comes as near as a tenth to the least risk that its depth allows.",
    (
        Criterion(
            "least risk of the degree of so many layers, as a share of the network's",
            reached,
            0.9,
            "No network of this depth can have a mean risk below that of the best polynomial of "
            "its degree; a tenth is what may be lost to heads, width and training.",
            (0.0, float("inf")),
            said="the least risk of a network's degree is {} of the network's own",
            unit=PERCENT,
        ),
    ),
)
CLAIMS = (C1, C2)


@dataclass(frozen=True)
class Result(Judged):
    """Risks of the ladder and of estimators (B,) at every sparsity; of networks (M, B) by name."""

    by_s: dict[str, dict[int, dict[str, Tensor]]]
    models: dict[str, Checkpoint]
    risks: dict[str, Tensor]
    floors: dict[str, Tensor]

    @property
    def by_hand(self) -> str:
        """The least risk of degree 4 as a share of that of the eleven numbers, both exact."""
        hand = TwoLayers(torch.tensor(ELEVEN.numbers).double()).polynomial(WORKHORSE)
        return percent(least(WORKHORSE, REACH[2]) / mean_risk(WORKHORSE, hand).item())

    def plot_ladder(self) -> None:
        """Risks at every sparsity, as multiples of ridge's; what is next to nothing is left out."""
        rows = []
        for panel, found in self.by_s.items():
            for s, risks in found.items():
                ridge = trimmed(risks["ridge"], dim=-1)
                relative = {name: estimate(risk / ridge) for name, risk in risks.items()}
                rows += [
                    {"panel": panel, "label": name, "s": s, **vars(found)}
                    for name, found in relative.items()
                    if found.value > NOTHING
                ]
        figures.curves(pd.DataFrame(rows), "s", "non-zero weights of eight", "risk / ridge's", "y")

    def plot_worth(self) -> None:
        """What sparsity is worth at every degree, exact, in percent."""
        tasks = {
            f"{kind}, noise {noise:g}": {s: SparseLinear(8, s, 32, noise, v) for s in range(1, 9)}
            for (kind, v), noise in product(VALUES.items(), (0.3, 1.0))
        }
        _, axes = figures.subplots(len(DEGREES) - 1, 1, figsize=(figures.WIDTH, 6.6), sharex=True)
        for ax, degree in zip(axes, DEGREES[1:], strict=True):
            found = {
                name: {s: 100 * worth(task, degree).item() for s, task in line.items()}
                for name, line in tasks.items()
            }
            figures.percentages(ax, pd.DataFrame(found).T)
            ax.set_title(f"degree {degree}")
        axes[-1].set_xlabel("non-zero weights of eight")

    def plot_networks(self) -> None:
        """The least risk of its depth as a share of every network's risk, a dot per seed."""
        rows = [
            {"panel": "", "label": self.models[name].label.replace(", d = 8", ""), "value": value}
            for name, risk in self.risks.items()
            for value in reached((risk, self.floors[name])).tolist()
        ]
        needed = pd.DataFrame(
            [{"panel": "", "label": "claimed", "value": C2.criteria[0].threshold}]
        )
        figures.dots(pd.DataFrame(rows), needed, "least risk of the depth / risk of the network")

    def numbers(self) -> tables.Text:
        """The exact mean risk of every degree in the settings of C1, and what sparsity is worth."""
        rows = [
            {"setting": name}
            | {f"degree {k}": f"{least(task, k):.4f}" for k in DEGREES}
            | {f"worth, degree {k}": f"{worth(task, k):.1%}" for k in DEGREES[1:]}
            | {"of it by r̂³": f"{owed(task):.0%}"}
            for name, task in SETTINGS.items()
        ]
        return tables.show(pd.DataFrame(rows))


def ladder(task: SparseLinear) -> dict[str, LinearPredictor]:
    """The best polynomial of every degree."""
    return {f"degree {degree}": optimum(task, monomials(degree)) for degree in DEGREES}


@one_thread()
def run(contexts: int, seed: int) -> Result:
    """Compare polynomials, estimators and networks on so many evaluation contexts of this seed."""
    check(contexts, seed)
    by_s: dict[str, dict[int, dict[str, Tensor]]] = {}
    for noise in (0.5, 1.0):
        for s in EVERY_S:
            task = SparseLinear(8, s, 32, noise, "sphere")
            on = Comparison.on(task, contexts, seed)
            known = {"preprocessed GD": ESTIMATORS["preprocessed GD"].tuned(task)}
            found = {name: on.risk(rung) for name, rung in (ladder(task) | known).items()}
            by_s.setdefault(f"noise {noise:g}", {})[s] = on.baselines | found
    on = Comparison.on(WORKHORSE, contexts, seed)
    models = trained(PLANS, "double")
    rungs = {depth: optimum(WORKHORSE, monomials(degree)) for depth, degree in REACH.items()}
    risks = {name: on.risk(model.model) for name, model in models.items()}
    floors = {
        name: on.risk(rungs[len(model.config.architecture.heads)]) for name, model in models.items()
    }
    pairs = {models[name].label: (risks[name], floors[name]) for name in models}
    verdicts = judge((C1,), SETTINGS) | judge((C2,), pairs, shared=True)
    return Result(verdicts, by_s, models, risks, floors)
