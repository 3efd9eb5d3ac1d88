"""Claims C1 and C2: the least risk of every degree, and how near networks come to it."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.models import WORKHORSE
from icl.experiments.the_ladder import (
    C1,
    C2,
    DEGREES,
    PLANS,
    REACH,
    dense,
    least,
    owed,
    reached,
    run,
    worth,
)
from icl.moments import mean_risk, optimum
from icl.one_layer import one_step_risk, optimal_one_step
from icl.polynomials import monomials
from icl.predictors import excess_risk
from icl.starts import fresh
from icl.tasks import SparseLinear


def test_dense_weights_have_the_mean_square_and_the_noise_of_sparse_ones():
    sparse = SparseLinear(4, 1, 12, 0.5, "gaussian")
    prior = SparseLinear(4, 4, 12, 0.5, "gaussian", prior=(0.25,) * 4)
    assert dense(sparse, 1) == pytest.approx(one_step_risk(prior, optimal_one_step(prior)))
    whole = SparseLinear(4, 4, 12, 0.5, "gaussian")
    for degree in (1, 2, 3):
        assert worth(whole, degree).abs() < 1e-9


def test_what_sparsity_is_worth_is_found_by_degrees():
    assert worth(WORKHORSE, 1).abs() < 1e-12  # second moments are all that degree 1 sees
    assert worth(WORKHORSE, 2) < 0.05 < worth(WORKHORSE, 3) < worth(WORKHORSE, 4)
    assert 0.5 < owed(WORKHORSE) < 1


def test_a_sparse_task_passes_and_one_where_sparsity_is_no_use_does_not():
    sparse = SparseLinear(8, 1, 32, 1.0, "sphere")
    assert C1.judge({"": sparse}).outcome == REPRODUCED
    assert C1.judge({"": SparseLinear(8, 4, 32, 0.3, "gaussian")}).outcome == NOT_REPRODUCED


def test_no_step_is_better_than_the_best_of_its_degree():
    risks = [least(WORKHORSE, degree) for degree in DEGREES]
    assert risks == sorted(risks, reverse=True)
    worse = optimum(SparseLinear(8, 2, 24, 1.0, "sphere"), monomials(3))
    assert mean_risk(WORKHORSE, worse) > risks[2]


def test_the_degree_of_so_many_layers():
    assert REACH == {1: 1, 2: 4}


def test_networks_are_measured_by_the_least_risk():
    floor = torch.full((40,), 0.2)
    risk = torch.tensor([[0.2], [0.25], [0.4]]) * torch.ones(40)
    torch.testing.assert_close(reached((risk, floor)), torch.tensor([1.0, 0.8, 0.5]))
    near = risk[:1] * torch.tensor([[1.0], [1.01], [1.02]])
    assert C2.judge({"": (near, floor)}, shared=True).outcome == REPRODUCED
    assert C2.judge({"": (2 * near, floor)}, shared=True).outcome == NOT_REPRODUCED


def test_random_networks_are_far_from_it():
    contexts = draw(WORKHORSE, 400, "evaluate", 1)
    untrained = fresh(PLANS["heads-8-2"].config, range(5))
    floor = excess_risk(optimum(WORKHORSE, monomials(4)), contexts)
    pair = excess_risk(untrained, contexts), floor
    assert C2.judge({"": pair}, shared=True).outcome == NOT_REPRODUCED


def test_the_chapter_runs_and_refuses_too_few_contexts():
    found = run(40, 1)
    assert found.verdicts.keys() == {"C1", "C2"}
    contexts = draw(WORKHORSE, 40, "evaluate", 1)
    for name, floor in found.floors.items():
        layers = len(PLANS[name].config.architecture.heads)
        best = optimum(WORKHORSE, monomials({1: 1, 2: 4}[layers]))
        torch.testing.assert_close(floor, excess_risk(best, contexts))
    with pytest.raises(Refused, match="contexts=1: allowed are whole numbers from 2 on"):
        run(1, 1)
