"""Claim A13: what a model gives on tasks that it was not trained on."""

import numpy as np
import pytest
import torch

from icl.claims import CONDITIONAL, NOT_REPRODUCED, REPRODUCED
from icl.errors import Refused
from icl.estimators import ESTIMATORS
from icl.experiments.models import MEMBERS
from icl.experiments.transfer import A13, UNLIKE, Family, Measured, measured, run, times
from icl.intervals import reduction
from icl.starts import fresh

TASKS = {s: plan.config.task for s, (_, plan) in MEMBERS["on a sphere"].items()}


def pair(worse):
    """Risks of three seeds so much, as a fraction, above those of models trained on the task."""
    native = torch.tensor([[1.0], [1.001], [0.999]]) * torch.ones(40)
    return (1 + worse) * native, native


def test_a_model_without_loss_elsewhere_speaks_against_the_claim():
    assert times(pair(0.3))[0].item() == pytest.approx(1.3)
    assert A13.judge({"a": pair(0.3)}, shared=True).outcome == REPRODUCED
    assert A13.judge({"a": pair(0.0)}, shared=True).outcome == NOT_REPRODUCED
    assert A13.judge({"a": pair(-0.3)}, shared=True).outcome == NOT_REPRODUCED
    assert A13.judge({"a": pair(0.3), "b": pair(0)}, shared=True).outcome == CONDITIONAL


def test_pairs_are_of_what_comes_from_elsewhere_and_what_was_trained_there():
    here, there = Measured({1: 1, 2: 2}, {}, 0), Measured({1: 3, 2: 4}, {}, 0)
    found = Family({1: here, 2: there}, {}).pairs()
    assert found == {"s = 2 to 1": (2, 1), "s = 1 to 2": (3, 4)}


def test_random_weights_do_not_pass():
    models = {s: fresh(plan.config, (0, 1, 2)) for s, (_, plan) in MEMBERS["Gaussian"].items()}
    tests = {s: measured(models, {}, task, 200, 0) for s, task in TASKS.items()}
    assert A13.judge(Family(tests, {}).pairs(), shared=True).outcome == NOT_REPRODUCED


def test_preprocessing_tuned_where_it_pays_is_tested_where_it_does_not():
    """With one non-zero weight it beats ridge by far, with all it loses; each tuned for one."""
    tuned = {s: ESTIMATORS["preprocessed GD"].tuned(TASKS[s]) for s in (1, 8)}
    sparse, dense = (measured({}, tuned, TASKS[s], 2000, 0) for s in (1, 8))
    assert reduction(sparse.tuned[1], sparse.ridge) > 0.5
    assert reduction(dense.tuned[1], dense.ridge) < -0.2
    assert reduction(dense.tuned[8], dense.ridge) > reduction(dense.tuned[1], dense.ridge)


def test_tasks_of_another_kind_are_as_large_as_one_weight():
    """E y² = 1 before noise, of which the best linear answer to a polynomial explains a half."""
    powers = {name: np.trace(task.omega @ task.sigma) for name, task in UNLIKE.items()}
    assert np.allclose([*powers.values()], [1, 1, 0.5, 0.5])
    assert {task.noise for task in [*UNLIKE.values(), *TASKS.values()]} == {0.5}


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
