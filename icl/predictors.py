"""The one interface of everything that answers a query in context."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from icl.contexts import Contexts


class Predictor(ABC):
    """Answers queries given a context: a trained model, a construction, an estimator."""

    @abstractmethod
    def predict(self, contexts: Contexts, queries: Tensor) -> Tensor:
        """Answers (..., B, q) to the queries (B, q, d); leading axes are models, if any."""


class LinearPredictor(Predictor):
    """A predictor whose answer is <ŵ, x_q>: its weights ŵ say everything about it."""

    @abstractmethod
    def weights(self, contexts: Contexts) -> Tensor:
        """Weight vectors ŵ, (..., B, d)."""

    def predict(self, contexts: Contexts, queries: Tensor) -> Tensor:
        weights = self.weights(contexts)
        return torch.einsum("...bd,bqd->...bq", weights, queries.to(weights))
