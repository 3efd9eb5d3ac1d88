"""Claims A12 and A13: what sparsity is worth, and what a model gives where it was not trained."""

import numpy as np
import pytest
import torch

from icl.claims import CONDITIONAL, NOT_REPRODUCED, REPRODUCED
from icl.errors import Refused
from icl.estimators import ESTIMATORS
from icl.experiments.sparsity import (
    A12,
    A13,
    NAMES,
    PLANS,
    TASKS,
    UNLIKE,
    falls,
    left,
    loss,
    measured,
    run,
    sparsest,
)
from icl.intervals import reduction
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


def test_a_model_without_loss_elsewhere_speaks_against_the_claim():
    worse, same = gains(-0.3)[1], gains(0.0)[1]
    assert loss(worse)[0].item() == pytest.approx(0.3)
    assert A13.judge({"a": worse}, shared=True).outcome == REPRODUCED
    assert A13.judge({"a": same}, shared=True).outcome == NOT_REPRODUCED
    assert A13.judge({"a": worse, "b": same}, shared=True).outcome == CONDITIONAL


def test_random_weights_pass_neither():
    models = {s: fresh(PLANS[name].config, (0, 1, 2)) for s, name in NAMES.items()}
    found = {s: measured(models, {}, task, 200, 0) for s, task in TASKS.items()}
    native = {s: (x.risks[s], x.ridge) for s, x in found.items()}
    assert A12.judge({"a": native}, shared=True).outcome == NOT_REPRODUCED
    foreign = {str(s): (x.risks[s], x.risks[3]) for s, x in found.items() if s != 3}
    assert A13.judge(foreign, shared=True).outcome == NOT_REPRODUCED


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


def test_models_differ_in_the_sparsity_of_training_only():
    assert [task.s for task in TASKS.values()] == list(NAMES) == [1, 2, 3, 4, 6, 8]
    configs = [plan.config for plan in PLANS.values()]
    assert len({(c.architecture, c.recipe) for c in configs}) == 1


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
