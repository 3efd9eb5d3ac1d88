"""Trained models beside tuned baselines, on the same contexts."""

from dataclasses import dataclass

from torch import Tensor

from icl.contexts import Contexts, draw
from icl.estimators import NAIVE, baselines
from icl.predictors import LinearPredictor
from icl.risk import estimate, excess_risk, reduction
from icl.tasks import SparseLinear

REFERENCES = ("tuned ridge", "tuned lasso", "Bayes")


@dataclass(frozen=True)
class Comparison:
    """Evaluation contexts of one task, and the risk (B,) of every tuned baseline on them."""

    contexts: Contexts
    baselines: dict[str, Tensor]

    @classmethod
    def on(cls, task: SparseLinear, count: int, seed: int) -> "Comparison":
        """Draw `count` contexts of stream `evaluate`; the baselines are tuned on their own."""
        contexts = draw(task, count, "evaluate", seed)
        found = {name: excess_risk(b, contexts) for name, b in baselines(task).items()}
        return cls(contexts, found)

    def risk(self, predictor: LinearPredictor) -> Tensor:
        """Excess risk of a predictor in every context, (M, B) or (B,)."""
        return excess_risk(predictor, self.contexts)

    @property
    def naive(self) -> Tensor:
        """Risk (B,) of gradient descent or ridge, whichever has the smaller mean."""
        return min((self.baselines[name] for name in NAIVE), key=Tensor.mean)

    def advantage(self, predictor: LinearPredictor) -> Tensor:
        """By what fraction a predictor's mean risk is below the better of those two, (M,)."""
        return reduction(self.risk(predictor), self.naive)

    def references(self, average: str = "mean") -> dict[str, float]:
        """Mean or median risk of the baselines that bound a good answer: ridge, lasso, Bayes."""
        return {name: estimate(self.baselines[name], average).mean for name in REFERENCES}
