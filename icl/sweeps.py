"""Named experiments as data: every model that ships, and how it was trained."""

import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from icl import checkpoints
from icl.errors import require
from icl.tasks import SparseLinear
from icl.training import Configuration, Recipe, Trainer, train
from icl.transformer import Architecture


@dataclass(frozen=True)
class Experiment:
    """A configuration and the training seeds it is repeated over."""

    about: str
    config: Configuration
    seeds: tuple[int, ...]

    def adjusted(
        self, steps: int | None = None, seeds: tuple[int, ...] | None = None
    ) -> "Experiment":
        """The same with other steps or seeds; None keeps what there is."""
        recipe = replace(self.config.recipe, steps=steps or self.config.recipe.steps)
        return replace(self, config=replace(self.config, recipe=recipe), seeds=seeds or self.seeds)


WORKHORSE = SparseLinear(d=8, s=2, n=32, noise=1.0, values="sphere")
FLAGSHIP = SparseLinear(d=16, s=2, n=48, noise=1.0, values="sphere")

SEEDS = (0, 1, 2, 3, 4)

EXPERIMENTS = {
    "workhorse-3": Experiment(
        "3 layers of 8 heads",
        Configuration(WORKHORSE, Architecture(8, (8,) * 3, 9, 32), Recipe()),
        SEEDS,
    ),
    "workhorse-5": Experiment(
        "5 layers of 8 heads",
        Configuration(WORKHORSE, Architecture(8, (8,) * 5, 9, 32), Recipe()),
        SEEDS,
    ),
    "workhorse-3-decay": Experiment(
        "3 layers of 8 heads, trained with weight decay",
        Configuration(WORKHORSE, Architecture(8, (8,) * 3, 9, 32), Recipe(weight_decay=3e-4)),
        SEEDS,
    ),
    "flagship": Experiment(
        "the larger size: 16 features, 3 layers of 8 heads",
        Configuration(FLAGSHIP, Architecture(16, (8,) * 3, 17, 64), Recipe(steps=40_000, batch=64)),
        SEEDS,
    ),
}


def run(name: str, experiment: Experiment, output: Path, device: str = "cpu") -> None:
    """Train the seeds of an experiment that `output` does not have yet; resume what was cut."""
    config, done = experiment.config, None
    if output.exists():
        done = checkpoints.load(output)
        require(
            done.config == config,
            f"output={output}: holds another configuration; name another file with --output",
        )
    missing = tuple(seed for seed in experiment.seeds if not done or seed not in done.seeds)
    if not missing:
        print(f"{name} is trained already: {output}")
        return
    state = output.with_name(f".{output.stem}-{config.hash}-{'-'.join(map(str, missing))}.state")
    trainer = _train_with_bar(name, config, missing, state, device)
    checkpoint = checkpoints.finished(output.stem, trainer)
    checkpoints.save(checkpoints.join(done, checkpoint) if done else checkpoint, output)
    state.unlink(missing_ok=True)
    risks = ", ".join(f"{risk:.4f}" for risk in checkpoint.risks)
    print(f"{name}: mean excess risk {risks} (seeds {', '.join(map(str, missing))})")
    print(f"trained in {time.strftime('%H:%M:%S', time.gmtime(trainer.seconds))}: {output}")


def _train_with_bar(
    name: str, config: Configuration, seeds: tuple[int, ...], state: Path, device: str
) -> Trainer:
    """Train behind a progress bar on stderr, with the time left and the recent risk.

    The risk is the median over the last 100 steps' batches: single contexts can raise a
    batch's mean by orders of magnitude.
    """
    recent = deque(maxlen=100)
    with tqdm(
        total=config.recipe.steps, desc=name, unit="step", dynamic_ncols=True, file=sys.stderr
    ) as bar:

        def report(step: int, losses: Tensor) -> None:
            if not recent:  # a resumed run: its rate and time left count from here
                bar.initial = bar.n = step - 1
            recent.append(losses.median())
            bar.set_postfix(risk=f"{torch.stack(list(recent)).median():.4f}", refresh=False)
            bar.update(step - bar.n)

        return train(config, seeds, state, device, report)
