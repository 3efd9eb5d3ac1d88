"""What is recorded of a training when it ends, and the check that a file came from this code."""

import copy
import platform
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from icl.checkpoints import BLOCK, FIRST_STEPS, RISK_CONTEXTS, Checkpoint
from icl.configuration import Configuration
from icl.contexts import draw, draw_queries
from icl.errors import require
from icl.predictors import LinearPredictor
from icl.risk import excess_risk
from icl.training import QUERIES, Trainer
from icl.transformer import Transformer

REPLAY_TOLERANCE = 2e-3  # relative: float32 on another machine or thread count
RISK_TOLERANCE = 1e-4  # relative


def finished(name: str, trainer: Trainer) -> Checkpoint:
    """The checkpoint of a training that has run to its end."""
    steps = trainer.config.recipe.steps
    require(trainer.step == steps, f"{trainer.step} steps done: training ends at {steps}")
    size = min(BLOCK, steps)
    blocks = trainer.losses[: steps // size * size].unflatten(0, (-1, size))
    model = trainer.model.cpu().requires_grad_(False)
    return Checkpoint(
        name=name,
        model=model,
        config=trainer.config,
        seeds=trainer.seeds,
        first_losses=trainer.losses[:FIRST_STEPS].clone(),
        curve=blocks.median(dim=1).values,
        risks=recorded_risk(model, trainer.config),
        seconds=trainer.seconds,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    )


@torch.no_grad()
def recorded_risk(model: Transformer, config: Configuration) -> Tensor:
    """The risk a checkpoint records, (M,), in squared label units.

    In float64: where a context makes an answer explode, float32 would differ by machine.
    """
    model = copy.deepcopy(model).double()
    linear = isinstance(model, LinearPredictor)
    queries = None
    if not linear:
        queries = draw_queries(config.task, RISK_CONTEXTS, QUERIES, "evaluate", 0)
    contexts = draw(config.task, RISK_CONTEXTS, "evaluate", 0, tokens=not linear)
    return excess_risk(model, contexts, queries).mean(dim=-1)


@dataclass(frozen=True)
class Check:
    """One recorded quantity against its recomputation: the largest relative difference."""

    what: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


def verify(checkpoint: Checkpoint) -> list[Check]:
    """Check that a checkpoint came from this code.

    Replays the first steps from the seeds and compares their losses, then recomputes the
    recorded risk from the stored weights.
    """
    trainer = Trainer(checkpoint.config, checkpoint.seeds)
    replayed = torch.stack([trainer.advance() for _ in checkpoint.first_losses])
    risks = recorded_risk(checkpoint.model, checkpoint.config)
    return [
        Check(
            f"losses of the first {len(replayed)} steps",
            _relative(replayed, checkpoint.first_losses),
            REPLAY_TOLERANCE,
        ),
        Check("excess risk", _relative(risks, checkpoint.risks), RISK_TOLERANCE),
    ]


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs() / theirs.abs()).nan_to_num(torch.inf).max().item()
