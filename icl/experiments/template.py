"""Do the largest weights of least squares do better than ridge? The experiment that forks copy."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.claims import OURS, Claim, Criterion, Judged, judge
from icl.contexts import NEXT_SEEDS, Contexts, check, draw
from icl.errors import whole
from icl.estimators import ESTIMATORS, OLS
from icl.intervals import estimate, reduction
from icl.predictors import LinearPredictor, excess_risk
from icl.tasks import SparseLinear, Task
from icl.words import LOWER

PLANS = {}  # the models to train: none

SETTINGS = {f"s = {s}": SparseLinear(d=8, s=s, n=32, values="sphere") for s in (1, 2, 8)}


class KeepLargest(LinearPredictor):
    """Least squares, with all weights but the `kept` largest set to 0."""

    def __init__(self, kept: int):
        self.kept = kept

    def weights(self, contexts: Contexts) -> Tensor:
        found = OLS().weights(contexts)
        order = found.abs().argsort(dim=-1, descending=True)
        return found.scatter(-1, order[..., self.kept :], 0.0)


# Ours, then the one it has to beat: functions of a task and a seed to tune on.
CONTENDERS = {
    "largest weights": lambda task, seed: KeepLargest(task.s),
    "ridge": ESTIMATORS["ridge"].tuned,
}


def advantage(risks: dict[str, Tensor]) -> Tensor:
    """By what fraction (M,) our risk is lower; risks (M, B) by contender."""
    ours, other = risks.values()
    return reduction(ours, other)


CRITERION = Criterion(
    "reduction of the risk below tuned ridge, as a fraction",
    advantage,
    threshold=0.1,
    reason="A tenth is the least that is worth another estimator.",
    said="the largest weights have a risk {} than ridge's",
    unit=LOWER,
)
STATEMENT = "The largest weights of least squares have a lower risk than tuned ridge."
CLAIMS = (Claim("T1", OURS, STATEMENT, (CRITERION,)),)


@dataclass(frozen=True)
class Result(Judged):
    """Excess risks (M, B) in M repetitions, by setting and contender, and the verdict."""

    risks: dict[str, dict[str, Tensor]]

    def plot_advantage(self) -> None:
        """The statistic in every setting, a dot per repetition, and what it has to exceed."""
        rows = [
            {"panel": "", "label": setting, "value": value}
            for setting, risks in self.risks.items()
            for value in CRITERION.measure(risks).tolist()
        ]
        needed = {"panel": "", "label": "needed", "value": CRITERION.threshold}
        figures.dots(pd.DataFrame(rows), pd.DataFrame([needed]), CRITERION.statistic)

    def numbers(self) -> tables.Text:
        """The risk of every contender in every setting."""
        rows = [
            {"setting": setting} | {name: estimate(risk) for name, risk in risks.items()}
            for setting, risks in self.risks.items()
        ]
        return tables.show(pd.DataFrame(rows))


def measure(task: Task, contexts: int, seeds: range) -> dict[str, Tensor]:
    """Excess risks (M, B): repetition r tunes on stream `tune`, seed r, as `evaluate` judges it."""
    drawn = {seed: draw(task, contexts, "evaluate", seed) for seed in seeds}
    return {
        name: torch.stack(
            [excess_risk(tuned(task, seed=seed), batch) for seed, batch in drawn.items()]
        )
        for name, tuned in CONTENDERS.items()
    }


def run(contexts: int, repetitions: int, seed: int) -> Result:
    """Compare the contenders on every task, on so many contexts in every repetition."""
    check(contexts, seed)
    whole("repetitions", repetitions, 2, NEXT_SEEDS)
    seeds = range(seed, seed + repetitions)
    risks = {setting: measure(task, contexts, seeds) for setting, task in SETTINGS.items()}
    return Result(judge(CLAIMS, risks), risks)
