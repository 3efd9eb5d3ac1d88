"""Claims A10 and A11: what more heads in the first layer give, and how well they preprocess."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.constructions import gradient_descent, most_readable, preprocess_then_optimise
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.first_layer_heads import (
    A10,
    A11,
    FAMILIES,
    HEADS,
    PLANS,
    beyond,
    by_doubling,
    explained,
    reached,
    reading,
    run,
)
from icl.experiments.models import WORKHORSE
from icl.starts import fresh


def risks(*levels):
    """Risks (3, 4) of three seeds by heads 1, 2, 4, 8 and 16, near the levels."""
    around = torch.tensor([[1.0], [1.01], [0.99]]) * torch.ones(4)
    return {h: level * around for h, level in zip((1, 2, 4, 8, 16), levels, strict=True)}


def test_reductions_are_of_every_doubling_up_to_one_head_per_feature():
    found = risks(8, 4, 3, 1.5, 1.2)
    halves = {name: x[0].item() for name, x in by_doubling(found).items()}
    assert halves == {"1 to 2 heads": 0.5, "2 to 4 heads": 0.25, "4 to 8 heads": 0.5}
    assert beyond(found)[0].item() == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("levels", "outcome"),
    [
        ((8, 4, 3, 1.5, 1.5), REPRODUCED),
        ((8, 4, 3, 1.5, 1.0), NOT_REPRODUCED),  # more than one per feature pays as well
        ((8, 4, 5, 1.5, 1.5), NOT_REPRODUCED),  # one doubling harms
        ((1.5, 3, 4, 8, 8), NOT_REPRODUCED),  # the wrong way round
    ],
)
def test_the_verdict_needs_every_doubling_and_an_end_of_them(levels, outcome):
    assert A10.judge({"a": risks(*levels)}).outcome == outcome


def test_algorithm_1_can_be_read_whole_and_a_gradient_step_to_a_feature_s_share():
    contexts = draw(WORKHORSE, 200, "evaluate", seed=0)
    built = reading(preprocess_then_optimise(8, 2, 0.3), contexts)
    assert built.share == 1
    assert explained(built).item() == pytest.approx(1, abs=1e-9)
    assert reached(built._replace(share=0.5)).item() == pytest.approx(2, abs=1e-9)
    # A step adds <r̂, x_q> alone, of which each r̂_j x_qj is one part in eight.
    step = reading(gradient_descent(8, 2, 0.3), contexts)
    assert explained(step).item() == pytest.approx(1 / 8, abs=0.02)


def test_random_weights_do_not_pass():
    contexts = draw(WORKHORSE, 500, "evaluate", seed=0)
    plans = {name: plan for name, plan in PLANS.items() if plan.config.task.s == 2}
    found = {
        name: reading(fresh(plan.config, plan.seeds), contexts) for name, plan in plans.items()
    }
    assert A11.judge(found, shared=True).outcome == NOT_REPRODUCED


def test_a_head_leaves_two_features_readable_at_most():
    assert most_readable(8, 1, 9) == 0.25
    assert most_readable(8, 4, 9) == most_readable(8, 16, 9) == 1
    assert most_readable(8, 4, 1) == 0.5


def test_models_of_a_family_differ_in_the_first_layer_only():
    for family in FAMILIES.values():
        configs = [plan.config for _, plan in family.values()]
        assert [c.architecture.heads for c in configs] == [(h, 1, 1) for h in HEADS]
        assert len({(c.task, c.recipe) for c in configs}) == 1


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
