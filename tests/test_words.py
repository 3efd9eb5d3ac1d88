"""Numbers as a person would say them."""

import math

import pytest

from icl.intervals import Estimate, Exact
from icl.words import ERROR, FALL, GROWTH, LOWER, PERCENT, PLAIN, POWER, TIMES


@pytest.mark.parametrize(
    ("unit", "value", "said"),
    [
        (PLAIN, 0.12345, "0.123"),
        (PLAIN, -0.5, "−0.5"),
        (PLAIN, -1e-15, "0"),
        (PLAIN, -4.2e-5, "−4.2·10⁻⁵"),
        (PLAIN, 1234.5, "1,234"),
        (PLAIN, 3e24, "more than 10⁶"),
        (PLAIN, math.nan, "undefined"),
        (PERCENT, 0.376, "38 %"),
        (PERCENT, 0.0964, "9.6 %"),
        (PERCENT, -0.03, "−3 %"),
        (PERCENT, -6e-9, "0 %"),
        (PERCENT, 3e24, "more than 10⁶ %"),
        (LOWER, 0.376, "38 % lower"),
        (LOWER, -0.12, "12 % higher"),
        (GROWTH, 1.04, "4 %"),
        (FALL, -0.3, "30 %"),
        (TIMES, 2.346, "2.35 times"),
        (ERROR, 1.905, "1.2 %"),
        (ERROR, 3.5, "0.032 %"),
        (ERROR, 14.5, "3·10⁻¹⁵"),
        (POWER, 1.5, "31.6"),
    ],
)
def test_a_number_is_said_in_its_unit(unit, value, said):
    assert unit.show(value) == said


def test_what_falls_where_a_statistic_rises_needs_less_and_turns_its_interval():
    assert PERCENT.needed(0.1) == "more than 10 %"
    assert FALL.needed(-0.1) == "less than 10 %"
    assert ERROR.needed(12) == "less than 1·10⁻¹²"
    assert PERCENT.estimate(Estimate(0.2, 0.1, 0.3, 0.2)) == "20 % [10 % to 30 %]"
    assert FALL.estimate(Estimate(-0.2, -0.3, -0.1, -0.2)) == "20 % [10 % to 30 %]"
    assert PERCENT.estimate(Exact(*4 * (0.2,))) == "20 %"
