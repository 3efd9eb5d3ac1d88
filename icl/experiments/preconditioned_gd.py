"""Is the step preconditioned on features of another covariance, and weights of another prior?"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import ortho_group
from torch import Tensor

from icl import figures, one_layer, tables
from icl.claims import MAHANKALI, Claim, Criterion, Judged, judge
from icl.contexts import Contexts, check, draw
from icl.errors import real, whole
from icl.experiments.comparison import AT_OPTIMUM, Layer, Path, watch
from icl.experiments.models import single_layer
from icl.intervals import over_seeds
from icl.one_layer import cosine, distance, optimal_one_step
from icl.recipe import MOST_STEPS
from icl.tasks import SparseLinear
from icl.words import POWER

PLANS = {}  # all layers are trained while the page is built


def lead(layer: Layer) -> Tensor:
    """log₁₀ of how many times nearer Γ is to Γ* than to every multiple of I, (M,)."""
    model, contexts = layer
    return one_layer.lead(one_layer.effective_step(model), contexts.task)


B2 = Claim(
    "B2",
    MAHANKALI,
    "On features of another covariance the step is preconditioned.",
    (
        AT_OPTIMUM,
        Criterion(
            "log₁₀ of how many times nearer the trained Γ is to Γ\\* than to every multiple of I",
            lead,
            1.0,
            "Ten times nearer: Γ then is at most a tenth of the way from Γ\\* to a plain step.",
            said="the trained step is nearer to the preconditioned one than to any plain "
            "one by a factor of {}",
            unit=POWER,
        ),
    ),
)
CLAIMS = (B2,)


@dataclass(frozen=True)
class Pair:
    """Layers trained on one covariance Σ and one prior Ω, on their way, and contexts of both."""

    path: Path
    contexts: Contexts

    @property
    def best(self) -> np.ndarray:
        """Γ*, (d, d)."""
        return optimal_one_step(self.contexts.task)

    @property
    def inverse(self) -> np.ndarray:
        """Σ⁻¹, (d, d)."""
        return np.linalg.inv(self.contexts.task.sigma)

    @property
    def eye(self) -> np.ndarray:
        """I, (d, d)."""
        return np.eye(self.contexts.task.d)

    @property
    def gamma(self) -> Tensor:
        """The trained Γ, (M, d, d)."""
        return self.path.matrices[-1]


@dataclass(frozen=True)
class Result(Judged):
    """The pairs by what their prior is, and the verdict."""

    pairs: dict[str, Pair]

    def plot_cosines(self) -> None:
        """Cosines of Γ with what it may become, in training."""
        frames = []
        for name, pair in self.pairs.items():
            targets = {"with Γ*": pair.best, "with Σ⁻¹": pair.inverse, "with I": pair.eye}
            measures = {label: partial(cosine, target=target) for label, target in targets.items()}
            frames.append(pair.path.curves(measures).assign(panel=name))
        figures.curves(pd.concat(frames), "step", "training step", "cosine of Γ", log="")

    def plot_matrices(self) -> None:
        """Γ, the mean over seeds, beside Γ* and a multiple of Σ⁻¹."""
        rows = []
        for name, pair in self.pairs.items():
            best, inverse = pair.best, pair.inverse
            found = {
                "trained Γ": pair.gamma.mean(dim=0).numpy(),
                "Γ*": best,
                "Σ⁻¹, as long": inverse * np.linalg.norm(best) / np.linalg.norm(inverse),
            }
            rows.append((name, found))
        figures.matrices(rows)

    def numbers(self) -> tables.Text:
        """Distances, cosines and risks of all pairs."""
        rows = []
        for name, pair in self.pairs.items():
            excess = one_layer.excess(pair.path.model, pair.contexts)
            measured = {
                "distance to Γ*": distance(pair.gamma, pair.best),
                "cosine with Σ⁻¹": cosine(pair.gamma, pair.inverse),
                "cosine with I": cosine(pair.gamma, pair.eye),
                "excess of the risk": 1e4 * excess,
            }
            rows.append({"pair": name} | {k: over_seeds(v) for k, v in measured.items()})
        return tables.show(pd.DataFrame(rows))


def matrices(features: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices of the same eigenvalues, up to a ratio of `spread`, in random directions."""
    variances = np.geomspace(spread**-0.5, spread**0.5, features)
    turns = ortho_group(features, seed=seed).rvs(2)
    return tuple((turn * variances) @ turn.T for turn in turns)


def run(
    features: int,
    examples: int,
    noise: float,
    spread: float,
    steps: int,
    contexts: int,
    seed: int,
) -> Result:
    """Train layers on three pairs of Σ and Ω for so many steps, and judge them.

    The largest variance of the features is `spread` times the smallest; the seed draws the
    directions, and the contexts that risks are averaged over.
    """
    whole("features", features, 2, 64)
    whole("examples", examples)
    real("noise", noise, "[0, 1000]")
    real("spread", spread, "(1, 10000)")
    whole("steps", steps, 100, MOST_STEPS)
    check(contexts, seed)
    sigma, other = matrices(features, spread, seed)
    priors = {"Ω = Σ⁻¹": np.linalg.inv(sigma), "Ω = I": np.eye(features), "another Ω": other}
    pairs = {}
    for name, omega in priors.items():
        task = SparseLinear(features, features, examples, noise, "gaussian", sigma, omega)
        plan = single_layer(task, steps=steps)
        path = watch(plan.config, plan.seeds)
        pairs[name] = Pair(path, draw(task, contexts, "evaluate", seed))
    measured = {name: (pair.path.model, pair.contexts) for name, pair in pairs.items()}
    return Result(judge(CLAIMS, measured), pairs)
