"""How does the risk grow? Exponents in the number of examples, of features and of weights."""

import math
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.contexts import NEXT_SEEDS, Contexts, check, draw
from icl.errors import whole
from icl.estimators import ESTIMATORS
from icl.experiments.models import (
    ALONE,
    BY_HEADS,
    EQUAL,
    GRID,
    SIZES,
    SPARSITIES,
    filed,
    trained_families,
    workhorse,
)
from icl.intervals import Estimate, over_seeds, trimmed
from icl.moments import mean_risk, optimum
from icl.polynomials import monomials
from icl.predictors import Predictor, excess_risk
from icl.tasks import SparseLinear
from icl.threads import one_thread

CLAIMS = ()
# Networks of three layers, by what their tasks vary, by heads per layer, and by its value. Tasks
# with other numbers of features and weights have noise 0.5, and one weight and 64 examples, or 32.
HEADS = {"1 head per layer": (1, ALONE), "8 heads per layer": (8, "8-8-8")}
NETWORKS = {
    "examples n": {
        label: {
            16: filed(f"heads-{h}-n16", workhorse(h, h, h, n=16)),
            32: (BY_HEADS[3][h], EQUAL[BY_HEADS[3][h]]),
            64: filed(f"heads-{h}-n64", workhorse(h, h, h, n=64)),
        }
        for label, (h, _) in HEADS.items()
    },
    "features d": {label: SIZES[kind] for label, (_, kind) in HEADS.items()},
    "weights s": {
        label: {s: GRID[s, 0.5, kind] for s in SPARSITIES} for label, (_, kind) in HEADS.items()
    },
}
PLANS = dict(
    plan
    for families in NETWORKS.values()
    for family in families.values()
    for plan in family.values()
)
NAMES = ("ridge", "lasso", "preprocessed GD", "Bayes")
BESIDE = ("ridge", "lasso", "preprocessed GD")  # beside networks: Bayes knows one weight's size
DEGREES = (1, 2, 3, 4)
# What is varied, its values, and the task.
GRIDS = {
    "examples n": {n: SparseLinear(16, 2, n, 1.0, "sphere") for n in (32, 64, 128, 256, 512)},
    "features d": {d: SparseLinear(d, 2, 64, 1.0, "sphere") for d in (8, 16, 32, 48)},
    "weights s": {s: SparseLinear(12, s, 64, 1.0, "sphere") for s in (2, 3, 4)},
}
# What theory expects of methods that ignore that weights are sparse, and of those that use it.
RATES = {
    "d / n": lambda task: task.d / task.n,
    "s log d / n": lambda task: task.s * math.log(task.d) / task.n,
}
# The tasks of networks alike.
THEIRS = {
    what: {x: plan.config.task for x, (_, plan) in next(iter(families.values())).items()}
    for what, families in NETWORKS.items()
}
Grids = dict[str, dict[int, SparseLinear]]
# Mean risks (R,) in repetitions or over seeds, or one exact one, (), by what is varied and name.
Risks = dict[int, dict[str, Tensor]]


def exponent(risks: dict[int, Tensor]) -> Tensor:
    """Least-squares slope (R,) or () of log risk against the log of what is varied."""
    x = torch.tensor(list(risks)).double().log()
    y = torch.stack([*risks.values()]).double().log()
    away = x - x.mean()
    return torch.einsum("x,x...->...", away, y) / away.square().sum()


def expected(grids: Grids) -> dict[str, dict[str, Estimate]]:
    """The exponents of every rate over the values of every grid."""
    return exponents(
        {
            what: {
                x: {name: torch.tensor(rate(task)) for name, rate in RATES.items()}
                for x, task in found.items()
            }
            for what, found in grids.items()
        }
    )


def exponents(grids: dict[str, Risks]) -> dict[str, dict[str, Estimate]]:
    """By name and grid."""
    names = next(iter(next(iter(grids.values())).values()))
    return {
        name: {
            what: over_seeds(exponent({x: risks[name] for x, risks in found.items()}))
            for what, found in grids.items()
        }
        for name in names
    }


def shown(found: dict[str, dict[str, Estimate]]) -> tables.Text:
    """Exponents as a table."""
    return tables.show(pd.DataFrame([{"risk of": name} | row for name, row in found.items()]))


