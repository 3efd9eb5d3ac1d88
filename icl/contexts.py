"""A batch of contexts: the Gram statistics every linear model needs and, on request, the tokens.

Shapes, here and everywhere: M models, B contexts, n examples, d features, H heads, k head
dimension, T tokens, D model width. A context of n examples (x_i, y_i) has tokens
e_i = [x_i, y_i] and the Gram matrix G = (1/n) Σ_i e_i e_iᵀ of shape (d+1, d+1).

Every draw is a pure function of (task, stream, seed, step). The three streams hash to
unrelated generators, so contexts that judge a model were never trained or tuned on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from icl.errors import choose, require
from icl.responses import Nonlinear
from icl.tasks import SparseLinear

Task = SparseLinear | Nonlinear

STREAMS = ("train", "tune", "evaluate")


@dataclass(frozen=True)
class Contexts:
    """Contexts drawn from one task; all tensors are float64 and may carry leading axes (M,).

    task: what they were drawn from.
    w: (B, d) true weights; of a nonlinear response, those of the best linear predictor.
    gram: (B, d+1, d+1) Gram matrices G, labels last.
    tokens: (B, n, d+1) examples [x, y], or None when the statistics were drawn directly.
    """

    task: Task
    w: Tensor
    gram: Tensor
    tokens: Tensor | None = None

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

    def __getitem__(self, rows: slice) -> "Contexts":
        tokens = None if self.tokens is None else self.tokens[rows]
        return replace(self, w=self.w[rows], gram=self.gram[rows], tokens=tokens)


def generator(stream: str, seed: int, step: int) -> np.random.Generator:
    """The random generator of one (stream, seed, step); no two of them share numbers."""
    require(0 <= seed < 2**63, f"seed={seed}: allowed are 0 to 2**63 - 1")
    key = (STREAMS.index(choose("stream", stream, STREAMS)), step)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw(
    task: Task, batch: int, stream: str, seed: int, step: int = 0, tokens: bool = False
) -> Contexts:
    """Draw `batch` contexts.

    Without `tokens` the Gram matrices are drawn directly, at a cost that does not depend on
    n; for n < d and for nonlinear responses, where the direct draw does not exist, they are
    computed from tokens.
    """
    require(batch >= 1, f"batch={batch}: at least one context is needed")
    rng = generator(stream, seed, step)
    w, respond = task.draw_responses(rng, batch)
    if tokens or task.n < task.d or not isinstance(task, SparseLinear):
        e = _draw_tokens(task, batch, respond, rng)
        gram = e.swapaxes(1, 2) @ e / task.n
    else:
        e = None
        gram = _draw_gram(task, w, rng)
    kept = torch.from_numpy(e) if tokens else None
    return Contexts(task, torch.from_numpy(w), torch.from_numpy(gram), kept)


def stack(batches: list[Contexts]) -> Contexts:
    """Join one batch per model along a new leading axis: (M, B, ...)."""
    tokens = None if batches[0].tokens is None else torch.stack([c.tokens for c in batches])
    w, gram = (torch.stack([getattr(c, name) for c in batches]) for name in ("w", "gram"))
    return Contexts(batches[0].task, w, gram, tokens)


def draw_queries(
    task: Task, batch: int, count: int, stream: str, seed: int, step: int = 0
) -> Tensor:
    """Draw `count` query inputs x_q ~ N(0, Σ) for each of `batch` contexts, (B, count, d)."""
    # A spawned child: the numbers must not repeat those of the contexts' own draw.
    rng = generator(stream, seed, step).spawn(1)[0]
    x = rng.standard_normal((batch, count, task.d)) @ np.linalg.cholesky(task.sigma).T
    return torch.from_numpy(x)


def _draw_tokens(task: Task, batch: int, respond: Callable, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((batch, task.n, task.d)) @ np.linalg.cholesky(task.sigma).T
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
