"""Gradient descent on least squares, plain and preprocessed, step by step and in closed form."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import real, whole
from icl.intervals import trimmed
from icl.predictors import LinearPredictor, squared_error

SUMMED_AT_ONCE = 32  # contexts whose risks are computed at a time
DIVERGED = 1e30  # the weight from which on a walk is not followed
RISEN = 1.2  # by what factor a walk's risk has risen when it is not followed any further


@dataclass(frozen=True)
class Grid:
    """Values from `low` to `high`, each `ratio` times the one before, or a little less."""

    low: float
    high: float
    ratio: float

    @property
    def values(self) -> list[float]:
        count = int(np.ceil(np.log(self.high / self.low) / np.log(self.ratio))) + 1
        return np.geomspace(self.low, self.high, count).tolist()

    def interior(self, value: float) -> bool:
        """Whether a value is at neither end."""
        return self.values[0] < value < self.values[-1]

    def around(self, value: float) -> list[float]:
        """Seven values in geometric progression that reach close to the value's neighbours."""
        return [value * self.ratio ** (k / 4) for k in range(-3, 4)]


# Rates to choose among, by whether they are relative.
RATES = {False: Grid(1e-3, 10, 1.5), True: Grid(0.04, 8, 1.5)}


class Spectrum:
    """All rates and steps of gradient descent on features scale ∘ x, `scale` (..., B, d), from 0.

    With H = diag(scale) XX diag(scale) = V diag(λ) Vᵀ and c = Vᵀ (scale ∘ XY), the weights
    after t steps are scale ∘ V g, g = (1 − (1 − rate λ)^t) c / λ. Directions with λ = 0 have
    c = 0 and stay at 0. Rates are multiples of 1/λ_max if `relative`.
    """

    def __init__(self, contexts: Contexts, scale: Tensor, relative: bool):
        values, basis = torch.linalg.eigh(scale[..., :, None] * contexts.xx * scale[..., None, :])
        inner = ((scale * contexts.xy)[..., None, :] @ basis)[..., 0, :]
        limit = torch.where(values > 1e-12 * values[..., -1:], inner / values, 0.0)
        self.contexts = contexts
        self.limit = scale[..., :, None] * basis * limit[..., None, :]  # (..., B, d, d)
        self.values = values / values[..., -1:].clamp(min=1e-30) if relative else values

    def weights(self, rate: float, steps: int) -> Tensor:
        """The weights after so many steps, (..., B, d)."""
        share = 1 - (1 - rate * self.values) ** steps
        return (self.limit @ share[..., None])[..., 0]

    def risks(self, rates: Tensor, steps: tuple[int, ...]) -> Tensor:
        """Excess risks (steps, rates, B) of one batch (B,); infinite or NaN where they overflow."""
        root = torch.linalg.cholesky(torch.from_numpy(self.contexts.task.sigma))
        out = root.T @ self.limit
        target = (self.contexts.w @ root)[..., None]
        found = torch.empty(len(steps), len(rates), len(out), dtype=out.dtype)
        for block in torch.arange(len(out)).split(SUMMED_AT_ONCE):
            left = 1 - rates * self.values[block, :, None]
            for row, t in zip(found, steps, strict=True):
                error = torch.baddbmm(target[block], out[block], left**t - 1)
                row[:, block] = error.square_().sum(dim=1).T
        return found


