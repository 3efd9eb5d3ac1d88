"""Models and baselines meet on the same contexts, which no baseline was tuned on."""

import torch

from icl.comparison import Comparison
from icl.contexts import draw
from icl.estimators import Ridge
from icl.predictors import LinearPredictor
from icl.risk import excess_risk
from icl.tasks import SparseLinear

TASK = SparseLinear(d=4, s=1, n=12, noise=0.5, values="signs")


class Halfway(LinearPredictor):
    """Half the true weights, in two models."""

    def weights(self, contexts):
        return contexts.w.expand(2, -1, -1) * torch.tensor([0.5, 1.0])[:, None, None]


def test_a_comparison_measures_all_on_its_own_contexts():
    field = Comparison.on(TASK, 200, seed=3)
    contexts = draw(TASK, 200, "evaluate", 3)
    assert torch.equal(field.contexts.gram, contexts.gram)
    assert torch.equal(field.risk(Ridge(0.1)), excess_risk(Ridge(0.1), contexts))
    assert field.baselines["Bayes"].mean() < field.baselines["tuned ridge"].mean()
    assert field.references()["Bayes"] == field.baselines["Bayes"].mean()


def test_the_advantage_is_over_the_better_of_gradient_descent_and_ridge():
    field = Comparison.on(TASK, 200, seed=3)
    worse = field.baselines["tuned ridge"] + 1
    for better in ("tuned GD", "tuned ridge"):
        other = {"tuned GD": "tuned ridge", "tuned ridge": "tuned GD"}[better]
        made = Comparison(field.contexts, {better: worse - 0.5, other: worse})
        # |w|² = 1, so half of w has a risk of 1/4
        expected = torch.tensor([1 - 0.25 / (worse - 0.5).mean(), 1.0]).double()
        assert torch.allclose(made.advantage(Halfway()), expected)
