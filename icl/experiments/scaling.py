"""How does the risk grow? Exponents in the number of examples, of features and of weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.contexts import Contexts, draw
from icl.errors import require
from icl.estimators import ESTIMATORS
from icl.experiments.models import BY_HEADS, EQUAL, WORKHORSE, filed, trained_families, workhorse
from icl.intervals import Estimate, over_seeds, trimmed
from icl.moments import mean_risk, optimum
from icl.polynomials import monomials
from icl.predictors import Predictor, excess_risk
from icl.tasks import SparseLinear
from icl.training import one_thread

CLAIMS = ()
# Networks of three layers, by heads per layer and by the number of examples they are trained for.
NETWORKS = {
    f"{h} heads per layer" if h > 1 else "1 head per layer": {
        16: filed(f"heads-{h}-n16", workhorse(h, h, h, n=16)),
        32: (BY_HEADS[3][h], EQUAL[BY_HEADS[3][h]]),
        64: filed(f"heads-{h}-n64", workhorse(h, h, h, n=64)),
    }
    for h in (1, 8)
}
PLANS = dict(plan for found in NETWORKS.values() for plan in found.values())
NAMES = ("ridge", "lasso", "preprocessed GD", "Bayes")
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
# Mean risks (R,) in repetitions or over seeds, or one exact one, (), by what is varied and name.
Risks = dict[int, dict[str, Tensor]]


def exponent(risks: dict[int, Tensor]) -> Tensor:
    """Least-squares slope (R,) or () of log risk against the log of what is varied."""
    x = torch.tensor(list(risks)).double().log()
    y = torch.stack([*risks.values()]).double().log()
    away = x - x.mean()
    return torch.einsum("x,x...->...", away, y) / away.square().sum()


def expected(rate: Callable[[SparseLinear], float]) -> dict[str, Estimate]:
    """The exponents of a rate over the values of every grid."""
    return {
        what: over_seeds(exponent({x: torch.tensor(rate(task)) for x, task in found.items()}))
        for what, found in GRIDS.items()
    }


@dataclass(frozen=True)
class Result:
    """Risks of estimators and of the best polynomials by grid; of networks at d = 8."""

    grids: dict[str, Risks]
    networks: Risks

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

    def exponents(self) -> dict[str, dict[str, Estimate]]:
        """By name and grid."""
        names = next(iter(next(iter(self.grids.values())).values()))
        return {
            name: {
                what: over_seeds(exponent({x: risks[name] for x, risks in found.items()}))
                for what, found in self.grids.items()
            }
            for name in names
        }

    def table(self) -> tables.Text:
        """Exponents of every estimator and polynomial, below those of the rates."""
        found = {name: expected(rate) for name, rate in RATES.items()} | self.exponents()
        return tables.show(pd.DataFrame([{"risk of": name} | row for name, row in found.items()]))

    def of_networks(self) -> tables.Text:
        """Risks at every n of what was trained or tuned for it, and the exponent."""
        names = next(iter(self.networks.values()))
        rows = []
        for name in names:
            risks = {n: found[name] for n, found in self.networks.items()}
            about = {f"risk, n = {n}": over_seeds(risk) for n, risk in risks.items()}
            rows.append({"risk of": name} | about | {"exponent in n": over_seeds(exponent(risks))})
        return tables.show(pd.DataFrame(rows))

    @property
    def finding(self) -> tables.Text:
        """What grows like what."""
        found = self.exponents()

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


def networks(contexts: int, seeds: range) -> Risks:
    """Risks of networks over their seeds, (M,), and of estimators in repetitions, (R,), by n."""
    families = trained_families(NETWORKS)
    found: Risks = {}
    for n in next(iter(NETWORKS.values())):
        task = replace(WORKHORSE, n=n)
        batches = [draw(task, contexts, "evaluate", seed) for seed in seeds]
        found[n] = {
            label: risk(family[n].model, batches).mean(dim=0) for label, family in families.items()
        }
        found[n] |= {name: risk(ESTIMATORS[name].tuned(task), batches) for name in NAMES}
    return found


@one_thread()
def run(contexts: int, repetitions: int, seed: int) -> Result:
    """Risks on so many contexts, of so many seeds from this one on."""
    require(contexts >= 2, f"contexts={contexts}: allowed are 2 and more")
    require(repetitions >= 2, f"repetitions={repetitions}: allowed are 2 and more")
    seeds = range(seed, seed + repetitions)
    tasks = {task for found in GRIDS.values() for task in found.values()}  # some are in two grids
    risks = {task: measured(task, contexts, seeds) for task in tasks}
    grids = {what: {x: risks[task] for x, task in found.items()} for what, found in GRIDS.items()}
    return Result(grids, networks(contexts, seeds))
