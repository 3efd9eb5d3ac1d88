"""Claim A9: the share of the heads' advantage that given preprocessing has as well."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.experiments.preprocessing import A9, PLANS, SETTINGS, bought


def risks(level):
    """Risks (3, 2) of three seeds with a mean near `level`, a median half of it."""
    return torch.tensor([[0.5, 0.5, 2.0], [0.51, 0.5, 2.0], [0.5, 0.49, 2.0]]).double() * level


def test_the_share_is_of_the_advantage_over_one_head():
    for level, share in ((3, 0.5), (4, 0.0), (1, 1.5)):
        found = bought((risks(4), risks(level), risks(2)))
        assert found.tolist() == pytest.approx([share] * 3, abs=1e-12)
    rare = risks(3)
    rare[:, 2] = 100  # one context rules the mean and not the median
    assert (bought((risks(4), rare, risks(2))) < 0).all()
    assert bought((risks(4), rare, risks(2)), "median") == pytest.approx([0.5] * 3)


def test_the_verdict_turns_when_preprocessing_buys_nothing_or_models_are_swapped():
    raw, given, many = risks(4), risks(2.2), risks(2)
    assert A9.judge({"a": (raw, given, many)}).outcome == REPRODUCED
    assert A9.judge({"a": (raw, raw, many)}).outcome == NOT_REPRODUCED
    assert A9.judge({"a": (given, raw, many)}).outcome == NOT_REPRODUCED
    random = risks(4), risks(4.4), risks(4.4)  # worse than one head, and alike
    assert bought(random).tolist() == pytest.approx([1.0] * 3)
    assert A9.judge({"a": random}).outcome == NOT_REPRODUCED


def test_every_setting_compares_models_that_are_planned():
    assert {name for names in SETTINGS.values() for name in names} == set(PLANS)
