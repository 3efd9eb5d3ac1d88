"""Estimates with their 95 % intervals: over seeds, over contexts, over both, of ratios.

What decides between risks is a mean trimmed by the 1 % of contexts with the largest values, for
every predictor alike: the answers of linear attention are polynomials of high degree in Gaussian
data, and a single context can rule the plain mean of any number of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from icl.errors import choose, require
from icl.threads import side_by_side

GROUPS = 20  # of contexts, left out in turn
LARGEST = 1e6  # beyond it a number is not shown: all it says is that an answer has diverged
TRIMMED = 0.01  # the share of contexts, those with the largest values, that decides nothing


def trimmed(values: Tensor, dim: int) -> Tensor:
    """Mean of all values but the largest hundredth, rounded down; NaN counts as the largest."""
    kept = values.shape[dim] - int(TRIMMED * values.shape[dim])
    smallest = np.partition(values.detach().cpu().numpy(), kept - 1, axis=dim)
    return torch.from_numpy(smallest).narrow(dim, 0, kept).mean(dim=dim)


# Over contexts, the one that decides first; functions of values and an axis.
AVERAGES = {
    "trimmed": trimmed,
    "mean": torch.mean,
    "median": lambda x, dim: x.quantile(0.5, dim=dim),
}


def number(x: float, decimals: int = 3) -> str:
    """A number as tables and sentences show it; from 1000 on without decimals, up to 10⁶.

    >>> number(-0.0004), number(-0.25), number(12345.6)
    ('0.000', '−0.250', '12346')
    >>> print(number(7e33).replace("\N{NO-BREAK SPACE}", " "))
    > 10⁶
    """
    x = float(x)
    if np.isnan(x):
        return "undefined"
    if abs(x) > LARGEST:
        return (">\N{NO-BREAK SPACE}" if x > 0 else "<\N{NO-BREAK SPACE}\N{MINUS SIGN}") + "10⁶"
    places = decimals if abs(x) < 1000 else 0
    return f"{round(x, places) + 0.0:.{places}f}".replace("-", "\N{MINUS SIGN}")  # no −0


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, and the median of what it was estimated from.

    Risks are in squared label units. `vars(estimate)` are four columns of a table.
    """

    value: float
    low: float
    high: float
    median: float

    def within(self, low: float = -np.inf, high: float = np.inf) -> "Estimate":
        """The interval's part in the range that what is estimated can have."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))

    def exp(self) -> "Estimate":
        """Of the estimate of a logarithm, that of what it is the logarithm of."""
        return Estimate(*(float(np.exp(x)) for x in vars(self).values()))

    def __str__(self) -> str:
        value, low, high = map(number, (self.value, self.low, self.high))
        if self.low > LARGEST or np.isnan(self.value):
            return value
        return f"{value} [{low},\N{NO-BREAK SPACE}{high}]"


class Exact(Estimate):
    """A value that is known: its interval is a point, and it is shown without."""

    def __str__(self) -> str:
        return number(self.value)


def over_seeds(values: Tensor, level: float = 0.95, variance: float = 0.0) -> Estimate:
    """Mean over training seeds (M,) with Student's interval, and median.

    With five or so seeds a bootstrap would be too narrow; Student's interval is the one that
    holds its level for roughly normal values at such counts. `variance` is what the mean varies
    by for other reasons than its seeds. A single value, (), is exact: its interval is a point.
    """
    x = values.detach().double().cpu().numpy()
    if x.ndim == 0:
        return Exact(*4 * (float(x),))
    require(x.ndim == 1 and len(x) > 1, f"values of shape {x.shape}: at least two seeds are needed")
    half = stdtrit(len(x) - 1, 0.5 + level / 2) * np.sqrt(x.var(ddof=1) / len(x) + variance)
    return Estimate(x.mean(), x.mean() - half, x.mean() + half, float(np.median(x)))


def over_contexts(measure: Callable[[Any], Tensor], found: Any) -> Tensor:
    """Variance (...) of the mean over seeds of `measure(found)`, (..., M), due to its contexts.

    All seeds of a model are judged on the same contexts, whose share in the result the seeds'
    spread does not show. Every twentieth of the contexts is left out in turn: the jackknife of
    Quenouille (1956) and Tukey (1958), which holds for smooth statistics, trimmed means among
    them. `found` holds tensors with the contexts on their last axis; see `without`.
    """
    left = side_by_side(lambda group: measure(without(found, group)).detach(), range(GROUPS))
    means = torch.stack(left).double().mean(dim=-1)
    return (GROUPS - 1) * means.var(dim=0, correction=0)


def others(count: int, group: int) -> Tensor:
    """Whether each of so many contexts is outside a group, (count,); each group has every 20th."""
    return torch.arange(count) % GROUPS != group


def without(found: Any, group: int) -> Any:
    """The same with one of the groups of contexts left out.

    In dictionaries, tuples and dataclasses every tensor is thinned out along its last axis, and
    `Contexts`, or whatever else has a `without`, in its own way; the rest stays as it is.
    """
    if hasattr(found, "without"):
        return found.without(group)
    if isinstance(found, Tensor):
        return found[..., others(found.shape[-1], group)]
    if isinstance(found, dict):
        return {key: without(value, group) for key, value in found.items()}
    if isinstance(found, tuple):
        parts = [without(value, group) for value in found]
        return found._make(parts) if hasattr(found, "_make") else tuple(parts)
    if is_dataclass(found):
        parts = {f.name: without(getattr(found, f.name), group) for f in fields(found)}
        return replace(found, **parts)
    return found


def geometric(values: Tensor) -> Estimate:
    """Geometric mean over training seeds (M,), with Student's interval for the logarithms.

    For positive values that differ by orders of magnitude from seed to seed.
    """
    return over_seeds(values.double().log()).exp()


def estimate(risks: Tensor, average: str = "trimmed") -> Estimate:
    """Average risk over contexts: over training seeds of a model's (M, B), else of (B,).

    The interval covers seeds and contexts. Risks are not negative, and neither are its ends.
    """
    over = AVERAGES[choose("average", average, AVERAGES)]

    def measure(found: Tensor) -> Tensor:
        return over(found.double(), dim=-1)

    variance = over_contexts(measure, risks if risks.ndim == 2 else risks[None]).item()
    if risks.ndim == 2:
        return over_seeds(measure(risks), variance=variance).within(low=0.0)
    value, half = measure(risks).item(), float(stdtrit(GROUPS - 1, 0.975)) * variance**0.5
    middle = risks.double().quantile(0.5).item()
    return Estimate(value, value - half, value + half, middle).within(low=0.0)


def reduction(risks: Tensor, than: Tensor, average: str = "trimmed") -> Tensor:
    """By what fraction the average risk is below another: 1 − E[risks] / E[than], (M,) or ().

    Both are per-context risks, (M, B) or (B,), on the same contexts.
    """
    over = AVERAGES[choose("average", average, AVERAGES)]
    return 1 - over(risks.double(), dim=-1) / over(than.double(), dim=-1)
