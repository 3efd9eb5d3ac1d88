"""Is a trained model from this code? Its first steps and its risk, computed again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from icl.checkpoints import Checkpoint, recorded_risk
from icl.starts import begin

REPLAY_TOLERANCE = 2e-3  # relative: float32 on another machine or thread count
RISK_TOLERANCE = 1e-4  # relative


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
    """Is a checkpoint from this code? Replays its first steps from the seeds, and its risk."""
    trainer = begin(checkpoint.config, checkpoint.seeds)
    replayed = torch.stack([trainer.advance() for _ in checkpoint.first_losses])
    risks = recorded_risk(checkpoint.model, checkpoint.config)
    losses = f"losses of the first {len(replayed)} steps"
    return [
        Check(losses, _relative(replayed, checkpoint.first_losses), REPLAY_TOLERANCE),
        Check("excess risk", _relative(risks, checkpoint.risks), RISK_TOLERANCE),
    ]


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest relative difference; none where both are infinite alike, infinite for NaN."""
    apart = ((ours - theirs).abs() / theirs.abs()).nan_to_num(torch.inf)
    return apart.where(ours != theirs, 0.0).max().item()
