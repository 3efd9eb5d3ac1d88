"""The exact Bayes predictor E[w | context], the floor for any predictor, for every kind of values.

All of it is a function of the Gram statistics. Given the support S, write u for the values of w
on it, A = (n/σ²) XX_S and b = (n/σ²) XY_S with the blocks XX, XY of the Gram matrix. The
likelihood is exp(−½ uᵀAu + bᵀu) up to a factor that no support changes. Each kind of values has
a prior p(u), of which are needed log Z_S = log ∫ exp(−½ uᵀAu + bᵀu) p(u) du and the mean of u.
Supports are equally likely beforehand, so afterwards S has the probability Z_S / Σ Z.
"""

from itertools import combinations, product
from math import comb

import numpy as np
import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import require
from icl.predictors import LinearPredictor
from icl.tasks import SparseLinear
from icl.threads import side_by_side

MAX_CELLS = 2**22  # numbers a context takes; with more, it takes seconds
CELLS = 2**18  # numbers at a time: arrays that stay near the processor


class PosteriorMean(LinearPredictor):
    """E[w | context] for the prior of `task`: no predictor has a smaller mean excess risk on it.

    Every one of the C(d, s) supports is weighed, in the log domain. The noise must be above 0.

    >>> from icl.contexts import draw
    >>> task = SparseLinear(d=4, s=4, n=16, noise=1.0)  # dense and Gaussian: ridge is exact
    >>> contexts = draw(task, 100, "evaluate", seed=0)
    >>> ridge = torch.linalg.solve(contexts.xx + torch.eye(4) / 16, contexts.xy)
    >>> torch.allclose(PosteriorMean(task).weights(contexts), ridge)
    True
    """

    def __init__(self, task: SparseLinear):
        require(isinstance(task, SparseLinear), f"{task}: allowed are linear responses only")
        require(task.noise > 0, f"noise={task.noise}: the posterior needs noise above 0")
        require(task.prior == (), f"prior={task.prior}: the posterior is exact for () only")
        cells = comb(task.d, task.s) * (2**task.s if task.values == "signs" else task.s**2)
        require(
            cells <= MAX_CELLS,
            f"d={task.d}, s={task.s}, values={task.values!r}: weighing all supports takes "
            f"{cells} numbers a context; allowed are up to {MAX_CELLS}",
        )
        self.task, self.cells = task, cells
        self.supports = torch.tensor(list(combinations(range(task.d), task.s)))

    def weights(self, contexts: Contexts) -> Tensor:
        blocks = contexts.blocks(max(1, CELLS // self.cells))
        return torch.cat(side_by_side(self._mean, blocks))

    def _mean(self, contexts: Contexts) -> Tensor:
        scale, supports = contexts.task.n / self.task.noise**2, self.supports
        xx, xy = contexts.xx.movedim(0, -1), contexts.xy.movedim(0, -1)
        a = scale * xx[supports[:, :, None], supports[:, None, :]]
        evidence, means = GIVEN_SUPPORT[self.task.values](a, scale * xy[supports])
        weighted = evidence.softmax(dim=0)[:, None] * means
        total = torch.zeros_like(xy)
        return total.index_add_(0, supports.flatten(), weighted.flatten(0, 1)).T


def _gaussian(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """log Z (C, B) and the mean (C, s, B) for u ~ N(0, I): ridge on the support.

    Z = det(A + I)^(−1/2) exp(½ bᵀ(A + I)⁻¹b), by Cholesky's A + I = LLᵀ. It is written out
    over entries, because a library call for every small matrix would cost ten times as much.
    """
    s, low, half = b.shape[1], {}, []
    log_evidence = torch.zeros_like(b[:, 0])
    for i in range(s):
        for j in range(i):
            inner = sum((low[i, k] * low[j, k] for k in range(j)), start=torch.tensor(0.0))
            low[i, j] = (a[:, i, j] - inner) / low[j, j]
        low[i, i] = (a[:, i, i] + 1 - sum(low[i, k] ** 2 for k in range(i))).sqrt()
        half.append((b[:, i] - sum(low[i, k] * half[k] for k in range(i))) / low[i, i])
        log_evidence += half[i] ** 2 / 2 - low[i, i].log()
    mean = [torch.empty(0)] * s
    for i in reversed(range(s)):
        later = sum(low[k, i] * mean[k] for k in range(i + 1, s))
        mean[i] = (half[i] - later) / low[i, i]
    return log_evidence, torch.stack(mean, dim=1)


def _signs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """log Z (C, B) and the mean (C, s, B) for u uniform on {−1, 1}^s, by enumeration."""
    signs = torch.tensor(list(product([-1.0, 1.0], repeat=b.shape[1])), dtype=b.dtype)
    squares = (signs[:, :, None] * signs[:, None, :]).flatten(1)
    log_likelihood = signs @ b - squares @ a.flatten(1, 2) / 2
    return log_likelihood.logsumexp(dim=1), signs.T @ log_likelihood.softmax(dim=1)


def _sphere(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """log Z (C, B) and the mean (C, s, B) for u uniform on |u|² = s, by one contour integral.

    With the inverse Laplace transform of δ(|u|² − s) the integral over u is Gaussian: up to a
    constant, and in the eigenbasis of A with eigenvalues λ_j,

        Z = (1/2πi) ∫ exp φ(t) dt,  φ(t) = s t − ½ Σ log(λ_j + 2t) + ½ Σ b_j²/(λ_j + 2t),

    to the right of all −λ_j/2, and the mean of u_j is that of b_j/(λ_j + 2t) under exp φ.
    The integrand is largest where the path crosses the real axis, at the saddle t_0, and
    Laplace's approximation is good enough to leave out supports without weight.
    """
    s = b.shape[1]
    lam, basis = torch.linalg.eigh(a.movedim(-1, 1))  # (C, B, s), (C, B, s, s)
    b = (b.movedim(-1, 1)[..., None, :] @ basis)[..., 0, :]
    square = b.square()
    # Newton for φ' = 0, from below, where the convex −φ' makes every step fall short.
    twice = ((1 + (1 + 4 * s * square).sqrt()) / (2 * s) - lam).amax(dim=-1, keepdim=True)
    for _ in range(8):
        f = 1 / (lam + twice)
        excess = (f + square * f**2).sum(-1, keepdim=True) - s
        twice = twice + excess / (f**2 + 2 * square * f**3).sum(-1, keepdim=True)
    f = 1 / (lam + twice)
    width = (2 * f**2 + 4 * square * f**3).sum(-1).rsqrt()  # φ''^(−1/2)
    evidence = s * twice[..., 0] / 2 + (square * f + f.log()).sum(-1) / 2 + width.log()
    kept = evidence > evidence.amax(dim=0) - NEGLIGIBLE
    mass, shrunk = _contour(f[kept], square[kept], width[kept, None])
    evidence = torch.where(kept, evidence, -torch.inf)
    evidence[kept] += mass.log()
    means = torch.zeros_like(b)
    inner = (b * f)[kept] * shrunk / mass[:, None]
    means[kept] = (basis[kept] @ inner[..., None])[..., 0]
    return evidence, means.movedim(1, -1)


NEGLIGIBLE = 40.0  # in nats below the best support
STEP, REACH, LEAN = 0.2, 5.0, 0.7  # of the quadrature


def _contour(f: Tensor, square: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """∫ exp(φ(t) − φ(t_0)) dt / (2i width), and the same of f(t)/f(t_0) times the integrand.

    f = 1/(λ + 2t_0) (N, s), `square` = b² (N, s), `width` (N, 1) of the integrand at t_0;
    returns (N,) and (N, s). The path is a hyperbola: at t_0 it follows the steepest descent to
    third order, and far out it leans left, so that exp(s t) decays, by less than 45°, so that
    no other term of φ grows. With nodes at width × sinh of equal steps, which resolve singular
    points near t_0 and reach those far away, the trapezoid rule converges geometrically; at
    conjugate t the integrand is conjugate, so half of the nodes do.
    """
    s = f.shape[-1]
    bend = (8 * f**3 + 24 * square * f**4).sum(-1, keepdim=True) * width**2 / 6
    mass, shrunk = 0.0, 0.0
    for x in np.arange(0, REACH, STEP):
        y = width * np.sinh(x)
        root = (1 + (2 * bend * y / LEAN) ** 2).sqrt()
        move = torch.complex(LEAN**2 / (2 * bend) * (1 - root), y)  # t − t_0
        slope = torch.complex(torch.ones_like(y), 2 * bend * y / root) * np.cosh(x)
        ratio = 1 + 2 * move * f
        # The complex logarithm of torch is several times slower than its two parts.
        log = torch.complex(ratio.abs().prod(-1).log(), ratio.angle().sum(-1))[:, None]
        bent = (square * f * (1 / ratio - 1)).sum(-1, keepdim=True)
        share = (s * move + (bent - log) / 2).exp() * slope * (STEP if x else STEP / 2)
        mass = mass + share[:, 0].real
        shrunk = shrunk + (share / ratio).real
    return mass, shrunk


GIVEN_SUPPORT = {"gaussian": _gaussian, "signs": _signs, "sphere": _sphere}
