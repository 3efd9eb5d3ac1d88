"""Claim A4p: probes of pruned models beside those of whole ones."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.models import sparse
from icl.experiments.p_probing import (
    A4P,
    CHOOSING,
    PRUNED,
    REVERSE,
    SETTINGS,
    WHOLE,
    ZERO,
    gained,
    kept,
    probed,
    prunings,
    run,
)
from icl.heads import importance
from icl.starts import fresh


class Drawn:
    """What of a checkpoint pruning looks at: three models with random weights."""

    def __init__(self, heads):
        self.config = sparse(1, 0.5, heads).config
        self.model = fresh(self.config, (0, 1, 2))


def risks(whole, pruned, seeds=3):
    """Probes' risks (M, L, B), level by level, where answering zero has risk 1."""
    around = torch.linspace(0.995, 1.005, seeds)[:, None, None]
    level = {k: torch.tensor(v)[:, None] * around * torch.ones(40) for k, v in
             {WHOLE: whole, PRUNED: pruned}.items()}  # fmt: skip
    return {ZERO: torch.ones(40)} | level


def test_gain_and_share_are_by_later_layer():
    found = risks([0.9, 0.5, 0.2], [0.9, 0.75, 0.6])
    assert {k: round(v[1].item(), 3) for k, v in gained(found).items()} == {
        "layer 2": 0.5,
        "layer 3": 0.8,
    }
    assert {k: round(v[1].item(), 3) for k, v in kept(found).items()} == {
        "layer 2": 0.5,
        "layer 3": 0.5,
    }


@pytest.mark.parametrize(
    ("whole", "pruned", "outcome"),
    [
        ([0.9, 0.5, 0.2], [0.9, 0.5, 0.2], REPRODUCED),
        ([0.9, 0.5, 0.2], [0.9, 0.5, 0.4], NOT_REPRODUCED),  # one layer is enough to fail
        ([0.9, 0.5, 0.2], [0.9, 0.7, 0.2], NOT_REPRODUCED),
        ([0.9, 1.1, 1.2], [0.9, 1.1, 1.2], NOT_REPRODUCED),  # nothing gained, all of it kept
    ],
)
def test_every_later_layer_must_keep_nine_tenths_of_a_gain(whole, pruned, outcome):
    assert A4P.judge({"a": risks(whole, pruned)}, shared=True).outcome == outcome


def test_pruned_models_keep_their_most_important_heads_in_the_layers_they_should():
    drawn = Drawn((4, 3, 3))
    found = prunings(drawn)
    assert found[PRUNED].config.heads == (4, 1, 1)
    assert found[REVERSE].config.heads == (1, 3, 3)
    heads = importance(drawn.model, draw(drawn.config.task, CHOOSING, "tune", 0))
    best = heads.rise[:, 1, :3].argmax(dim=1)
    kept, every = (found[name].blocks[1].query.weight for name in (PRUNED, WHOLE))
    assert torch.equal(kept[:, :, 0], every[torch.arange(3), :, best])
    assert found[WHOLE] is drawn.model, "the whole model stays whole"


def test_probes_of_a_model_that_loses_nothing_keep_everything():
    drawn = Drawn((3, 1, 1))
    found = prunings(drawn)
    measured = probed(found, drawn.config.task, 60, 0)
    assert torch.equal(measured[WHOLE], measured[PRUNED])
    assert measured[ZERO].shape == (60,)
    assert measured[WHOLE].shape == (3, 3, 60)


def test_contexts_have_the_noise_of_their_setting():
    assert {noise for *_, noise in SETTINGS.values()} >= {0.5, 1.0, 2.0}
    for setting, (*_, noise) in SETTINGS.items():
        assert f"noise {noise:g}" in setting


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
