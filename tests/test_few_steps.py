"""Networks described as a few steps: statistics, and what they say of other networks."""

from dataclasses import replace

import pytest
import torch

from icl import iterations
from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.descent import GradientDescent
from icl.errors import Refused
from icl.experiments import few_steps
from icl.experiments.comparison import WALKS, algorithm
from icl.experiments.few_steps import C5, ITERATION, Description, describe, explained, lead, run
from icl.experiments.models import EQUAL, WORKHORSE
from icl.iterations import TERMS, Iteration, fit
from icl.starts import fresh

FAST = replace(iterations.FITTING, steps=200)


def described(left, *away):
    """Answers of squared length 1 in every context."""
    ones = torch.ones(2, 400, dtype=torch.float64)
    walks = {walk: ones * x for walk, x in zip(WALKS, away, strict=True)}
    return Description(ones, {ITERATION: ones * left} | walks | {"Bayes": ones * 1e-3})


def test_the_statistics_and_their_sides():
    found = described(0.02, 0.1, 0.06, 0.08)
    torch.testing.assert_close(explained(found), torch.tensor([0.98, 0.98]).double())
    torch.testing.assert_close(lead(found), torch.tensor([3.0, 3.0]).double())  # Bayes is no walk
    assert C5.judge({"a": found}, shared=True).outcome == REPRODUCED
    for other in (described(0.06, 0.1, 0.1, 0.1), described(0.02, 0.1, 0.01, 0.1)):
        assert C5.judge({"a": other}, shared=True).outcome == NOT_REPRODUCED


def test_a_single_context_does_not_rule():
    found = described(0.02, 0.1, 0.06, 0.08)
    found.away[ITERATION][:, 3] = 1e12
    assert (explained(found) > 0.979).all()


class Net:
    """Stands for a checkpoint whose models answer with given weights."""

    def __init__(self, depth, answers):
        self.config = EQUAL[f"heads-1-{depth}"].config
        self.model = self
        self.weights = answers


def test_of_a_walk_the_nearest_step_counts_for_each_model():
    contexts = draw(WORKHORSE, 200, "tune", 5)
    walk = [*algorithm("GD", WORKHORSE, 3).iterates(contexts)]
    answers = torch.stack([walk[4], walk[9] + 0.1])
    coefficients = torch.zeros(2, 1, len(TERMS), dtype=torch.float64)
    found = describe(Net(3, lambda _: answers), Iteration(coefficients), contexts)
    torch.testing.assert_close(found.away["GD"][0], torch.zeros(200).double())
    assert found.away["GD"][1].mean().item() == pytest.approx(8 * 0.01, rel=0.2)
    torch.testing.assert_close(found.away[ITERATION], found.size)  # the iteration answers 0


def test_a_random_network_is_no_few_steps(monkeypatch):
    monkeypatch.setattr(iterations, "FITTING", FAST)
    contexts, plan = draw(WORKHORSE, 2048, "tune", 6), EQUAL["workhorse-3"]
    model = fresh(replace(plan.config, recipe=replace(plan.config.recipe, init_scale=0.8)), (0, 1))
    answers = model.weights(contexts).detach().double()
    found = describe(Net(3, lambda _: answers), fit(answers, contexts, 3), contexts)
    assert (explained(found) < 0.5).all()


def test_steps_of_gradient_descent_are_found_by_the_iteration(monkeypatch):
    monkeypatch.setattr(iterations, "FITTING", FAST)
    contexts = draw(WORKHORSE, 2048, "tune", 7)
    answers = GradientDescent(3, 0.5).weights(contexts)[None].expand(2, -1, -1)
    found = describe(Net(3, lambda _: answers), fit(answers, contexts, 3), contexts)
    assert (explained(found) > 0.99).all()


def test_the_chapter_runs_and_refuses_too_few_contexts(monkeypatch):
    monkeypatch.setattr(iterations, "FITTING", replace(FAST, steps=3))
    monkeypatch.setattr(few_steps, "FITTED", 512)
    found = run(40, 1)
    label = "8-8-8 heads, d = 8"
    shares = found.descriptions[label].shares()
    assert found.verdicts["C5"].at(label).estimate.value == pytest.approx(
        1 - shares[ITERATION].mean().item()
    )
    sizes = found.sizes(label)
    assert list(sizes.index) == list(TERMS)
    assert list(sizes.columns) == [1, 2, 3]
    assert (sizes.loc[["u", "u³", "u² g"], 1] == 0).all()  # the first step starts from 0
    with pytest.raises(Refused, match="contexts=19: allowed are whole numbers from 20 on"):
        run(19, 1)
