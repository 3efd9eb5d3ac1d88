"""Claim B2: a step with the right preconditioner passes, a plain one and another one do not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from handmade import drawn, layers, near

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.preconditioned_gd import B2, lead, matrices, run
from icl.one_layer import optimal_one_step, rate
from icl.tasks import SparseLinear

SIGMA, OTHER = matrices(4, spread=9.0, seed=1)
PLAIN = SparseLinear(4, 4, 32, 1.0, "gaussian", SIGMA)
PRIOR = replace(PLAIN, prior=OTHER)


def judged(gamma, task):
    return B2.judge({"a": (layers(near(gamma)), draw(task, 200, "evaluate", seed=0))})


def towards_plain(task, share):
    """Γ that is so far on the way from Γ* to its nearest multiple of I."""
    best = torch.from_numpy(optimal_one_step(task))
    return best + share * (rate(best) * torch.eye(task.d) - best)


def test_the_lead_counts_from_the_optimum_and_from_the_nearest_plain_step():
    gammas = torch.stack([towards_plain(PLAIN, share) for share in (1 / 3, 1 / 2, 10 / 11)])
    found = lead((layers(gammas), draw(PLAIN, 10, "evaluate", seed=0)))
    assert torch.allclose(found, torch.tensor([2, 1, 0.1]).double().log10())


def test_the_verdict_turns_when_the_preconditioner_is_another():
    for task in (PLAIN, PRIOR):
        best = optimal_one_step(task)
        assert judged(best, task).outcome == REPRODUCED
        for other in (-best, towards_plain(task, 0.99), towards_plain(task, 1 / 3)):
            assert judged(other, task).outcome == NOT_REPRODUCED
        untrained = drawn(4), draw(task, 200, "evaluate", seed=0)
        assert B2.judge({"a": untrained}).outcome == NOT_REPRODUCED
    assert judged(optimal_one_step(PRIOR), PLAIN).outcome == NOT_REPRODUCED
    assert judged(optimal_one_step(PLAIN), PRIOR).outcome == NOT_REPRODUCED


def test_near_the_optimum_is_not_enough_where_a_plain_step_is_near_too():
    almost = replace(PLAIN, covariance=(1.0, 1.0, 1.0, 1.01))
    verdict = judged(towards_plain(almost, 0.99), almost)
    assert [f.decision for f in verdict.findings] == [REPRODUCED, NOT_REPRODUCED]
    assert verdict.outcome == NOT_REPRODUCED


def test_the_matrices_differ_in_their_directions_alone():
    values, others = np.linalg.eigvalsh(SIGMA), np.linalg.eigvalsh(OTHER)
    assert values == pytest.approx(np.geomspace(1 / 3, 3, 4))
    assert others == pytest.approx(values)
    assert np.abs(SIGMA - OTHER).max() > 0.1
    assert np.array_equal(SIGMA, matrices(4, 9.0, 1)[0])
    assert not np.allclose(SIGMA, matrices(4, 9.0, 2)[0])


def test_a_run_has_a_pair_for_every_prior():
    found = run(features=2, examples=8, noise=1.0, spread=4.0, steps=100, contexts=2, seed=1)
    assert (
        list(found.pairs)
        == list(found.verdicts["B2"].settings)
        == ["Ω = Σ⁻¹", "Ω = I", "another Ω"]
    )
    first, second, third = found.pairs.values()
    sigma = first.contexts.task.sigma
    assert np.allclose(first.contexts.task.omega, first.inverse)
    assert np.allclose(first.inverse @ sigma, np.eye(2))
    assert np.array_equal(second.contexts.task.omega, np.eye(2))
    assert not np.allclose(third.contexts.task.omega, sigma)
    assert np.allclose(first.best, 8 / (8 + 4) * first.inverse)


@pytest.mark.parametrize(
    ("name", "value"), [("features", 1), ("spread", 1.0), ("steps", 99), ("contexts", 1)]
)
def test_parameters_out_of_range_are_refused(name, value):
    usual = {"features": 2, "examples": 8, "noise": 1.0, "spread": 4.0, "steps": 100}
    usual |= {"contexts": 2, "seed": 1}
    with pytest.raises(Refused, match=f"{name}={value}"):
        run(**usual | {name: value})
