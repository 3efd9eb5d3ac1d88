"""Where a training starts: from drawn weights, from a shipped model whose heads were pruned, or
from a network written by hand, like an algorithm whose steps are split over heads.
"""

from functools import cache

import torch

from icl.architecture import Architecture
from icl.configuration import Configuration, Start
from icl.constructions import split_steps
from icl.contexts import draw
from icl.errors import require
from icl.files import load
from icl.heads import Importance, importance, most_important, prune, random_heads
from icl.recipe import PRECISIONS
from icl.training import Trainer
from icl.transformer import Transformer, build
from icl.two_layers import TwoLayers

TUNING_CONTEXTS = 2048  # that heads are chosen on


def begin(config: Configuration, seeds: tuple[int, ...], device: str = "cpu") -> Trainer:
    """A training at its first step, from where its configuration says."""
    if config.start:
        model = pruned(config.start, config.architecture, seeds)
    elif config.split:
        model = split(config, seeds)
    elif config.written:
        model = written(config, seeds)
    else:
        model = fresh(config, seeds)
    return Trainer(config, seeds, model.to(device, PRECISIONS[config.recipe.precision]))


def fresh(config: Configuration, seeds: tuple[int, ...]) -> Transformer:
    """Models with weights drawn from their seeds, as the recipe says."""
    require(
        config.start is None, f"start={config.start}: these models start from another's weights"
    )
    for name, start in {"split": config.split, "written": config.written}.items():
        require(start is None, f"{name}={start}: these models start from weights by hand")
    model = build(config.architecture, len(seeds))
    return model.initialise(seeds, config.recipe.init_scale)


def pruned(start: Start, architecture: Architecture, seeds: tuple[int, ...]) -> Transformer:
    """The model a fine-tuning starts from: a shipped one, pruned to the architecture's heads.

    Importance is measured on contexts of stream `tune`, which judge no model. The whole model
    is the one that ships, also where fine-tunings are trained anew into another folder.
    """
    base = load(start.model)
    impossible = f"model={start.model!r}: cannot be pruned to {architecture}"
    require(len(base.config.architecture.heads) == len(architecture.heads), impossible)
    require(
        base.config.hash == start.hash,
        f"model={start.model!r}: has the configuration {base.config.hash}; this fine-tuning "
        f"starts from {start.hash}",
    )
    if start.keep == "random":
        kept = random_heads(base.model, architecture.heads, seed=0)
    else:
        kept = most_important(tuned_importance(start.model), architecture.heads)
    chosen = base.only(seeds)
    rows = [base.seeds.index(seed) for seed in seeds]
    model = prune(chosen.model, [keep[rows] for keep in kept])
    require(model.config == architecture, impossible)
    return model


def split(config: Configuration, seeds: tuple[int, ...]) -> Transformer:
    """Algorithm 1, or gradient descent, with every step shared at random by its layer's heads.

    The shares of a layer are uniform among those that sum to 1, drawn from each training seed.
    """
    heads = config.architecture.heads
    counts = heads[1:] if config.architecture.d_model == 2 * config.task.d + 2 else heads
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = [torch.stack([-torch.rand(h, generator=rng).log() for rng in rngs]) for h in counts]
    shares = [part / part.sum(dim=1, keepdim=True) for part in drawn]
    return split_steps(config.architecture, config.split.step_rate, shares).float()


def written(config: Configuration, seeds: tuple[int, ...]) -> Transformer:
    """Two layers by hand, the same for every seed."""
    numbers = torch.tensor(config.written.numbers, dtype=torch.float64)
    return TwoLayers(numbers).written(config.architecture, len(seeds)).float()


@cache
def tuned_importance(name: str) -> Importance:
    """Importance of a shipped model's heads on contexts of stream `tune`, by plain means.

    The models that ship were pruned by it: another average would choose other heads here and there.
    """
    whole = load(name)
    queries = whole.config.architecture.queries
    contexts = draw(whole.config.task, TUNING_CONTEXTS, "tune", seed=0, queries=queries)
    return importance(whole.model, contexts).by("mean")
