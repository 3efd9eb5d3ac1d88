"""Gradient descent in the eigenbasis of what it descends on: all rates and steps at once."""

import torch
from torch import Tensor

from icl.contexts import Contexts

BLOCK = 32  # contexts at a time: arrays that stay near the processor


class Descent:
    """Gradient descent on the features scale ∘ x, `scale` (..., B, d), from u = 0.

    With H = diag(scale) XX diag(scale) = V diag(λ) Vᵀ and c = Vᵀ (scale ∘ XY), the weights
    after t steps are scale ∘ V g, g = (1 − (1 − rate λ)^t) c / λ. Directions with λ = 0 have
    c = 0 and stay at 0. Rates are multiples of 1/λ_max if `relative`.
    """

    def __init__(self, contexts: Contexts, scale: Tensor, relative: bool):
        values, basis = torch.linalg.eigh(scale[..., :, None] * contexts.xx * scale[..., None, :])
        inner = ((scale * contexts.xy)[..., None, :] @ basis)[..., 0, :]
        limit = torch.where(values > 1e-12 * values[..., -1:], inner / values, 0.0)
        self.contexts = contexts
        self.limit = scale[..., :, None] * basis * limit[..., None, :]  # (..., B, d, d)
        self.values = values / values[..., -1:].clamp(min=1e-30) if relative else values

    def weights(self, rate: float, steps: int) -> Tensor:
        """The weights after so many steps, (..., B, d)."""
        share = 1 - (1 - rate * self.values) ** steps
        return (self.limit @ share[..., None])[..., 0]

    def risks(self, rates: Tensor, steps: tuple[int, ...]) -> Tensor:
        """Mean excess risks (steps, rates) of one batch (B,); infinite where they overflow."""
        root = torch.linalg.cholesky(torch.from_numpy(self.contexts.task.sigma))
        out = root.T @ self.limit
        target = (self.contexts.w @ root)[..., None]
        total = torch.zeros(len(steps), len(rates), dtype=out.dtype)
        for block in torch.arange(len(out)).split(BLOCK):
            left = 1 - rates * self.values[block, :, None]
            for row, t in zip(total, steps, strict=True):
                error = torch.baddbmm(target[block], out[block], left**t - 1)
                row += error.square_().sum(dim=(0, 1))
        return (total / len(out)).nan_to_num(torch.inf, posinf=torch.inf)
