"""Estimators to compare with: the same interface as the transformer, tuned on their own stream."""

from collections.abc import Iterable, Iterator
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from icl.contexts import Contexts, draw
from icl.errors import require
from icl.predictors import LinearPredictor
from icl.risk import excess_risk
from icl.tasks import SparseLinear

TUNING_CONTEXTS = 2048


class OLS(LinearPredictor):
    """Least squares; the solution of least norm where n < d."""

    def weights(self, contexts: Contexts) -> Tensor:
        inverse = torch.linalg.pinv(contexts.xx, rtol=1e-10, hermitian=True)
        return (inverse @ contexts.xy[..., None])[..., 0]


class Ridge(LinearPredictor):
    """argmin_u (1/n) Σ (y_i − <u, x_i>)² + penalty |u|²."""

    def __init__(self, penalty: float):
        require(penalty > 0, f"penalty={penalty}: allowed are values above 0; use OLS for 0")
        self.penalty = penalty

    def weights(self, contexts: Contexts) -> Tensor:
        eye = torch.eye(contexts.task.d, dtype=contexts.xx.dtype)
        return torch.linalg.solve(contexts.xx + self.penalty * eye, contexts.xy)


class Lasso(LinearPredictor):
    """argmin_u (1/2n) Σ (y_i − <u, x_i>)² + penalty |u|_1, by coordinate descent."""

    def __init__(self, penalty: float, tolerance: float = 1e-9, max_sweeps: int = 5000):
        require(penalty > 0, f"penalty={penalty}: allowed are values above 0; use OLS for 0")
        self.penalty, self.tolerance, self.max_sweeps = penalty, tolerance, max_sweeps

    def weights(self, contexts: Contexts) -> Tensor:
        xx, xy = contexts.xx, contexts.xy
        u = torch.zeros_like(xy)
        for _ in range(self.max_sweeps):
            before = u.clone()
            for j in range(xy.shape[-1]):
                correlation = xy[..., j] - (xx[..., j, :] * u).sum(-1) + xx[..., j, j] * u[..., j]
                shrunk = (correlation.abs() - self.penalty).clamp(min=0) * correlation.sign()
                u[..., j] = shrunk / xx[..., j, j]
            if (u - before).abs().max() <= self.tolerance:
                break
        return u


