"""Models that several experiments share, as plans by the name of their file."""

from dataclasses import replace
from itertools import product
from typing import TypeVar

import numpy as np

from icl.architecture import Architecture
from icl.checkpoints import Checkpoint
from icl.configuration import Configuration, Plan
from icl.errors import require
from icl.files import load
from icl.recipe import PRECISIONS, USUAL
from icl.tasks import SparseLinear, Task

# Files whose models are repeated over more than five seeds: where five left a setting undecided in
# which they are judged they have ten, and where ten did, twenty. What is undecided then stays so.
REPEATED = {
    10: {
        "s1-noise0.3-888",
        *(f"s1-noise{noise}-888-decay0.0001" for noise in (0.3, 0.5)),
        *(f"s1-noise{noise}-844-decay0.0001" for noise in (0.5, 1)),
        "s2-noise0.5-888",
        "s4-noise0.1-888",
        *(f"s4-noise0.5-{heads}-decay0.0001" for heads in (888, 844)),
        "s4-noise1-888-decay0.0001",
        "s1-noise0.5-888-d16-decay0.0001",
        "s1-noise0.5-888-24000-decay0.0001",
        "s1-noise0.5-888-decay0.0003",
        "s1-noise0.5-88888",
        "heads-8-2",
        *(f"s{s}-noise0.5-888" for s in (3, 4, 6, 8)),
    },
    20: {
        "s1-noise0.5-888",
        "s1-noise0.5-888-d16",
        "heads-4-2",
        "heads-16-2",
        "heads-8-2-56000",
        *(f"s{s}-noise0.5-888-gaussian" for s in (1, 2, 3, 4, 6, 8)),
        "s1-noise0.3-844-decay0.0001",
        "s1-noise1-888-decay0.0001",
        "s2-noise1-888",
        "s2-noise1-844-decay0.0001",
        "heads-1-n16",
        "softmax-444",
        "workhorse-3-decay",
        *(f"split-844-{decay}" for decay in (0, 0.01)),
        *(f"{task}-{h}11" for task in ("s1-noise0.5", "s2-noise1") for h in (1, 2, 4, 8, 16)),
    },
}

K = TypeVar("K")
# The file of a model, and its plan.
Filed = tuple[str, Plan]


def filed(name: str, plan: Plan) -> Filed:
    """A model's file and its plan, repeated over as many seeds as its verdicts need."""
    counts = [count for count, names in REPEATED.items() if name in names]
    return name, replace(plan, seeds=tuple(range(*counts))) if counts else plan


WORKHORSE = SparseLinear(d=8, s=2, n=32, noise=1.0, values="sphere")
FLAGSHIP = SparseLinear(d=16, s=2, n=48, noise=1.0, values="sphere")
DENSE = SparseLinear(d=8, s=8, n=32, noise=1.0, values="gaussian")


def workhorse(*heads: int, d_head: int = 9, inputs: str = "raw", n: int = 32, **recipe) -> Plan:
    """A model of eight features; `recipe` are settings in which its training differs."""
    model = Architecture(8, heads, d_head, 32, inputs=inputs)
    return Plan(
        Configuration(replace(WORKHORSE, n=n), model, replace(USUAL["workhorse"], **recipe))
    )


def flagship(*heads: int, inputs: str = "raw") -> Plan:
    """A model of sixteen features."""
    model = Architecture(16, heads, 17, 64, inputs=inputs)
    return Plan(Configuration(FLAGSHIP, model, USUAL["flagship"]))


def single_layer(
    task: Task, heads: int = 1, attention: str = "linear", steps: int = USUAL["single"].steps
) -> Plan:
    """One layer whose head dimension is its width: no matrix of it limits another's rank."""
    width = 4 * task.d
    model = Architecture(task.d, (heads,), width, width, attention)
    return Plan(Configuration(task, model, replace(USUAL["single"], steps=steps)))


# Eight heads in every layer.
FULL = {
    "workhorse-3": workhorse(8, 8, 8),
    "workhorse-5": workhorse(8, 8, 8, 8, 8),
    "flagship": flagship(8, 8, 8),
}
# The same with light decay, under which heads die.
DECAYED = dict([filed("workhorse-3-decay", workhorse(8, 8, 8, weight_decay=3e-4))])
# Names of models that differ in the number of heads per layer only, by depth.
BY_HEADS = {
    depth: {h: f"heads-{h}-{depth}" for h in (1, 2, 4)}
    | {8: f"workhorse-{depth}" if depth in (3, 5) else f"heads-8-{depth}"}
    for depth in (1, 2, 3, 4, 5)
}
EQUAL = dict(
    filed(name, workhorse(*[h] * depth))
    for depth, family in BY_HEADS.items()
    for h, name in family.items()
)
# Many heads in the first layer only, and one head in every layer.
FIRST = {"heads-811": workhorse(8, 1, 1), "flagship-811": flagship(8, 1, 1)}
SINGLE_HEAD = {
    "heads-1-3": EQUAL["heads-1-3"],
    "heads-1-5": EQUAL["heads-1-5"],
    "flagship-1": flagship(1, 1, 1),
}


SPARSITIES, NOISES = (1, 2, 4), (0.1, 0.3, 0.5, 1.0)
# What is trained in every cell of a grid of these: heads per layer and coupled weight decay.
ALONE = "1-1-1"
KINDS = {
    "8-8-8": ((8, 8, 8), 0.0),
    "8-8-8, decay": ((8, 8, 8), 1e-4),
    "8-4-4, decay": ((8, 4, 4), 1e-4),
    ALONE: ((1, 1, 1), 0.0),
}
SHORT = {"steps": 6_000, "batch": 64}
# Steps after which some models' weights are kept, from 24 on by factors of about 1.25.
SNAPSHOTS = tuple(int(step) for step in np.geomspace(10, 6_000, 30).round()[4:-1])


