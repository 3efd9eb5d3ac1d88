"""A batch of contexts: the Gram statistics that linear models need; on request, tokens and queries.

Shapes, here and everywhere: M models, B contexts, n examples, d features, H heads, k head
dimension, T tokens, D model width. A context of n examples (x_i, y_i) has tokens
e_i = [x_i, y_i] and the Gram matrix G = (1/n) Σ_i e_i e_iᵀ of shape (d+1, d+1).

Every draw is a pure function of its arguments: another number of contexts, or a draw with
queries, gives other contexts. The three streams hash to unrelated generators, so contexts that
judge a model were never trained or tuned on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from icl.errors import LARGEST, choose, fits, require, whole
from icl.intervals import others
from icl.tasks import SparseLinear, Task

STREAMS = ("train", "tune", "evaluate")
A_CONTEXT = 400_000  # bytes that an experiment takes for every context: an estimate, not a bound
NEXT_SEEDS = 1000  # that an experiment draws from after the one it is given
PARTS = ("w", "gram", "tokens", "queries")  # what a context consists of, besides its task


@dataclass(frozen=True)
class Contexts:
    """Contexts drawn from one task; all tensors are float64 and may carry leading axes (M,).

    task: what they were drawn from.
    w: (B, d) true weights; of a nonlinear response, those of the best linear predictor.
    gram: (B, d+1, d+1) Gram matrices G, labels last.
    tokens: (B, n, d+1) examples [x, y], or None when the statistics were drawn directly.
    queries: (B, q, d) inputs to be answered, x_q ~ N(0, Σ), or None.
    """

    task: Task
    w: Tensor
    gram: Tensor
    tokens: Tensor | None = None
    queries: Tensor | None = None

    @property
    def xx(self) -> Tensor:
        """(1/n) Σ x xᵀ, (B, d, d)."""
        return self.gram[..., :-1, :-1]

    @property
    def xy(self) -> Tensor:
        """(1/n) Σ x y, (B, d)."""
        return self.gram[..., :-1, -1]

    def __len__(self) -> int:
        return self.w.shape[-2]

    def __getitem__(self, rows: slice | Tensor) -> "Contexts":
        """Some of the contexts, by their axis B, whether or not models come before it."""
        parts = {name: getattr(self, name) for name in PARTS[1:]}
        chosen = {k: v[..., rows, :, :] for k, v in parts.items() if v is not None}
        return replace(self, w=self.w[..., rows, :], **chosen)

    def without(self, group: int) -> "Contexts":
        """The same without one of the groups of contexts that intervals leave out in turn."""
        return self[others(len(self), group)]

    def blocks(self, size: int) -> "Iterator[Contexts]":
        """The same contexts, so many at a time: arrays that stay near the processor."""
        return (self[i : i + size] for i in range(0, len(self), size))


def generator(stream: str, seed: int, step: int) -> np.random.Generator:
    """The random generator of one (stream, seed, step); no two of them share numbers."""
    whole("seed", seed, 0)
    whole("step", step, 0)
    key = (STREAMS.index(choose("stream", stream, STREAMS)), step)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw(
    task: Task, contexts: int, stream: str, seed: int, step: int = 0, queries: int = 0
) -> Contexts:
    """Draw so many contexts.

    Without `queries` the Gram matrices are drawn directly, at a cost that does not depend on
    n; for n < d and for nonlinear responses, where the direct draw does not exist, they are
    computed from tokens. With `queries`, contexts keep their tokens and carry so many queries.
    """
    whole("contexts", contexts)
    whole("queries", queries, 0)
    direct = not queries and task.n >= task.d and isinstance(task, SparseLinear)
    size = 4 * (task.d + 1) ** 2 + (0 if direct else 3 * (task.n + queries) * (task.d + 1))
    fits("contexts", contexts, 8 * size)  # with what is made on the way
    rng = generator(stream, seed, step)
    w, respond = task.draw_responses(rng, contexts)
    if direct:
        return Contexts(task, torch.from_numpy(w), torch.from_numpy(_draw_gram(task, w, rng)))
    e = _draw_tokens(task, contexts, respond, rng)
    found = Contexts(task, torch.from_numpy(w), torch.from_numpy(e.swapaxes(1, 2) @ e / task.n))
    if not queries:
        return found
    # From a child of the generator, whose numbers do not repeat those of the tokens.
    asked = _inputs(task, (contexts, queries), rng.spawn(1)[0])
    return replace(found, tokens=torch.from_numpy(e), queries=torch.from_numpy(asked))


def check(contexts: int, seed: int, least: int = 2) -> None:
    """Refuse a number of contexts, or a seed, that an experiment cannot be run with."""
    whole("contexts", contexts, least)
    fits("contexts", contexts, A_CONTEXT)
    whole("seed", seed, 0, LARGEST - NEXT_SEEDS)


def stack(batches: list[Contexts]) -> Contexts:
    """Join one batch per model along a new leading axis: (M, B, ...)."""
    parts = {name: [getattr(batch, name) for batch in batches] for name in PARTS}
    joined = {k: None if v[0] is None else torch.stack(v) for k, v in parts.items()}
    return Contexts(batches[0].task, **joined)


def _inputs(task: Task, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((*shape, task.d)) @ np.linalg.cholesky(task.sigma).T


def _draw_tokens(task: Task, batch: int, respond: Callable, rng: np.random.Generator) -> np.ndarray:
    x = _inputs(task, (batch, task.n), rng)
    noise = task.noise * rng.standard_normal((batch, task.n))
    y = respond(x) + noise
    return np.concatenate([x, y[..., None]], axis=2)


def _draw_gram(task: SparseLinear, w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw G from its exact distribution (Bartlett's decomposition of a Wishart matrix).

    Write X = Q R with orthonormal Q (n, d) and upper triangular R. Then XᵀX = L Lᵀ with
    L = Rᵀ = chol(Σ) T, where T is lower triangular with T_jj = √χ²_{n-j} (j from 0) and
    N(0, 1) below. Given X, z = Qᵀε ~ N(0, σ² I_d), so Xᵀε = L z, and the part of ε outside
    the span of Q adds an independent σ² χ²_{n-d} to |z|².
    """
    batch, (n, d) = len(w), (task.n, task.d)
    factor = np.tril(rng.standard_normal((batch, d, d)), -1)
    # χ²_ν is twice a gamma variate of shape ν/2, which is 0 at ν = 0 as n = d needs.
    diagonal = np.sqrt(2 * rng.standard_gamma((n - np.arange(d)) / 2, size=(batch, d)))
    factor[:, np.arange(d), np.arange(d)] = diagonal
    if task.covariance:
        factor = np.linalg.cholesky(task.sigma) @ factor
    z = task.noise * rng.standard_normal((batch, d, 1))
    rest = task.noise**2 * 2 * rng.standard_gamma((n - d) / 2, size=batch)

    # Writing y = Xw + ε, the last column of the factor of [X, y] is Lᵀw + z.
    y = factor.swapaxes(1, 2) @ w[..., None] + z
    gram = np.empty((batch, d + 1, d + 1))
    gram[:, :d, :d] = factor @ factor.swapaxes(1, 2)
    gram[:, :d, d] = gram[:, d, :d] = (factor @ y)[..., 0]
    gram[:, d, d] = (y**2).sum(axis=(1, 2)) + rest
    return gram / n


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
