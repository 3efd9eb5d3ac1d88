"""Signed permutations of features, and predictors averaged over them.

Where features are alike, a context whose features are permuted and change their signs is as likely
as the context itself. For any predictor ŵ and any such P, Pᵀ ŵ(P context) has the mean risk of ŵ.
Risks are convex in ŵ, so the average over some P has, in every context, at most the average of
their risks (Jensen), and in the mean at most that of ŵ.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import whole
from icl.predictors import LinearPredictor


def signed_permutations(d: int, count: int, seed: int = 0) -> Tensor:
    """So many of them, (count, d, d), uniform and independent; the first one changes nothing."""
    whole("count", count)
    rng = torch.Generator().manual_seed(seed)
    orders = torch.rand(count, d, generator=rng).argsort(dim=1)
    signs = 2 * torch.randint(2, (count, d), generator=rng).double() - 1
    found = signs[..., None] * torch.eye(d, dtype=torch.float64)[orders]
    found[0] = torch.eye(d)
    return found


def moved(contexts: Contexts, g: Tensor) -> Contexts:
    """The contexts with inputs g x and weights g w, for a signed permutation g (d, d)."""
    whole = torch.block_diag(g, torch.ones(1, 1, dtype=g.dtype))
    new = {"w": contexts.w @ g.T, "gram": whole @ contexts.gram @ whole.T}
    if contexts.tokens is not None:
        new |= {"tokens": contexts.tokens @ whole.T, "queries": contexts.queries @ g.T}
    return replace(contexts, **new)


def averages(
    predictor: LinearPredictor, contexts: Contexts, counts: tuple[int, ...], seed: int = 0
) -> dict[int, Tensor]:
    """Means of gᵀ ŵ(g context), (..., B, d), over the first so many signed permutations g."""
    found, total = {}, 0.0
    group = signed_permutations(contexts.task.d, max(counts), seed)
    for count, g in enumerate(group, 1):
        total = total + predictor.weights(moved(contexts, g)).double() @ g
        if count in counts:
            found[count] = total / count
    return found


@dataclass(frozen=True)
class Symmetrised(LinearPredictor):
    """The average of gᵀ ŵ(g context) over `count` signed permutations g of the features."""

    predictor: LinearPredictor
    count: int
    seed: int = 0

    def __post_init__(self):
        whole("count", self.count)

    def weights(self, contexts: Contexts) -> Tensor:
        """ŵ (..., B, d); it takes `count` times the work of the predictor."""
        return averages(self.predictor, contexts, (self.count,), self.seed)[self.count]
