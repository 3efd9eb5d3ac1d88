"""Claim A3e: what the heads of models do along their training."""

import pytest
import torch

from icl.checkpoints import with_weights
from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.emergence import A3E, WATCHED, Course, fades, first, middle, needed, run
from icl.experiments.models import SNAPSHOTS
from icl.files import load
from icl.heads import Importance
from icl.intervals import trimmed
from icl.predictors import excess_risk
from icl.training import coarse

EVEN, ONE = [1.0, 1, 1, 1], [9.0, 0, 1, 0]
EARLY, MIDDLE, LATE = (EVEN, EVEN, EVEN), (EVEN, ONE, ONE), (EVEN, EVEN, EVEN)


def heads(layers, seeds=3):
    """Heads that raise a risk of 1 so much, layer by layer."""
    masked = torch.tensor(layers)[None, :, :, None].expand(seeds, -1, -1, 40) + 1.0
    return Importance(torch.ones(seeds, 40), masked)


def made(levels, looks, seeds=3):
    """A course with these risks, where ridge has a risk of 1."""
    risks = torch.tensor(levels)[:, None, None].expand(-1, seeds, 40)
    return Course(
        tuple(range(len(levels))), risks, {"ridge": torch.ones(40)}, tuple(map(heads, looks)), ()
    )


def passed(levels):
    return middle(torch.tensor(levels)[:, None, None].expand(-1, 3, 40), torch.ones(40))


def test_the_middle_is_from_ridge_until_halfway_to_the_end():
    found = passed([2.0, 0.9, 0.6, 0.4, 0.25])
    # The geometric mean of 1 and 0.25 is 0.5.
    assert found.T.tolist() == [[False, True, True, False, False]] * 3


def test_a_model_that_jumps_past_the_middle_is_looked_at_once():
    found = passed([2.0, 0.3, 0.25])
    assert found.T.tolist() == [[False, True, False]] * 3


def test_a_risk_that_rises_again_stays_counted():
    found = passed([2.0, 0.9, 1.1, 0.8, 0.25])
    assert found.T.tolist() == [[False, True, True, True, False]] * 3


@pytest.mark.parametrize(
    ("looks", "outcome"),
    [
        ((EARLY, MIDDLE, LATE), REPRODUCED),
        ((EARLY, EARLY, LATE), NOT_REPRODUCED),  # never
        ((MIDDLE, EARLY, LATE), NOT_REPRODUCED),  # too early
        ((EARLY, MIDDLE, MIDDLE), NOT_REPRODUCED),  # it stays
        ((EARLY, (ONE, ONE, ONE), LATE), NOT_REPRODUCED),  # the first layer is no more even
    ],
)
def test_the_pattern_must_be_there_in_the_middle_and_fade(looks, outcome):
    course = made([2.0, 0.9, 0.25], looks)
    verdict = A3E.judge({"a": course}, shared=True)
    decided = verdict.outcome == REPRODUCED
    assert decided == (outcome == REPRODUCED)


def test_what_fades_is_by_layer():
    found = fades(made([2.0, 0.9, 0.25], (EARLY, (EVEN, ONE, EVEN), LATE)))
    assert found["layer 2"][0].item() == pytest.approx(0.9 - 0.25)
    assert found["layer 3"][0].item() == pytest.approx(0.0)


def test_heads_are_needed_from_the_look_on_after_which_none_can_be_spared():
    spared = ([1.0, 0.05, 1, 1], ONE, ONE)
    looks = [(EVEN, ONE, ONE), spared, (EVEN, ONE, ONE), (EVEN, EVEN, spared[0])]
    found = needed(tuple(map(heads, looks)))
    assert found.T.tolist() == [[False, False, True, True]] * 3


def test_what_the_median_seed_reaches_first_counts():
    steps = torch.tensor([10, 20, 40])
    reached = torch.tensor([[0, 0, 1], [0, 1, 0], [1, 1, 0]]).bool()  # a column per seed
    assert first(reached, steps) == "20"
    assert first(reached[:1], steps[:1]) == "never"


def test_watched_models_keep_their_weights_before_the_end():
    for _, plan in WATCHED.values():
        assert plan.snapshots in (SNAPSHOTS, SNAPSHOTS[12::4])
        assert max(SNAPSHOTS) < plan.config.recipe.steps


def test_coarse_weights_change_a_finished_model_s_risk_by_less_than_two_per_cent():
    """As the chapter says of its looks."""
    for file, plan in WATCHED.values():
        if plan.config.architecture.collapses:
            model = load(file)
            weights = {k: coarse(v) for k, v in model.model.state_dict().items()}
            contexts = draw(plan.config.task, 1024, "tune", 0)
            exact, rounded = (
                trimmed(excess_risk(one, contexts).double(), dim=-1)
                for one in (model.model, with_weights(model.config, model.seeds, weights))
            )
            assert not torch.equal(exact, rounded)
            assert ((rounded / exact - 1).abs() < 0.02).all()


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
