"""Two layers of linear attention that treat all features alike, in eleven numbers.

With S = (1/n) Σ x xᵀ, r̂ = (1/n) Σ x y and p = (1/n) Σ y² the first layer turns a token (x, y) into

    a = (1 + β p) x + α S x + γ r̂ y          inputs, of which S x and p x are taken away,
    u = r̂ ∘ x + (δ + ε diag(S)) y            inputs preprocessed as in Algorithm 1, and the label,
    b = (1 + ζ p) y + η <r̂, x>               the label,

and with [s, t] = (1/n) Σ_i s_i t_i over the examples the second one answers

    ŷ = Σ_j [u_j, b] (μ u_j + ν b) + Σ_j (π [u_j, a_j] + ρ [b, a_j]) a_j.

So ŵ is equivariant under signed permutations of the features, and of degree 4. Of all such states
and products these are what was left when, in a fit to the best polynomial of degree 4 of one task,
one after the other was taken away that could be spared.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from icl.architecture import Architecture
from icl.constructions import balance, blank
from icl.contexts import Contexts, draw
from icl.errors import require
from icl.moments import mean_risk
from icl.polynomials import Polynomial, monomials, project
from icl.predictors import LinearPredictor
from icl.tasks import SparseLinear
from icl.transformer import LinearTransformer

NUMBERS = 11
DEGREE = 4
ENOUGH = 128  # contexts, of which each gives d equations for the 77 coefficients


@dataclass(frozen=True)
class TwoLayers(LinearPredictor):
    """ŵ by its eleven numbers (11,): α, β, γ, δ, ε, ζ, η, μ, ν, π, ρ."""

    numbers: Tensor

    def __post_init__(self):
        shape = tuple(self.numbers.shape)
        require(shape == (NUMBERS,), f"numbers of shape {shape}: allowed are {NUMBERS} of them")

    def weights(self, contexts: Contexts) -> Tensor:
        """ŵ (B, d)."""
        α, β, γ, δ, ε, ζ, η, μ, ν, π, ρ = self.numbers
        g, s, r = contexts.gram, contexts.xx, contexts.xy
        p, one = g[..., -1, -1, None], torch.eye(s.shape[-1]).to(s)
        a = torch.cat([(1 + β * p[..., None]) * one + α * s, γ * r[..., None]], dim=-1)
        label = δ + ε * s.diagonal(dim1=-2, dim2=-1)
        u = torch.cat([r.diag_embed(), label[..., None]], dim=-1)
        b = torch.cat([η * r, 1 + ζ * p], dim=-1)[..., None, :]
        ub, ab = ((part @ g @ b.mT) for part in (u, a))  # (B, d, 1)
        ua = (u @ g * a).sum(dim=-1, keepdim=True)
        answer = ub * (μ * u + ν * b) + (π * ua + ρ * ab) * a
        return answer.sum(dim=-2)[..., :-1]

    def polynomial(self, task: SparseLinear) -> Polynomial:
        """Its coefficients: as it is of degree 4, a projection on any contexts gives them."""
        contexts = draw(task, ENOUGH, "tune", seed=0)
        return project(self.weights(contexts), monomials(DEGREE), contexts)

    def written(self, config: Architecture, n_models: int = 1) -> LinearTransformer:
        """Networks in float64 that compute it, of d + 2 and d + 1 heads of rank d + 1."""
        d = config.d
        fit = config.heads == (d + 2, d + 1) and config.d_head > d and config.d_model == 2 * d + 2
        require(
            fit and config.collapses,
            f"{config}: allowed are linear attention, {d + 2} and {d + 1} heads with d_head > {d}, "
            f"and d_model={2 * d + 2}",
        )
        α, β, γ, δ, ε, ζ, η, μ, ν, π, ρ = self.numbers.tolist()
        model = blank(config, n_models)
        x, z, y, answer = range(d), range(d, 2 * d), 2 * d, 2 * d + 1  # slots of a, u, b and ŷ
        model.embed.weight[:, d, z] = δ
        first, second = ([maps.weight for maps in block.maps()] for block in model.blocks)
        query, key, value, output = first
        for j in range(d):  # with the score y_i x_j + ε x_ij y, of x_ij to u_j and y_i to a_j
            key[:, y, j, 0] = query[:, j, j, 0] = key[:, j, j, 1] = 1
            query[:, y, j, 1] = ε
            value[:, j, j, 0] = output[:, j, 0, d + j] = 1
            value[:, y, j, 1], output[:, j, 1, j] = 1, β
        by_input, by_label = d, d + 1  # with the scores <x_i, x> and y_i y
        for j in x:
            key[:, j, by_input, j] = query[:, j, by_input, j] = 1
        key[:, y, by_label, 0] = query[:, y, by_label, 0] = 1
        for head, of_inputs, of_label in ((by_input, α, η), (by_label, γ - β * ε, ζ)):
            for j in x:
                value[:, j, head, j], output[:, head, j, j] = 1, of_inputs
            value[:, y, head, d], output[:, head, d, y] = 1, of_label
        query, key, value, output = second
        for j in range(d):  # [u_j, ·] with the scores b_i (μ u_j + ν b) + π a_ij a_j
            value[:, d + j, j, 0] = output[:, j, 0, answer] = key[:, y, j, 0] = key[:, j, j, 1] = 1
            query[:, d + j, j, 0], query[:, y, j, 0], query[:, j, j, 1] = μ, ν, π
            key[:, j, d, j], query[:, j, d, j] = 1, ρ  # [b, ·] with the score Σ_j a_ij ρ a_j
        value[:, y, d, 0] = output[:, d, 0, answer] = 1
        balance(model)
        return model


def improved(found: TwoLayers, task: SparseLinear) -> TwoLayers:
    """The numbers of the least exact mean risk that descent from these leads to."""
    numbers = found.numbers.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([numbers], max_iter=500, line_search_fn="strong_wolfe")

    def risk() -> Tensor:
        optimiser.zero_grad()
        least = mean_risk(task, TwoLayers(numbers).polynomial(task))
        least.backward()
        return least

    optimiser.step(risk)
    return TwoLayers(numbers.detach())
