"""Every model that ships, as data, and which of them each experiment needs."""

from dataclasses import dataclass, replace
from itertools import product

from icl.configuration import Configuration, Recipe, Start
from icl.contexts import Task
from icl.responses import FAMILIES as RESPONSES
from icl.responses import Nonlinear
from icl.tasks import SparseLinear
from icl.transformer import Architecture

WORKHORSE = SparseLinear(d=8, s=2, n=32, noise=1.0, values="sphere")
FLAGSHIP = SparseLinear(d=16, s=2, n=48, noise=1.0, values="sphere")
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Plan:
    """A model to train: a configuration and the training seeds it is repeated over."""

    config: Configuration
    seeds: tuple[int, ...] = SEEDS

    def adjusted(self, steps: int | None = None, seeds: tuple[int, ...] | None = None) -> "Plan":
        """The same with other steps or seeds; None keeps what there is."""
        recipe = replace(self.config.recipe, steps=steps or self.config.recipe.steps)
        return replace(self, config=replace(self.config, recipe=recipe), seeds=seeds or self.seeds)

    @property
    def about(self) -> str:
        """What it is, in a line."""
        task, model, recipe = self.config.task, self.config.architecture, self.config.recipe
        heads = "-".join(map(str, model.heads))
        decay = f", decay {recipe.weight_decay:g}" if recipe.weight_decay else ""
        inputs = f", {model.inputs} inputs" if model.inputs != "raw" else ""
        attention = f" of {model.attention} attention" if model.attention != "linear" else ""
        family = f", {task.family}" if isinstance(task, Nonlinear) else ""
        start = f", {self.config.start.model} pruned" if self.config.start else ""
        return (
            f"{heads} heads{attention} of dimension {model.d_head}, d={task.d}, n={task.n}"
            f"{family}, {recipe.optimiser}, {recipe.steps} steps{decay}{inputs}{start}"
        )


def _workhorse(*heads: int, d_head: int = 9, inputs: str = "raw", n: int = 32, **recipe) -> Plan:
    model = Architecture(8, heads, d_head, 32, inputs=inputs)
    return Plan(Configuration(replace(WORKHORSE, n=n), model, Recipe(**recipe)))


def _flagship(*heads: int, inputs: str = "raw") -> Plan:
    model = Architecture(16, heads, 17, 64, inputs=inputs)
    return Plan(Configuration(FLAGSHIP, model, Recipe(steps=40_000, batch=64)))


def single_layer(task: Task, heads: int = 1, attention: str = "linear", steps: int = 3_000) -> Plan:
    """One layer whose head dimension is its width: no matrix of it limits another's rank."""
    width = 4 * task.d
    model = Architecture(task.d, (heads,), width, width, attention)
    return Plan(Configuration(task, model, Recipe(steps, batch=256, lr=5e-3, init_scale=1.0)))


