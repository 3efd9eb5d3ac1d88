"""Gradient descent in the eigenbasis of what it descends on: all rates and steps at once."""

import torch
from torch import Tensor

from icl.contexts import Contexts


def descent_risks(
    contexts: Contexts, scale: Tensor, rates: Tensor, steps: tuple[int, ...], relative: bool
) -> Tensor:
    """Mean excess risks (steps, rates) of gradient descent on the features scale ∘ x.

    `scale` is (B, d); rates are multiples of 1/λ_max if `relative`; risks that overflow are
    infinite. With H = diag(scale) XX diag(scale) = V diag(λ) Vᵀ and c = Vᵀ (scale ∘ XY), the
    weights after t steps from 0 are scale ∘ V g, g = (1 − (1 − rate λ)^t) c / λ. Directions with
    λ = 0 have c = 0 and stay at 0.
    """
    values, basis = torch.linalg.eigh(scale[:, :, None] * contexts.xx * scale[:, None, :])
    inner = ((scale * contexts.xy)[:, None, :] @ basis)[:, 0]
    limit = torch.where(values > 1e-12 * values[:, -1:], inner / values, 0.0)
    root = torch.linalg.cholesky(torch.from_numpy(contexts.task.sigma))
    out = root.T @ (scale[..., None] * basis * limit[:, None, :])
    target = (contexts.w @ root)[..., None]
    rate = rates / values[:, None, -1:] if relative else rates
    left = 1 - rate * values[..., None]
    risks = [(out @ (1 - left**t) - target).square().sum(dim=1).mean(dim=0) for t in steps]
    return torch.stack(risks).nan_to_num(torch.inf, posinf=torch.inf)
