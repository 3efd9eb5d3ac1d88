"""Claim B1: layers whose step is known pass or fail, and the search finds the best one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from handmade import drawn, layers, near

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Failed, Refused
from icl.experiments import one_step_gd
from icl.experiments.comparison import AT_OPTIMUM, LEAST_RISK
from icl.experiments.models import DENSE
from icl.experiments.one_step_gd import (
    B1,
    BESIDE,
    LINEAR,
    compare_lengths,
    minimise,
    rest_share,
    run,
    search,
    varied,
)
from icl.one_layer import distance, effective_step, optimal_one_step
from icl.tasks import Nonlinear, SparseLinear

CONTEXTS = draw(DENSE, 500, "evaluate", seed=0)
BEST = optimal_one_step(DENSE)  # 32/42 of the identity


def outcome(layer):
    return B1.judge({"a": (layer, CONTEXTS)}, shared=True).outcome


def test_a_layer_made_by_hand_answers_what_it_should():
    gammas = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    layer = layers(gammas, constant=0.3)
    assert torch.allclose(effective_step(layer), gammas)
    expected = CONTEXTS.xy @ gammas.mT
    expected[..., 0] += 0.3
    assert torch.allclose(layer.weights(CONTEXTS), expected)


def test_both_statistics_count_the_digits_from_the_optimum():
    found = layers(near(BEST, (1e-2, 1e-3))), CONTEXTS
    assert AT_OPTIMUM.measure(found).tolist() == pytest.approx([2, 3])
    # Of Γ = (1 + ε) η I the risk is d (1 − η + ε² η), with 1 − η = 10/42.
    least = torch.tensor([1e-4, 1e-6]) * 32 / 10
    assert torch.allclose(LEAST_RISK.measure(found), -least.double().log10())
    shifted = layers(near(BEST, (1e-2, 1e-3)), constant=0.1), CONTEXTS
    assert torch.equal(AT_OPTIMUM.measure(shifted), AT_OPTIMUM.measure(found))
    more = least + 0.1**2 / (8 * 10 / 42)
    assert torch.allclose(LEAST_RISK.measure(shifted), -more.double().log10())


def test_the_verdict_turns_for_every_other_step():
    assert outcome(layers(near(BEST))) == REPRODUCED
    swapped = optimal_one_step(replace(DENSE, n=8))
    for other in (-BEST, np.eye(8), swapped, np.roll(BEST, 1, axis=0)):
        assert outcome(layers(near(other))) == NOT_REPRODUCED
    assert outcome(drawn(8)) == NOT_REPRODUCED


def test_the_verdict_turns_where_the_step_is_right_and_something_is_added():
    spoilt = layers(near(BEST), constant=0.1)
    verdict = B1.judge({"a": (spoilt, CONTEXTS)})
    assert [f.decision for f in verdict.findings] == [REPRODUCED, NOT_REPRODUCED]
    assert verdict.outcome == NOT_REPRODUCED


def test_intervals_cover_the_contexts_where_a_statistic_depends_on_them():
    found = drawn(8), CONTEXTS
    for criterion, more in ((AT_OPTIMUM, False), (LEAST_RISK, True)):
        (_, alone, _), (_, shared, _) = (next(criterion.estimates(found, x)) for x in (False, True))
        assert shared.value == alone.value
        assert (shared.low < alone.low) == (shared.high > alone.high) == more
    # Groups left out in turn, as by hand: what varies is the mean square of the rest.
    means = [LEAST_RISK.measure((found[0], CONTEXTS.without(g))).mean() for g in range(20)]
    variance = 19 * torch.stack(means).var(correction=0).item()
    student = 4.303  # of two degrees
    half = ((alone.high - alone.value) ** 2 + student**2 * variance) ** 0.5
    assert shared.high - shared.value == pytest.approx(half, rel=1e-3)


def test_the_share_of_the_rest_is_of_the_step():
    layer = layers(torch.stack([torch.eye(8), 2 * torch.eye(8)]).double(), constant=0.3)
    share = 0.3**2 / CONTEXTS.xy.square().sum(dim=-1).mean().item()
    assert rest_share((layer, CONTEXTS)).tolist() == pytest.approx([share, share / 4])


def test_layers_are_grouped_by_what_sets_them_apart():
    groups = [varied(plan.config.task) for plan in LINEAR.values()]
    usual = "n = 32, d = 8, noise 1"
    assert varied(LINEAR[BESIDE].config.task) == usual
    counts = {group: groups.count(group) for group in groups}
    assert counts == {"another n": 4, usual: 1, "another d": 3, "another noise": 3}


def test_layers_at_other_lengths_are_bounded_by_the_best_step_there():
    found = compare_lengths(64, seed=1).set_index(["n", "label"]).value.unstack()
    assert list(found.index) == [8, 16, 32, 64, 128]
    linear = found["1 head, d = 8, dense"]
    assert linear[32] == pytest.approx(found["one step (Γ*)"][32], rel=0.01)
    assert (found["ridge"] < found["one step (Γ*)"]).all()
    assert (linear < found["1 softmax head, d = 8, dense"]).all()


def test_the_restricted_layer_arrives_at_the_optimum_from_random_starts(task):
    full = replace(task, prior=(3.0, 1.0, 0.5, 0.2))
    for each in (task, full, SparseLinear(8, 8, 32, 1.0), Nonlinear(8, 32, 0.5, "sine")):
        best = optimal_one_step(each)
        for seed in range(5):
            assert distance(torch.from_numpy(minimise(each, seed)), best) < 1e-6


def test_a_search_that_ends_elsewhere_fails(monkeypatch):
    assert search(SparseLinear(2, 2, 8)).max() < 1e-6
    monkeypatch.setattr(one_step_gd, "minimise", lambda task, seed: (1 + 1e-5) * BEST)
    with pytest.raises(Failed, match=r"ends at a distance of 1\.0e-05"):
        search(DENSE)


@pytest.mark.parametrize(("name", "value"), [("contexts", 15), ("steps", 99), ("noise", -1.0)])
def test_parameters_out_of_range_are_refused(name, value):
    usual = {"features": 2, "examples": 8, "noise": 1.0, "steps": 100, "contexts": 16, "seed": 1}
    with pytest.raises(Refused, match=f"{name}={value}"):
        run(**usual | {name: value})