def prunings(name: str) -> dict[str, Plan]:
    """Ways to prune a model and train it a tenth of its steps again, at half its rate.

    One head in every later layer, the most important or a random one; or one in the first.
    """
    whole = MODELS[name].config
    recipe = replace(whole.recipe, steps=whole.recipe.steps // 10, lr=whole.recipe.lr / 2)
    first, *later = whole.architecture.heads

    def plan(heads: tuple[int, ...], keep: str) -> Plan:
        model = replace(whole.architecture, heads=heads)
        return Plan(Configuration(whole.task, model, recipe, Start(name, keep)))

    many_first = (first, *[1] * len(later))
    return {
        f"{name}-pruned": plan(many_first, "importance"),
        f"{name}-pruned-random": plan(many_first, "random"),
        f"{name}-pruned-reverse": plan((1, *later), "importance"),
    }


MODELS = {
    "workhorse-3": _workhorse(8, 8, 8),
    "workhorse-5": _workhorse(8, 8, 8, 8, 8),
    "workhorse-3-decay": _workhorse(8, 8, 8, weight_decay=3e-4),
    "flagship": _flagship(8, 8, 8),
}
# The models that differ in the number of heads per layer only, by depth.
FAMILIES = {
    depth: {h: f"heads-{h}-{depth}" for h in (1, 2, 4, 8)}
    | ({8: f"workhorse-{depth}"} if f"workhorse-{depth}" in MODELS else {})
    for depth in (1, 2, 3, 4, 5)
}
for depth, family in FAMILIES.items():
    MODELS |= {name: _workhorse(*[h] * depth) for h, name in family.items() if name not in MODELS}
MODELS |= {
    "heads-811": _workhorse(8, 1, 1),
    "heads-181": _workhorse(1, 8, 1),
    "heads-118": _workhorse(1, 1, 8),
    "flagship-1": _flagship(1, 1, 1),
    "flagship-811": _flagship(8, 1, 1),
}
LENGTHS = (16, 64)  # context lengths n trained for, besides 32
MODELS |= {f"heads-{h}-n{n}": _workhorse(h, h, h, n=n) for n in LENGTHS for h in (1, 8)}
MODELS |= {
    "preprocessed-2": _workhorse(1, 1, inputs="preprocessed"),
    "preprocessed-3": _workhorse(1, 1, 1, inputs="preprocessed"),
    "scaled-2": _workhorse(1, 1, inputs="scaled"),
    "scaled-3": _workhorse(1, 1, 1, inputs="scaled"),
    "flagship-preprocessed": _flagship(1, 1, 1, inputs="preprocessed"),
    "flagship-scaled": _flagship(1, 1, 1, inputs="scaled"),
}

PRUNED = prunings("workhorse-3") | prunings("workhorse-5") | prunings("flagship")
# With one first-layer head its answers overflow float32, so there is nothing to train from.
del PRUNED["workhorse-5-pruned-reverse"]
MODELS |= PRUNED

# When do later layers rely on one head? 4 heads per layer, one or more settings changed.
CONDITIONS = {
    f"decay-{decay:g}-k{k}-{depth}-{steps}": _workhorse(
        *[4] * depth, d_head=k, weight_decay=decay, steps=steps
    )
    for decay, k, depth, steps in (
        *product((0.0, 3e-4, 1e-3), (4, 9), (3,), (14_000, 3_500)),
        *product((0.0, 3e-4, 1e-3), (4, 9), (2,), (14_000,)),
        *product((6e-4,), (4, 9), (3,), (14_000,)),
        (1e-3, 9, 5, 14_000),
    )
}
for depth in (2, 3):
    del CONDITIONS[f"decay-0-k9-{depth}-14000"]  # is heads-4-{depth}
CONDITIONS |= {
    f"sgd-{decay:g}": _workhorse(
        4, 4, 4, optimiser="sgd", lr=0.1, init_scale=0.6, weight_decay=decay
    )
    for decay in (0.0, 3e-5, 1e-4)
}
CONDITIONS["init-1"] = _workhorse(4, 4, 4, init_scale=1.0)
CONDITIONS["adamw-0.3"] = _workhorse(4, 4, 4, optimiser="adamw", weight_decay=0.3)
MODELS |= CONDITIONS

# One layer, for the second paper: over examples, features and noise, and over responses.
DENSE = SparseLinear(d=8, s=8, n=32, noise=1.0, values="gaussian")
SINGLE = {
    f"lsa-d{task.d}-n{task.n}-noise{task.noise:g}": single_layer(task)
    for task in (
        *(replace(DENSE, n=n) for n in (8, 16, 32, 64, 128)),
        *(replace(DENSE, d=d, s=d) for d in (2, 4, 16)),
        *(replace(DENSE, noise=noise) for noise in (0.0, 0.5, 2.0)),
    )
}
SOFTMAX = {f"softmax-{h}": single_layer(DENSE, h, "softmax") for h in (1, 2)}
NONLINEAR = {
    f"response-{family}": single_layer(Nonlinear(8, 32, 0.5, family)) for family in RESPONSES
}
MODELS |= SINGLE | SOFTMAX | NONLINEAR

_VARIED = tuple(name for depth in (3, 5) for name in FAMILIES[depth].values())
_ONE_LAYER = ("heads-811", "heads-181", "heads-118")
_OTHER_N = tuple(f"heads-{h}-n{n}" for n in LENGTHS for h in (1, 8))
_FULL = ("workhorse-3", "workhorse-5", "flagship")

# The models each chapter needs, which `icl train --experiment` trains.
EXPERIMENTS = {
    "varying-heads": ("flagship", *_VARIED, *_ONE_LAYER, *_OTHER_N, "flagship-1", "flagship-811"),
    "head-utilization": (
        *(*_FULL, "workhorse-3-decay", "heads-4-2", "heads-4-3", "heads-4-5", *CONDITIONS),
    ),
    "pruning": (*_FULL, *PRUNED, "heads-1-3", "heads-1-5", "flagship-1"),
    "probing": (*_FULL, "heads-1-3", "heads-811", "flagship-811"),
    "preprocessing": (
        *("heads-1-3", "preprocessed-2", "preprocessed-3", "scaled-2", "scaled-3", "workhorse-3"),
        *("flagship-1", "flagship-preprocessed", "flagship-scaled", "flagship"),
    ),
    "one-step-gd": (*SINGLE, *SOFTMAX),
    "nonlinear-responses": tuple(NONLINEAR),
    "from-one-layer-to-many": tuple(n for family in FAMILIES.values() for n in family.values()),
}
