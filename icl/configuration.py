"""Everything that determines a trained model but its seed, as immutable data."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from icl.architecture import Architecture
from icl.errors import choose, real, require, several
from icl.recipe import Recipe
from icl.tasks import Nonlinear, SparseLinear, Task

CHOICES = ("importance", "random")
STARTS = ("start", "split", "written")  # settings that say where a training starts

# Settings that came after files had been written, and what a file without them means. These are
# facts of the past: they never follow a default, and a value like these leaves a hash as it was.
ADDED = {
    "architecture": {"norm": False, "mlp": False},
    "recipe": {"lengths": (), "precision": "single"},
}

USUAL_N = {8: 32, 16: 48}  # examples per context, by features


@dataclass(frozen=True)
class Start:
    """Where a fine-tuning starts: from a shipped model whose heads were pruned.

    `model` is its name and `hash` that of its configuration. Every layer keeps as many heads as
    the architecture to be trained has: its most important ones, or random ones.
    """

    model: str
    hash: str
    keep: str = "importance"

    def __post_init__(self):
        choose("keep", self.keep, CHOICES)


@dataclass(frozen=True)
class Split:
    """A start from Algorithm 1 or gradient descent by hand: heads share its steps at random."""

    step_rate: float

    def __post_init__(self):
        real("step_rate", self.step_rate, "(0, inf)")


@dataclass(frozen=True)
class Written:
    """A start from the network of two layers by hand that these eleven numbers are written as."""

    numbers: tuple[float, ...]

    def __post_init__(self):
        for number in several("numbers", self.numbers):
            real("numbers", number, "(-inf, inf)")
        object.__setattr__(self, "numbers", tuple(map(float, self.numbers)))
        require(len(self.numbers) == 11, f"numbers={self.numbers}: allowed are eleven")


@dataclass(frozen=True)
class Configuration:
    """Everything that determines a trained model but its seed.

    Training starts from drawn weights, or where one of `start`, `split` and `written` says.
    """

    task: Task = field(default_factory=SparseLinear)
    architecture: Architecture = field(default_factory=Architecture)
    recipe: Recipe = field(default_factory=Recipe)
    start: Start | None = None
    split: Split | None = None
    written: Written | None = None

    def __post_init__(self):
        starts = [name for name in STARTS if getattr(self, name)]
        require(len(starts) < 2, f"{' and '.join(starts)}: a training has one start")
        require(
            self.task.d == self.architecture.d,
            f"d={self.architecture.d} of the architecture: the task has d={self.task.d}",
        )
        require(
            isinstance(self.task, SparseLinear) or self.architecture.collapses,
            f"attention={self.architecture.attention!r}: nonlinear responses allow linear only, "
            "without norm and mlp, because their excess risk is that of a linear answer",
        )

    def to_dict(self) -> dict:
        return {k: v for k, v in asdict(self).items() if v is not None or k not in STARTS[1:]}

    @classmethod
    def from_dict(cls, data: dict) -> "Configuration":
        parts = {
            "task": Nonlinear if "family" in data["task"] else SparseLinear,
            "architecture": Architecture,
            "recipe": Recipe,
            "start": Start,
            "split": Split,
            "written": Written,
        }
        whole = {k: ADDED.get(k, {}) | given for k, given in data.items() if given}
        return cls(**{name: parts[name](**given) for name, given in whole.items()})

    @property
    def hash(self) -> str:
        """Twelve hex digits that name this configuration: a hash of the values themselves."""
        data = {
            part: {k: v for k, v in given.items() if ADDED.get(part, {}).get(k, ...) != v}
            for part, given in self.to_dict().items()
            if given
        }
        text = json.dumps(data, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """What to call it in a figure: its heads and features, and whatever is not usual."""
        return ", ".join([*self._model_words(), *self._task_words(), *self._training_words()])

    @property
    def _dense(self) -> bool:
        return isinstance(self.task, Nonlinear) or self.task.s == self.task.d

    def _model_words(self) -> Iterator[str]:
        model = self.architecture
        kind = "" if model.attention == "linear" else f"{model.attention} "
        heads = "-".join(map(str, model.heads))
        yield f"{heads} {kind}head{'' if heads == '1' else 's'}"
        yield f"d = {model.d}"
        if model.d_head != (model.d_model if self._dense else model.d + 1):
            yield f"k = {model.d_head}"
        if model.d_model != 4 * model.d and not self.split:  # which sets the width
            yield f"width {model.d_model}"
        if model.inputs != "raw":
            yield f"{model.inputs} inputs"
        if model.norm:
            yield "norm"
        if model.mlp:
            yield "MLP"

    def _task_words(self) -> Iterator[str]:
        task = self.task
        if task.n != USUAL_N.get(task.d, 32):
            yield f"n = {task.n}"
        if isinstance(task, Nonlinear):
            yield f"{task.family} responses"
            return
        if self._dense:
            yield "dense"
        elif task.s != 2:
            yield f"s = {task.s}"
        if task.values != ("gaussian" if self._dense else "sphere"):
            yield f"{task.values} values"
        if task.noise != 1:
            yield f"noise {task.noise:g}"
        if task.covariance:
            yield "Σ ≠ I"
        if task.prior:
            yield "Ω given"

    def _training_words(self) -> Iterator[str]:
        if not self.start:
            by_hand = {"split": self.split, "from eleven numbers": self.written}
            yield from [word for word, start in by_hand.items() if start] + self.recipe.words()
            return
        chosen = " at random" if self.start.keep == "random" else ""
        yield f"pruned{chosen} and fine-tuned"


@dataclass(frozen=True)
class Plan:
    """A model to train: a configuration and the training seeds it is repeated over.

    After each of the steps in `snapshots` the weights are kept; they determine no model.
    """

    config: Configuration
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    snapshots: tuple[int, ...] = ()

    def adjusted(self, steps: int | None = None, seeds: tuple[int, ...] | None = None) -> "Plan":
        """The same with other steps or seeds; None keeps what there is."""
        recipe = self.config.recipe if steps is None else replace(self.config.recipe, steps=steps)
        seeds = self.seeds if seeds is None else seeds
        return replace(self, config=replace(self.config, recipe=recipe), seeds=seeds)
