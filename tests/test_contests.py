"""Comparisons: repetitions are independent, and statistics are what they say."""

import pytest
import torch

from icl import contests, tables
from icl.contexts import draw
from icl.estimators import OLS, tuned_ridge
from icl.risk import excess_risk
from icl.tasks import SparseLinear

TASK = SparseLinear(4, 1, 12, 1.0, "sphere")


def test_a_repetition_tunes_and_judges_on_its_own_seed():
    risks = contests.repeat(contests.rivals, TASK, 50, (3, 8))
    for row, seed in zip(risks["tuned ridge"], (3, 8), strict=True):
        contexts = draw(TASK, 50, "evaluate", seed)
        assert torch.equal(row, excess_risk(tuned_ridge(TASK, seed), contexts))
    assert {tuple(r.shape) for r in risks.values()} == {(2, 50)}


def test_the_reduction_is_below_the_better_baseline_of_each_repetition():
    risks = {
        "tuned GD": torch.tensor([[1.0, 3.0], [4.0, 4.0]]),
        "tuned ridge": torch.tensor([[4.0, 6.0], [1.0, 1.0]]),
        contests.PREPROCESSED: torch.tensor([[1.0, 1.0], [2.0, 2.0]]),
    }
    assert torch.equal(contests.advantage(risks), torch.tensor([0.5, -1.0]))
    # Paired differences −1 and 1, over two repetitions.
    shown = tables.standoffs({"a": risks}).replace("\N{NO-BREAK SPACE}", " ")
    assert "| `a` | relative | 1.500, 1.000 | 1.5, 1.000 | 0.000 [−12.706, 12.706] |" in shown


def test_a_slope_is_the_exponent():
    seeds = torch.tensor([1.0, 2.0, 5.0])[:, None]
    found = {n: {"x": seeds * n**-1.5 * torch.ones(3, 4)} for n in (10, 20, 80)}
    slope = contests.slopes(found)["x"]
    assert (slope.mean, slope.low, slope.high) == pytest.approx((-1.5,) * 3, abs=1e-5)
    (points,) = contests.lines(found).values()
    assert [x for x, _ in points] == [10, 20, 80]


def test_all_contenders_answer_and_bayes_is_the_last_and_the_floor():
    risks = contests.evaluate(contests.contenders, TASK, 1000, (0,))
    means = [r.mean().item() for r in risks.values()]
    assert min(means) == means[-1]
    assert list(risks)[-1] == "Bayes"
    assert means[0] == pytest.approx(1.0)


def test_groups_by_norm_are_in_order_and_keep_contexts_with_their_weights():
    task = SparseLinear(4, 2, 12)
    risks = contests.evaluate(lambda *_: {"x": OLS(), "zero": contests.Zero()}, task, 400, (1, 2))
    points = contests.by_norm(risks, task, (1, 2), bins=4)
    norms = [x for x, _ in points["zero"]]
    assert norms == sorted(norms)
    for norm, estimate in points["zero"][:-1]:
        assert estimate.median == pytest.approx(norm**2, rel=0.01)


def test_more_steps_are_no_worse_where_rates_are_tuned():
    found = contests.by_steps(TASK, 500, (1, 2), (1, 4))
    for name in ("tuned GD", contests.PREPROCESSED):
        (_, one), (_, four) = found[name]
        assert four.mean < one.mean
