"""What experiments compare alike: models with baselines, layers and their training with Γ*."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from icl.checkpoints import Checkpoint
from icl.claims import Criterion
from icl.configuration import Configuration
from icl.contexts import Contexts, draw
from icl.descent import GradientDescent, PreprocessedGD, ReweightedGD
from icl.estimators import ESTIMATORS, NAIVE, Zero, tuned_gd
from icl.intervals import estimate, number, over_seeds, reduction, trimmed
from icl.one_layer import distance, effective_step, excess, optimal_one_step, rate
from icl.predictors import LinearPredictor, Predictor, excess_risk
from icl.starts import begin
from icl.tasks import SparseLinear, Task
from icl.transformer import LinearTransformer
from icl.words import ERROR

REFERENCES = ("ridge", "lasso", "Bayes")  # what bounds a good answer
BASELINES = ("GD", *REFERENCES)
# What walks, by its label in ESTIMATORS; the references are end points.
PLAIN, PREPROCESSED = "GD", "preprocessed GD"  # those that claim A5 sets side by side
WALKS = {PLAIN: GradientDescent, PREPROCESSED: PreprocessedGD, "re-weighted GD": ReweightedGD}
STEPS = 20  # at any of which a walk may be met


@cache
def algorithm(label: str, task: Task, depth: int) -> LinearPredictor:
    """What a model of `depth` layers is compared with; walks have the best rate for its steps."""
    if label in REFERENCES:
        return ESTIMATORS[label].tuned(task)
    best = tuned_gd(task, steps=depth - 1, kind=WALKS[label], relative=True)
    return WALKS[label](STEPS, best.rate, relative=True)


def better_naive(risks: dict[str, Tensor]) -> Tensor:
    """Of gradient descent and ridge the risks (..., B) of the one that is better on average."""
    both = torch.stack([risks[name] for name in NAIVE])
    best = trimmed(both, dim=-1).argmin(dim=0)
    return both.gather(0, best[None, ..., None].expand(1, *both.shape[1:]))[0]


# A trained layer with the contexts that its risk is measured on.
Layer = tuple[LinearTransformer, Contexts]


def closeness(layer: Layer) -> Tensor:
    """−log₁₀ of the relative distance of Γ to Γ*, (M,)."""
    model, contexts = layer
    return -distance(effective_step(model), optimal_one_step(contexts.task)).log10()


def tightness(layer: Layer) -> Tensor:
    """−log₁₀ of the fraction by which the risk exceeds the least of a single layer, (M,)."""
    return -excess(*layer).log10()


def rates(layers: Iterable[tuple[str, Layer]]) -> pd.DataFrame:
    """By label, the rate of every layer's step, over seeds, and that of the formula."""
    rows = [
        {
            "label": label,
            "expected": optimal_one_step(contexts.task)[0, 0],
            **vars(over_seeds(rate(effective_step(model)))),
        }
        for label, (model, contexts) in layers
    ]
    return pd.DataFrame(rows)


AT_OPTIMUM = Criterion(
    "−log₁₀ of the relative distance between the trained Γ and Γ\\*",
    closeness,
    1.3,
    "That is a distance of 0.05, where an answer of zero has 1, and a step of rate 1, as exact "
    "gradient descent would suggest, has 0.31 at d = 8, n = 32 and noise 1.",
    said="the trained step differs from the best one by {}",
    unit=ERROR,
)
LEAST_RISK = Criterion(
    "−log₁₀ of the excess of the trained layer's risk over the least risk of a single layer, as "
    "a fraction of it",
    tightness,
    3.0,
    "That is an excess of 0.1 %, below which nothing is left to gain.",
    said="the layer's risk exceeds the least that one layer can have by {}",
    unit=ERROR,
)


# Excess risks on the same contexts: (M, B) of what is judged, (M, B) or (B,) of a baseline.
Pair = tuple[Tensor, Tensor]


def advantage(pair: Pair) -> Tensor:
    """By what fraction the first risk is below the second, (M,)."""
    return reduction(*pair)


def gain(risks: dict[int, Tensor]) -> Tensor:
    """By what fraction (M,) eight heads lower the risk of one; risks (M, B) by heads."""
    return reduction(risks[8], risks[1])


