"""How a statistic is said to a reader: in percent, in times, as an error."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from icl.intervals import LARGEST, Estimate, Exact

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Unit:
    """What a number is in words; `falls` if what is said falls where the statistic rises."""

    show: Callable[[float], str]
    falls: bool = False

    def needed(self, threshold: float) -> str:
        """What a statistic above the threshold is in these words."""
        return f"{'less' if self.falls else 'more'} than {self.show(threshold)}"

    def estimate(self, found: Estimate) -> str:
        """The value with its interval, if it is not exact."""
        if isinstance(found, Exact):
            return self.show(found.value)
        ends = (found.high, found.low) if self.falls else (found.low, found.high)
        return f"{self.show(found.value)} [{' to '.join(map(self.show, ends))}]"


def plain(x: float) -> str:
    """Three digits, or a bound."""
    if math.isnan(x):
        return "undefined"
    if abs(x) > LARGEST:
        return f"more than {'−' * (x < 0)}10⁶"
    text = f"{x:,.0f}" if abs(x) >= 100 else _raised(f"{x:.3g}")
    return text.replace("-", "−") if round(x, 12) else "0"


def percent(x: float) -> str:
    """A fraction in percent: whole ones, or tenths where it is less than ten."""
    x *= 100
    return f"{plain(round(x, 0 if abs(x) >= 10 else 1))} %"


def lower(x: float) -> str:
    """A fraction by which something is lower, or higher."""
    return f"{percent(abs(x))} {'higher' if x < 0 else 'lower'}"


def times(x: float) -> str:
    """A factor."""
    return f"{plain(x)} times"


def error(digits: float) -> str:
    """A relative error of so many correct digits."""
    if digits < 4:
        return f"{plain(float(f'{100 * 10**-digits:.2g}'))} %"
    return _raised(f"{10**-digits:.0e}")


def _raised(text: str) -> str:
    """1.2e-05 as 1.2·10⁻⁵."""
    factor, _, power = text.partition("e")
    return f"{factor}·10{str(int(power)).translate(RAISED)}" if power else text


PLAIN, TIMES = Unit(plain), Unit(times)
PERCENT, LOWER = Unit(percent), Unit(lower)
GROWTH = Unit(lambda x: percent(x - 1))  # of a factor
FALL = Unit(lambda x: percent(-x), falls=True)  # of a fraction that was negated
ERROR = Unit(error, falls=True)  # of correct digits
POWER = Unit(lambda x: plain(10**x))
