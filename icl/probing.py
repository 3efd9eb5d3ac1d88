"""What can be read off hidden states linearly, and the linear weights that answers imply.

After layer l of a model that collapses, a token e has the hidden state A_l e (see
`LinearTransformer`). A probe p answers <p, A_l x_q>, so its weights are ŵ_l = A_lᵀ p, restricted
to the d inputs; any other linear function of the query is read off alike. In any other model a
probe answers <p, h> from the state h of the query's token. Layer 0 is the embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import choose, require
from icl.intervals import AVERAGES
from icl.predictors import ANSWERED_AT_ONCE, Predictor, asked, mean_error, squared_error
from icl.threads import side_by_side
from icl.transformer import LinearTransformer, Transformer

ROUNDING = 1e-6  # hidden states are float32: directions of smaller relative size are rounding

# Averages over contexts, and the share of them, those with the least weights, that each is over.
SHARES = {"trimmed": (torch.mean, 0.99), "mean": (torch.mean, 1.0)}
SHARES |= {"median": (AVERAGES["median"], 1.0)}


def states(model: LinearTransformer, contexts: Contexts) -> Iterator[Tensor]:
    """A_lᵀ before and after each layer, restricted to the inputs, (M, B, d, D), float64."""
    require(
        isinstance(model, LinearTransformer),
        f"model with {model.config.attention} attention: hidden states are linear in the token "
        "for linear attention only, without norm and mlp",
    )
    blocks = list(contexts.blocks(model.at_once))
    for found in zip(*map(model.hidden, blocks), strict=True):
        inputs = [
            hidden[..., :-1, :].double().expand(-1, len(block), -1, -1)
            for hidden, block in zip(found, blocks, strict=True)
        ]
        yield torch.cat(inputs, dim=1)


def fit(seen: Tensor, targets: Tensor, contexts: Contexts) -> Tensor:
    """Read-outs P (M, D, K) that minimise E |seen P_k − t_k|²_Σ over `contexts`.

    seen: (M, B, d, D) hidden states; targets: (B, d, K) or (M, B, d, K), column k is t_k.
    For t = w that is the excess risk. Linear least squares, in closed form.
    """
    factor = torch.linalg.cholesky(torch.from_numpy(contexts.task.sigma)).T
    return _least_squares(factor @ seen, factor @ targets)


def _least_squares(rows: Tensor, wanted: Tensor) -> Tensor:
    """P (M, D, K) that minimises |rows P − wanted|², of (M, B, Q, D) and (M or 1, B, Q, K).

    By the normal equations of columns scaled alike. They square the singular values, so what
    counts ends at 1e-12 of the largest: still far above what float64 rounds away.
    """
    rows, wanted = rows.flatten(1, 2), wanted.expand(len(rows), -1, -1, -1).flatten(1, 2)
    size = rows.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-300)
    rows = rows / size
    inverse = torch.linalg.pinv(rows.mT @ rows, rtol=ROUNDING**2, hermitian=True)
    return inverse @ (rows.mT @ wanted) / size.mT


def read(seen: Tensor, readouts: Tensor) -> Tensor:
    """What read-outs (M, D, K) find in states (M, B, d, D): for weights, (M, B, d, K)."""
    found = seen.flatten(1, 2) @ readouts  # one product per model, not one per context
    return found.unflatten(1, seen.shape[1:3])


def scales(contexts: Contexts, weights: Tensor) -> dict[str, Tensor]:
    """Scales c, (..., B, d), that an algorithm at `weights` could give the features, by name.

    r̂ is the first layer's preprocessing; ŵ + ĝ, the weights and the correlations they leave, is
    that of `descent.ReweightedGD`. New in it is its part orthogonal to r̂ in every context: the
    rest is r̂ times a number, which takes no other preprocessing than the first.
    """
    r = contexts.xy
    again = weights + (r - torch.einsum("...ij,...j->...i", contexts.xx, weights))
    along = (again * r).sum(-1, keepdim=True) / r.square().sum(-1, keepdim=True)
    return {"r̂": r, "ŵ": weights, "ŵ + ĝ": again, "new in ŵ + ĝ": again - along * r}


def misread(products: Tensor, scale: Tensor, contexts: Contexts) -> Tensor:
    """What read-outs of all c_j x_j miss in every context, and what there is to read, (M, 2, B).

    Mean squares over queries, summed over j. Column j of `products` (M, B, d, d) was read for
    c_j x_j, with c the `scale`, (B, d) or (M, B, d).
    """
    missed = squared_error(products.mT, replace(contexts, w=torch.diag_embed(scale))).sum(dim=-1)
    size = (scale.square() * torch.from_numpy(contexts.task.sigma).diagonal()).sum(dim=-1)
    return torch.stack([missed, size.expand_as(missed)], dim=1)


def r_squared(found: Tensor) -> Tensor:
    """R² (...) of what was missed and what was there, (..., 2, B): one minus their means' ratio."""
    missed, size = found.mean(dim=-1).unbind(dim=-1)
    return 1 - missed / size


