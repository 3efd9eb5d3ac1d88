"""Claims on transformers nearer to practice, and what their answers are compared with."""

from dataclasses import replace

import pytest
import torch

from icl.architecture import Architecture
from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import Ridge
from icl.experiments.comparison import Comparison
from icl.experiments.measures import likeness, rivals
from icl.experiments.models import PRACTICAL, SPARSEST
from icl.experiments.practical_transformers import A2T, A3T, A8T, NAMES, PLANS, run
from icl.heads import Importance, importance
from icl.intervals import without
from icl.starts import fresh
from icl.transformer import build

EVEN, ONE = [1.0, 1, 1, 1], [9.0, 0, 1, 0]


def made(*layers, seeds=3):
    masked = torch.tensor(layers)[None, :, :, None].expand(seeds, -1, -1, 40) + 1.0
    return Importance(torch.ones(seeds, 40), masked)


def test_the_paper_s_pattern_passes_and_its_mirror_image_does_not():
    paper, mirror = {"a": made(EVEN, ONE, ONE)}, {"a": made(ONE, EVEN, EVEN)}
    assert [c.judge(paper, shared=True).outcome for c in (A2T, A3T)] == [REPRODUCED] * 2
    assert [c.judge(mirror, shared=True).outcome for c in (A2T, A3T)] == [NOT_REPRODUCED] * 2


def test_models_with_random_weights_pass_nothing():
    plan = PLANS["softmax-norm"]
    small = replace(plan.config.architecture, heads=(2, 2, 2), d_model=16)
    model = fresh(replace(plan.config, architecture=small), (0, 1, 2))
    on = Comparison.on(SPARSEST, 100, 0, queries=4)
    found = {"a": importance(model, on.contexts)}
    assert A2T.judge(found, shared=True).outcome != REPRODUCED
    pair = {"a": (on.risk(model), on.naive)}
    assert A8T.judge(pair, shared=True).outcome != REPRODUCED


def test_an_estimator_explains_itself_and_its_opposite_does_not():
    contexts = draw(SPARSEST, 200, "evaluate", 0, queries=12)
    ridge = Ridge(0.1)
    weights = ridge.weights(contexts)
    found = likeness(ridge, contexts, {"same": weights, "opposite": -weights, "half": weights / 2})
    by_hand = replace(
        found, size=found.size[None], away={k: v[None] for k, v in found.away.items()}
    )
    assert by_hand.explained("same").item() == pytest.approx(1)
    assert by_hand.explained("opposite").item() == pytest.approx(-3)
    assert by_hand.explained("half").item() == pytest.approx(0.75)


def test_linear_models_are_read_exactly_and_others_through_their_answers():
    contexts = draw(SPARSEST, 60, "evaluate", 0, queries=12)
    linear = build(Architecture(8, (2, 1), 9, 16), 2).initialise((0, 1), 1.0).double()
    others = rivals(contexts, ("ridge",))
    exact = likeness(linear, contexts, others)
    implied = likeness(linear.on_tokens(), contexts, others)
    assert torch.allclose(exact.size, implied.size)
    assert torch.allclose(exact.away["ridge"], implied.away["ridge"])
    assert exact.nonlinear.max() == 0
    assert implied.nonlinear.max() < 1e-12
    curved = build(Architecture(8, (2, 1), 9, 16, "softmax"), 2).initialise((0, 1), 1.0)
    assert likeness(curved, contexts, others).nonlinear.mean() > 0


def test_likeness_is_thinned_with_its_contexts():
    contexts = draw(SPARSEST, 40, "evaluate", 0)
    found = likeness(Ridge(0.1), contexts, rivals(contexts, ("GD",)))
    assert without(found, 0).size.shape == without(found, 0).away["GD"].shape == (38,)


def test_every_kind_has_a_name_and_the_task_it_is_judged_on():
    assert set(NAMES) == set(PLANS) == set(PRACTICAL)
    for plan in PLANS.values():
        assert plan.config.task == SPARSEST
        model = plan.config.architecture
        assert model.d_head * model.heads[0] >= model.d_model
        assert model.norm


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=8"):
        run(contexts=8, seed=1)
