"""What can be read off hidden states linearly, and the linear weights that answers imply.

After layer l of a model that collapses, a token e has the hidden state A_l e (see
`LinearTransformer`). A probe p answers <p, A_l x_q>, so its weights are ŵ_l = A_lᵀ p, restricted
to the d inputs; any other linear function of the query is read off alike. In any other model a
probe answers <p, h> from the state h of the query's token. Layer 0 is the embedding.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import require
from icl.predictors import Predictor, asked, mean_error, squared_error
from icl.transformer import LinearTransformer, Transformer

ROUNDING = 1e-6  # hidden states are float32: directions of smaller relative size are rounding


def states(model: LinearTransformer, contexts: Contexts) -> Iterator[Tensor]:
    """A_lᵀ before and after each layer, restricted to the inputs, (M, B, d, D), float64."""
    require(
        isinstance(model, LinearTransformer),
        f"model with {model.config.attention} attention: hidden states are linear in the token "
        "for linear attention only, without norm and mlp",
    )
    for hidden in model.hidden(contexts):
        yield hidden[..., :-1, :].double().expand(-1, len(contexts), -1, -1)


def fit(seen: Tensor, targets: Tensor, contexts: Contexts) -> Tensor:
    """Read-outs P (M, D, K) that minimise E |seen P_k − t_k|²_Σ over `contexts`.

    seen: (M, B, d, D) hidden states; targets: (B, d, K) or (M, B, d, K), column k is t_k.
    For t = w that is the excess risk. Linear least squares, in closed form.
    """
    factor = torch.linalg.cholesky(torch.from_numpy(contexts.task.sigma)).T
    return _least_squares(factor @ seen, factor @ targets)


def _least_squares(rows: Tensor, wanted: Tensor) -> Tensor:
    """P (M, D, K) that minimises |rows P − wanted|², of (M, B, Q, D) and (M or 1, B, Q, K)."""
    wanted = wanted.expand(len(rows), -1, -1, -1).flatten(1, 2)
    rows = rows.flatten(1, 2)
    size = rows.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-300)
    # The triangular factor of [rows, wanted] has all that least squares needs.
    small = torch.linalg.qr(torch.cat([rows / size, wanted], dim=-1), mode="r").R
    width = rows.shape[-1]
    inverse = torch.linalg.pinv(small[..., :width], rtol=ROUNDING)
    return inverse @ small[..., width:] / size.mT


def read(seen: Tensor, readouts: Tensor) -> Tensor:
    """What read-outs (M, D, K) find in states (M, B, d, D): for weights, (M, B, d, K)."""
    return seen @ readouts[:, None]


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


def r_squared(products: Tensor, scale: Tensor, contexts: Contexts) -> Tensor:
    """R² (M,) of `products` (M, B, d, d), whose column j was read for c_j x_j; mean over j."""
    wanted = replace(contexts, w=torch.diag_embed(scale))
    missed, size = (squared_error(x, wanted).sum(dim=-2) for x in (products.mT, 0 * products))
    return (1 - missed / size).mean(dim=-1)


@torch.no_grad()
def probe_risks(model: Transformer, fitting: Contexts, contexts: Contexts) -> Tensor:
    """P-probing: excess risk (M, L+1, B) of the best linear read-out of every layer.

    The read-outs are fitted on one batch of contexts and judged on another. For models that
    collapse the query's expectation is exact; others need contexts with queries.
    """
    if isinstance(model, LinearTransformer):
        found = [
            squared_error(read(new, fit(seen, fitting.w[..., None], fitting))[..., 0], contexts)
            for seen, new in zip(states(model, fitting), states(model, contexts), strict=True)
        ]
        return torch.stack(found, dim=1)
    wanted = torch.einsum("bqd,bd->bq", asked(fitting), fitting.w)[..., None]
    found = []
    for pair in zip(model.hidden(fitting), model.hidden(contexts), strict=True):
        seen, new = (
            states[:, :, batch.task.n :].double()
            for states, batch in zip(pair, (fitting, contexts), strict=True)
        )
        answers = read(new, _least_squares(seen, wanted))[..., 0]
        found.append(mean_error(answers, contexts))
    return torch.stack(found, dim=1)


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
