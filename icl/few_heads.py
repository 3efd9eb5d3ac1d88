"""How well a first layer with fewer than d heads can preprocess: bounds, a design, the optimum.

A linear-attention head maps a query input x (label 0) to M G N x, where G is the context's
Gram matrix, M = O V is d × (d+1) and N = KᵀQ is (d+1) × d, both of rank d_head at most. With
the residual stream a linear map C x comes for free. The target is diag(r̂) x, so the error of
h heads, relative to that of writing nothing, is

    E|Σ_h M_h G N_h + C − diag(r̂)|²_F / E|r̂|².
"""

import math
from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from icl.constructions import blank
from icl.contexts import Contexts
from icl.errors import require
from icl.tasks import SparseLinear
from icl.transformer import Architecture, LinearTransformer


def lower_bound(d: int, heads: int, d_head: int) -> float:
    """What no `heads` heads can go below for Gaussian inputs with Σ = I, whatever the n.

    Write a head's labels apart: M G N = P Sxx Q + p r̂ᵀ Q + P r̂ qᵀ + p qᵀ Syy, with p and q the
    label's column of M and row of N. Let A and B project onto the complements of the
    spans of all p and all q. Then A(Σ M G N + C)B has no term in r̂; it is uncorrelated
    with A diag(r̂) B, because (w, ε) → (−w, −ε) changes the sign of r̂ alone. So the error is at
    least E|A diag(r̂) B|² = E[r̂_j²] Σ_j A_jj B_jj, as E[r̂ r̂ᵀ] is a multiple of I; and
    Σ_j A_jj B_jj ≥ Σ_j (A_jj + B_jj − 1) ≥ d − 2 heads. With d_head = 1 a head's M has one
    direction, P and p alike, so A alone annihilates all heads, B = I, and d − heads remains.
    """
    return max(0.0, 1 - heads * min(d_head, 2) / d)


def paired_error(task: SparseLinear, heads: int) -> float:
    """The error where as many heads as useful serve two features each (Σ = I, d_head ≥ 2).

    A head that reads the label as value for feature 1, and as key for feature 2, writes

        λ [[r̂_1, ε (Syy − E Syy)], [S_21 / ε, r̂_2]],

    the mean of Syy being cancelled by C. Its squared error 2 (1 − λ)² c + λ² (ε² Var Syy +
    Var S_21 / ε²), c = E[r̂_j²], is least at ε⁴ = Var S_21 / Var Syy and λ = c / (c + τ),
    τ² = Var S_21 · Var Syy: the fraction ρ = τ / (c + τ) of 2c. It pays if ρ < 1/2.
    """
    require(task.covariance == (), "covariance: the paired heads are derived for Σ = I")
    d = task.d
    _, covariance = gram_moments(task)
    # Variances of r̂_1, of S_21 where there are two features, and of Syy.
    c, off, yy = (covariance[i, j, i, j].item() for i, j in ((0, d), (0, min(1, d - 1)), (d, d)))
    tau = (off * yy) ** 0.5
    rho = min(tau / (c + tau), 0.5)
    return 1 - min(2 * heads, d) / d + 2 * min(heads, d - heads) / d * rho


