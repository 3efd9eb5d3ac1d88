"""One layer of linear self-attention: the best step, in closed form, and the step a layer takes.

The best that a layer can answer is x_qᵀ Γ* b with b = (1/n) Σ x_i y_i. Source: Mahankali et al.
(2024), who prove what Γ* is on Gaussian data; here for any Σ and any prior. Below, w are the
weights of the best linear predictor.

A layer's weights are ŵ = Σ_h W_hᵀ G p_h + c: of its matrices only p_h, which makes a token's
value a number of the answer, and W_h, which scores a key against x_q, reach the answer. With p
split into p_x and p_y, and W into the rows W_x of the inputs and w_y of the label,

    ŵ = Γ b + rest,  Γ = Σ_h p_y W_xᵀ + w_y p_xᵀ,  rest = Σ_h W_xᵀ S p_x + w_y p_y γ + c,

where S, b and γ are the blocks xx, xy and yy of G. The rest does not change when all labels
change their sign, Γ b − w does, so they are uncorrelated and their risks add up. The best layer
therefore has Γ = Γ* and rest = 0: no parameter outside the block (p_y, W_x) is of use. For
nonlinear responses the change of sign is x → −x, under which f(−x) is as likely as f.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import require
from icl.predictors import squared_error
from icl.tasks import Task
from icl.transformer import LinearTransformer


def moments(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """C = E[b wᵀ] and M = E[b bᵀ], both (d, d), which are all that a risk depends on.

    Given the function, E[x y] = Σ w: the covariance of x times the weights of the best linear
    predictor. So C = Σ Ω. Of the n² terms of n² b bᵀ, the n (n−1) with two different examples
    are independent given the function and have the mean Σ Ω Σ each, those with one E[y² x xᵀ]:

        M = (n−1)/n Σ Ω Σ + (1/n) E[y² x xᵀ].

    For linear responses that is (n+1)/n Σ Ω Σ + (tr(ΩΣ) + σ²)/n Σ.
    """
    cross = task.sigma @ task.omega
    return cross, ((task.n - 1) * cross @ task.sigma + task.label_moment) / task.n


def one_step_risk(task: Task, gamma: np.ndarray) -> np.ndarray:
    """Exact mean excess risk of the weights Γ b, for matrices Γ (..., d, d).

    E (Γb − w)ᵀ Σ (Γb − w) = tr Σ (Γ M Γᵀ − 2 Γ C + Ω).
    """
    cross, second = moments(task)
    inner = gamma @ second @ gamma.swapaxes(-1, -2) - 2 * gamma @ cross + task.omega
    return np.trace(task.sigma @ inner, axis1=-2, axis2=-1)


def optimal_one_step(task: Task) -> np.ndarray:
    """Γ* (d, d), which has the least mean excess risk: the gradient 2 Σ (Γ M − Cᵀ) vanishes.

    Γ* = Cᵀ M⁻¹, with the risk tr(ΣΩ) − tr(Σ Γ* C). For Σ = Ω = I it is one gradient step of
    rate n/(n + d + 1 + σ²) on the mean loss, for Ω = Σ⁻¹ that rate times Σ⁻¹; for a family of
    responses f that no rotation changes it is η I with

        η = E|u|² / (E[y² |x|²]/n + (n−1)/n E|u|²),  u = E[x f(x) | f].
    """
    cross, second = moments(task)
    return np.linalg.solve(second, cross).T


@torch.no_grad()
def _products(model: LinearTransformer) -> tuple[Tensor, Tensor]:
    """p_h (M, H, d+1) and W_h (M, H, d+1, d), in float64."""
    config = model.config
    require(
        len(config.heads) == 1 and config.inputs == "raw" and config.collapses,
        f"{config}: allowed is one layer of linear attention on raw inputs",
    )
    require(model.whole, "a model with masked heads: allowed are whole ones")
    query, key, value, output, embed, readout = (
        maps.weight.double() for maps in (*model.blocks[0].maps(), model.embed, model.readout)
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
