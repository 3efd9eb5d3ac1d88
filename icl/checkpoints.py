"""Trained models as data: several seeds of one configuration, and how they came to be."""

import copy
import platform
import re
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from icl.configuration import Configuration
from icl.contexts import draw
from icl.errors import real, require, whole
from icl.predictors import excess_risk
from icl.training import Snapshots, Trainer
from icl.transformer import Transformer, build

FIRST_STEPS = 20  # losses recorded one by one, which `verify` replays
CURVE_STEPS = 100  # per point of the recorded loss curve
VERSION = r"[\w.+, -]{1,200}"  # of what trained: it is shown on a page
RECORDED = {"first_losses": torch.float32, "curve": torch.float32, "risks": torch.float64}
RISK_CONTEXTS = 4096  # a quarter where answers take tokens: those take long


@dataclass(frozen=True)
class Checkpoint:
    """Several seeds of one configuration, trained, with what is known of how.

    first_losses: (FIRST_STEPS, M) batch risks of the first steps.
    curve: (steps / CURVE_STEPS, M) batch risks, medians of so many steps: a single context can
        raise a batch's mean by orders of magnitude.
    risks: (M,) mean excess risk on contexts of stream `evaluate`, seed 0: `recorded_risk`.
    snapshots: weights along the training, if any were kept; `at` gives them as models.
    """

    name: str
    model: Transformer
    config: Configuration
    seeds: tuple[int, ...]
    first_losses: Tensor
    curve: Tensor
    risks: Tensor
    seconds: float
    versions: dict[str, str]
    snapshots: Snapshots = field(default_factory=dict)

    def __post_init__(self):
        require(self.model.whole, f"{self.name}: a model with masked heads: allowed are whole ones")
        count, steps = len(self.seeds), self.config.recipe.steps
        require(0 < len(set(self.seeds)) == count, f"seeds={self.seeds}: they must differ")
        for seed in self.seeds:
            whole("seeds", seed, 0)
        real("seconds", self.seconds, "[0, inf)")
        for word in (*self.versions, *self.versions.values()):
            allowed = f"versions={self.versions}: allowed are words like {VERSION}"
            require(re.fullmatch(VERSION, word) is not None, allowed)
        points = steps // min(CURVE_STEPS, steps)
        shapes = {"first_losses": (min(FIRST_STEPS, steps), count), "curve": (points, count)}
        for name, shape in (shapes | {"risks": (count,)}).items():
            found = getattr(self, name)
            good = found.dtype == RECORDED[name] and found.shape == shape
            allowed = f"allowed are numbers of {RECORDED[name]} and shape {shape}"
            require(
                good and not found.isnan().any(),
                f"{name} of {found.dtype} and shape {tuple(found.shape)}: {allowed}",
            )
        for step in self.snapshots:
            whole("snapshots", step, 1, steps)
        final = self.model.state_dict()
        for weights in (final, *self.snapshots.values()):
            good = _shapes(weights) == _shapes(final)
            good = good and all(x.isfinite().all() for x in weights.values())
            require(good, "weights: allowed are finite ones, in snapshots of the model's shapes")

    def __repr__(self) -> str:
        low, high = self.risks.min(), self.risks.max()
        risk = f"excess risk {low:.4g} to {high:.4g}"
        return f"Checkpoint({self.name}: {self.label}; {len(self.seeds)} seeds, {risk})"

    @property
    def label(self) -> str:
        """What to call it in a figure; its name is only how to load it."""
        return self.config.label

    def at(self, step: int) -> Transformer:
        """The models after so many steps, from weights that were rounded coarsely."""
        require(step in self.snapshots, f"step={step}: {self.name} has {[*self.snapshots]}")
        return with_weights(self.config, self.seeds, self.snapshots[step])

    def only(self, seeds: tuple[int, ...]) -> "Checkpoint":
        """The models of these training seeds, in this order."""
        absent = [seed for seed in seeds if seed not in self.seeds]
        require(not absent, f"seeds={absent}: {self.name} has {self.seeds}")
        rows = [self.seeds.index(seed) for seed in seeds]

        def chosen(weights: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value[rows] for name, value in weights.items()}

        model = with_weights(self.config, seeds, chosen(self.model.state_dict()))
        return replace(
            self,
            model=model.to(self.model.embed.weight),
            snapshots={step: chosen(weights) for step, weights in self.snapshots.items()},
            seeds=tuple(seeds),
            first_losses=self.first_losses[:, rows],
            curve=self.curve[:, rows],
            risks=self.risks[rows],
            seconds=self.seconds * len(seeds) / len(self.seeds),
        )


def finished(name: str, trainer: Trainer) -> Checkpoint:
    """The checkpoint of a training that has run to its end.

    Its weights are rounded to half precision, so that a file takes half of the space; what is
    judged is what ships.
    """
    steps = trainer.config.recipe.steps
    require(trainer.step == steps, f"{trainer.step} steps done: training ends at {steps}")
    size = min(CURVE_STEPS, steps)
    points = trainer.losses[: steps // size * size].unflatten(0, (-1, size))
    weights = trainer.model.cpu().state_dict()
    model = with_weights(trainer.config, trainer.seeds, {k: v.half() for k, v in weights.items()})
    return Checkpoint(
        name=name,
        model=model,
        config=trainer.config,
        seeds=trainer.seeds,
        first_losses=trainer.losses[:FIRST_STEPS].clone(),
        curve=points.median(dim=1).values,
        risks=recorded_risk(model, trainer.config),
        seconds=trainer.seconds,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        snapshots=trainer.snapshots,
    )


@torch.no_grad()
def recorded_risk(model: Transformer, config: Configuration) -> Tensor:
    """The risk a checkpoint records, (M,), in squared label units.

    In float64: where a context makes an answer explode, float32 would differ by machine.
    """
    queries = config.architecture.queries
    count = RISK_CONTEXTS // 4 if queries else RISK_CONTEXTS
    contexts = draw(config.task, count, "evaluate", 0, queries=queries)
    return excess_risk(copy.deepcopy(model).double(), contexts).mean(dim=-1)


def join(first: Checkpoint, second: Checkpoint) -> Checkpoint:
    """One checkpoint with the seeds of both, which must be of one configuration."""
    require(
        first.config == second.config
        and not set(first.seeds) & set(second.seeds)
        and first.snapshots.keys() == second.snapshots.keys(),
        f"seeds {first.seeds} and {second.seeds}: only checkpoints of one configuration, with "
        "different seeds and snapshots after the same steps, can be joined",
    )
    seeds = first.seeds + second.seeds

    def both(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.cat([one[name], other[name]]) for name in one}

    versions = {
        name: ", ".join(dict.fromkeys((used, second.versions.get(name, used))))
        for name, used in first.versions.items()
    }
    return replace(
        first,
        model=with_weights(
            first.config, seeds, both(first.model.state_dict(), second.model.state_dict())
        ),
        snapshots={
            step: both(first.snapshots[step], second.snapshots[step]) for step in first.snapshots
        },
        seeds=seeds,
        first_losses=torch.cat([first.first_losses, second.first_losses], dim=1),
        curve=torch.cat([first.curve, second.curve], dim=1),
        risks=torch.cat([first.risks, second.risks]),
        seconds=first.seconds + second.seconds,
        versions=versions,
    )


def _shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: x.shape for name, x in weights.items()}


def with_weights(
    config: Configuration, seeds: tuple[int, ...], state: dict[str, Tensor]
) -> Transformer:
    """Models of a configuration, one per seed, with these weights; they are not for training."""
    model = build(config.architecture, len(seeds))
    model.load_state_dict(state)
    return model.requires_grad_(False)
