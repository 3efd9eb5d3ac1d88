"""One layer of linear self-attention: the step it takes, its training watched, its optimum.

A layer's weights are ŵ = Σ_h W_hᵀ G p_h + c: of its matrices only p_h, which makes a token's
value a number of the answer, and W_h, which scores a key against x_q, reach the answer. With p
split into p_x and p_y, and W into the rows W_x of the inputs and w_y of the label,

    ŵ = Γ b + rest,  Γ = Σ_h p_y W_xᵀ + w_y p_xᵀ,  rest = Σ_h W_xᵀ S p_x + w_y p_y γ + c,

where S, b and γ are the blocks xx, xy and yy of G. The rest does not change when all labels
change their sign, Γ b − w does, so they are uncorrelated and their risks add up. The best layer
therefore has Γ = Γ* and rest = 0: no parameter outside the block (p_y, W_x) is of use. For
nonlinear responses the change of sign is x → −x, under which f(−x) is as likely as f.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from icl.configuration import Configuration
from icl.contexts import Contexts, Task
from icl.errors import require
from icl.risk import Estimate, over_seeds, squared_error
from icl.theory import moments, one_step_risk, optimal_one_step
from icl.training import Trainer
from icl.transformer import LinearTransformer


@torch.no_grad()
def _products(model: LinearTransformer) -> tuple[Tensor, Tensor]:
    """p_h (M, H, d+1) and W_h (M, H, d+1, d), in float64."""
    config = model.config
    require(
        len(config.heads) == 1 and config.inputs == "raw" and config.attention == "linear",
        f"{config}: allowed is one layer of linear attention on raw inputs",
    )
    embed, readout = model.embed.double(), model.readout.double()
    query, key, value, output = (
        getattr(model, name)[0].double() for name in ("query", "key", "value", "output")
    )
    p = torch.einsum("mad,mdhk,mhkc,mc->mha", embed, value, output, readout)
    w = torch.einsum("mad,mdhk,mchk,mbc->mhab", embed, key, query, embed)
    return p, w[..., :-1]


def effective_step(model: LinearTransformer) -> Tensor:
    """Γ (M, d, d) of every model, in float64: the matrix that its answer applies to b."""
    p, w = _products(model)
    return torch.einsum("mh,mhab->mba", p[..., -1], w[:, :, :-1]) + _outside(p, w)


def outside_block(model: LinearTransformer) -> Tensor:
    """|Σ_h w_y p_xᵀ| / |Γ|, (M,): how much of Γ comes from outside the block (p_y, W_x)."""
    part = _outside(*_products(model))
    return part.norm(dim=(-2, -1)) / effective_step(model).norm(dim=(-2, -1))


def _outside(p: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("mha,mhb->mab", w[:, :, -1], p[..., :-1])


@torch.no_grad()
def rest(model: LinearTransformer, contexts: Contexts) -> Tensor:
    """What the weights (M, B, d) hold besides Γ b, in float64."""
    weights = model.weights(contexts).double()
    return weights - contexts.xy @ effective_step(model).mT


def excess(model: LinearTransformer, contexts: Contexts) -> Tensor:
    """By what fraction each model's risk is above the least that one layer can have, (M,).

    The part due to Γ is exact; the part due to the rest is a mean over the given contexts.
    """
    task = contexts.task
    least = one_step_risk(task, optimal_one_step(task))
    steps = torch.from_numpy(one_step_risk(task, effective_step(model).numpy()))
    zero = replace(contexts, w=torch.zeros_like(contexts.w))
    return (steps + squared_error(rest(model, contexts), zero).mean(dim=-1)) / least - 1


def digits(model: LinearTransformer, contexts: Contexts) -> tuple[Tensor, Tensor]:
    """−log₁₀ of the distance of Γ to Γ* and of the `excess`, (M,) each."""
    gap = distance(effective_step(model), optimal_one_step(contexts.task))
    return -gap.log10(), -excess(model, contexts).log10()


def rate(gamma: Tensor) -> Tensor:
    """η of the multiple of I that is nearest to Γ (..., d, d), (...)."""
    return gamma.diagonal(dim1=-2, dim2=-1).mean(dim=-1)


def distance(gamma: Tensor, target: np.ndarray) -> Tensor:
    """|Γ − target| / |target| in Frobenius norm, (...), of matrices Γ (..., d, d)."""
    target = torch.from_numpy(target)
    return (gamma - target).norm(dim=(-2, -1)) / target.norm()


def cosine(gamma: Tensor, target: np.ndarray) -> Tensor:
    """Cosine of the angle between matrices Γ (..., d, d) and `target`, (...)."""
    target = torch.from_numpy(target)
    return (gamma * target).sum(dim=(-2, -1)) / gamma.norm(dim=(-2, -1)) / target.norm()


def lead(gamma: Tensor, task: Task) -> Tensor:
    """log₁₀ of how many times nearer Γ (M, d, d) is to Γ* than to every multiple of I, (M,)."""
    away = gamma - rate(gamma)[:, None, None] * torch.eye(task.d)
    near = gamma - torch.from_numpy(optimal_one_step(task))
    return (away.norm(dim=(-2, -1)) / near.norm(dim=(-2, -1))).log10()


@dataclass(frozen=True)
class Path:
    """Γ of models in training: matrices (T, M, d, d) before `steps` (T,), and the end."""

    steps: Tensor
    matrices: Tensor
    model: LinearTransformer

    def curve(self, measure: Callable[[Tensor], Tensor]) -> list[tuple[int, Estimate]]:
        """Points (step, estimate over seeds) of a `measure` of Γ, (M, d, d) to (M,)."""
        found = [over_seeds(measure(gamma)) for gamma in self.matrices]
        return list(zip(self.steps.tolist(), found, strict=True))


def watch(config: Configuration, seeds: tuple[int, ...], looks: int = 25) -> Path:
    """Train one-layer models and look at their Γ, more often early on than late."""
    trainer = Trainer(config, seeds)
    times = config.recipe.steps * np.linspace(0, 1, looks) ** 2
    steps = np.unique(times.round().astype(int))
    matrices = [effective_step(trainer.model)]
    for step in steps[1:]:
        while trainer.step < step:
            trainer.advance()
        matrices.append(effective_step(trainer.model))
    return Path(torch.from_numpy(steps), torch.stack(matrices), trainer.model)


def minimise(task: Task, seed: int) -> np.ndarray:
    """Γ (d, d) of least exact risk that L-BFGS finds over p_y and W_x, from a random start.

    The risk of Γ = p_y W_xᵀ is a polynomial of degree four in the two, and not convex. With
    Σ = L Lᵀ, M = N Nᵀ the search is over W_xᵀ = L⁻ᵀ V N⁻¹: in V all directions count alike,
    and rounding of the risk does not end it early where Σ is far from round.
    """
    d = task.d
    cross, second = moments(task)
    left, right = np.linalg.cholesky(task.sigma), np.linalg.cholesky(second)

    def step(flat: np.ndarray) -> np.ndarray:
        return flat[0] * np.linalg.solve(left.T, flat[1:].reshape(d, d)) @ np.linalg.inv(right)

    def risk(flat: np.ndarray) -> tuple[float, np.ndarray]:
        gamma = step(flat)
        slope = 2 * left.T @ (gamma @ second - cross.T) @ np.linalg.inv(right).T
        return one_step_risk(task, gamma), np.append(slope.ravel() @ flat[1:], flat[0] * slope)

    start = np.random.default_rng(seed).standard_normal(1 + d * d) / d
    options = {"maxiter": 1000, "ftol": 0.0, "gtol": 1e-12}
    return step(optimize.minimize(risk, start, jac=True, method="L-BFGS-B", options=options).x)