@dataclass(frozen=True)
class Result:
    """By what is varied: risks of estimators and of the best polynomials, and of networks."""

    grids: dict[str, Risks]
    networks: dict[str, Risks]

    def frame(self, what: str) -> pd.DataFrame:
        """Estimates by name and by what is varied."""
        rows = [
            {"panel": "", "label": name, what: x, **vars(over_seeds(risk))}
            for x, found in self.grids[what].items()
            for name, risk in found.items()
        ]
        return pd.DataFrame(rows)

    def plot(self, what: str) -> None:
        """Risks against what is varied."""
        figures.curves(self.frame(what), what, what, log="xy")

    def table(self) -> tables.Text:
        """Exponents of every estimator and polynomial, below those of the rates."""
        return shown(expected(GRIDS) | exponents(self.grids))

    def of_networks(self) -> tables.Text:
        """Exponents of networks, and of estimators on the same tasks, below those of the rates."""
        return shown(expected(THEIRS) | exponents(self.networks))

    def network(self, name: str, what: str) -> Estimate:
        """The exponent of a kind of network, or of what was tuned for the same tasks."""
        return exponents(self.networks)[name][what]

    def ratio(self, what: str, x: int, name: str = "8 heads per layer") -> float:
        """The mean risk of a kind of network as a fraction of ridge's, at one value."""
        found = self.networks[what][x]
        return (found[name].mean() / found["ridge"].mean()).item()

    def risks_of_networks(self, what: str) -> tables.Text:
        """Risks of what was trained or tuned for every value."""
        found = self.networks[what]
        rows = [
            {"risk of": name}
            | {f"{what[-1]} = {x}": over_seeds(risks[name]) for x, risks in found.items()}
            for name in next(iter(found.values()))
        ]
        return tables.show(pd.DataFrame(rows))

    @property
    def finding(self) -> tables.Text:
        """What grows like what."""
        found = exponents(self.grids)

        def of(name: str, what: str) -> str:
            return f"{found[name][what]}"

        return tables.Text(
            "**The more features, the more sparsity is worth: the risks of sparse methods grow "
            "more slowly, and so do those of polynomials from degree 3 on.** From 8 to 48 "
            "features, at 64 examples, the exponent of ridge's risk is "
            f"{of('ridge', 'features d')}, of the lasso's {of('lasso', 'features d')}, of Bayes' "
            f"{of('Bayes', 'features d')}, and of the best polynomials' "
            f"{of('degree 2', 'features d')} at degree 2, {of('degree 3', 'features d')} at degree "
            f"3 and {of('degree 4', 'features d')} at degree 4 (means with 95 % intervals; exact "
            "where there is none)."
        )


def risk(predictor: Predictor, batches: list[Contexts]) -> Tensor:
    """Trimmed mean risks (R,) of an estimator in repetitions, or (R, M) of a network."""
    return torch.stack([trimmed(excess_risk(predictor, batch), dim=-1) for batch in batches])


def measured(task: SparseLinear, contexts: int, seeds: range) -> dict[str, Tensor]:
    """Risks (R,) of tuned estimators in repetitions, and exact means () of polynomials."""
    batches = [draw(task, contexts, "evaluate", seed) for seed in seeds]
    found = {name: risk(ESTIMATORS[name].tuned(task), batches) for name in NAMES}
    best = {f"degree {k}": optimum(task, monomials(k)) for k in DEGREES}
    return found | {name: mean_risk(task, rung) for name, rung in best.items()}


def networks(what: str, contexts: int, seeds: range) -> Risks:
    """Risks of networks over their seeds, (M,), and of estimators in repetitions, (R,)."""
    families = trained_families(NETWORKS[what], "double")
    found: Risks = {}
    for x, task in THEIRS[what].items():
        batches = [draw(task, contexts, "evaluate", seed) for seed in seeds]
        found[x] = {
            label: risk(family[x].model, batches).mean(dim=0) for label, family in families.items()
        }
        found[x] |= {name: risk(ESTIMATORS[name].tuned(task), batches) for name in BESIDE}
    return found


@one_thread()
def run(contexts: int, repetitions: int, seed: int) -> Result:
    """Risks on so many contexts, of so many seeds from this one on."""
    check(contexts, seed)
    whole("repetitions", repetitions, 2, NEXT_SEEDS)
    seeds = range(seed, seed + repetitions)
    tasks = {task for found in GRIDS.values() for task in found.values()}  # some are in two grids
    risks = {task: measured(task, contexts, seeds) for task in tasks}
    grids = {what: {x: risks[task] for x, task in found.items()} for what, found in GRIDS.items()}
    return Result(grids, {what: networks(what, contexts, seeds) for what in NETWORKS})
