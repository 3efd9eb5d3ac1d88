"""Signed permutations, and what an average over them does to answers and risks."""

import pytest
import torch

from icl.contexts import draw
from icl.descent import GradientDescent, ReweightedGD
from icl.errors import Refused
from icl.experiments.models import EQUAL
from icl.predictors import excess_risk
from icl.starts import fresh
from icl.symmetry import Symmetrised, averages, moved, signed_permutations
from icl.tasks import SparseLinear

PLAN = EQUAL["heads-8-2"]
CONTEXTS = draw(PLAN.config.task, 50, "evaluate", 1)


def test_they_are_signed_permutations_and_the_first_changes_nothing():
    found = signed_permutations(6, 200, seed=3)
    torch.testing.assert_close(found[0], torch.eye(6).double())
    torch.testing.assert_close(found @ found.mT, torch.eye(6).double().expand(200, 6, 6))
    assert set(found.unique().tolist()) == {-1.0, 0.0, 1.0}
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(6, 6).double(), rtol=0, atol=0.12)
    with pytest.raises(Refused, match="count=0"):
        signed_permutations(6, 0)


def test_moved_contexts_are_those_of_moved_tokens():
    contexts = draw(PLAN.config.task, 5, "evaluate", 2, queries=3)
    g = signed_permutations(8, 2)[1]
    found = moved(contexts, g)
    gram = found.tokens.mT @ found.tokens / contexts.task.n
    torch.testing.assert_close(found.gram, gram)
    torch.testing.assert_close(
        torch.einsum("bqd,bd->bq", found.queries, found.w),
        torch.einsum("bqd,bd->bq", contexts.queries, contexts.w),
    )
    steps = GradientDescent(3, 0.4)
    torch.testing.assert_close(steps.weights(found), steps.weights(contexts) @ g.T)
    torch.testing.assert_close(excess_risk(steps, found), excess_risk(steps, contexts))


def test_equivariant_answers_stay_as_they_are():
    steps = GradientDescent(3, 0.4)
    torch.testing.assert_close(Symmetrised(steps, 5).weights(CONTEXTS), steps.weights(CONTEXTS))


def test_an_average_has_at_most_the_average_of_the_risks():
    """In every context (Jensen), and it is the average of the parts."""
    model = fresh(PLAN.config, range(2))
    group = signed_permutations(8, 4)
    parts = [excess_risk(model, moved(CONTEXTS, g)).double() for g in group]
    average = excess_risk(Symmetrised(model, 4), CONTEXTS)
    assert average.shape == (2, 50)
    assert (average <= torch.stack(parts).mean(dim=0) + 1e-6).all()
    torch.testing.assert_close(
        Symmetrised(model, 1).weights(CONTEXTS), model.weights(CONTEXTS).double()
    )
    both = averages(model, CONTEXTS, (1, 4))
    assert tuple(both) == (1, 4)
    torch.testing.assert_close(both[4], Symmetrised(model, 4).weights(CONTEXTS))


def test_an_average_over_few_is_one_of_few_beside_one_of_many():
    contexts = draw(SparseLinear(4, 2, 8), 10, "evaluate", 0)
    both = averages(ReweightedGD(3, 0.1), contexts, (2, 4))
    assert torch.allclose(both[2], averages(ReweightedGD(3, 0.1), contexts, (2,))[2])
    assert not torch.allclose(both[2], both[4] / 2, atol=1e-3)
