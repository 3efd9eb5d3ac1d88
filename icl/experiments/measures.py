"""What several experiments measure of models with many heads: their heads, and their answers."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from icl.claims import Criterion
from icl.contexts import Contexts
from icl.estimators import ESTIMATORS
from icl.heads import contrast, smallest_first, top_later
from icl.intervals import Estimate, over_contexts, over_seeds, trimmed
from icl.predictors import LinearPredictor, Predictor, squared_error
from icl.probing import implied_weights
from icl.transformer import Transformer

# What is said of heads, from their `Importance`.
EVERY_HEAD = Criterion(
    "smallest relative rise of the risk when one first-layer head is masked",
    smallest_first,
    0.1,
    "A head matters if the model is clearly worse without it: by a tenth. The rise is relative to "
    "the risk, not to the other heads' rises, because a head with a small share of a large rise "
    "can still not be spared.",
)
ONE_HEAD = Criterion(
    "top-1 share of importance in every later layer",
    top_later,
    0.5,
    "Above one half, one head outweighs all others of its layer together. The layers are judged "
    "one by one; their intervals are so wide that all hold at once with 95 %.",
    (0.0, 1.0),
)
MORE_EVEN = Criterion(
    "normalised entropy of importance in layer 1 minus that of every later layer",
    contrast,
    0.0,
    "Above zero, the first layer spreads its work over more heads than the later one does. The "
    "layers are judged as before.",
    (-1.0, 1.0),
)


def steady(model: Transformer) -> Transformer:
    """The model, in float64 if it is deep: without a head, its answers can leave float32."""
    return model.double() if len(model.blocks) > 4 else model


@dataclass(frozen=True)
class Likeness:
    """How near the weights ŵ of models' answers are to those of estimators, context by context.

    size: (M, B) squared length of ŵ. away: by estimator, its squared distance from ŵ, (M, B).
    nonlinear: (M, B) the share of the answers' mean square that no weights explain.
    """

    size: Tensor
    away: dict[str, Tensor]
    nonlinear: Tensor

    def explained(self, name: str) -> Tensor:
        """Fraction (M,) of ŵ that an estimator explains: 1 − its distance over the length of ŵ."""
        return 1 - trimmed(self.away[name], -1) / trimmed(self.size, -1)

    def estimate(self, name: str) -> Estimate:
        """The same over seeds, with an interval for seeds and contexts."""
        variance = over_contexts(lambda found: found.explained(name), self).item()
        return over_seeds(self.explained(name), variance=variance).within(high=1.0)


def rivals(contexts: Contexts, names: Iterable[str]) -> dict[str, Tensor]:
    """Weights (B, d) of tuned estimators by their names, to compare models with."""
    return {name: ESTIMATORS[name].tuned(contexts.task).weights(contexts) for name in names}


def likeness(model: Predictor, contexts: Contexts, rivals: dict[str, Tensor]) -> Likeness:
    """Compare what answers imply with other weights; models that are not linear need queries."""
    if isinstance(model, LinearPredictor):
        weights = model.weights(contexts).double()
        nonlinear = weights.new_zeros(weights.shape[:-1])
    else:
        weights, nonlinear = implied_weights(model, contexts)
    zero, *others = (
        squared_error(weights, replace(contexts, w=u)) for u in (0 * contexts.w, *rivals.values())
    )
    return Likeness(zero, dict(zip(rivals, others, strict=True)), nonlinear)
