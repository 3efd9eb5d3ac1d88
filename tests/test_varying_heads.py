"""Claims A1 and A8: what more heads gain, and what models gain over what a statistician knows."""

import pytest
import torch

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.errors import Refused
from icl.experiments import varying_heads
from icl.experiments.varying_heads import (
    A1,
    A8,
    EQUALLY,
    LENGTHS,
    OTHER_N,
    PLACES,
    PLANS,
    advantage,
    by_doubling,
    gain,
)


def risks(*means):
    """Risks (M, 2) of seeds with these means."""
    return torch.tensor([[0.5 * mean, 1.5 * mean] for mean in means])


def ladder(*levels):
    """Risks by heads per layer, of three seeds each that differ a little."""
    return {
        h: risks(level, 1.01 * level, 0.99 * level)
        for h, level in zip((1, 2, 4, 8), levels, strict=True)
    }


def test_reductions_are_from_one_head_to_eight_and_by_every_doubling():
    found = {1: risks(4, 4), 2: risks(2, 4), 4: risks(1.5, 1), 8: risks(1, 2)}
    assert torch.allclose(gain(found), torch.tensor([0.75, 0.5]).double())
    doublings = {name: values.tolist() for name, values in by_doubling(found).items()}
    assert doublings["1 to 2 heads"] == pytest.approx([0.5, 0.0])
    assert doublings["2 to 4 heads"] == pytest.approx([0.25, 0.75])
    assert doublings["4 to 8 heads"] == pytest.approx([1 / 3, -1.0])


def test_the_advantage_is_the_fraction_below_the_baseline():
    naive = torch.tensor([1.0, 3.0])
    found = advantage((risks(1, 2, 3), naive))
    assert torch.allclose(found, torch.tensor([0.5, 0.0, -0.5]).double())


@pytest.mark.parametrize(
    ("levels", "outcomes"),
    [
        ((4, 3, 2, 1), (REPRODUCED, REPRODUCED)),
        ((1, 2, 3, 4), (NOT_REPRODUCED, NOT_REPRODUCED)),  # the wrong way round
        ((4, 2, 3, 1), (REPRODUCED, NOT_REPRODUCED)),  # two models swapped
        ((1, 1, 1, 1), (NOT_REPRODUCED, None)),  # heads that buy nothing
    ],
)
def test_more_heads_must_help_at_every_doubling(levels, outcomes):
    verdict = A1.judge({"a": ladder(*levels)})
    for criterion, outcome in zip(A1.criteria, outcomes, strict=True):
        decisions = {found.decision for found in verdict.of(criterion)}
        assert outcome is None or (
            outcome in decisions and (outcome != REPRODUCED or len(decisions) == 1)
        )
    assert (verdict.outcome == REPRODUCED) == (set(outcomes) == {REPRODUCED})


def test_only_a_model_clearly_below_the_baseline_beats_it():
    good, naive = risks(1, 1.02, 0.98), torch.tensor([1.0, 3.0])
    assert A8.judge({"a": (good, naive)}).outcome == REPRODUCED
    assert A8.judge({"a": (1.9 * good, naive)}).outcome == NOT_REPRODUCED
    useless = naive.expand(3, -1)
    assert A8.judge({"a": (useless, naive)}).outcome == NOT_REPRODUCED
    assert A8.judge({"a": (naive.expand(3, -1), good.mean(dim=0))}).outcome == NOT_REPRODUCED


def test_models_differ_in_what_their_place_says():
    for depth, names in EQUALLY.items():
        heads = {h: PLANS[name].config.architecture.heads for h, name in names.items()}
        assert heads == {h: (h,) * depth for h in (1, 2, 4, 8)}
    for (h, n), name in OTHER_N.items():
        assert PLANS[name].config.architecture.heads == (h,) * 3
        assert PLANS[name].config.task.n == n
    for panel, names in PLACES.items():
        tasks = {PLANS[name].config.task for name in names}
        assert [f"3 layers, d = {task.d}" for task in tasks] == [panel]
    used = {name for names in (*EQUALLY.values(), OTHER_N) for name in names.values()}
    assert used.union(*PLACES.values()) == set(PLANS)


def test_a_model_is_judged_at_the_length_it_was_trained_for():
    found = varying_heads.run(contexts=20, longest=32, seed=3)
    assert found.lengths == LENGTHS[:3]
    assert set(found.risks) == {
        (name, n)
        for name, plan in PLANS.items()
        for n in (
            found.lengths
            if any(name in names.values() for names in EQUALLY.values())
            else [plan.config.task.n]
        )
    }
    labels = {f.setting: f.estimate.value for f in found.verdicts["A8"].findings}
    for name in ("heads-8-n16", "workhorse-3", "flagship-1"):
        task = found.models[name].config.task
        expected = advantage((found.risks[name, task.n], found.comparisons[task].naive))
        assert labels[found.models[name].label] == pytest.approx(expected.mean().item())
    assert len(labels) == len(PLANS)


def test_values_that_are_not_allowed_are_refused():
    with pytest.raises(Refused, match="contexts=1: allowed are whole numbers from 2 on"):
        varying_heads.run(contexts=1, longest=256, seed=0)
    with pytest.raises(Refused, match="longest=31: allowed are whole numbers from 32 on"):
        varying_heads.run(contexts=2, longest=31, seed=0)
