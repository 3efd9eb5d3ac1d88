"""Transformers written down by hand, which run gradient descent and Algorithm 1 exactly.

Hidden states have slots [x, z, y, ŷ] with z the inputs that gradient descent works on. Without
preprocessing z is x itself and the slots are [x, y, ŷ]. The embedding writes x and y, so a
query starts with y = 0, and the prediction is read from slot ŷ, which starts at 0.
"""

from dataclasses import replace

import torch
from torch import Tensor

from icl.architecture import Architecture
from icl.contexts import Contexts
from icl.costs import by_head
from icl.descent import GradientDescent, PreprocessedGD
from icl.errors import real, require, whole
from icl.tasks import MOST_FEATURES
from icl.transformer import LinearTransformer, build

MOST_STEPS = 1000  # one layer each


def blank(config: Architecture, n_models: int = 1) -> LinearTransformer:
    """Models in float64 that embed x and y, read ŷ, and whose layers add nothing."""
    model = build(config, n_models).double().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    d = config.d
    model.embed.weight[:, :d, :d] = torch.eye(d)
    model.embed.weight[:, d, -2] = 1
    model.readout.weight[:, -1] = 1
    return model


def gradient_descent(d: int, steps: int, rate: float) -> LinearTransformer:
    """`steps` layers of one head: gradient steps on (1/2n) Σ (y_i − <u, x_i>)², from u = 0."""
    _check(d, steps, rate)
    model = blank(Architecture(d, (1,) * steps, d_head=d, d_model=d + 2))
    for layer in range(steps):
        _write_step(model, layer, rate)
    return model


def preprocess_then_optimise(d: int, steps: int, rate: float) -> LinearTransformer:
    """Algorithm 1 of Chen et al. (2024): d heads write x̃ = r̂ ∘ x, then one head per step.

    The steps descend on (1/2n) Σ (y_i − <u, x̃_i>)², r̂ = (1/n) Σ x_i y_i; steps + 1 layers.
    """
    _check(d, steps, rate)
    model = blank(Architecture(d, (d,) + (1,) * steps, d_head=d, d_model=2 * d + 2))
    _write_preprocessing(model)
    for layer in range(1, steps + 1):
        _write_step(model, layer, rate)
    return model


def _check(d: int, steps: int, rate: float) -> None:
    whole("d", d, 1, MOST_FEATURES)
    whole("steps", steps, 1, MOST_STEPS)
    real("rate", rate, "(-inf, inf)")


def split_steps(config: Architecture, rate: float, shares: list[Tensor]) -> LinearTransformer:
    """Gradient descent, or with a width of 2d + 2 Algorithm 1, whose steps heads share.

    `shares` has (M, H) for every step: the fraction of it that each head of its layer takes.
    They sum to 1, so all M models compute the same. Every head has the least cost.
    """
    first = len(config.heads) - len(shares)
    require(
        (first, config.d_model) in ((0, config.d + 2), (1, 2 * config.d + 2))
        and config.heads[:first] in ((), (config.d,))
        and config.heads[first:] == tuple(share.shape[1] for share in shares)
        and config.d_head >= config.d,
        f"{config}: steps can be split over heads of d_head >= d in layers of width d + 2, or of "
        f"2d + 2 after a first layer of d heads; here over {[s.shape[1] for s in shares]} heads",
    )
    model = blank(config, len(shares[0]))
    if first:
        _write_preprocessing(model)
    for layer, share in enumerate(shares, first):
        for head, part in enumerate(share.double().unbind(dim=1)):
            _write_step(model, layer, rate * part, head)
    balance(model)
    return model


def most_readable(d: int, heads: int, d_head: int) -> float:
    """The share of diag(r̂) x that a first layer of so many heads can write at most, for Σ = I.

    Two features per head, or one where d_head = 1 leaves it a single output direction, whatever
    the number of examples: proved in the chapter on constructions.
    """
    for name, value in {"d": d, "heads": heads, "d_head": d_head}.items():
        whole(name, value)
    return min(1.0, heads * min(d_head, 2) / d)


