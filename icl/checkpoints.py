"""Trained models as files: safetensors with their whole provenance."""

import copy
import hashlib
import json
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from icl.configuration import Configuration
from icl.contexts import draw
from icl.errors import Refused, choose, require
from icl.predictors import excess_risk
from icl.training import Snapshots, Trainer, packed, unpacked, write_atomically
from icl.transformer import Transformer, build

TRAINED = Path(__file__).parent / "trained"
FORMAT = "icl-checkpoint-2"
FIRST_STEPS = 20  # losses recorded one by one, which `verify` replays
CURVE_STEPS = 100  # per point of the recorded loss curve
RISK_CONTEXTS = 4096  # a quarter where answers take tokens: those take long


@dataclass(frozen=True)
class Checkpoint:
    """Several seeds of one configuration, trained, with what is known of how.

    first_losses: (FIRST_STEPS, M) batch risks of the first steps.
    curve: (steps / CURVE_STEPS, M) batch risks, medians of so many steps: a single context can
        raise a batch's mean by orders of magnitude.
    risks: (M,) mean excess risk on contexts of stream `evaluate`, seed 0: `recorded_risk`.
    snapshots: weights along the training, if any were kept; `at` gives them as models.
    """

    name: str
    model: Transformer
    config: Configuration
    seeds: tuple[int, ...]
    first_losses: Tensor
    curve: Tensor
    risks: Tensor
    seconds: float
    versions: dict[str, str]
    snapshots: Snapshots = field(default_factory=dict)

    def __post_init__(self):
        require(self.model.whole, f"{self.name}: a model with masked heads: allowed are whole ones")

    def __repr__(self) -> str:
        low, high = self.risks.min(), self.risks.max()
        risk = f"excess risk {low:.4g} to {high:.4g}"
        return f"Checkpoint({self.name}: {self.label}; {len(self.seeds)} seeds, {risk})"

    @property
    def label(self) -> str:
        """What to call it in a figure; its name is only how to load it."""
        return self.config.label

    def at(self, step: int) -> Transformer:
        """The models after so many steps, from weights that were rounded to half precision."""
        require(step in self.snapshots, f"step={step}: {self.name} has {[*self.snapshots]}")
        return _model(self.config, self.seeds, self.snapshots[step])

    def only(self, seeds: tuple[int, ...]) -> "Checkpoint":
        """The models of these training seeds, in this order."""
        absent = [seed for seed in seeds if seed not in self.seeds]
        require(not absent, f"seeds={absent}: {self.name} has {self.seeds}")
        rows = [self.seeds.index(seed) for seed in seeds]

        def chosen(weights: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value[rows] for name, value in weights.items()}

        return replace(
            self,
            model=_model(self.config, seeds, chosen(self.model.state_dict())),
            snapshots={step: chosen(weights) for step, weights in self.snapshots.items()},
            seeds=tuple(seeds),
            first_losses=self.first_losses[:, rows],
            curve=self.curve[:, rows],
            risks=self.risks[rows],
            seconds=self.seconds * len(seeds) / len(self.seeds),
        )


