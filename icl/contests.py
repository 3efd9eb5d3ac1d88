"""Estimators tuned alike, evaluated on the same contexts, over tasks and repetitions."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from icl.bayes import bayes
from icl.contexts import draw
from icl.estimators import (
    NAIVE,
    OLS,
    OneStep,
    PreprocessedGD,
    ReweightedGD,
    Zero,
    tuned_gd,
    tuned_lasso,
    tuned_ridge,
)
from icl.predictors import LinearPredictor
from icl.risk import Estimate, excess_risk, over_seeds, reduction, summarise
from icl.tasks import SparseLinear

PREPROCESSED, FIXED = "preprocessed GD", "preprocessed, fixed rate"
SETTINGS = {
    f"d={d}, s={s}, n={n}": SparseLinear(d, s, n, 1.0, "sphere")
    for d, s, n in (
        *((16, s, 32) for s in (1, 2, 4, 8, 16)),
        *((16, 2, n) for n in (64, 256)),
        (8, 2, 32),
    )
}
GAUSSIAN = SparseLinear(16, 2, 32, 1.0, "gaussian")

Makes = Callable[[SparseLinear, int], dict[str, LinearPredictor]]


def rivals(task: SparseLinear, seed: int) -> dict[str, LinearPredictor]:
    """What claim A7 compares, tuned on contexts of one seed; rate relative to λ_max."""
    return {
        "tuned ridge": tuned_ridge(task, seed),
        "tuned GD": tuned_gd(task, seed=seed),
        PREPROCESSED: tuned_gd(task, kind=PreprocessedGD, relative=True, seed=seed),
    }


def rivals_and_fixed(task: SparseLinear, seed: int) -> dict[str, LinearPredictor]:
    """`rivals`, and preprocessed gradient descent with one rate for all contexts."""
    return rivals(task, seed) | {FIXED: tuned_gd(task, kind=PreprocessedGD, seed=seed)}


def contenders(task: SparseLinear, seed: int) -> dict[str, LinearPredictor]:
    """All estimators of the book; the first learns nothing, the last is the floor."""
    return {
        "zero": Zero(),
        "one step (Γ*)": OneStep(task),
        "least squares": OLS(),
        **rivals(task, seed),
        "tuned lasso": tuned_lasso(task, seed),
        "re-weighted GD": tuned_gd(task, kind=ReweightedGD, relative=True, seed=seed),
        "Bayes": bayes(task),
    }


def repeat(makes: Makes, task: SparseLinear, contexts: int, seeds: Iterable[int]) -> dict:
    """Excess risks (M, B) by name: repetition r tunes on `tune` r and judges on `evaluate` r."""
    rounds = []
    for seed in seeds:
        batch = draw(task, contexts, "evaluate", seed)
        rounds.append({name: excess_risk(p, batch) for name, p in makes(task, seed).items()})
    return {name: torch.stack([risks[name] for risks in rounds]) for name in rounds[0]}


def evaluate(makes: Makes, task: SparseLinear, contexts: int, seeds: Iterable[int]) -> dict:
    """Excess risks (M, B) by name: tuned once, on `tune` 0, and judged on `evaluate` r."""
    members = makes(task, 0)
    batches = [draw(task, contexts, "evaluate", seed) for seed in seeds]
    return {
        name: torch.stack([excess_risk(member, batch) for batch in batches])
        for name, member in members.items()
    }


def by_steps(task: SparseLinear, contexts: int, seeds: Iterable[int], steps: Iterable[int]) -> dict:
    """Points (steps, mean risk over seeds) of descents whose rate is tuned for that many steps.

    Ridge, which takes no steps, is given for comparison.
    """

    def makes(steps: int) -> dict[str, LinearPredictor]:
        preprocessed = tuned_gd(task, steps, PreprocessedGD, relative=True)
        return {"tuned GD": tuned_gd(task, steps), PREPROCESSED: preprocessed}

    ridge = {"tuned ridge": tuned_ridge(task)}
    found = {t: evaluate(lambda *_, t=t: makes(t) | ridge, task, contexts, seeds) for t in steps}
    return lines(found)


def better_baseline(risks: dict[str, Tensor]) -> Tensor:
    """Of GD and ridge the risks (M, B) of the one with the smaller mean, in each repetition."""
    both = torch.stack([risks[name] for name in NAIVE])
    best = both.mean(dim=-1).argmin(dim=0)
    return both[best, torch.arange(len(best))]


def advantage(risks: dict[str, Tensor], name: str = PREPROCESSED) -> Tensor:
    """How far the mean risk is below the better baseline's, as a fraction of it, (M,)."""
    return reduction(risks[name], better_baseline(risks))


def lines(found: dict[float, dict[str, Tensor]], leave: Iterable[str] = ("zero",)) -> dict:
    """Points (x, mean risk over seeds) by name, for `figures.curves`."""
    names = [name for name in next(iter(found.values())) if name not in leave]
    return {
        name: [(x, over_seeds(risks[name].mean(dim=-1))) for x, risks in found.items()]
        for name in names
    }


def slopes(found: dict[float, dict[str, Tensor]]) -> dict[str, Estimate]:
    """Least-squares slope of log mean risk in log x, over seeds, by name."""
    x = np.log(list(found))
    centred = torch.from_numpy((x - x.mean()) / ((x - x.mean()) ** 2).sum())
    names = next(iter(found.values()))
    means = {
        name: torch.stack([risks[name].double().mean(dim=-1).log() for risks in found.values()])
        for name in names
    }
    return {name: over_seeds(centred @ mean) for name, mean in means.items()}


def by_norm(
    risks: dict[str, Tensor], task: SparseLinear, seeds: Iterable[int], bins: int = 8
) -> dict:
    """Points (|w|, mean risk) by name, over equally many contexts each, in order of |w|."""
    contexts = next(iter(risks.values())).shape[1]
    weights = torch.cat([draw(task, contexts, "evaluate", seed).w for seed in seeds])
    norms = weights.norm(dim=-1)
    groups = norms.argsort().chunk(bins)
    return {
        name: [(norms[g].median().item(), summarise(risk.flatten()[g])) for g in groups]
        for name, risk in risks.items()
    }
