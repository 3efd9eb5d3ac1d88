"""What does preprocessing buy, and how far is everything from Bayes? Estimators tuned alike."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.claims import CHEN, Claim, Criterion, Judged, judge
from icl.contexts import NEXT_SEEDS, Contexts, check, draw
from icl.errors import brief, require, whole
from icl.estimators import ESTIMATORS, NAIVE
from icl.experiments.comparison import Pair, advantage, better_naive
from icl.intervals import estimate, over_seeds, trimmed
from icl.predictors import LinearPredictor, excess_risk
from icl.tasks import SparseLinear
from icl.threads import side_by_side
from icl.words import LOWER

PLANS = {}
ALGORITHM, FIXED = "preprocessed GD", "preprocessed GD, fixed rate"
DESCENTS = ("GD", ALGORITHM, "re-weighted GD")
GAUSSIAN, GAUSSIAN_SETTING = SparseLinear(16, 2, 32, 1.0, "gaussian"), "d=16, s=2, n=32, gaussian"
SETTINGS = {
    f"d={d}, s={s}, n={n}": SparseLinear(d, s, n, 1.0, "sphere")
    for d, s, n in (
        *((16, s, 32) for s in (1, 2, 4, 8, 16)),
        *((16, 2, n) for n in (64, 256)),
        (8, 2, 32),
    )
} | {GAUSSIAN_SETTING: GAUSSIAN}
STEPS = (1, 2, 3, 5, 10, 30, 100)
NEARLY_ZERO = 0.01  # risk where the figure of sparsity ends

# Excess risks (M, B) by estimator, in M repetitions.
Risks = dict[str, Tensor]

A7 = Claim(
    "A7",
    CHEN,
    "Preprocess-then-optimise beats gradient descent and ridge regression.",
    (
        Criterion(
            "reduction of the mean excess risk below the better of tuned gradient descent "
            "and tuned ridge, as a fraction",
            advantage,
            0.1,
            "The paper says significantly better; a tenth is the least that deserves it.",
            said="against the better of gradient descent and ridge, the risk of "
            "preprocessed gradient descent is {}",
            unit=LOWER,
        ),
    ),
)
CLAIMS = (A7,)


def drawn(task: SparseLinear, contexts: int, seeds: Iterable[int]) -> list[Contexts]:
    """The contexts that each repetition is judged on."""
    return [draw(task, contexts, "evaluate", seed) for seed in seeds]


def repeat(names: Iterable[str], task: SparseLinear, contexts: int, seeds: Iterable[int]) -> Risks:
    """Tuned anew in every repetition: r tunes on `tune` r and is judged on `evaluate` r."""
    rounds = list(zip(seeds, drawn(task, contexts, seeds), strict=True))
    return {
        name: torch.stack(
            [excess_risk(ESTIMATORS[name].tuned(task, seed=r), batch) for r, batch in rounds]
        )
        for name in names
    }


def compared(found: dict[str, Risks]) -> dict[str, Pair]:
    """What A7 compares, by setting: preprocessed GD at either rate, the better of the others."""
    pairs = {}
    for setting, risks in found.items():
        naive = better_naive(risks)
        pairs[setting] = risks[ALGORITHM], naive
        pairs[f"{setting}, fixed rate"] = risks[FIXED], naive
    return pairs


def evaluate(tuned: dict[str, LinearPredictor], batches: list[Contexts]) -> Risks:
    """Tuned once: a repetition is a batch of contexts to judge on."""
    return {
        name: torch.stack([excess_risk(estimator, batch) for batch in batches])
        for name, estimator in tuned.items()
    }


def contenders(task: SparseLinear) -> dict[str, LinearPredictor]:
    """Every estimator of the registry, tuned on `tune` 0; of two rates, the relative one."""
    return {name: known.tuned(task) for name, known in ESTIMATORS.items() if name != FIXED}


def vary(task: SparseLinear, contexts: int, seeds: Iterable[int]) -> dict[str, dict[float, Risks]]:
    """Risks of all contenders by what is varied, "n", "s/d" or "noise", and by its value."""
    d = task.d
    grids = {
        "n": {k * d: replace(task, n=k * d) for k in (2, 4, 8, 16, 32)},
        "s/d": {k / 8: replace(task, s=k * d // 8) for k in (1, 2, 3, 4, 8)},
        "noise": {sigma: replace(task, noise=sigma) for sigma in (0.25, 1.0, 2.0)},
    }
    tasks = {t for grid in grids.values() for t in grid.values()}  # one is in all grids
    found = side_by_side(lambda t: evaluate(contenders(t), drawn(t, contexts, seeds)), tasks)
    risks = dict(zip(tasks, found, strict=True))
    return {varied: {x: risks[t] for x, t in grid.items()} for varied, grid in grids.items()}


def lines(found: dict[float, Risks], panel: str) -> pd.DataFrame:
    """Mean risks by `x` and label, over repetitions; zero, which learns nothing, is left out."""
    rows = [
        {"panel": panel, "label": name, "x": x, **vars(estimate(risk))}
        for x, risks in found.items()
        for name, risk in risks.items()
        if name != "zero"
    ]
    return pd.DataFrame(rows)


def slopes(found: dict[float, Risks]) -> pd.DataFrame:
    """Least-squares slope of log risk in log n, and the risk at both ends, by name."""
    x = np.log(list(found))
    centred = torch.from_numpy((x - x.mean()) / ((x - x.mean()) ** 2).sum())
    first, *_, last = found
    rows = []
    for name in found[first]:
        risks = torch.stack([trimmed(by[name].double(), dim=-1) for by in found.values()])
        ends = (f"{risk.mean():.4f}" for risk in (risks[0], risks[-1]))
        rows.append([name, over_seeds(centred @ risks.log()), *ends])
    header = ["predictor", "log-log slope [95 %]", f"risk, n={first}", f"n={last}"]
    return pd.DataFrame(rows, columns=header)


def by_steps(
    task: SparseLinear, batches: list[Contexts], steps: Iterable[int] = STEPS
) -> pd.DataFrame:
    """Mean risks of descents whose rate is tuned for so many steps; ridge, which takes none."""
    ridge = {"ridge": ESTIMATORS["ridge"].tuned(task)}
    found = {}
    for t in steps:
        descents = {name: ESTIMATORS[name].tuned(task, steps=t) for name in DESCENTS}
        found[t] = evaluate(descents | ridge, batches)
    return lines(found, f"d={task.d}, s={task.s}, n={task.n}")


def by_norm(risks: Risks, weights: Tensor, panel: str, groups: int = 8) -> pd.DataFrame:
    """Mean risks over equally many contexts each, in order of |w|, from all weights (M·B, d)."""
    norms = weights.norm(dim=-1)
    groups = min(groups, len(norms) // 2)  # a mean needs two contexts for its interval
    rows = [
        {"panel": panel, "label": name, "x": norms[group].median().item()}
        | vars(estimate(risk.flatten()[group]))
        for name, risk in risks.items()
        for group in norms.argsort().tensor_split(groups)
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Result(Judged):
    """What claim A7 compares in every setting, the verdict, and frames for figures and a table.

    `curves` has the frame of every figure by what stands on its x axis.
    """

    pairs: dict[str, Pair]
    curves: dict[str, pd.DataFrame]
    slopes: pd.DataFrame

    def plot_examples(self) -> None:
        """Risk against the number of examples."""
        figures.curves(self.curves["n"], "x", "examples n", log="xy")

    def learning_speed(self) -> tables.Text:
        """How fast the risk falls with the number of examples."""
        return tables.show(self.slopes)

    def plot_sparsity(self) -> None:
        """Risk against the share of non-zero weights."""
        label = "share of non-zero weights s/d"
        figures.curves(self.curves["s/d"], "x", label, span=(NEARLY_ZERO, np.inf))

    def plot_noise(self) -> None:
        """Risk against the noise."""
        figures.curves(self.curves["noise"], "x", "standard deviation of the noise", log="xy")

    def plot_steps(self) -> None:
        """Risk against the number of steps, with few examples and with many."""
        figures.curves(self.curves["steps"], "x", "steps", log="xy")

    def plot_norms(self) -> None:
        """Risk against the norm of the true weights."""
        figures.curves(self.curves["|w|"], "x", "norm of the true weights |w|")

    def numbers(self) -> tables.Text:
        """Claim A7 in every setting: risks, their tails, and paired differences of risks."""

        def shown(risks: Tensor) -> str:
            tail = risks.nan_to_num(torch.inf, posinf=torch.inf)
            values = trimmed(risks, dim=-1).mean(), tail.quantile(0.5), tail.max()
            return ", ".join(f"{value:.3g}" for value in values)

        rows = [
            {
                "setting": setting,
                "better of GD and ridge: risk, median, worst": shown(naive),
                "preprocessed GD: risk, median, worst": shown(ours),
                "difference of risks [95 %]": over_seeds(
                    trimmed(ours, dim=-1) - trimmed(naive, dim=-1)
                ),
            }
            for setting, (ours, naive) in self.pairs.items()
        ]
        return tables.show(pd.DataFrame(rows))


def run(contexts: int, repetitions: int, features: int, seed: int) -> Result:
    """Judge A7 in its settings; vary a task of so many features for the curves."""
    check(contexts, seed)
    whole("repetitions", repetitions, 2, NEXT_SEEDS)
    require(features in (8, 16), f"features={brief(features)}: allowed are 8 and 16")
    seeds = range(seed, seed + repetitions)
    rivals = (*NAIVE, ALGORITHM, FIXED)
    judged = side_by_side(lambda t: repeat(rivals, t, contexts, seeds), SETTINGS.values())
    found = dict(zip(SETTINGS, judged, strict=True))
    pairs = compared(found)

    task = SparseLinear(features, features // 4, 4 * features, 1.0, "sphere")
    varied = vary(task, contexts, seeds)
    few, many = (replace(task, n=k * features) for k in (4, 32))
    steps = [by_steps(t, drawn(t, contexts, seeds)) for t in (few, many)]
    weights = torch.cat([batch.w for batch in drawn(GAUSSIAN, contexts, seeds)])
    curves = {
        "n": lines(varied["n"], f"d={features}, s={task.s}, noise 1"),
        "s/d": lines(varied["s/d"], f"d={features}, n={task.n}, noise 1"),
        "noise": lines(varied["noise"], f"d={features}, s={task.s}, n={task.n}"),
        "steps": pd.concat(steps),
        "|w|": by_norm(found[GAUSSIAN_SETTING], weights, GAUSSIAN_SETTING),
    }
    return Result(judge(CLAIMS, pairs), pairs, curves, slopes(varied["n"]))
