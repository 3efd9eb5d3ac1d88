"""Models and baselines meet on the same contexts, which no baseline was tuned on."""

from dataclasses import replace

import pytest
import torch

from icl.architecture import Architecture
from icl.claims import NOT_REPRODUCED, REPRODUCED, Claim
from icl.constructions import gradient_descent
from icl.contexts import draw
from icl.estimators import Ridge, tuned_gd
from icl.experiments.comparison import (
    AT_OPTIMUM,
    BASELINES,
    LEAST_RISK,
    REFERENCES,
    STEPS,
    TAIL,
    WALKS,
    Comparison,
    algorithm,
    better_naive,
    closeness,
    gain,
    standings,
    tightness,
)
from icl.experiments.models import trained
from icl.intervals import estimate, reduction, trimmed
from icl.one_layer import distance, effective_step, excess, moments, one_step_risk, optimal_one_step
from icl.predictors import LinearPredictor, excess_risk
from icl.tasks import SparseLinear
from icl.transformer import build

TASK = SparseLinear(d=4, s=1, n=12, noise=0.5, values="signs")


class Halfway(LinearPredictor):
    """Half the true weights, in two models."""

    def weights(self, contexts):
        return contexts.w.expand(2, -1, -1) * torch.tensor([0.5, 1.0])[:, None, None]


def test_a_comparison_measures_all_on_its_own_contexts():
    comparison = Comparison.on(TASK, 200, seed=3)
    contexts = draw(TASK, 200, "evaluate", 3)
    assert torch.equal(comparison.contexts.gram, contexts.gram)
    assert torch.equal(comparison.risk(Ridge(0.1)), excess_risk(Ridge(0.1), contexts))
    assert comparison.baselines["Bayes"].mean() < comparison.baselines["ridge"].mean()
    for average in ("trimmed", "median"):
        shown = comparison.references("a panel", average)
        assert list(shown.label) == list(REFERENCES)
        assert set(shown.panel) == {"a panel"}
        assert list(shown.value) == [
            estimate(comparison.baselines[name], average).value for name in REFERENCES
        ]


def test_only_the_named_baselines_are_tuned_and_on_the_same_contexts():
    few, all_of_them = Comparison.on(TASK, 30, 3, names=["ridge"]), Comparison.on(TASK, 30, 3)
    assert few.baselines.keys() == {"ridge"}
    assert all_of_them.baselines.keys() == {*BASELINES}
    assert torch.equal(few.baselines["ridge"], all_of_them.baselines["ridge"])


def test_models_on_tokens_are_compared_on_queries():
    comparison = Comparison.on(TASK, 30, seed=3, queries=5)
    assert comparison.contexts.queries.shape == (30, 5, 4)
    model = build(Architecture(4, (1,), 3, 7, "softmax"), 2).initialise((0, 1), 1.0)
    assert comparison.risk(model).shape == (2, 30)


def test_the_advantage_is_over_the_better_of_gradient_descent_and_ridge():
    comparison = Comparison.on(TASK, 200, seed=3)
    worse = comparison.baselines["ridge"] + 1
    for better, other in (("GD", "ridge"), ("ridge", "GD")):
        made = Comparison(comparison.contexts, {better: worse - 0.5, other: worse})
        # |w|² = 1, so half of w has a risk of 1/4
        expected = torch.tensor([1 - 0.25 / trimmed(worse - 0.5, dim=0), 1.0]).double()
        assert torch.allclose(reduction(made.risk(Halfway()), made.naive), expected)


def test_the_better_naive_baseline_is_chosen_for_every_repetition():
    gd = torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 4.0]])
    ridge = torch.tensor([[4.0, 0.0, 6.0], [1.0, 1.0, 9.0]])
    never = torch.zeros(2, 3)  # better, and not naive
    found = better_naive({"ridge": ridge, "GD": gd, "Bayes": never})
    assert torch.equal(found, torch.stack([gd[0], ridge[1]]))
    for row in (0, 1):
        naive = better_naive({"GD": gd[row], "ridge": ridge[row], "Bayes": never[row]})
        assert torch.equal(naive, found[row])
    ours = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    expected = torch.tensor([0.5, 1 - 6 / 11]).double()
    assert torch.allclose(reduction(ours, found), expected)


def test_digits_count_from_the_optimum(task):
    contexts = draw(task, 1000, "evaluate", seed=0)
    layer = build(Architecture(4, heads=(2,), d_head=3, d_model=7), 2).initialise((5, 6), 1.0)
    gap = distance(effective_step(layer), optimal_one_step(task))
    assert torch.allclose(10 ** -closeness((layer, contexts)), gap)
    assert torch.allclose(10 ** -tightness((layer, contexts)), excess(layer, contexts))