def explained(away: Tensor, size: Tensor, average: str = "trimmed") -> Tensor:
    """Fraction (...) of the probes' weights that other weights u explain: 1 − E away / E size.

    away, size: |ŵ − u|²_Σ and |ŵ|²_Σ in every context, (..., B); E is one of the averages in
    SHARES, for both over the same contexts.
    """
    over, share = SHARES[choose("average", average, SHARES)]
    kept = size <= size.quantile(share, dim=-1, keepdim=True)
    return 1 - over(kept * away, dim=-1) / over(kept * size, dim=-1)


@dataclass(frozen=True)
class Study:
    """Probes of every layer of one architecture, and what they are compared with.

    walks: by label, the weights (B, d) after every step; an end point is a walk of one.
    weights: (M, L+1, B, d) of the probes for the answer.
    readable: by the name of a scale c, what reading c ∘ x_q misses and what there is to read,
    (M, L+1, 2, B).
    """

    contexts: Contexts
    depth: int
    walks: dict[str, list[Tensor]]
    weights: Tensor
    readable: dict[str, Tensor]

    @property
    def risks(self) -> Tensor:
        """Excess risk of the probes in every context, (M, L+1, B)."""
        return squared_error(self.weights, self.contexts)

    @property
    def size(self) -> Tensor:
        """|ŵ|²_Σ of the probes in every context, (M, L+1, B)."""
        return squared_error(self.weights, replace(self.contexts, w=0 * self.contexts.w))

    @cached_property
    def away(self) -> dict[str, Tensor]:
        """By walk, |ŵ − u|²_Σ from the probes to the weights u after every step, (T, M, L+1, B)."""
        sigma, size, found = torch.from_numpy(self.contexts.task.sigma), self.size, {}
        for label, walk in self.walks.items():
            steps = torch.stack(walk)
            # All products of probes and steps at once, several times faster than differences.
            inner = torch.einsum("mlbd,tbd->tmlb", self.weights @ sigma, steps)
            found[label] = size - 2 * inner + ((steps @ sigma) * steps).sum(dim=-1)[:, None, None]
        return found

    def explained(self, label: str, average: str = "trimmed") -> Tensor:
        """Fraction (M, L+1) of the probes' weights that the nearest step of a walk explains."""
        return explained(self.away[label], self.size, average).amax(dim=0)

    def nearest(self, label: str) -> Tensor:
        """|ŵ − u|²_Σ, (M, L+1, B), to the step u of a walk that explains most."""
        best = explained(self.away[label], self.size).argmax(dim=0)
        return self.away[label].take_along_dim(best[None, ..., None], dim=0)[0]


@torch.no_grad()
def probe_risks(model: Transformer, fitting: Contexts, contexts: Contexts) -> Tensor:
    """P-probing: excess risk (M, L+1, B) of the best linear read-out of every layer.

    The read-outs are fitted on one batch of contexts and judged on another. For models that
    collapse the query's expectation is exact; others need contexts with queries.
    """
    if isinstance(model, LinearTransformer):
        seen, size, error = states, model.at_once, squared_error
        readouts = [fit(x, fitting.w[..., None], fitting) for x in states(model, fitting)]
    else:
        seen, size, error = _asking, ANSWERED_AT_ONCE, mean_error
        wanted = torch.einsum("bqd,bd->bq", asked(fitting), fitting.w)[..., None]
        readouts = [_least_squares(x, wanted) for x in _asking(model, fitting)]

    def risks(block: Contexts) -> Tensor:
        layers = zip(seen(model, block), readouts, strict=True)
        return torch.stack([error(read(x, probe)[..., 0], block) for x, probe in layers], dim=1)

    return torch.cat(side_by_side(risks, contexts.blocks(size)), dim=-1)


def _asking(model: Transformer, contexts: Contexts) -> Iterator[Tensor]:
    """States of the queries before and after each layer, (M, B, q, D), float64."""

    def queries(block: Contexts) -> list[Tensor]:
        return [x[:, :, contexts.task.n :].double() for x in model.hidden(block)]

    blocks = side_by_side(queries, contexts.blocks(ANSWERED_AT_ONCE))
    return (torch.cat(layer, dim=1) for layer in zip(*blocks, strict=True))


def implied_weights(predictor: Predictor, contexts: Contexts) -> tuple[Tensor, Tensor]:
    """The weights that answers imply, (..., B, d), and the share they leave unexplained, (..., B).

    Least squares of a predictor's answers over the queries of every context; the share is that
    of the answers' mean square. It is 0 for a predictor that is linear in its query.
    """
    queries = asked(contexts)
    require(
        queries.shape[-2] > contexts.task.d,
        f"queries={queries.shape[-2]}: more than d={contexts.task.d} are needed",
    )
    answers = predictor.predict(contexts).to(queries)
    weights = torch.einsum("bdq,...bq->...bd", torch.linalg.pinv(queries), answers)
    residual = answers - torch.einsum("bqd,...bd->...bq", queries, weights)
    size = answers.square().mean(dim=-1).clamp(min=torch.finfo(answers.dtype).tiny)
    return weights, residual.square().mean(dim=-1) / size