class GradientDescent(LinearPredictor):
    """`steps` steps on (1/2n) Σ (y_i − <u, x_i>)², from u = 0.

    `rate` is the step size or, if `relative`, a multiple of 1/λ_max of the matrix that the
    steps descend on, context by context. Source: Cauchy (1847).

    >>> from icl.contexts import draw
    >>> from icl.predictors import excess_risk
    >>> from icl.tasks import SparseLinear
    >>> contexts = draw(SparseLinear(d=4, s=4, n=16, noise=0.0), 100, "evaluate", seed=0)
    >>> few, many = (GradientDescent(steps, 1.0, relative=True) for steps in (1, 100))
    >>> (excess_risk(many, contexts) < excess_risk(few, contexts)).all()
    tensor(True)
    """

    def __init__(self, steps: int, rate: float, relative: bool = False):
        whole("steps", steps)
        real("rate", rate, "(-inf, inf)")
        self.steps, self.rate, self.relative = steps, rate, relative

    def weights(self, contexts: Contexts) -> Tensor:
        if not self.rescales:
            return self.solved(contexts).weights(self.rate, self.steps)
        *_, last = self.iterates(contexts)
        return last

    def iterates(self, contexts: Contexts) -> Iterator[Tensor]:
        """The weights after every step, (..., B, d)."""
        u = torch.zeros_like(contexts.xy)
        for t in range(self.steps):
            residual = contexts.xy - torch.einsum("...ij,...j->...i", contexts.xx, u)
            if t == 0 or self.rescales:
                scale = self.scale(u, residual)
                if t % max(1, t // 10) == 0:  # λ_max hardly changes in a tenth of the steps so far
                    rate = self._rate(contexts, scale)
            u = u + rate * scale.square() * residual
            yield u

    rescales = False
    heavy_tailed = False  # whether a fixed rate diverges in rare contexts
    # What is searched when a descent is tuned: the numbers of steps; the contexts to choose among
    # them on; and of the numbers whose risk is within a fraction of the least, the fewest is taken,
    # as ever smaller and more steps may gain ever less.
    counts = (1, 2, 3, 5, 7, 10, 20, 30, 50, 100, 300, *(10**k for k in range(3, 11)))
    explored = 512
    tolerance = 0.005

    def risks(self, contexts: Contexts, rates: list[float], counts: tuple[int, ...]) -> Tensor:
        """Decisive averages (steps, rates) of the excess risk over one batch (B,) of contexts.

        Rates and numbers of steps are those given, the rest is as in this descent; infinite where
        a descent diverges in more contexts than `intervals.trimmed` leaves out.
        """
        found = self.solved(contexts).risks(torch.tensor(rates).double(), counts)
        return trimmed(found, dim=-1).nan_to_num(torch.inf, posinf=torch.inf)

    def solved(self, contexts: Contexts) -> Spectrum:
        """The descent in closed form, for any rate and number of steps."""
        scale = self.scale(torch.zeros_like(contexts.xy), contexts.xy)
        return Spectrum(contexts, scale, self.relative)

    def scale(self, u: Tensor, residual: Tensor) -> Tensor:
        """What multiplies the features, (..., B, d): from the weights u before the step, and
        the correlations (1/n) Σ x_i (y_i − <u, x_i>) that they leave.
        """
        return torch.ones_like(residual)

    def _rate(self, contexts: Contexts, scale: Tensor) -> Tensor | float:
        if not self.relative:
            return self.rate
        seen = scale[..., :, None] * contexts.xx * scale[..., None, :]
        return self.rate / torch.linalg.eigvalsh(seen)[..., -1:].clamp(min=1e-30)


class PreprocessedGD(GradientDescent):
    """Gradient descent on preprocessed inputs x̃ = r̂ ∘ x, r̂ = (1/n) Σ x_i y_i.

    Algorithm 1 of Chen et al. (2024). In the coordinates of x it is gradient descent with
    the preconditioner diag(r̂²), so a feature that correlates with the labels moves first.

    >>> from icl.contexts import draw
    >>> from icl.predictors import excess_risk
    >>> from icl.tasks import SparseLinear
    >>> contexts = draw(SparseLinear(d=8, s=1, n=32, values="signs"), 500, "evaluate", seed=0)
    >>> plain, ours = (kind(3, 1.0, relative=True) for kind in (GradientDescent, PreprocessedGD))
    >>> excess_risk(ours, contexts).mean() < excess_risk(plain, contexts).mean() / 2
    tensor(True)
    """

    heavy_tailed = True  # the curvature grows with |r̂|²

    def scale(self, u: Tensor, residual: Tensor) -> Tensor:
        return residual  # before the first step, u = 0: r̂ itself


class ReweightedGD(GradientDescent):
    """Gradient descent that preprocesses again before every step.

    The features are scaled by u + (1/n) Σ x_i (y_i − <u, x_i>): the current weights, corrected
    by the correlations they leave. At u = 0 that is r̂, the first layer's preprocessing. The λ_max
    that a relative rate refers to is found anew in each of the first 20 steps, and then after a
    tenth as many steps as were taken. Of this book, after the re-weighting of Gorodnitsky and Rao
    (1997).

    >>> from icl.contexts import draw
    >>> from icl.predictors import excess_risk
    >>> from icl.tasks import SparseLinear
    >>> contexts = draw(SparseLinear(d=8, s=1, n=32, values="signs"), 500, "evaluate", seed=0)
    >>> once, again = (kind(5, 1.0, relative=True) for kind in (PreprocessedGD, ReweightedGD))
    >>> excess_risk(again, contexts).mean() < excess_risk(once, contexts).mean()
    tensor(True)
    """

    rescales = True
    counts = tuple(sorted({round(1.1**k) for k in range(74)}))  # to 1051; one walk has them all
    explored = 128
    tolerance = 0.01

    def scale(self, u: Tensor, residual: Tensor) -> Tensor:
        return u + residual

    def risks(self, contexts: Contexts, rates: list[float], counts: tuple[int, ...]) -> Tensor:
        """The same step by step, and infinite after a walk's risk has risen by a fifth."""
        found = torch.full((len(rates), len(counts)), torch.inf, dtype=contexts.xy.dtype)
        for row, rate in zip(found, rates, strict=True):
            walk = ReweightedGD(max(counts), rate, self.relative).iterates(contexts)
            bounded = enumerate(takewhile(lambda u: u.abs().max() < DIVERGED, walk), 1)
            for i, u in enumerate(u for t, u in bounded if t in counts):
                row[i] = trimmed(squared_error(u, contexts), dim=-1)
                if not row[i] < RISEN * row[: i + 1].min():
                    break
        return found.T.nan_to_num(torch.inf, posinf=torch.inf)
