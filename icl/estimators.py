"""Estimators to compare with: the same interface as the transformer, tuned on their own stream."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from icl.bayes import PosteriorMean
from icl.contexts import Contexts, draw
from icl.descent import RATES, GradientDescent, Grid, PreprocessedGD, ReweightedGD
from icl.errors import real, whole
from icl.intervals import trimmed
from icl.one_layer import optimal_one_step
from icl.predictors import LinearPredictor, excess_risk
from icl.tasks import SparseLinear

TUNING_CONTEXTS = 1024
HEAVY_TAILED = 8192  # contexts to tune a rate on that diverges in rare ones


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
        real("penalty", penalty, "(0, inf)")  # OLS is that of 0
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
        real("penalty", penalty, "(0, inf)")
        real("tolerance", tolerance, "[0, inf)")
        whole("max_sweeps", max_sweeps)
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


PENALTIES = {Ridge: Grid(1e-4, 1e2, 1.3), Lasso: Grid(1e-3, 10, 1.3)}


def interior(tuned: Ridge | Lasso | GradientDescent) -> bool:
    """Whether nothing that a tuned estimator was chosen by is at an end of its grid.

    The largest number of steps is an end: it is taken only where the risk has not converged in
    the steps, that is, where the number before it is worse by more than the kind's tolerance.
    """
    if isinstance(tuned, GradientDescent):
        return RATES[tuned.relative].interior(tuned.rate) and tuned.steps < tuned.counts[-1]
    return PENALTIES[type(tuned)].interior(tuned.penalty)


def tune(family: Iterable[LinearPredictor], task: SparseLinear, seed: int = 0) -> LinearPredictor:
    """The member of `family` with the least risk on contexts of stream `tune`.

    Here and below risks are excess risks, averaged as they are where they decide: by means
    trimmed by the contexts with the largest, `intervals.trimmed`.
    """
    contexts = draw(task, TUNING_CONTEXTS, "tune", seed)

    def risk(member: LinearPredictor) -> Tensor:
        return trimmed(excess_risk(member, contexts), dim=-1).nan_to_num(
            torch.inf, posinf=torch.inf
        )

    return min(family, key=risk)


def tuned_ridge(task: SparseLinear, seed: int = 0) -> Ridge:
    """Ridge with its penalty chosen on its grid."""
    return tune(map(Ridge, PENALTIES[Ridge].values), task, seed)


def tuned_lasso(task: SparseLinear, seed: int = 0) -> Lasso:
    """Lasso with its penalty chosen on its grid."""
    family = (Lasso(p, tolerance=1e-4, max_sweeps=300) for p in PENALTIES[Lasso].values)
    return tune(family, task, seed)


def tuned_gd(
    task: SparseLinear,
    seed: int = 0,
    steps: int | None = None,
    kind: type[GradientDescent] = GradientDescent,
    relative: bool = False,
) -> GradientDescent:
    """Gradient descent with rate and, unless given, number of steps chosen together.

    `kind` is the kind of descent; it says which numbers of steps are tried, and on how many
    contexts. The fewest are taken whose risk at a rate of a coarse grid is within the kind's
    tolerance of the least. The rate is then chosen around that of the coarse grid on all
    contexts: 1,024, or 8,192 where a fixed rate makes risks heavy-tailed. `ReweightedGD`, whose
    walks are dear, never sees more than the few; with the number of steps free, its rate stays
    that of the coarse grid, as steps in number make up for it.
    """
    heavy = kind.heavy_tailed and not relative
    contexts = draw(task, HEAVY_TAILED if heavy else TUNING_CONTEXTS, "tune", seed)
    few = contexts[: kind.explored]
    descent, grid = kind(1, 1.0, relative), RATES[relative]
    counts = kind.counts if steps is None else (steps,)
    risks = descent.risks(few, grid.values, counts)
    best = risks.amin(dim=1)
    row = int((best <= (1 + kind.tolerance) * best.min()).int().argmax())
    rate = grid.values[risks[row].argmin()]
    if steps is not None or not kind.rescales:
        rates = grid.around(rate)
        fine = descent.risks(few if kind.rescales else contexts, rates, (counts[row],))
        rate = rates[fine.argmin()]
    return kind(counts[row], rate, relative)


@dataclass(frozen=True)
class Estimator:
    """How an estimator is drawn and tuned: `tuned(task, seed=0)`, on contexts of stream `tune`."""

    tuned: Callable[..., LinearPredictor]
    colour: str
    marker: str


# Every estimator of the book by its label: the one place for what it is called and looks like.
ESTIMATORS = {
    "zero": Estimator(lambda task, seed=0: Zero(), "#8a8a8a", "."),
    "one step (Γ*)": Estimator(lambda task, seed=0: OneStep(task), "#a5703f", "*"),
    "least squares": Estimator(lambda task, seed=0: OLS(), "#1f9bd1", "X"),
    "ridge": Estimator(tuned_ridge, "#0173b2", "o"),
    "lasso": Estimator(tuned_lasso, "#029e73", "s"),
    "GD": Estimator(tuned_gd, "#c27f00", "D"),
    "preprocessed GD": Estimator(
        partial(tuned_gd, kind=PreprocessedGD, relative=True), "#d55e00", "^"
    ),
    "preprocessed GD, fixed rate": Estimator(
        partial(tuned_gd, kind=PreprocessedGD), "#e0607e", "v"
    ),
    "re-weighted GD": Estimator(
        partial(tuned_gd, kind=ReweightedGD, relative=True), "#a3123e", "P"
    ),
    "Bayes": Estimator(lambda task, seed=0: PosteriorMean(task), "#000000", "h"),
}
NAIVE = ("GD", "ridge")  # what Chen et al. (2024) say is outperformed
