"""Training what is missing of planned models, here or on a cluster."""

import hashlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context, parent_process, resource_tracker
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import torch
from filelock import FileLock
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from icl.checkpoints import Checkpoint, finished, join
from icl.configuration import Plan
from icl.errors import Failed, require
from icl.files import file_in, load, name_of, save
from icl.starts import begin
from icl.threads import one_thread
from icl.training import train

LONGEST = 40  # characters of seeds in a file's name
REPORT_EVERY = 60.0  # seconds
TIMED_STEPS = 8  # per model, to say beforehand how long all will take


@dataclass(frozen=True)
class Job:
    """What is left to train of a plan: the seeds that a file does not have yet, and that file."""

    plan: Plan
    output: Path

    @classmethod
    def of(cls, plan: Plan, output: Path) -> "Job":
        """What `output` lacks of a plan; without seeds if it lacks nothing."""
        if not output.exists():
            return cls(plan, output)
        done = load(output)
        require(
            done.config == plan.config,
            f"output={output}: holds another configuration; name another file with --output",
        )
        missing = tuple(seed for seed in plan.seeds if seed not in done.seeds)
        return cls(replace(plan, seeds=missing), output)

    @property
    def name(self) -> str:
        return name_of(self.output)

    def run(self, device: str = "cpu", report: Callable | None = None) -> Checkpoint:
        """Train, resuming what was cut; needs no file but its own state."""
        trainer = begin(self.plan.config, self.plan.seeds, device)
        trainer.keep = self.plan.snapshots
        return finished(self.name, train(trainer, self.state, report))

    def store(self, trained: Checkpoint) -> str:
        """Add newly trained seeds to the file, which others may add to, and say so in a line."""
        with FileLock(self.output.with_name(".lock")):
            there = load(self.output) if self.output.exists() else None
            new = tuple(seed for seed in trained.seeds if not there or seed not in there.seeds)
            if new:
                trained = trained.only(new)
                save(join(there, trained) if there else trained, self.output)
        self.state.unlink(missing_ok=True)
        if not new:
            return f"{self.name} is trained already: {self.output}"
        risks = ", ".join(f"{risk:.4f}" for risk in trained.risks)
        return (
            f"{self.name}: mean excess risk {risks} (seeds {', '.join(map(str, trained.seeds))}), "
            f"trained in {_clock(trained.seconds)}: {self.output}"
        )

    def seconds_left(self) -> float:
        """How long the rest of the training will take on one thread, from a few timed steps."""
        trainer, steps = begin(self.plan.config, self.plan.seeds), self.plan.config.recipe.steps
        seconds = []
        with one_thread():
            for _ in range(min(TIMED_STEPS, steps)):
                before = trainer.seconds
                trainer.advance()
                seconds.append(trainer.seconds - before)
        return median(seconds) * steps * (1 - self.share)

    @property
    def share(self) -> float:
        """What part of a training that is not at its end has been done and saved."""
        with suppress(FileNotFoundError), safe_open(self.state, framework="pt") as file:
            return len(file.get_tensor("losses")) / self.plan.config.recipe.steps
        return 0.0

    @property
    def state(self) -> Path:
        """Where a training that is cut continues from."""
        seeds = "-".join(map(str, self.plan.seeds))
        if len(seeds) > LONGEST:  # no file has a name of any length
            seeds = hashlib.sha256(seeds.encode()).hexdigest()[:LONGEST]
        return self.output.with_name(f".{self.name}-{self.plan.config.hash}-{seeds}.state")


def train_model(plan: Plan, output: Path, device: str = "cpu") -> None:
    """Train the seeds of a plan that `output` does not have yet; resume what was cut."""
    job = Job.of(plan, output)
    if not job.plan.seeds:
        print(f"{job.name} is trained already: {output}")
        return
    steps = plan.config.recipe.steps
    with tqdm(total=steps, desc=job.name, unit="step", dynamic_ncols=True, file=sys.stderr) as bar:
        print(job.store(job.run(device, _follow(bar))))