def best_layer(
    task: SparseLinear, heads: int, d_head: int, starts: int = 3, seed: int = 0
) -> tuple[LinearTransformer, float]:
    """The first layer of least expected error found from `starts` random starts, and the error.

    Exact moments of G make the error a polynomial of the matrices, which L-BFGS minimises; C is
    eliminated, because the best one cancels the mean. The layer writes to the slots z of
    `constructions`. The task's values must be `signs`, or `sphere` with s of 1 or 2.
    """
    require(heads >= 1, f"heads={heads}: at least one head is needed")
    d, p = task.d, task.d + 1
    mean, covariance = gram_moments(task)
    covariance = covariance.reshape(p * p, p * p)
    target = torch.zeros(d, d, p, p, dtype=torch.float64)
    target[range(d), range(d), d, range(d)] = 1  # r̂_j is entry (y, j) of G
    target = target.reshape(d * d, p * p)
    scale = ((target @ covariance) * target).sum()
    shapes = (heads, d, d_head), (heads, d_head, p), (heads, d_head, p), (heads, d_head, d)

    def split(flat: Tensor) -> list[Tensor]:
        parts = flat.split([math.prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def error(flat: Tensor) -> Tensor:
        output, value, key, query = split(flat)
        total = torch.einsum("hia,hbk->ikab", output @ value, key.mT @ query)
        gap = total.reshape(d * d, p * p) - target
        return ((gap @ covariance) * gap).sum() / scale

    rng = torch.Generator().manual_seed(seed)
    size = sum(math.prod(shape) for shape in shapes)
    runs = [
        _minimise(error, 0.5 * torch.randn(size, generator=rng, dtype=torch.float64))
        for _ in range(starts)
    ]
    best = min(runs, key=error)
    return _layer(split(best), mean), error(best).item()


def preprocessing_error(model: LinearTransformer, contexts: Contexts) -> float:
    """The error of the first layer's slots z on given contexts, relative to writing nothing."""
    states = model.hidden(contexts)
    next(states)
    d = contexts.task.d
    written = next(states)[0, :, :d, d : 2 * d].mT
    target = contexts.xy.diag_embed()
    return ((written - target).square().sum() / target.square().sum()).item()


def gram_moments(task: SparseLinear) -> tuple[Tensor, Tensor]:
    """Mean (d+1, d+1) and covariance (d+1, d+1, d+1, d+1) of the Gram matrix G, exact.

    Given w, tokens [x, y] are Gaussian with second moments Γ, so by Isserlis' theorem
    Cov(G_ab, G_cd | w) = (Γ_ac Γ_bd + Γ_ad Γ_bc) / n. Averages over w need its moments up to
    the fourth order, which finitely many points have.
    """
    require(task.prior == (), f"prior={task.prior}: the moments are exact for () only")
    w = _points(task)
    sigma = torch.from_numpy(task.sigma)
    gamma = w.new_empty(len(w), task.d + 1, task.d + 1)
    gamma[:, :-1, :-1] = sigma
    gamma[:, :-1, -1] = gamma[:, -1, :-1] = w @ sigma
    gamma[:, -1, -1] = ((w @ sigma) * w).sum(dim=1) + task.noise**2
    flat = gamma.flatten(1)
    second = (flat.T @ flat / len(w)).view(*gamma.shape[1:], *gamma.shape[1:])
    mean = gamma.mean(dim=0)
    between = second - mean[:, :, None, None] * mean
    within = second.permute(0, 2, 1, 3) + second.permute(0, 2, 3, 1)
    return mean, between + within / task.n


def _points(task: SparseLinear) -> Tensor:
    """Equally likely weights (C, d) with the prior's moments up to the fourth order."""
    if task.values == "signs" or (task.values == "sphere" and task.s == 1):
        values = np.array(list(product([-1.0, 1.0], repeat=task.s)))
    else:
        require(
            task.values == "sphere" and task.s == 2,
            f"values={task.values!r} with s={task.s}: allowed are signs, and sphere with s of 1 "
            "or 2",
        )
        angle = np.pi * np.arange(8) / 4  # eight on the circle: right up to the seventh order
        values = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    supports = list(combinations(range(task.d), task.s))
    points = np.zeros((len(supports), len(values), task.d))
    for block, support in zip(points, supports, strict=True):
        block[:, support] = values
    return torch.from_numpy(points.reshape(-1, task.d))


def _minimise(function: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Where L-BFGS arrives from `start`."""
    x = start.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [x], max_iter=400, history_size=20, tolerance_grad=1e-7, tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        search.zero_grad()
        loss = function(x)
        loss.backward()
        return loss

    search.step(closure)
    return x.detach()


def _layer(matrices: list[Tensor], mean: Tensor) -> LinearTransformer:
    """The layer with heads O (H, d, k), V and K (H, k, d+1), Q (H, k, d), and its best C."""
    output, value, key, query = matrices
    heads, d, d_head = output.shape
    model = blank(Architecture(d, (heads,), d_head, 2 * d + 2))
    read = [*range(d), 2 * d]  # the slots x and y
    model.value[0][0, read] = value.permute(2, 0, 1)
    model.key[0][0, read] = key.permute(2, 0, 1)
    model.query[0][0, :d] = query.permute(2, 0, 1)
    model.output[0][0, :, :, d : 2 * d] = output.mT
    constant = -(output @ value @ mean @ key.mT @ query).sum(dim=0)
    model.embed[0, :d, d : 2 * d] = constant.T
    return model