class GradientDescent(LinearPredictor):
    """`steps` steps on (1/2n) Σ (y_i − <u, x_i>)², from u = 0.

    `rate` is the step size or, if `relative`, a multiple of 1/λ_max of the matrix that the
    steps descend on, context by context.
    """

    def __init__(self, steps: int, rate: float, relative: bool = False):
        require(steps >= 1, f"steps={steps}: at least one step is needed")
        self.steps, self.rate, self.relative = steps, rate, relative

    def weights(self, contexts: Contexts) -> Tensor:
        *_, last = self.iterates(contexts)
        return last

    def iterates(self, contexts: Contexts) -> Iterator[Tensor]:
        """The weights after every step, (..., B, d)."""
        u, scale = torch.zeros_like(contexts.xy), None
        for _ in range(self.steps):
            residual = contexts.xy - torch.einsum("...ij,...j->...i", contexts.xx, u)
            if scale is None or self.rescales:
                scale = self.scale(u, residual)
                rate = self._rate(contexts, scale)
            u = u + rate * scale.square() * residual
            yield u

    rescales = False

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
    """

    def scale(self, u: Tensor, residual: Tensor) -> Tensor:
        return residual  # before the first step, u = 0: r̂ itself


class ReweightedGD(GradientDescent):
    """Gradient descent that preprocesses again before every step.

    The features are scaled by u + (1/n) Σ x_i (y_i − <u, x_i>): the current weights, corrected
    by the correlations they leave. At u = 0 that is r̂, the first layer's preprocessing.
    """

    rescales = True

    def scale(self, u: Tensor, residual: Tensor) -> Tensor:
        return u + residual


class PosteriorMean(LinearPredictor):
    """The Bayes answer E[w | context] for a prior on finitely many weight vectors.

    No predictor has a smaller mean excess risk on that prior. `candidates` (C, d) are equally
    likely; `noise` must be positive. See `bayes` for the priors of this book.
    """

    def __init__(self, candidates: Tensor, noise: float):
        require(noise > 0, f"noise={noise}: the posterior needs noise above 0")
        self.candidates, self.noise = candidates, noise

    def weights(self, contexts: Contexts) -> Tensor:
        c = self.candidates
        squares = (c[:, :, None] * c[:, None, :]).flatten(1).T
        means = []
        size = max(1, 2**23 // len(c))  # contexts at a time: bounds memory to 64 MiB a matrix
        for rows in range(0, len(contexts), size):
            part = contexts[rows : rows + size]
            # Σ (y_i − <c, x_i>)² up to a constant, from the statistics.
            fit = part.xx.flatten(1) @ squares - 2 * part.xy @ c.T
            posterior = (-contexts.task.n / (2 * self.noise**2) * fit).softmax(dim=-1)
            means.append(posterior @ c)
        return torch.cat(means)


def bayes(task: SparseLinear) -> PosteriorMean:
    """The Bayes predictor of a task with `signs` values, or `sphere` values with s ≤ 2.

    Signs are enumerated. On the circle |w|² = 2 the posterior integral is the trapezoid rule
    over equal angles, which converges faster than any power of their number once they are
    closer than the posterior is wide, about σ/√(2n).
    """
    require(task.noise > 0, f"noise={task.noise}: the posterior needs noise above 0")
    if task.values == "signs" or (task.values == "sphere" and task.s == 1):
        values = np.array(list(product([-1.0, 1.0], repeat=task.s)))
    else:
        require(
            task.values == "sphere" and task.s == 2,
            f"values={task.values!r} with s={task.s}: the Bayes predictor is exact for signs, "
            "and for sphere with s of 1 or 2",
        )
        nodes = max(128, int(np.ceil(12 * np.sqrt(2 * task.n) / task.noise)))
        angle = 2 * np.pi * np.arange(nodes) / nodes
        values = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    supports = list(combinations(range(task.d), task.s))
    candidates = np.zeros((len(supports), len(values), task.d))
    for block, support in zip(candidates, supports, strict=True):
        block[:, support] = values
    return PosteriorMean(torch.from_numpy(candidates.reshape(-1, task.d)), task.noise)


def tune(family: Iterable[LinearPredictor], task: SparseLinear, seed: int = 0) -> LinearPredictor:
    """The member of `family` with the least mean excess risk on contexts of stream `tune`."""
    contexts = draw(task, TUNING_CONTEXTS, "tune", seed)

    def mean_risk(member: LinearPredictor) -> float:
        return excess_risk(member, contexts).mean().nan_to_num(torch.inf).item()

    return min(family, key=mean_risk)


def tuned_ridge(task: SparseLinear) -> Ridge:
    """Ridge with its penalty chosen on a grid of ratio 1.3 from 1e-4 to 1e2."""
    return tune((Ridge(p) for p in _grid(1e-4, 1e2, 1.3)), task)


def tuned_lasso(task: SparseLinear) -> Lasso:
    """Lasso with its penalty chosen on a grid of ratio 1.5 from 1e-3 to 10."""
    return tune((Lasso(p, tolerance=1e-4, max_sweeps=300) for p in _grid(1e-3, 10, 1.5)), task)


def tuned_gd(task: SparseLinear, steps: int) -> GradientDescent:
    """Gradient descent with its rate chosen on a grid of ratio 1.1 from 1e-3 to 10."""
    return tune((GradientDescent(steps, r) for r in _grid(1e-3, 10, 1.1)), task)


def baselines(task: SparseLinear) -> dict[str, LinearPredictor]:
    """What a trained model is compared with, by name; Bayes is the floor for any predictor."""
    return {
        "tuned GD": tuned_gd(task, 10),
        "tuned ridge": tuned_ridge(task),
        "tuned lasso": tuned_lasso(task),
        "Bayes": bayes(task),
    }


def _grid(low: float, high: float, ratio: float) -> list[float]:
    count = int(np.ceil(np.log(high / low) / np.log(ratio))) + 1
    return np.geomspace(low, high, count).tolist()