def layer_errors(
    model: LinearTransformer, algorithm: GradientDescent, contexts: Contexts
) -> Tensor:
    """Largest relative error over contexts after every layer, (2, L), of a construction.

    First by way of the Gram statistics, then token by token, for which the contexts need
    tokens. What a layer says about the d basis queries is compared, in the Euclidean norm,
    with what `algorithm` holds at that point: ŷ with its weights, and after a preprocessing
    layer the slots z with diag(r̂).
    """
    require(not algorithm.relative, "relative=True: a construction has one rate for all contexts")
    d, n = contexts.task.d, contexts.tokens.shape[1]
    targets = list(algorithm.iterates(contexts))
    if isinstance(algorithm, PreprocessedGD):
        targets.insert(0, contexts.xy.diag_embed())
    basis = torch.eye(d, dtype=torch.float64).expand(len(contexts), d, d)
    by_statistics = (states[0, :, :d] for states in model.hidden(contexts))
    by_tokens = model.on_tokens().hidden(replace(contexts, queries=basis))
    by_tokens = (states[0, :, n:] for states in by_tokens)
    errors = []
    for path in (by_statistics, by_tokens):
        next(path)  # before the first layer
        for states, target in zip(path, targets, strict=True):
            found = states[..., -1] if target.ndim == 2 else states[..., d : 2 * d]
            gap = (found - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
            errors.append(gap.max())
    return torch.stack(errors).view(2, -1)


def correct_digits(errors: Tensor) -> Tensor:
    """Correct digits (...): −log₁₀ of the largest of the relative errors (..., 2, L).

    No error counts as smaller than the spacing of float64 at 1, so 15.7 is the most.
    """
    return -errors.amax(dim=(-2, -1)).clamp(min=torch.finfo(torch.float64).eps).log10()


def balance(model: LinearTransformer) -> None:
    """Give the four matrices of every head one norm, which leaves what it does as it is."""
    for weights in map(by_head, model.blocks):
        norms = torch.stack([weight.flatten(2).norm(dim=-1) for weight in weights])
        for weight, scale in zip(weights, norms.log().mean(dim=0).exp() / norms, strict=True):
            weight.mul_(scale[..., None, None])


def _write_step(model: LinearTransformer, layer: int, rate: float | Tensor, head: int = 0) -> None:
    """Make a head of `layer` one gradient step on the inputs z, its rate one or for each model.

    Before it, every token with inputs z holds ŷ = <u, z>. With K = Q = z, a value of y − ŷ,
    and `rate` η in the output, the head adds to ŷ of a token with inputs z

        η (1/n) Σ_i (y_i − <u, z_i>) <z_i, z> = <η (1/n) Σ_i (y_i − <u, z_i>) z_i, z>,

    that is <Δu, z> with Δu = −η times the gradient. Examples and query alike: both hold
    <u + Δu, z> afterwards. <z_i, z> needs d_head = d; the value uses one of the d dimensions.
    """
    d, block = model.config.d, model.blocks[layer]
    inputs = slice(-d - 2, -2)
    for maps in (block.key, block.query):
        maps.weight[:, inputs, head, :d] = torch.eye(d, dtype=maps.weight.dtype)
    block.value.weight[:, -2, head, 0] = 1
    block.value.weight[:, -1, head, 0] = -1
    block.output.weight[:, head, 0, -1] = rate


def _write_preprocessing(model: LinearTransformer) -> None:
    """Make the first layer write z = r̂ ∘ x, one head per feature.

    Head j has value y, key and query x_j, and writes slot z_j, which was 0: the token x gets
    z_j = (1/n) Σ_i y_i x_ij x_j = r̂_j x_j. Of each head's d dimensions it uses the first.
    """
    block = model.blocks[0]
    for j in range(model.config.d):
        block.key.weight[:, j, j, 0] = block.query.weight[:, j, j, 0] = 1
        block.value.weight[:, -2, j, 0] = 1
        block.output.weight[:, j, 0, model.config.d + j] = 1
