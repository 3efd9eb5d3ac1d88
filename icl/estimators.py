"""Estimators to compare with: the same interface as the transformer, tuned on their own stream."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from icl.bayes import bayes
from icl.contexts import Contexts, draw
from icl.errors import require
from icl.predictors import LinearPredictor
from icl.risk import excess_risk, squared_error
from icl.spectrum import Descent
from icl.tasks import SparseLinear
from icl.theory import optimal_one_step

NAIVE = ("tuned GD", "tuned ridge")  # what Chen et al. (2024) say is outperformed
TUNING_CONTEXTS = 1024
STEPS = (1, 2, 3, 5, 7, 10, 20, 30, 50, 100, 300)  # numbers of steps to choose among


class Zero(LinearPredictor):
    """Answers 0 to every query: its excess risk is that of having learned nothing."""

    def weights(self, contexts: Contexts) -> Tensor:
        return torch.zeros_like(contexts.w)


class OneStep(LinearPredictor):
    """Γ* (1/n) Σ x_i y_i: the best that one linear self-attention layer can do on `task`."""

    def __init__(self, task: SparseLinear):
        self.matrix = torch.from_numpy(optimal_one_step(task))

    def weights(self, contexts: Contexts) -> Tensor:
        return contexts.xy @ self.matrix.T


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
        d = contexts.task.d
        # Contexts innermost, and those that have converged are left out now and then.
        xx = contexts.xx.reshape(-1, d, d).permute(1, 2, 0).contiguous()
        residual = contexts.xy.reshape(-1, d).T.contiguous()
        u, found = torch.zeros_like(residual), torch.zeros_like(residual)
        left = torch.arange(u.shape[1])
        for sweep in range(1, self.max_sweeps + 1):
            change = self._sweep(xx, residual, u)
            moving = change > self.tolerance
            if sweep % 8 == 0 or not moving.any():
                found[:, left] = u
                left, xx = left[moving], xx[..., moving]
                residual, u = residual[:, moving], u[:, moving]
            if not len(left):
                break
        found[:, left] = u
        return found.T.reshape(contexts.xy.shape)

    def _sweep(self, xx: Tensor, residual: Tensor, u: Tensor) -> Tensor:
        """Update u and the correlations that it leaves; returns the largest change, (B,)."""
        change = torch.zeros_like(u[0])
        for j in range(len(u)):
            target = residual[j] + xx[j, j] * u[j]
            move = (target - target.clamp(-self.penalty, self.penalty)) / xx[j, j] - u[j]
            u[j] += move
            residual -= xx[j] * move
            change = torch.maximum(change, move.abs())
        return change


class GradientDescent(LinearPredictor):
    """`steps` steps on (1/2n) Σ (y_i − <u, x_i>)², from u = 0.

    `rate` is the step size or, if `relative`, a multiple of 1/λ_max of the matrix that the
    steps descend on, context by context.
    """

    def __init__(self, steps: int, rate: float, relative: bool = False):
        require(steps >= 1, f"steps={steps}: at least one step is needed")
        self.steps, self.rate, self.relative = steps, rate, relative

    def weights(self, contexts: Contexts) -> Tensor:
        if not self.rescales:
            return self.solved(contexts).weights(self.rate, self.steps)
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

    def solved(self, contexts: Contexts) -> Descent:
        """The descent in closed form, for any rate and number of steps."""
        scale = self.scale(torch.zeros_like(contexts.xy), contexts.xy)
        return Descent(contexts, scale, self.relative)

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


def tune(family: Iterable[LinearPredictor], task: SparseLinear, seed: int = 0) -> LinearPredictor:
    """The member of `family` with the least mean excess risk on contexts of stream `tune`."""
    contexts = draw(task, TUNING_CONTEXTS, "tune", seed)
    return min(family, key=lambda member: _mean(excess_risk(member, contexts)))


def tuned_ridge(task: SparseLinear, seed: int = 0) -> Ridge:
    """Ridge with its penalty chosen on a grid of ratio 1.3 from 1e-4 to 1e2."""
    return tune(map(Ridge, _grid(1e-4, 1e2, 1.3)), task, seed)


def tuned_lasso(task: SparseLinear, seed: int = 0) -> Lasso:
    """Lasso with its penalty chosen on a grid of ratio 1.3 from 1e-3 to 10."""
    family = (Lasso(p, tolerance=1e-4, max_sweeps=300) for p in _grid(1e-3, 10, 1.3))
    return tune(family, task, seed)


def tuned_gd(
    task: SparseLinear,
    steps: int | None = None,
    kind: type[GradientDescent] = GradientDescent,
    relative: bool = False,
    seed: int = 0,
) -> GradientDescent:
    """Gradient descent with rate and, unless given, number of steps chosen together.

    `kind` is the kind of descent. Rates are from a grid of ratio 1.1, from 1e-3 to 10 or, if
    `relative`, from 0.05 to 2; numbers of steps are those of `STEPS`. For `ReweightedGD`, which
    has no closed form, the ratio is 1.3 and the steps are at most 10.
    """
    contexts = draw(task, TUNING_CONTEXTS, "tune", seed)
    low, high = (0.05, 2) if relative else (1e-3, 10)
    rates = _grid(low, high, 1.3 if kind.rescales else 1.1)
    counts = (steps,) if steps else tuple(t for t in STEPS if t <= 10 or not kind.rescales)
    if kind.rescales:
        walks = (kind(max(counts), rate, relative).iterates(contexts) for rate in rates)
        found = [[_mean(squared_error(u, contexts)) for u in walk] for walk in walks]
        risks = torch.tensor(found).T[[t - 1 for t in counts]]
    else:
        descent = kind(1, 1.0, relative).solved(contexts)
        risks = descent.risks(torch.tensor(rates).double(), counts)
    step, rate = divmod(int(risks.argmin()), len(rates))
    return kind(counts[step], rates[rate], relative)


def baselines(task: SparseLinear) -> dict[str, LinearPredictor]:
    """What a trained model is compared with, by name; Bayes is the floor for any predictor."""
    return {
        "tuned GD": tuned_gd(task),
        "tuned ridge": tuned_ridge(task),
        "tuned lasso": tuned_lasso(task),
        "Bayes": bayes(task),
    }


def _mean(risks: Tensor) -> float:
    """The mean, and infinity where something diverged."""
    return risks.mean().nan_to_num(torch.inf).item()


def _grid(low: float, high: float, ratio: float) -> list[float]:
    count = int(np.ceil(np.log(high / low) / np.log(ratio))) + 1
    return np.geomspace(low, high, count).tolist()
