"""Every kind of predictor takes part in every analysis, on the same contexts."""

import pytest
import torch

from icl.architecture import Architecture
from icl.blocks import ATTENTION
from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import Ridge
from icl.experiments.comparison import Comparison
from icl.heads import importance, most_important, prune
from icl.predictors import excess_risk, mean_error, squared_error
from icl.probing import implied_weights, probe_risks
from icl.tasks import SparseLinear
from icl.transformer import build

TASK = SparseLinear(d=4, s=1, n=12, noise=0.5, values="signs")


@pytest.mark.parametrize("whole", [False, True], ids=["attention only", "norm and MLP"])
@pytest.mark.parametrize("attention", ATTENTION)
def test_a_model_of_any_kind_is_compared_masked_pruned_and_probed(attention, whole):
    config = Architecture(4, (2, 3), 3, 8, attention, norm=whole, mlp=whole)
    model = build(config, 2).initialise((0, 1), 0.5).double().requires_grad_(False)
    beside = Comparison.on(TASK, 60, seed=3, queries=9)
    contexts = beside.contexts
    risks = beside.risk(model)
    assert risks.shape == (2, 60)
    assert torch.allclose(risks, excess_risk(model, contexts))
    assert beside.risk(Ridge(0.1)).mean() < risks.mean(), "ridge beats a random model"

    found = importance(model, contexts)
    assert torch.allclose(found.full.double(), risks)
    kept = most_important(found, (1, 1))
    smaller = prune(model, kept)
    assert smaller.config.heads == (1, 1)
    assert beside.risk(smaller).shape == (2, 60)

    probed = probe_risks(model, contexts, contexts)
    assert probed.shape == (2, 3, 60)
    assert (probed[:, -1].mean(dim=-1) <= risks.mean(dim=-1) * (1 + 1e-9)).all()

    weights, unexplained = implied_weights(model, contexts)
    assert weights.shape == (2, 60, 4)
    assert (unexplained.max() < 1e-20) == config.collapses
    if config.collapses:
        assert torch.allclose(weights, model.weights(contexts))


def test_a_model_that_needs_tokens_says_so():
    model = build(Architecture(4, (2,), 3, 8, "softmax"))
    with pytest.raises(Refused, match="queries=1 or more"):
        Comparison.on(TASK, 10, seed=0).risk(model)


def test_the_excess_risk_is_the_mean_square_over_queries_in_any_covariance():
    """In closed form, and counted over many queries of one context."""
    sigma = ((2.0, 0.8), (0.8, 0.5))
    contexts = draw(SparseLinear(2, 2, 9, covariance=sigma), 3, "evaluate", 0, queries=100_000)
    answers = contexts.w + torch.tensor([[0.5, 0.0], [0.0, -1.0], [1.0, 1.0]]).double()
    exact = torch.tensor([0.25 * 2.0, 0.5, 2.0 + 0.5 + 2 * 0.8]).double()
    torch.testing.assert_close(squared_error(answers, contexts), exact)
    counted = mean_error(torch.einsum("bd,bqd->bq", answers, contexts.queries), contexts)
    torch.testing.assert_close(counted, exact, rtol=0.03, atol=0.0)
