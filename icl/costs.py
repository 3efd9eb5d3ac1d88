"""What heads cost in squared weights, and how weight decay merges heads that do the same.

Many matrices do what a head does; `least_cost` is what the cheapest of them cost.
"""

import torch
from torch import Tensor

from icl.blocks import Block
from icl.transformer import Transformer


def least_cost(a: Tensor, b: Tensor) -> Tensor:
    """The least sum of squares of matrices O, V, K, Q with O V = c A and Kᵀ Q = B / c, (...).

    A and B (..., D, D) say what a head does, up to the free scale c > 0:

        4 √(|A| |B|),   |.| the nuclear norm, the sum of singular values.

    For |O|² + |V|² ≥ 2 |O V|, with equality where O = U √S and V = √S Wᵀ of the singular value
    decomposition U S Wᵀ (Srebro et al., 2004); so four matrices cost at least 2 c |A| + 2 |B| / c,
    which is least at c² = |B| / |A|. It takes a head dimension of the ranks of A and B.
    """
    return 4 * (_nuclear(a) * _nuclear(b)).sqrt()


def head_matrices(model: Transformer) -> list[tuple[Tensor, Tensor]]:
    """A = O V and B = Kᵀ Q of every head, (M, H, D, D) each, layer by layer."""
    heads = map(by_head, model.blocks)
    return [((value @ output).mT, key @ query.mT) for query, key, value, output in heads]


def head_costs(model: Transformer) -> list[Tensor]:
    """The least cost of what every head does, (M, H), layer by layer."""
    return [least_cost(*matrices) for matrices in head_matrices(model)]


def head_norms(model: Transformer) -> list[Tensor]:
    """What the four matrices of every head do cost, their sum of squares, (M, H) by layer."""
    heads = map(by_head, model.blocks)
    return [sum(weight.square().sum(dim=(-2, -1)) for weight in head) for head in heads]


def effective(cost: Tensor) -> Tensor:
    """How many heads share a layer's cost (M, H): (Σ c)² / Σ c², (M,), from 1 to H if all alike."""
    return cost.sum(dim=1).square() / cost.square().sum(dim=1)


def leading(model: Transformer) -> list[Tensor]:
    """How much of every layer's Σ_h A_h ⊗ B_h a single term X ⊗ Y can be, (M,), by layer.

    σ_1² / Σ σ² of the matrix Σ_h vec(A_h) vec(B_h)ᵀ: at 1 one head could do the layer's work.
    """
    parts = []
    for matrices in head_matrices(model):
        left, right = (torch.linalg.qr(x.double().flatten(2).mT).R for x in matrices)
        squares = torch.linalg.svdvals(left @ right.mT).square()
        parts.append(squares[:, 0] / squares.sum(dim=1))
    return parts


def merge(shares: Tensor, decay: float, rate: float, steps: int) -> Tensor:
    """Costs (steps + 1, H) of heads that share A ⊗ B, fitted by gradient descent with decay.

    The loss is |Σ_h A_h ⊗ B_h − A ⊗ B|² / 2 in three dimensions, A = e_1 e_2ᵀ and B = I / 3.
    Heads begin balanced, with A_h = shares_h A (H,).
    """
    a, b = torch.zeros(3, 3).double(), torch.eye(3).double() / 3
    a[0, 1] = 1
    root = shares.double()[:, None, None] ** 0.25
    found = [root * x for x in (a[:, 1:2], a[:1], 3**0.5 * b, 3**0.5 * b)]
    costs = []
    for _ in range(steps + 1):
        o, v, k, q = (x.requires_grad_() for x in found)
        left, right = o @ v, k.mT @ q
        costs.append(least_cost(left, right).detach())
        gap = torch.einsum("hij,hkl->ijkl", left, right) - torch.einsum("ij,kl->ijkl", a, b)
        slopes = torch.autograd.grad(gap.square().sum() / 2, (o, v, k, q))
        found = [
            (1 - rate * decay) * x.detach() - rate * slope
            for x, slope in zip(found, slopes, strict=True)
        ]
    return torch.stack(costs)


def merging_law(cost: Tensor, tick: float, count: int) -> Tensor:
    """Shares of cost (count + 1, H) that gradient flow with decay gives, from costs (H,) at first.

    d log c_h / dt = 2 (c_h / c̄ − 1), c̄ = Σ c³ / Σ c², with a tick of time in units of 1 / decay.
    The chapter on why one head derives it.
    """
    costs = [cost]
    for _ in range(count):
        mean = cost.pow(3).sum() / cost.square().sum()
        cost = cost * (2 * tick * (cost / mean - 1)).exp()
        costs.append(cost)
    return torch.stack([cost / cost.sum() for cost in costs])


def by_head(block: Block) -> list[Tensor]:
    """Views of the matrices: query, key and value (M, H, D, k), output (M, H, k, D)."""
    read = [maps.weight.detach().movedim(2, 1) for maps in (block.query, block.key, block.value)]
    return [*read, block.output.weight.detach()]


def _nuclear(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix).sum(dim=-1)