@pytest.mark.parametrize("off", [0.1, -0.01])
def test_a_layer_whose_step_is_off_by_a_known_fraction(off):
    contexts = draw(TASK, 50, "evaluate", seed=0)
    best = optimal_one_step(TASK)
    layer = gradient_descent(4, 1, best[0, 0] * (1 + off))  # for this task Γ* is a multiple of I
    assert closeness((layer, contexts)).item() == pytest.approx(-torch.tensor(abs(off)).log10())
    _, second = moments(TASK)
    more = off**2 * (best @ second @ best).trace() / one_step_risk(TASK, best)
    assert 10 ** -tightness((layer, contexts)).item() == pytest.approx(more)


@pytest.mark.parametrize("criterion", [AT_OPTIMUM, LEAST_RISK])
def test_a_wrong_step_and_none_at_all_turn_the_verdict(criterion):
    contexts, rate = draw(TASK, 50, "evaluate", seed=0), optimal_one_step(TASK)[0, 0]

    def over_layers(factors):
        layers = [gradient_descent(4, 1, rate * factor) for factor in factors]
        return torch.cat([criterion.measure((layer, contexts)) for layer in layers])

    claim = Claim("X", "a paper", "a statement", (replace(criterion, measure=over_layers),))
    assert claim.judge({"a": (1.01, 0.99, 1.005)}).outcome == REPRODUCED
    for wrong in ((-1, -1.01, -0.99), (0, 0.01, -0.01), (0.5, 0.51, 0.49)):
        assert claim.judge({"a": wrong}).outcome == NOT_REPRODUCED


def test_standings_put_models_beside_the_baselines_of_their_own_task():
    models = trained(dict.fromkeys(("workhorse-3", "heads-1-3", "flagship-1")))
    comparisons = {
        name: Comparison.on(model.config.task, 50, seed=0) for name, model in models.items()
    }
    shown = standings(models, comparisons)
    small, large = comparisons["workhorse-3"], comparisons["flagship-1"]
    assert list(shown.predictor) == [
        *small.baselines, models["workhorse-3"].label, models["heads-1-3"].label,
        *large.baselines, models["flagship-1"].label,
    ]  # fmt: skip
    assert list(shown.d) == [8] * 6 + [16] * 5
    assert list(shown.n) == [32] * 6 + [48] * 5
    risks = shown["excess risk [95 %]"].map(lambda estimate: estimate.value)
    for row, bayes in ((4, 3), (5, 3), (10, 9)):
        assert shown["above Bayes"][row] == f"× {risks[row] / risks[bayes]:.2f}"
    assert set(shown["above Bayes"].drop([4, 5, 10])) == {""}
    for row, risk in ((0, small.baselines["GD"]), (4, small.risk(models["workhorse-3"].model))):
        assert shown["excess risk [95 %]"][row] == estimate(risk)


def test_the_tail_of_a_risk_is_told_by_its_largest_values_and_what_is_worse_than_zero():
    zero = torch.ones(200)
    risk = torch.cat([torch.full((190,), 0.5), torch.full((9,), 2.0), torch.tensor([1e6])])
    found = {name: measure(risk, zero).item() for name, measure in TAIL.items()}
    assert found == {
        "plain mean": pytest.approx((95 + 18 + 1e6) / 200),
        "median": 0.5,
        "worst context": 1e6,
        "contexts above zero's risk": pytest.approx(0.05),
    }
    assert estimate(risk).value == pytest.approx((95 + 16) / 198), "two of 200 decide nothing"


def test_zero_answers_zero():
    comparison = Comparison.on(TASK, 50, seed=3)
    assert torch.equal(comparison.zero, comparison.contexts.w.square().sum(dim=-1))


@pytest.mark.parametrize("label", WALKS)
def test_a_walk_has_the_best_rate_for_a_step_in_each_layer_but_the_first(label):
    one, two = (
        tuned_gd(TASK, steps=steps, kind=WALKS[label], relative=True).rate for steps in (1, 2)
    )
    assert one != two
    walk = algorithm(label, TASK, 2)
    assert (walk.rate, walk.steps) == (one, STEPS)


def test_what_eight_heads_gain_is_a_share_of_the_risk_of_one():
    risks = {8: torch.full((2, 40), 0.25), 1: torch.full((2, 40), 1.0)}
    torch.testing.assert_close(gain(risks), torch.full((2,), 0.75).double())