def finished(name: str, trainer: Trainer) -> Checkpoint:
    """The checkpoint of a training that has run to its end.

    Its weights are rounded to half precision, so that a file takes half of the space; what is
    judged is what ships.
    """
    steps = trainer.config.recipe.steps
    require(trainer.step == steps, f"{trainer.step} steps done: training ends at {steps}")
    size = min(CURVE_STEPS, steps)
    points = trainer.losses[: steps // size * size].unflatten(0, (-1, size))
    weights = trainer.model.cpu().state_dict()
    model = _model(trainer.config, trainer.seeds, {k: v.half() for k, v in weights.items()})
    return Checkpoint(
        name=name,
        model=model,
        config=trainer.config,
        seeds=trainer.seeds,
        first_losses=trainer.losses[:FIRST_STEPS].clone(),
        curve=points.median(dim=1).values,
        risks=recorded_risk(model, trainer.config),
        seconds=trainer.seconds,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        snapshots=trainer.snapshots,
    )


@torch.no_grad()
def recorded_risk(model: Transformer, config: Configuration) -> Tensor:
    """The risk a checkpoint records, (M,), in squared label units.

    In float64: where a context makes an answer explode, float32 would differ by machine.
    """
    queries = config.architecture.queries
    count = RISK_CONTEXTS // 4 if queries else RISK_CONTEXTS
    contexts = draw(config.task, count, "evaluate", 0, queries=queries)
    return excess_risk(copy.deepcopy(model).double(), contexts).mean(dim=-1)


def join(first: Checkpoint, second: Checkpoint) -> Checkpoint:
    """One checkpoint with the seeds of both, which must be of one configuration."""
    require(
        first.config == second.config
        and not set(first.seeds) & set(second.seeds)
        and first.snapshots.keys() == second.snapshots.keys(),
        f"seeds {first.seeds} and {second.seeds}: only checkpoints of one configuration, with "
        "different seeds and snapshots after the same steps, can be joined",
    )
    seeds = first.seeds + second.seeds

    def both(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.cat([one[name], other[name]]) for name in one}

    versions = {
        name: ", ".join(dict.fromkeys((used, second.versions.get(name, used))))
        for name, used in first.versions.items()
    }
    return replace(
        first,
        model=_model(
            first.config, seeds, both(first.model.state_dict(), second.model.state_dict())
        ),
        snapshots={
            step: both(first.snapshots[step], second.snapshots[step]) for step in first.snapshots
        },
        seeds=seeds,
        first_losses=torch.cat([first.first_losses, second.first_losses], dim=1),
        curve=torch.cat([first.curve, second.curve], dim=1),
        risks=torch.cat([first.risks, second.risks]),
        seconds=first.seconds + second.seconds,
        versions=versions,
    )


def _model(config: Configuration, seeds: tuple[int, ...], state: dict[str, Tensor]) -> Transformer:
    model = build(config.architecture, len(seeds))
    model.load_state_dict(state)
    return model.requires_grad_(False)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    weights = checkpoint.model.state_dict()
    tensors = {f"model.{k}": _short(v).contiguous() for k, v in weights.items()}
    tensors |= packed(checkpoint.snapshots)
    for name in ("first_losses", "curve", "risks"):
        tensors[name] = getattr(checkpoint, name).contiguous()
    about = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.config.to_dict()),
        "hash": checkpoint.config.hash,
        "seeds": json.dumps(checkpoint.seeds),
        "seconds": repr(checkpoint.seconds),
        "versions": json.dumps(checkpoint.versions),
        "digest": _digest(tensors),
    }
    write_atomically(path, lambda temporary: save_file(tensors, temporary, about))


def _short(weights: Tensor) -> Tensor:
    """The same numbers in half precision, where nothing of them is lost."""
    half = weights.half()
    return half if torch.equal(half.to(weights), weights) else weights


def catalogue() -> list[str]:
    """Names of the trained models that ship with the package."""
    return sorted(path.stem for path in TRAINED.glob("*.safetensors"))


def load(name: str | Path) -> Checkpoint:
    """Load a shipped model by name, or a checkpoint file by its path.

    >>> load("workhorse-3").model.config.heads
    (8, 8, 8)
    """
    path = Path(name)
    if path.suffix != ".safetensors":
        path = TRAINED / f"{choose('model', str(name), catalogue())}.safetensors"
    require(path.is_file(), f"{path}: no such file; `icl list` names the models that ship")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Refused(f"{path}: damaged, or not a safetensors file ({error})") from None
    require(
        about.get("format") == FORMAT,
        f"{path}: not a checkpoint of this library (format {about.get('format')!r}; "
        f"allowed is {FORMAT!r})",
    )
    require(about.get("digest") == _digest(tensors), f"{path}: damaged (its digest differs)")
    try:
        config = Configuration.from_dict(json.loads(about["config"]))
        seeds = tuple(json.loads(about["seeds"]))
        parts = {k: v for k, v in tensors.items() if k.startswith("model.")}
        model = _model(config, seeds, {k.removeprefix("model."): v for k, v in parts.items()})
        recorded = {name: tensors[name] for name in ("first_losses", "curve", "risks")}
        snapshots = unpacked(tensors)
        seconds, versions = float(about["seconds"]), json.loads(about["versions"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(f"{path}: its metadata and tensors do not fit together ({reason})") from None
    require(about.get("hash") == config.hash, f"{path}: its configuration does not match its hash")
    about = {"seconds": seconds, "versions": versions, "snapshots": snapshots}
    return Checkpoint(path.stem, model, config, seeds, **recorded, **about)


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes of all tensors."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()
