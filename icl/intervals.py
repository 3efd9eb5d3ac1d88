"""Estimates with their 95 % intervals: over contexts, over seeds, paired, of ratios and slopes."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from icl.errors import choose, require

RESAMPLES = 2000
AVERAGES = {"mean": torch.mean, "median": lambda x, dim: x.quantile(0.5, dim=dim)}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, and the median of what it was estimated from.

    Risks are in squared label units. `vars(estimate)` are four columns of a table.
    """

    value: float
    low: float
    high: float
    median: float

    def __str__(self) -> str:
        values = (self.value, self.low, self.high)
        if max(map(abs, values)) < 1e4:
            value, low, high = (f"{round(x, 3) + 0.0:.3f}" for x in values)  # no −0
        else:
            value, low, high = (f"{x:.1e}" for x in values)
        text = f"{value} [{low}, {high}]"
        return text.replace("-", "\N{MINUS SIGN}").replace(" ", "\N{NO-BREAK SPACE}")


def summarise(risks: Tensor, seed: int = 0) -> Estimate:
    """Mean of per-context values (B,) with a bootstrap 95 % interval over contexts, and median."""
    values = risks.detach().double().cpu().numpy()
    require(values.ndim == 1 and len(values) > 1, f"risks of shape {values.shape}: (B,) is needed")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    low, high = np.percentile(counts @ values / len(values), [2.5, 97.5])
    return Estimate(values.mean(), low, high, float(np.median(values)))


def compare(first: Tensor, second: Tensor, seed: int = 0) -> Estimate:
    """first − second, paired: both (B,) must come from the same contexts."""
    require(
        first.shape == second.shape,
        f"risks of shapes {tuple(first.shape)} and {tuple(second.shape)}: a paired comparison "
        "needs the same contexts",
    )
    return summarise(first.double() - second.double(), seed)


def over_seeds(values: Tensor) -> Estimate:
    """Mean over training seeds (M,) with Student's 95 % interval, and median.

    With five or so seeds a bootstrap would be too narrow; Student's interval is the one that
    holds its level for roughly normal values at such counts.
    """
    x = values.detach().double().cpu().numpy()
    require(x.ndim == 1 and len(x) > 1, f"values of shape {x.shape}: at least two seeds are needed")
    half = stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / np.sqrt(len(x))
    return Estimate(x.mean(), x.mean() - half, x.mean() + half, float(np.median(x)))


def geometric(values: Tensor) -> Estimate:
    """Geometric mean over training seeds (M,), with Student's interval for the logarithms.

    For positive values that differ by orders of magnitude from seed to seed.
    """
    logs = over_seeds(values.double().log())
    return Estimate(*(float(np.exp(x)) for x in vars(logs).values()))


def estimate(risks: Tensor, average: str = "mean") -> Estimate:
    """Mean or median risk: over training seeds of a model's (M, B), over contexts of (B,)."""
    choose("average", average, AVERAGES)
    if risks.ndim == 2:
        return over_seeds(AVERAGES[average](risks, dim=-1))
    if average == "mean":
        return summarise(risks)
    values, rng = risks.double().numpy(), np.random.default_rng(0)
    found = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    low, high = np.percentile(found, [2.5, 97.5])
    middle = float(np.median(values))
    return Estimate(middle, low, high, middle)


def reduction(risks: Tensor, than: Tensor) -> Tensor:
    """By what fraction the mean risk is below another: 1 − E[risks] / E[than], (M,) or ().

    Both are per-context risks, (M, B) or (B,), on the same contexts.
    """
    return 1 - risks.double().mean(dim=-1) / than.double().mean(dim=-1)
