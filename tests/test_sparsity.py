"""Claim A12: what sparsity is worth, one non-zero weight after another."""

from dataclasses import replace

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import ESTIMATORS
from icl.experiments.models import MEMBERS
from icl.experiments.sparsity import A12, PLANS, falls, left, run, sparsest
from icl.predictors import excess_risk
from icl.starts import fresh

SOME = torch.ones(40)


def gains(*values):
    """Risks of three seeds that are so much below a ridge risk of 1, by sparsity."""
    around = torch.tensor([[1.0], [1.001], [0.999]])
    known = zip(range(1, 1 + len(values)), values, strict=True)
    return {s: ((1 - value) * around * SOME, SOME) for s, value in known}


def test_gains_are_measured_where_they_should_be():
    pairs = gains(0.8, 0.5, 0.1)
    assert sparsest(pairs)[0].item() == pytest.approx(0.8)
    assert {k: round(x[0].item(), 6) for k, x in falls(pairs).items()} == {
        "s = 1 to 2": 0.3,
        "s = 2 to 3": 0.4,
    }
    assert left(pairs)[0].item() == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ((0.8, 0.5, 0.3, 0.0), REPRODUCED),
        ((0.8, 0.3, 0.5, 0.0), NOT_REPRODUCED),  # denser, and more is gained
        ((0.8, 0.6, 0.4, 0.2), NOT_REPRODUCED),  # something is left
        ((0.0, -0.1, -0.2, -0.3), NOT_REPRODUCED),  # nothing to lose
    ],
)
def test_the_gain_must_be_there_fall_and_end(values, outcome):
    assert A12.judge({"a": gains(*values)}, shared=True).outcome == outcome


def test_random_weights_do_not_pass():
    found = {}
    for s, (_, plan) in MEMBERS["Gaussian"].items():
        contexts = draw(plan.config.task, 200, "evaluate", 0)
        ridge = ESTIMATORS["ridge"].tuned(plan.config.task)
        random = fresh(plan.config, (0, 1, 2))
        found[s] = excess_risk(random, contexts), excess_risk(ridge, contexts)
    assert A12.judge({"a": found}, shared=True).outcome == NOT_REPRODUCED


def test_models_differ_in_sparsity_and_in_what_weights_are_only():
    for found in MEMBERS.values():
        assert [plan.config.task.s for _, plan in found.values()] == [1, 2, 3, 4, 6, 8]
        assert len({replace(plan.config.task, s=1) for _, plan in found.values()}) == 1
    configs = [plan.config for plan in PLANS.values()]
    assert len({(c.architecture, c.recipe) for c in configs}) == 1
    assert len({c.task for c in configs}) == 12


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