def sparse(s: int, noise: float, heads: tuple[int, ...], decay: float = 0.0) -> Plan:
    """A model of eight features for s non-zero weights and a noise, trained more briefly."""
    recipe = replace(USUAL["workhorse"], **SHORT, weight_decay=decay)
    task = SparseLinear(8, s, 32, noise, "sphere")
    return Plan(Configuration(task, Architecture(8, heads, 9, 32), recipe))


def named(s: int, noise: float, heads: tuple[int, ...], decay: float) -> str:
    """The file of a model in the grid."""
    return f"s{s}-noise{noise:g}-{''.join(map(str, heads))}" + f"-decay{decay:g}" * (decay > 0)


def cell(s: int, noise: float, kind: str) -> Filed:
    """A model in the grid."""
    heads, decay = KINDS[kind]
    return filed(named(s, noise, heads, decay), sparse(s, noise, heads, decay))


# The models of the grid by sparsity, noise and kind.
GRID = {
    (s, noise, kind): cell(s, noise, kind)
    for s, noise in product(SPARSITIES, NOISES)
    for kind in KINDS
}


# The sparsest task, on which no first-layer head can be spared; one setting at a time is changed.
BASE = GRID[1, 0.5, "8-8-8"][1].config


def varied(*heads: int, **changes) -> Plan:
    """The base with other heads, or with changed settings of its task and its recipe."""
    known = vars(BASE.task) | vars(BASE.recipe)
    require(changes.keys() <= known.keys(), f"{[*changes]}: allowed are {', '.join(known)}")
    task, recipe = (
        replace(part, **{name: x for name, x in changes.items() if name in vars(part)})
        for part in (BASE.task, BASE.recipe)
    )
    model = Architecture(task.d, heads or BASE.architecture.heads, task.d + 1, 4 * task.d)
    return Plan(Configuration(task, model, recipe))


def sized(d: int, kind: str) -> Filed:
    """A model for 64 examples of so many features."""
    heads = KINDS[kind][0]
    size = f"d{d}" if d != BASE.task.d else "n64"
    return filed(f"s1-noise0.5-{''.join(map(str, heads))}-{size}", varied(*heads, d=d, n=64))


SIZES = {kind: {d: sized(d, kind) for d in (4, 8, 12, 16)} for kind in ("8-8-8", ALONE)}


def watched(s: int, noise: float, kind: str) -> Filed:
    """A model of the grid whose weights were kept along its training, in a file of their own."""
    name, plan = GRID[s, noise, kind]
    return f"{name}-watched", replace(plan, seeds=Plan.seeds, snapshots=SNAPSHOTS)


# Models with all heads for every sparsity, at noise 0.5, by what non-zero weights are.
EVERY_S = (1, 2, 3, 4, 6, 8)  # from one of eight features to all
FULL_HEADS = (8, 8, 8)
VALUES = {"on a sphere": "sphere", "Gaussian": "gaussian"}


def member(s: int, values: str) -> Filed:
    """A model trained at one sparsity."""
    config = sparse(s, 0.5, FULL_HEADS).config
    name = named(s, 0.5, FULL_HEADS, 0.0) + f"-{values}" * (values != config.task.values)
    return filed(name, Plan(replace(config, task=replace(config.task, values=values))))


MEMBERS = {kind: {s: member(s, x) for s in EVERY_S} for kind, x in VALUES.items()}


# Transformers as they are trained in practice: softmax or ReLU, normalised, and of any length.
SPARSEST = SparseLinear(8, 1, 32, 0.5, "sphere")


def practical(attention: str, d_head: int) -> Plan:
    """Eight heads per layer, width 64, AdamW and standard initial weights, on the sparsest task."""
    model = Architecture(8, (8, 8, 8), d_head, 64, attention, norm=True)
    return Plan(Configuration(SPARSEST, model, USUAL["practical"]))


# With d_head = 8 a head has its share of the width; with 16 it can carry more than all features.
PRACTICAL = {
    "relu-norm": replace(practical("relu", 8), snapshots=SNAPSHOTS[12::4]),
    "relu-norm-k16": practical("relu", 16),
    "softmax-norm": practical("softmax", 8),
}


def trained(plans: dict[str, Plan], precision: str = "single") -> dict[str, Checkpoint]:
    """The planned models, as they ship; no two may have one label, which results go by."""
    found = {name: load(name) for name in plans}
    for model in found.values():
        model.model.to(PRECISIONS[precision])
    labels = [model.label for model in found.values()]
    twins = sorted({label for label in labels if labels.count(label) > 1})
    require(not twins, f"models called {twins}: every label must be one model's")
    return found


def trained_families(
    members: dict[K, dict[int, Filed]], precision: str = "single"
) -> dict[K, dict[int, Checkpoint]]:
    """Planned models as they ship, in the places of their files and plans.

    Models of a family are compared seed by seed: each has the seeds that all of them have.
    """
    found = trained(dict(x for family in members.values() for x in family.values()), precision)
    families = {}
    for kind, family in members.items():
        shared = min((plan.seeds for _, plan in family.values()), key=len)
        families[kind] = {key: found[name].only(shared) for key, (name, _) in family.items()}
    return families
