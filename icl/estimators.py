"""Estimators to compare with: the same interface as the transformer, tuned on their own stream."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from icl.bayes import PosteriorMean
from icl.contexts import Contexts, draw
from icl.descent import GradientDescent, PreprocessedGD, ReweightedGD
from icl.errors import require
from icl.one_layer import optimal_one_step
from icl.predictors import LinearPredictor, excess_risk, squared_error
from icl.tasks import SparseLinear

TUNING_CONTEXTS = 1024
HEAVY_TAILED = 8192  # contexts to tune on what diverges in rare ones: preprocessed, at a fixed rate
STEPS = (1, 2, 3, 5, 7, 10, 20, 30, 50, 100, 300)  # numbers of steps to choose among


class Zero(LinearPredictor):
    """Answers 0 to every query: its excess risk is that of having learned nothing.

    >>> contexts = draw(SparseLinear(d=4, s=2, n=16, values="signs"), 100, "evaluate", seed=0)
    >>> excess_risk(Zero(), contexts).unique()  # wᵀΣw, here the number of signs
    tensor([2.], dtype=torch.float64)
    """

    def weights(self, contexts: Contexts) -> Tensor:
        return torch.zeros_like(contexts.w)


class OneStep(LinearPredictor):
    """Γ* (1/n) Σ x_i y_i: the best that one linear self-attention layer can do on `task`.

    Source: Mahankali et al. (2024); derived in `icl.one_layer`.

    >>> task = SparseLinear(d=4, s=4, n=16, noise=1.0)
    >>> OneStep(task).matrix[0]  # the rate n/(n + d + 1 + noise²), here 16/22, times I
    tensor([0.7273, 0.0000, 0.0000, 0.0000], dtype=torch.float64)
    """

    def __init__(self, task: SparseLinear):
        self.matrix = torch.from_numpy(optimal_one_step(task))

    def weights(self, contexts: Contexts) -> Tensor:
        return contexts.xy @ self.matrix.T


class OLS(LinearPredictor):
    """argmin_u (1/n) Σ (y_i − <u, x_i>)²; of all solutions the shortest, where n < d.

    Source: least squares by Gauss (1809), the shortest solution by Penrose (1956).

    >>> contexts = draw(SparseLinear(d=4, s=2, n=16, noise=0.0), 100, "evaluate", seed=0)
    >>> bool(excess_risk(OLS(), contexts).max() < 1e-20)  # exact where nothing is noise
    True
    """

    def weights(self, contexts: Contexts) -> Tensor:
        inverse = torch.linalg.pinv(contexts.xx, rtol=1e-10, hermitian=True)
        return (inverse @ contexts.xy[..., None])[..., 0]


class Ridge(LinearPredictor):
    """argmin_u (1/n) Σ (y_i − <u, x_i>)² + penalty |u|².

    Source: Hoerl and Kennard (1970). With w ~ N(0, I) and penalty noise²/n it is Bayes.

    >>> contexts = draw(SparseLinear(d=4, s=4, n=16, noise=1.0), 2000, "evaluate", seed=0)
    >>> risks = [excess_risk(Ridge(p), contexts).mean() for p in (1 / 160, 1 / 16, 1 / 1.6)]
    >>> min(risks) == risks[1]
    tensor(True)
    """

    def __init__(self, penalty: float):
        require(penalty > 0, f"penalty={penalty}: allowed are values above 0; use OLS for 0")
        self.penalty = penalty

    def weights(self, contexts: Contexts) -> Tensor:
        eye = torch.eye(contexts.task.d, dtype=contexts.xx.dtype)
        return torch.linalg.solve(contexts.xx + self.penalty * eye, contexts.xy)


class Lasso(LinearPredictor):
    """argmin_u (1/2n) Σ (y_i − <u, x_i>)² + penalty |u|_1, by coordinate descent.

    Source: Tibshirani (1996); coordinate descent by Friedman et al. (2007).

    >>> contexts = draw(SparseLinear(d=8, s=1, n=64, noise=0.1), 100, "evaluate", seed=0)
    >>> weights = Lasso(0.2).weights(contexts)
    >>> int((weights != 0).sum(dim=1).max())  # at most the one feature that matters
    1
    """

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
    seed: int = 0,
    steps: int | None = None,
    kind: type[GradientDescent] = GradientDescent,
    relative: bool = False,
) -> GradientDescent:
    """Gradient descent with rate and, unless given, number of steps chosen together.

    `kind` is the kind of descent. Rates are from a grid of ratio 1.1, from 1e-3 to 10 or, if
    `relative`, from 0.05 to 2; numbers of steps are those of `STEPS`. For `ReweightedGD`, which
    has no closed form, the ratio is 1.3 and the steps are at most 10.
    """
    diverges = issubclass(kind, PreprocessedGD) and not relative
    contexts = draw(task, HEAVY_TAILED if diverges else TUNING_CONTEXTS, "tune", seed)
    low, high = (0.05, 2) if relative else (1e-3, 10)
    rates = _grid(low, high, 1.3 if kind.rescales else 1.1)
    choices = tuple(t for t in STEPS if t <= 10 or not kind.rescales)
    counts = choices if steps is None else (steps,)
    if kind.rescales:
        walks = (kind(max(counts), rate, relative).iterates(contexts) for rate in rates)
        found = [[_mean(squared_error(u, contexts)) for u in walk] for walk in walks]
        risks = torch.tensor(found).T[[t - 1 for t in counts]]
    else:
        descent = kind(1, 1.0, relative).solved(contexts)
        risks = descent.risks(torch.tensor(rates).double(), counts)
    step, rate = divmod(int(risks.argmin()), len(rates))
    return kind(counts[step], rates[rate], relative)


@dataclass(frozen=True)
class Estimator:
    """How an estimator is drawn and tuned: `tuned(task, seed=0)`, on contexts of stream `tune`."""

    tuned: Callable[..., LinearPredictor]
    colour: str
    marker: str


# Every estimator of the book by its label: the one place for what it is called and looks like.
ESTIMATORS = {
    "zero": Estimator(lambda task, seed=0: Zero(), "#949494", "."),
    "one step (Γ*)": Estimator(lambda task, seed=0: OneStep(task), "#ca9161", "*"),
    "least squares": Estimator(lambda task, seed=0: OLS(), "#56b4e9", "X"),
    "ridge": Estimator(tuned_ridge, "#0173b2", "o"),
    "lasso": Estimator(tuned_lasso, "#029e73", "s"),
    "GD": Estimator(tuned_gd, "#de8f05", "D"),
    "preprocessed GD": Estimator(
        partial(tuned_gd, kind=PreprocessedGD, relative=True), "#d55e00", "^"
    ),
    "preprocessed GD, fixed rate": Estimator(
        partial(tuned_gd, kind=PreprocessedGD), "#fbafe4", "v"
    ),
    "re-weighted GD": Estimator(
        partial(tuned_gd, kind=ReweightedGD, relative=True), "#cc78bc", "P"
    ),
    "Bayes": Estimator(lambda task, seed=0: PosteriorMean(task), "#000000", "h"),
}
NAIVE = ("GD", "ridge")  # what Chen et al. (2024) say is outperformed


def _mean(risks: Tensor) -> float:
    """The mean, and infinity where something diverged."""
    return risks.mean().nan_to_num(torch.inf).item()


def _grid(low: float, high: float, ratio: float) -> list[float]:
    count = int(np.ceil(np.log(high / low) / np.log(ratio))) + 1
    return np.geomspace(low, high, count).tolist()
