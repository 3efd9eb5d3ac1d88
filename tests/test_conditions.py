"""Claims A2c and A3c: what is said of heads in every cell of a grid of tasks."""

import matplotlib.pyplot as plt
import pytest
import torch

from icl.claims import CONDITIONAL, NOT_REPRODUCED, REPRODUCED
from icl.errors import Refused
from icl.experiments.comparison import Comparison
from icl.experiments.conditions import A2C, A3C, GLANCE, PLANS, Result, measured, run
from icl.experiments.measures import Profile
from icl.experiments.models import GRID, KINDS, NOISES, SPARSITIES, cell, sparse
from icl.heads import Importance, importance
from icl.predictors import excess_risk
from icl.starts import fresh

EVEN, ONE = [1.0, 1, 1, 1], [9.0, 0, 1, 0]


def made(*layers, risk=0.5, seeds=3):
    """A cell whose heads raise a risk of 1 so much, layer by layer, and whose bar is 1."""
    around = torch.linspace(0.99, 1.01, seeds)[:, None]
    masked = torch.tensor(layers)[None, :, :, None].expand(seeds, -1, -1, 40) + 1.0
    heads = Importance(torch.ones(seeds, 40), masked)
    return Profile(heads, risk * around * torch.ones(40), torch.ones(40))


def test_the_paper_s_pattern_passes_and_each_part_of_it_is_needed():
    assert A2C.judge({"a": made(EVEN, ONE, ONE)}, shared=True).outcome == REPRODUCED
    assert A2C.judge({"a": made(ONE, EVEN, EVEN)}, shared=True).outcome == NOT_REPRODUCED
    assert A3C.judge({"a": made(EVEN, ONE, ONE)}, shared=True).outcome == REPRODUCED
    assert A3C.judge({"a": made(EVEN, ONE, EVEN)}, shared=True).outcome == NOT_REPRODUCED
    assert A3C.judge({"a": made(ONE, ONE, ONE)}, shared=True).outcome != REPRODUCED


def test_one_head_is_of_no_interest_in_a_model_that_is_no_better_than_ridge():
    good, poor = made(EVEN, ONE, ONE, risk=0.9), made(EVEN, ONE, ONE, risk=1.1)
    assert A3C.judge({"a": poor}, shared=True).outcome == NOT_REPRODUCED
    verdict = A3C.judge({"a": good, "b": poor}, shared=True)
    assert verdict.outcome == CONDITIONAL
    assert verdict.where == "a"


def test_random_weights_pass_nowhere():
    plan = sparse(1, 0.5, (8, 8, 8))
    on = Comparison.on(plan.config.task, 400, 0)
    model = fresh(plan.config, plan.seeds)
    found = Profile(importance(model, on.contexts), on.risk(model), on.baselines["ridge"])
    assert A2C.judge({"a": found}, shared=True).outcome != REPRODUCED
    assert A3C.judge({"a": found}, shared=True).outcome == NOT_REPRODUCED


def test_a_cell_is_measured_beside_ridge_and_one_head_whichever_is_better():
    """The bar is the seeds' mean risk of one head, or ridge's risk, on the same contexts."""
    s, noise = 1, 0.5
    plans = dict(cell(s, noise, kind) for kind in KINDS)
    models = {name: fresh(plan.config, (0, 1)) for name, plan in plans.items()}
    on = Comparison.on(sparse(s, noise, (1,)).config.task, 40, 0)
    found = measured(models, on)
    assert set(found) == set(KINDS) - {"1-1-1"}
    for one in found.values():  # random weights: ridge is better than one head
        assert torch.equal(one.bar, on.baselines["ridge"])
        assert one.heads.full.shape[-1] == 10
        assert one.risk.shape == (2, 40)
    better = on.baselines | {"ridge": 100 + on.baselines["ridge"]}
    found = measured(models, Comparison(on.contexts, better))
    alone = models[cell(s, noise, "1-1-1")[0]]
    expected = excess_risk(alone, on.contexts).mean(dim=0)
    assert torch.allclose(found["8-8-8"].bar, expected)


def test_the_frame_says_what_each_cell_shows_in_percent():
    cells = {"a": made(EVEN, ONE, EVEN)}
    result = Result({}, cells, {"a": (1, 0.5, "8-8-8")})
    (row,) = result.frame().to_dict("records")
    gain, rise, top, contrast = list(row.values())[3:]
    assert (row["s"], row["noise"], row["model"]) == (1, 0.5, "8-8-8")
    assert gain == pytest.approx(50)
    assert rise == pytest.approx(100)
    assert top == pytest.approx(100 * (0.9 + 0.25) / 2)
    assert 0 < contrast < 100


def test_at_a_glance_stands_the_paper_s_picture_beside_the_measured_ones():
    heads = [[3.0] * 8, [0.5] + [0.05] * 7, [0.0] * 8]
    Result({}, dict.fromkeys(GLANCE.values(), made(*heads)), {}).plot_glance()
    paper, *panels = plt.gcf().axes
    texts = [text.get_text() for text in paper.texts]
    assert texts == ["8 of 8 matter", "1 of 8 matter", "1 of 8 matter"]
    for axes in panels:
        assert [text.get_text() for text in axes.texts] == [
            "8 of 8 matter", "1 of 8 matter", "0 of 8 matter"
        ]  # fmt: skip
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == pytest.approx([1.0] * 8 + [0.5] + [0.05] * 7 + [0.0] * 8)
        assert "gains 50 %" in axes.get_title(loc="left")
    plt.close()


def test_the_grid_varies_what_it_says_and_nothing_else():
    assert {(s, noise) for s, noise, _ in GRID} == {(s, x) for s in SPARSITIES for x in NOISES}
    for (s, noise, kind), (name, plan) in GRID.items():
        task, recipe = plan.config.task, plan.config.recipe
        assert (task.s, task.noise, task.n, task.d) == (s, noise, 32, 8)
        assert (plan.config.architecture.heads, recipe.weight_decay) == KINDS[kind]
        assert PLANS[name] == plan
    assert len({plan.config.hash for plan in PLANS.values()}) == len(PLANS)


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
