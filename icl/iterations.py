"""Deep networks described as a few steps of one kind, of a dozen numbers each.

A step takes u to u + p(S, r̂, q, u). With g = r̂ − S u, the correlations that u leaves, C = S − I, q
less its mean, and products of vectors entry by entry, p is a combination of `TERMS`, and so it is
equivariant. Gradient descent takes steps of g, on preprocessed inputs of r̂² g, re-weighted by its
own answer of u² g; u and u³ let small entries shrink and large ones stay, as a threshold does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import require
from icl.polynomials import label_energy
from icl.predictors import LinearPredictor
from icl.recipe import Recipe
from icl.training import clip_per_model

TERMS = ("g", "q g", "|r̂|² g", "|u|² g", "r̂² g", "r̂ u g", "u² g", "g³", "C g", "u", "u³", "r̂³")
FITTING = Recipe(steps=1_000, batch=256, lr=0.05)
START = 0.4  # the rate of the gradient steps that a fit starts from


def terms(contexts: Contexts, u: Tensor) -> list[Tensor]:
    """What a step from weights u (M, B, d) can add: `TERMS`, (M or 1, B, d) each."""
    r, q = contexts.xy.unsqueeze(0), label_energy(contexts)
    moved = torch.einsum("bij,mbj->mbi", contexts.xx, u)
    g = r - moved
    rg = r * g
    return [
        g,
        q[:, None] * g,
        r.square().sum(dim=-1, keepdim=True) * g,
        u.square().sum(dim=-1, keepdim=True) * g,
        r * rg,
        u * rg,
        u * u * g,
        g**3,
        torch.einsum("bij,mbj->mbi", contexts.xx, g) - g,
        u,
        u**3,
        r**3,
    ]


@dataclass(frozen=True)
class Iteration(LinearPredictor):
    """Steps from u = 0; coefficients (M, L, 12) are those of `TERMS` in every step."""

    coefficients: Tensor

    def __post_init__(self):
        shape = tuple(self.coefficients.shape)
        fits = len(shape) == 3 and shape[1] > 0 and shape[2] == len(TERMS)
        require(fits, f"coefficients of shape {shape}: allowed is (M, L, {len(TERMS)}) with L >= 1")

    def steps(self, contexts: Contexts) -> Iterator[tuple[list[Tensor], Tensor]]:
        """What every term adds in every step, and the u that it leads to, (M, B, d) each."""
        u = torch.zeros(len(self.coefficients), *contexts.xy.shape, dtype=contexts.xy.dtype)
        for step in self.coefficients.unbind(dim=1):
            parts = [c[:, None, None] * x for c, x in zip(step.T, terms(contexts, u), strict=True)]
            u = u + sum(parts)
            yield parts, u

    def weights(self, contexts: Contexts) -> Tensor:
        """The last u, (M, B, d)."""
        *_, (_, last) = self.steps(contexts)
        return last


def fit(answers: Tensor, contexts: Contexts, steps: int) -> Iteration:
    """The iteration whose end is nearest to answers ŵ (M, B, d), for each model on its own.

    Distances count by log(1 + |ŵ − u|²), because iterations, like what they describe, are
    polynomials of high degree and explode in rare contexts.
    """
    coefficients = answers.new_zeros(len(answers), steps, len(TERMS), dtype=torch.float64)
    coefficients[..., 0] = START
    coefficients.requires_grad_()
    adam = torch.optim.Adam([coefficients])
    rng = torch.Generator().manual_seed(0)
    for step in range(FITTING.steps):
        rows = torch.randint(len(contexts), (FITTING.batch,), generator=rng)
        u = Iteration(coefficients).weights(contexts[rows])
        away = (answers[:, rows] - u).square().sum(dim=-1)
        adam.zero_grad()
        away.log1p().mean(dim=-1).sum().backward()
        clip_per_model([coefficients], FITTING.clip)
        adam.param_groups[0]["lr"] = FITTING.rate(step)
        adam.step()
    return Iteration(coefficients.detach())
