"""Claim A18: what heads cost, whether decay merges those that share a step, and how fast."""

from dataclasses import replace

import pytest
import torch

from icl.architecture import Architecture
from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.constructions import blank
from icl.contexts import draw
from icl.costs import effective, leading, merge, merging_law
from icl.descent import PreprocessedGD
from icl.errors import Refused
from icl.estimators import HEAVY_TAILED
from icl.experiments import why_one_head
from icl.experiments.why_one_head import (
    A18,
    JUDGED,
    PLANS,
    SPLIT,
    STARTS,
    by_decay,
    steps_of,
)
from icl.one_layer import optimal_one_step
from icl.predictors import excess_risk
from icl.starts import begin, fresh

SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1])
SEEDS = range(5)


def model(name, start=begin):
    config = PLANS[name].config
    if start is fresh:
        return fresh(replace(config, split=None), SEEDS)
    return begin(config, SEEDS).model


def test_decay_merges_heads_that_share_a_step_into_one_at_its_least_cost():
    cost = merge(SHARES, decay=0.02, rate=0.5, steps=400)
    torch.testing.assert_close(cost[0] / 4, SHARES.sqrt().double(), rtol=1e-4, atol=0)
    assert cost[0].sum() > 1.9 * 4
    assert cost[-1].sum().item() == pytest.approx(4, rel=0.04)  # decay leaves it a little short
    assert cost[-1, 0] > 0.99 * cost[-1].sum()
    assert (cost.sum(dim=1).diff() < 1e-9).all()


def test_without_decay_they_stay_as_they_are():
    cost = merge(SHARES, decay=0.0, rate=0.5, steps=100)
    torch.testing.assert_close(cost[-1], cost[0])


def test_the_law_says_how_fast():
    decay, rate, steps = 1e-2, 0.5, 400
    cost = merge(SHARES, decay, rate, steps)
    law = merging_law(cost[0], rate * decay, steps)
    torch.testing.assert_close(cost / cost.sum(dim=1, keepdim=True), law, rtol=0, atol=0.02)


def test_effective_heads_and_one_term_s_part():
    costs = torch.tensor([[1.0, 1, 1, 1], [2, 0, 0, 0], [1, 1, 0, 0]])
    assert effective(costs).tolist() == [4, 1, 2]
    start = leading(model("split-844-0"))
    torch.testing.assert_close(start[0], torch.full((5,), 1 / 8).double())
    for part in start[1:]:  # all heads of a layer do the same
        torch.testing.assert_close(part, torch.ones(5).double())
    drawn = leading(model("split-844-0", fresh))
    assert max(part.max() for part in drawn) < 0.9


def test_the_leading_share_is_of_squares():
    """Two heads that read and write apart, one three times as strong."""
    model = blank(Architecture(2, (2,), 1, 4))
    query, key, value, output = (maps.weight for maps in model.blocks[0].maps())
    for head, strength in enumerate((3.0, 1.0)):
        for weight in (query, key, value):
            weight[:, head, head, 0] = 1
        output[:, head, 0, -1] = strength
    torch.testing.assert_close(leading(model)[0], torch.tensor([0.9]).double())


def judged(with_decay, without):
    return A18.judge({"": (steps_of(with_decay), steps_of(without))})


def only_first(found):
    """The model with all heads but the first of later layers nearly gone."""
    for block in found.blocks[1:]:
        block.output.weight.data[:, 1:] *= 1e-4
    return found


def test_the_claim_fails_on_random_weights_and_on_split_steps_that_were_not_trained():
    start = model("split-844-0")
    assert set(steps_of(start)) == {"layer 2", "layer 3"}
    assert set(steps_of(model("split-4-0"))) == {"layer 1"}
    for found in (start, model("split-844-0", fresh)):
        assert judged(found, start).outcome == NOT_REPRODUCED
    merged = only_first(model("split-844-0"))
    assert judged(merged, start).outcome == REPRODUCED
    assert judged(merged, merged).outcome != REPRODUCED  # decay did nothing
    assert judged(start, merged).outcome == NOT_REPRODUCED


def test_the_models_differ_in_their_decay_alone():
    for start in STARTS:
        names = by_decay(start)
        assert set(JUDGED) < set(names)
        for decay, name in names.items():
            config = SPLIT[name].config
            assert config.recipe.weight_decay == decay
            without = replace(config, recipe=replace(config.recipe, weight_decay=0.0))
            assert without == SPLIT[names[0.0]].config


def test_steps_have_the_rate_that_is_best():
    sparse, one = STARTS.values()
    contexts, rate = draw(sparse[0], HEAVY_TAILED, "tune", 0), sparse[2].step_rate
    risks = [
        excess_risk(PreprocessedGD(2, r), contexts).mean() for r in (rate / 1.1, rate, 1.1 * rate)
    ]
    assert min(risks) == risks[1] < 0.4
    assert one[2].step_rate == pytest.approx(optimal_one_step(one[0])[0, 0])


def test_the_chapter_at_its_smallest():
    found = why_one_head.run(contexts=16, seed=1)
    assert found.verdicts["A18"].claim == A18
    assert len(found.verdicts["A18"].settings) == len(STARTS) * len(JUDGED)
    assert "effective number" in found.finding
    assert found.layers().count("\n") == 1 + sum(
        len(plan.config.architecture.heads) for plan in PLANS.values()
    )
    assert found.numbers().count("\n") == 1 + 4 + len(SPLIT)


def test_too_few_contexts_are_refused():
    with pytest.raises(Refused, match="contexts=4"):
        why_one_head.run(contexts=4, seed=1)


def test_the_effective_number_is_of_squares():
    assert effective(torch.tensor([[3.0, 1.0], [1.0, 1.0]])).tolist() == pytest.approx([1.6, 2.0])
