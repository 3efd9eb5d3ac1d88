"""Claims A2r and A3r: what is said of heads, with one setting of a training changed at a time."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.errors import Refused
from icl.experiments import recipes
from icl.experiments.comparison import Comparison
from icl.experiments.measures import Profile, profiles
from icl.experiments.models import ALONE, BASE, GRID, KINDS, varied
from icl.experiments.recipes import A2R, A3R, SINGLE, VARIED, measured, run
from icl.heads import Importance
from icl.predictors import excess_risk
from icl.recipe import Recipe
from icl.starts import fresh


def profile(*layers, risk=0.5):
    """Heads that raise a risk of 1 so much, layer by layer; the bar is 1."""
    around = torch.tensor([[0.99], [1.0], [1.01]])
    masked = torch.tensor(layers)[None, :, :, None].expand(3, -1, -1, 40) + 1.0
    return Profile(
        Importance(torch.ones(3, 40), masked), risk * around.expand(3, 40), torch.ones(40)
    )


def test_the_claims_ask_for_what_those_of_the_grid_ask_for():
    even, one = [1.0, 1, 1, 1], [9.0, 0, 1, 0]
    pattern, reverse = profile(even, one, one), profile(one, even, even)
    for claim in (A2R, A3R):
        assert claim.judge({"a": pattern}, shared=True).outcome == REPRODUCED
        assert claim.judge({"a": reverse}, shared=True).outcome == NOT_REPRODUCED
    poor = profile(even, one, one, risk=1.1)
    assert A3R.judge({"a": poor}, shared=True).outcome == NOT_REPRODUCED


def test_the_base_is_a_model_of_the_grid_and_one_setting_or_two_are_changed():
    assert VARIED["as in the grid"] == GRID[1, 0.5, "8-8-8"]
    assert varied().config == GRID[1, 0.5, "8-8-8"][1].config
    assert varied(values="gaussian").config == VARIED["Gaussian weight"][1].config
    named = {"SGD": 3, "AdamW, decay 0.3": 2, "24,000 steps, decay": 2}
    named |= {"16 features, 64 examples": 2, "16 features, 64 examples, decay": 3}
    for what, (_, plan) in VARIED.items():
        changed = [
            getattr(now, name) != value
            for now, before in ((plan.config.task, BASE.task), (plan.config.recipe, BASE.recipe))
            for name, value in vars(before).items()
        ]
        heads = plan.config.architecture.heads != BASE.architecture.heads
        expected = named.get(what, 0 if what == "as in the grid" else 1)
        assert sum(changed) + heads == expected, what


def test_what_is_no_setting_is_refused_where_it_is_typed():
    assert varied(n=16).config.task.n == 16
    assert varied(steps=3).config.recipe == Recipe(**vars(BASE.recipe) | {"steps": 3})
    with pytest.raises(Refused, match="stepz"):
        varied(stepz=3)


def test_every_task_has_one_head_per_layer_to_be_compared_with():
    tasks = {plan.config.task for _, plan in VARIED.values()}
    assert {plan.config.task for plan in SINGLE.values()} == tasks
    for plan in SINGLE.values():
        assert plan.config.architecture.heads == KINDS[ALONE][0]
        assert plan.config.recipe == BASE.recipe


def test_profiles_are_measured_on_contexts_of_their_own_task(monkeypatch):
    few = ("as in the grid", "64 examples", "5 layers")
    monkeypatch.setattr(recipes, "VARIED", {what: VARIED[what] for what in few})
    singles = {name: plan for name, plan in SINGLE.items() if plan.config.task.n != 16}
    plans = dict(recipes.VARIED.values()) | singles
    models = {name: fresh(plan.config, (0, 1)) for name, plan in plans.items()}
    monkeypatch.setattr(recipes, "SINGLE", singles)
    found = measured(models, 40, 0)
    assert tuple(found) == few
    for what, one in found.items():
        name, plan = recipes.VARIED[what]
        on = Comparison.on(plan.config.task, 40, 0)
        expected = excess_risk(fresh(plan.config, (0, 1)), on.contexts)
        assert torch.allclose(one.risk, expected, rtol=1e-4)
        assert one.heads.full.shape == (2, 10), name
    assert found["5 layers"].heads.full.dtype == torch.float64  # answers can leave float32


def test_the_bar_is_ridge_or_one_head_whichever_is_better():
    plan = GRID[1, 0.5, ALONE][1]
    alone = fresh(plan.config, (0, 1))
    on = Comparison.on(plan.config.task, 40, 0)
    many = {"a": fresh(BASE, (0, 1))}
    assert torch.equal(profiles(many, alone, on)["a"].bar, on.baselines["ridge"])
    worse = Comparison(on.contexts, on.baselines | {"ridge": 100 + on.baselines["ridge"]})
    expected = excess_risk(alone, on.contexts).mean(dim=0)
    assert torch.allclose(profiles(many, alone, worse)["a"].bar, expected)


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
