"""Claim A4: what is left of pruned models, and heads removed one by one."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.comparison import Comparison
from icl.experiments.pruning import (
    A4,
    PAIRS,
    PLANS,
    PRUNED,
    Case,
    Risks,
    advantage_left,
    first_needed,
    named,
    prunings,
    removal,
    run,
)
from icl.files import load
from icl.heads import mask
from icl.predictors import excess_risk


def made(ridge=1.0, full=0.2, first=0.4, later=0.8):
    """Risks of three seeds that differ a little, on forty contexts that do not."""
    around = torch.tensor([[1.0], [1.01], [0.99]]) * torch.ones(40)
    return Risks(ridge * torch.ones(40), full * around, first * around, later * around)


def test_what_is_left_is_of_the_advantage_over_ridge():
    whole = torch.tensor([[0.2], [0.2]])
    first, later = torch.tensor([[0.2], [0.6]]), torch.tensor([[1.0], [1.2]])
    risks = Risks(torch.tensor([1.0]), whole, first, later)
    assert advantage_left(risks).tolist() == pytest.approx([1.0, 0.5])
    assert advantage_left(risks._replace(many_first=whole + 0.8)).tolist() == pytest.approx(
        [0, 0], abs=1e-6
    )
    assert (advantage_left(risks._replace(many_first=whole + 1)) < 0).all(), "worse than ridge"


def test_the_ratio_is_of_few_heads_in_the_first_layer_over_few_in_later_ones():
    risks = made(first=0.4, later=0.8)
    assert first_needed(risks).tolist() == pytest.approx([2.0] * 3)
    swapped = risks._replace(many_first=risks.many_later, many_later=risks.many_first)
    assert torch.allclose(first_needed(swapped), 1 / first_needed(risks))


def test_useless_or_swapped_models_turn_the_verdict():
    assert A4.judge({"m": made()}).outcome == REPRODUCED
    assert A4.judge({"m": made(first=0.99, later=5.0)}).outcome == NOT_REPRODUCED, "as ridge"
    assert A4.judge({"m": made(first=2.0, later=5.0)}).outcome == NOT_REPRODUCED, "zero answers"
    assert A4.judge({"m": made(first=0.5, later=0.4)}).outcome == NOT_REPRODUCED, "swapped"
    assert A4.judge({"m": made(first=0.4, later=0.42)}).outcome == NOT_REPRODUCED, "no need"
    untrained = made(full=1.2, first=1.2, later=5.0)  # all worse than ridge, and alike
    assert advantage_left(untrained).tolist() == pytest.approx([1.0] * 3)
    assert A4.judge({"m": untrained}, shared=True).outcome == NOT_REPRODUCED


def test_settings_take_their_risks_from_the_right_models(task):
    comparison = Comparison(draw(task, 2, "evaluate", 0), {"ridge": torch.tensor([0.5, 1.5])})
    names = (
        "all heads",
        "8-1-1",
        "8-1-1, fine-tuned",
        "8-1-1 random",
        "1-8-8",
        "1-8-8, fine-tuned",
    )
    risks = {name: torch.tensor([[i, i + 1.0]] * 2) for i, name in enumerate(names)}
    settings = Case(load("workhorse-3"), comparison, risks).settings
    assert list(settings) == ["8-8-8 heads, d = 8", "8-8-8 heads, d = 8, fine-tuned"]
    firsts = [[risk.flatten()[0] for risk in found] for found in settings.values()]
    assert firsts == [[0.5, 0.0, 1.0, 4.0], [0.5, 0.0, 2.0, 5.0]]


def test_prunings_keep_many_heads_in_the_first_layer_or_in_the_later_ones():
    names = [named(plan) for plan in prunings("workhorse-3").values()]
    assert names == ["8-1-1", "8-1-1 random", "1-8-8"]
    for name in PAIRS:
        whole = load(name).config
        for plan in prunings(name).values():
            assert plan.config.recipe.steps == whole.recipe.steps // 2
            assert plan.config.recipe.precision == ("double" if "5" in name else "single")
            assert plan.config.recipe.lr == whole.recipe.lr / 2
            assert plan.config.start.hash == whole.hash


def test_the_plans_are_those_of_the_models_that_ship():
    for name, plan in PLANS.items():
        assert load(name).config == plan.config, name
    assert {name for whole in PAIRS for name in prunings(whole)} == PRUNED.keys()


def test_a_single_head_model_has_its_whole_one_s_task_and_depth():
    for whole, single in PAIRS.items():
        one, many = load(single).config, load(whole).config
        assert one.task == many.task
        assert one.architecture.heads == tuple(1 for _ in many.architecture.heads)


def without(model, heads):
    """The model with (layer, head) pairs masked."""
    kept = [torch.ones(model.n_models, h, dtype=bool) for h in model.config.heads]
    for layer, head in heads:
        kept[layer][:, head] = False
    return mask(model, kept)


def test_removal_masks_the_lowest_scores_first(model, task):
    contexts = draw(task, 40, "tune", seed=0)
    scores = [
        torch.tensor([[5.0, 1.0, 4.0], [1.0, 2.0, 3.0]]),
        torch.tensor([[2.0], [6.0]]),
        torch.tensor([[6.0, 3.0], [5.0, 4.0]]),
    ]
    risks = removal(model, scores, contexts)
    assert risks.shape == (7, 2, 40)
    order = [[(0, 1), (1, 0), (2, 1), (0, 2), (0, 0), (2, 0)],
             [(0, 0), (0, 1), (0, 2), (2, 1), (2, 0), (1, 0)]]  # fmt: skip
    for m, heads in enumerate(order):
        for k in range(7):
            expected = excess_risk(without(model, heads[:k]), contexts)[m]
            assert torch.allclose(risks[k, m], expected)


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