def train_all(
    plans: dict[str, Plan], folder: Path, device: str = "cpu", executor: Executor | None = None
) -> None:
    """Train what is missing of the named plans into `folder`, longest first.

    By default on this machine, one process per core. Any other `concurrent.futures` executor
    will do, such as that of `icl.cluster`: its workers train, and send what they trained back
    here. Where they see the folder, another one goes on where one has died. A few steps of every
    model are timed first.
    """
    require(not folder.is_file(), f"output={folder}: is a file; a folder is needed")
    files = {name: file_in(folder, name) for name in plans}
    jobs = [_tried(name, Job.of, plan, files[name]) for name, plan in plans.items()]
    missing = [job for job in jobs if job and job.plan.seeds]
    wanted = len(missing) + jobs.count(None)
    print(f"{len(jobs) - wanted} of {len(jobs)} models are trained already")
    if not wanted:
        return
    timed = {job: _tried(job.name, job.seconds_left) for job in missing}
    seconds = {job: left for job, left in timed.items() if left is not None}
    order = sorted(seconds, key=seconds.get, reverse=True)
    at_once = max(1, len(missing)) if executor else os.cpu_count() or 1
    longest = max([sum(seconds.values()) / at_once, *seconds.values()])
    where = "the given executor" if executor else f"{at_once} cores"
    print(f"training {len(order)} on {where}: about {_clock(longest)}", flush=True)
    stored = []
    count = max(1, min(at_once, len(order)))
    with nullcontext(executor) if executor else _processes(count) as workers:
        running = {workers.submit(_alone, job, device): job for job in order}
        for done in _completed(running):
            job = running[done]
            line = _tried(job.name, lambda job=job, done=done: job.store(done.result()))
            if line:
                print(line, flush=True)
                stored.append(line)
    if failed := wanted - len(stored):
        raise Failed(f"{failed} of {wanted} models failed; the others are trained")


def _alone(job: Job, device: str) -> Checkpoint:
    """Train on one thread, wherever that is: the number of threads decides about bits."""
    with one_thread():
        return job.run(device)


def _completed(running: dict[Future, Job]) -> Iterator[Future]:
    """Trainings as they end; meanwhile a line now and then says how far the others are."""
    left = set(running)
    while left:
        done, left = wait(left, REPORT_EVERY, FIRST_COMPLETED)
        yield from done
        shares = {running[future].name: running[future].share for future in left}
        begun = [f"{name} {share:.0%}" for name, share in shares.items() if share]
        if begun and not done:
            ended = len(running) - len(left)
            print(f"{ended} of {len(running)} have ended; {', '.join(begun)}", flush=True)


@contextmanager
def _processes(count: int) -> Iterator[Executor]:
    """Processes of one thread each; an interrupt ends them all at once."""
    # Spawned: a forked child would inherit torch's threads in an unknown state.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(count, spawn, start_worker, (1,)) as workers:
        resource_tracker.ensure_running()  # which would take the block away
        came = []  # interrupts while processes start, which inherit the block, are heeded after it
        heed = signal.signal(signal.SIGINT, lambda *_: came.append(True))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for _ in range(count):
            workers.submit(int)  # starts one
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            signal.signal(signal.SIGINT, heed)
            if came:
                raise KeyboardInterrupt
            yield workers
        except KeyboardInterrupt:
            for child in active_children():
                child.terminate()
            raise


def start_worker(threads: int) -> None:
    """What a process of a pool does first: it takes so many threads, as will what it starts, and
    ends when the one that started it does, however that ends.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    torch.set_num_threads(threads)

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _tried(name: str, action: Callable, *arguments: Any) -> Any:
    """What an action returns or, where it fails, None and a line: the other jobs go on."""
    try:
        return action(*arguments)
    except Exception as error:
        print(f"{name}: {str(error) or type(error).__name__}", flush=True)
        return None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def _follow(bar: tqdm) -> Callable[[int, Tensor], None]:
    """Show every step on the bar, with the median risk of the last 100: outliers rule means."""
    recent = deque(maxlen=100)

    def report(step: int, losses: Tensor) -> None:
        if not recent:  # a resumed run: its rate and time left count from here
            bar.initial = bar.n = step - 1
        recent.append(losses.median())
        bar.set_postfix(risk=f"{torch.stack(list(recent)).median():.4f}", refresh=False)
        bar.update(step - bar.n)

    return report
