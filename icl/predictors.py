"""The one interface of everything that answers a query in context, and its excess risk."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import require
from icl.threads import side_by_side

ANSWERED_AT_ONCE = 64  # contexts that are answered token by token at a time


class Predictor(ABC):
    """Answers queries given a context: a trained model, a construction, an estimator."""

    @abstractmethod
    def predict(self, contexts: Contexts) -> Tensor:
        """Answers (..., B, q) to the contexts' own queries; leading axes are models, if any."""


class LinearPredictor(Predictor):
    """A predictor whose answer is <ŵ, x_q>: its weights ŵ say everything about it."""

    @abstractmethod
    def weights(self, contexts: Contexts) -> Tensor:
        """Weight vectors ŵ, (..., B, d)."""

    def predict(self, contexts: Contexts) -> Tensor:
        weights = self.weights(contexts)
        return torch.einsum("...bd,...bqd->...bq", weights, asked(contexts).to(weights))


def excess_risk(predictor: Predictor, contexts: Contexts) -> Tensor:
    """Excess risk in every context, (..., B), in squared label units.

    The excess risk is E_x[(answer(x) − <w, x>)²]; the noise of the query's own label is not
    part of it. For a linear predictor it is exact; any other one is averaged over the contexts'
    queries, so they must have some.
    """
    if isinstance(predictor, LinearPredictor):
        return squared_error(predictor.weights(contexts), contexts)
    blocks = contexts.blocks(ANSWERED_AT_ONCE)
    risks = side_by_side(lambda block: mean_error(predictor.predict(block), block), blocks)
    return torch.cat(risks, dim=-1)


def squared_error(weights: Tensor, contexts: Contexts) -> Tensor:
    """(ŵ − w)ᵀ Σ (ŵ − w), (..., B), of weight vectors ŵ (..., B, d)."""
    error = weights - contexts.w.to(weights)
    sigma = torch.from_numpy(contexts.task.sigma).to(error)
    return ((error @ sigma) * error).sum(dim=-1)


def mean_error(answers: Tensor, contexts: Contexts) -> Tensor:
    """Mean square of answers − <w, x>, (..., B), of answers (..., B, q) to the queries."""
    truth = torch.einsum("...bqd,...bd->...bq", asked(contexts), contexts.w)
    return (answers - truth.to(answers)).square().mean(dim=-1)


def asked(contexts: Contexts) -> Tensor:
    """The queries of the contexts, (..., B, q, d), which must have some."""
    require(
        contexts.queries is not None,
        "contexts without queries: draw them with queries=1 or more",
    )
    return contexts.queries
