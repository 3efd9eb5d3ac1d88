"""Claim B3: the step at the rate of the family's formula passes, at any other rate it does not."""

import numpy as np
import pytest
from handmade import drawn, layers, near

from icl.claims import NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.nonlinear_responses import B3, PLANS, has_linear_part, run
from icl.one_layer import optimal_one_step

CONTEXTS = {
    plan.config.task.family: draw(plan.config.task, 200, "evaluate", seed=0)
    for plan in PLANS.values()
}
BEST = {family: optimal_one_step(contexts.task) for family, contexts in CONTEXTS.items()}


def outcome(layer, family):
    return B3.judge({family: (layer, CONTEXTS[family])}, shared=True).outcome


def test_only_families_with_a_linear_part_are_judged():
    found = {family for family in CONTEXTS if has_linear_part((None, CONTEXTS[family]))}
    assert set(CONTEXTS) - found == {"hermite-2", "hermite-3"}
    for family, best in BEST.items():
        assert (np.abs(best).max() > 0.1) == (family in found)


@pytest.mark.parametrize("family", ["relu-network", "sign", "sine", "hermite-1-2", "hermite-1-3"])
def test_the_verdict_turns_for_every_other_step(family):
    best = BEST[family]
    assert outcome(layers(near(best)), family) == REPRODUCED
    swapped = BEST["sign" if family == "sine" else "sine"]
    as_if_linear = 32 / (32 + 8 + 1 + 0.5**2) * np.eye(8)
    for other in (-best, np.roll(best, 1, axis=0), swapped, as_if_linear):
        assert outcome(layers(near(other)), family) == NOT_REPRODUCED
    assert outcome(layers(near(best), constant=0.1), family) == NOT_REPRODUCED
    assert outcome(drawn(8), family) == NOT_REPRODUCED


def test_a_run_judges_what_has_a_linear_part_and_keeps_the_others():
    found = run(contexts=2, seed=1)
    assert set(found.linear) == set(found.verdicts["B3"].settings)
    assert list(found.linear) + list(found.unrelated) == list(CONTEXTS)
    assert list(found.unrelated) == ["hermite-2", "hermite-3"]


def test_too_few_contexts_are_refused():
    with pytest.raises(Refused, match="contexts=1"):
        run(contexts=1, seed=1)