@dataclass(frozen=True)
class Comparison:
    """Evaluation contexts of one task, and risks (B,) of tuned baselines on them, by name."""

    contexts: Contexts
    baselines: dict[str, Tensor]

    @classmethod
    def on(
        cls,
        task: SparseLinear,
        count: int,
        seed: int,
        queries: int = 0,
        names: Iterable[str] = BASELINES,
    ) -> "Comparison":
        """Draw `count` contexts of stream `evaluate`; the named baselines are tuned on their own.

        Models that need tokens need `queries` to be answered.
        """
        contexts = draw(task, count, "evaluate", seed, queries=queries)
        tuned = {name: ESTIMATORS[name].tuned(task) for name in names}
        return cls(contexts, {name: excess_risk(e, contexts) for name, e in tuned.items()})

    def risk(self, predictor: Predictor) -> Tensor:
        """Excess risk of a predictor in every context, (M, B) or (B,)."""
        return excess_risk(predictor, self.contexts)

    @property
    def zero(self) -> Tensor:
        """Risk (B,) of answering zero."""
        return excess_risk(Zero(), self.contexts)

    @property
    def naive(self) -> Tensor:
        """Risk (B,) of gradient descent or ridge, whichever is better on average."""
        return better_naive(self.baselines)

    def references(self, panel: str, average: str = "trimmed") -> pd.DataFrame:
        """Average risk of what bounds a good answer, as lines of a figure's panel."""
        rows = [
            {"panel": panel, "label": name, **vars(estimate(self.baselines[name], average))}
            for name in REFERENCES
        ]
        return pd.DataFrame(rows)


# What is shown of a risk's tail, which decides nothing: functions of risks (..., B) and of zero's.
TAIL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plain mean": lambda risk, zero: risk.mean(dim=-1),
    "median": lambda risk, zero: risk.quantile(0.5, dim=-1),
    "worst context": lambda risk, zero: risk.amax(dim=-1),
    "contexts above zero's risk": lambda risk, zero: (risk > zero).double().mean(dim=-1),
}


def standings(models: dict[str, Checkpoint], comparisons: dict[str, Comparison]) -> pd.DataFrame:
    """Risk of every model, over its seeds, and of the baselines on the same contexts."""
    rows = []

    def add(name: str, comparison: Comparison, risk: Tensor, above: object = "") -> None:
        task = comparison.contexts.task
        tail = {k: number(v(risk, comparison.zero).mean()) for k, v in TAIL.items()}
        about = {"predictor": name, "d": task.d, "n": task.n, "excess risk [95 %]": estimate(risk)}
        rows.append(about | {"above Bayes": above} | tail)

    for task in dict.fromkeys(comparisons[name].contexts.task for name in models):
        names = [name for name in models if comparisons[name].contexts.task == task]
        comparison = comparisons[names[0]]
        for name, risk in comparison.baselines.items():
            add(name, comparison, risk)
        for name in names:
            risk = comparison.risk(models[name].model)
            above = estimate(risk).value / estimate(comparison.baselines["Bayes"]).value
            add(models[name].label, comparison, risk, f"× {above:.2f}" if above < 1e4 else "")
    found = pd.DataFrame(rows)
    return found.loc[:, (found != "").any()]


@dataclass(frozen=True)
class Path:
    """Γ of models in training: matrices (T, M, d, d) before `steps` (T,), and the end."""

    steps: Tensor
    matrices: Tensor
    model: LinearTransformer

    def curves(self, measures: dict[str, Callable[[Tensor], Tensor]]) -> pd.DataFrame:
        """Columns label, step and an estimate over seeds, of measures of Γ, (M, d, d) to (M,)."""
        rows = [
            {"label": label, "step": int(step), **vars(over_seeds(measure(gamma)))}
            for label, measure in measures.items()
            for step, gamma in zip(self.steps, self.matrices, strict=True)
        ]
        return pd.DataFrame(rows)


def watch(config: Configuration, seeds: tuple[int, ...], looks: int = 25) -> Path:
    """Train one-layer models and look at their Γ, more often early on than late."""
    trainer = begin(config, seeds)
    times = config.recipe.steps * np.linspace(0, 1, looks) ** 2
    steps = np.unique(times.round().astype(int))
    matrices = [effective_step(trainer.model)]
    for step in steps[1:]:
        while trainer.step < step:
            trainer.advance()
        matrices.append(effective_step(trainer.model))
    return Path(torch.from_numpy(steps), torch.stack(matrices), trainer.model)
