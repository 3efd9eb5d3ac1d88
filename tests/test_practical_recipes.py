"""Claims A2p and A3p: heads of ReLU and softmax transformers, with one thing changed at a time."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.errors import Refused
from icl.experiments.comparison import Comparison
from icl.experiments.measures import Profile, profiles
from icl.experiments.models import PRACTICAL, SPARSEST
from icl.experiments.practical_recipes import A2P, A3P, PLANS, QUERIES, SINGLE, VARIED, run
from icl.heads import Importance
from icl.starts import fresh


def profile(*layers, risk=0.5):
    """Heads that raise a risk of 1 so much, layer by layer; the bar is 1."""
    around = torch.tensor([[0.99], [1.0], [1.01]])
    masked = torch.tensor(layers)[None, :, :, None].expand(3, -1, -1, 40) + 1.0
    heads = Importance(torch.ones(3, 40), masked)
    return Profile(heads, risk * around.expand(3, 40), torch.ones(40))


def test_the_paper_s_pattern_passes_and_its_reverse_does_not():
    even, one = [1.0, 1, 1, 1], [9.0, 0, 1, 0]
    for claim in (A2P, A3P):
        assert claim.judge({"a": profile(even, one, one)}, shared=True).outcome == REPRODUCED
        assert claim.judge({"a": profile(one, even, even)}, shared=True).outcome == NOT_REPRODUCED
    poor = profile(even, one, one, risk=1.1)
    assert A3P.judge({"a": poor}, shared=True).outcome == NOT_REPRODUCED


def test_random_weights_do_not_pass():
    on = Comparison.on(SPARSEST, 64, 0, QUERIES)
    name = "4 heads"
    model = fresh(VARIED[name][1].config, (0, 1, 2))
    found = profiles({name: model}, fresh(PLANS[SINGLE].config, (0, 1)), on)
    assert A2P.judge(found, shared=True).outcome != REPRODUCED
    assert A3P.judge(found, shared=True).outcome == NOT_REPRODUCED


def test_all_learn_the_sparsest_task_and_neighbours_differ_in_what_is_said():
    configs = {what: plan.config for what, (_, plan) in VARIED.items()}
    assert {c.task for c in configs.values()} == {SPARSEST}
    assert VARIED["8 heads"][1] == PRACTICAL["relu-norm-k16"]
    for heads in ("4 heads", "8 heads"):
        used, plain = (
            configs[heads],
            configs[f"{heads}, Adam"],
        )
        assert used.architecture == plain.architecture
        assert (used.recipe.optimiser, plain.recipe.optimiser) == ("adamw", "adam")
        assert (used.recipe.lengths, plain.recipe.lengths) == ((16, 48), ())
        same = ("steps", "batch", "lr", "init_scale", "warmup")
        assert all(getattr(used.recipe, k) == getattr(plain.recipe, k) for k in same)
    small = configs["4 heads, Adam, scale 0.3"].recipe
    assert small.init_scale == 0.3
    assert len({c.hash for c in configs.values()}) == len(VARIED)


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
