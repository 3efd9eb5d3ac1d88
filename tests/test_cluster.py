"""Training on a cluster: a real scheduler, real workers; they die, restart, and come late."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from icl.architecture import Architecture
from icl.cluster import workers
from icl.configuration import Configuration, Plan
from icl.errors import Refused
from icl.files import load
from icl.recipe import Recipe
from icl.runs import train_all
from icl.tasks import SparseLinear

STEPS = 800
PLANS = {
    f"m{noise:g}": Plan(
        Configuration(
            SparseLinear(4, 2, 12, noise), Architecture(4, (2, 2, 1), 5, 8), Recipe(STEPS, batch=8)
        ),
        (0, 1),
    )
    for noise in (0.25, 0.5, 1.0)
}
# What every process of a test does first: states are saved often, and every step is noted.
PRELUDE = """
    import os, sys
    from pathlib import Path
    from icl import training

    training.SAVE_EVERY = 0.1
    advance, log = training.Trainer.advance, Path(sys.argv.pop(1))

    def noted(self):
        with (log / f"{os.getpid()}.log").open("a") as file:
            file.write(f"{self.config.task.noise:g} {self.step}\\n")
        return advance(self)

    training.Trainer.advance = noted
"""
SCHEDULER = "from distributed.cli.dask_scheduler import main; main()"
WORKER = PRELUDE + "    from distributed.cli.dask_worker import main; main()"
DRIVER = """
    import sys
    from pathlib import Path
    from icl import cluster, runs
    from icl.errors import Failed
    from tests.test_cluster import PLANS

    runs.TIMED_STEPS, runs.REPORT_EVERY = 1, 0.5
    try:
        with cluster.workers(sys.argv[1]) as executor:
            runs.train_all(PLANS, Path(sys.argv[2]), executor=executor)
    except Failed as error:
        sys.exit(f"icl: {error}")
"""


class Cluster:
    """Processes on loopback, all of which end with the test."""

    def __init__(self, folder):
        self.folder, self.running = folder, []
        self.stderr = (folder / "stderr").open("a")
        self.port = 0  # the first scheduler chooses it

    def python(self, code, *arguments):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"] = "5s"
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        program = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        process = subprocess.Popen(
            program, env=environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=self.stderr,
        )  # fmt: skip
        self.running.append(process)
        return process

    def scheduler(self):
        """A scheduler, as soon as it listens: what asks it does not wait for long."""
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)  # of one that was killed
        started = self.python(
            SCHEDULER, "--host", "127.0.0.1", "--port", self.port, "--scheduler-file", file,
            "--no-dashboard", "--no-show",
        )  # fmt: skip
        self.until(lambda: file.exists() and file.read_text().endswith("\n}"))
        self.address = json.loads(file.read_text())["address"]
        self.port = self.address.rpartition(":")[2]
        return started

    def worker(self):
        return self.python(
            WORKER, self.folder, self.address, "--host", "127.0.0.1", "--nthreads", 1,
            "--no-nanny", "--no-dashboard",
        )  # fmt: skip

    def driver(self, output):
        return self.python(DRIVER, self.address, output)

    def steps(self, process):
        """The steps that a process has taken, as the noise of the model and the step."""
        log = self.folder / f"{process.pid}.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(float(noise), int(step)) for noise, step in map(str.split, lines)]

    def until(self, true, within=300):
        end = time.monotonic() + within
        while not true():
            assert time.monotonic() < end, (self.folder / "stderr").read_text()[-2000:]
            time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    for process in made.running:
        process.kill()
        process.wait()
        process.stdout.close()
    made.stderr.close()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The same models, trained without a cluster."""
    folder = tmp_path_factory.mktemp("here")
    train_all(PLANS, folder)
    return folder


def same(folder, here):
    for name in PLANS:
        there, ours = load(folder / f"{name}.safetensors.xz"), load(here / f"{name}.safetensors.xz")
        assert there.seeds == ours.seeds
        assert torch.equal(there.curve, ours.curve)
        assert torch.equal(there.risks, ours.risks)
        for a, b in zip(there.model.parameters(), ours.model.parameters(), strict=True):
            assert torch.equal(a, b)
    left = [path.name for path in folder.iterdir() if path.suffix != ".xz"]
    assert set(left) <= {".lock"}


def test_a_worker_is_killed_and_one_joins_late_and_nothing_is_lost_or_done_twice(cluster, here):
    output = cluster.folder / "trained"
    cluster.scheduler()
    first, second = cluster.worker(), cluster.worker()
    driver = cluster.driver(output)
    cluster.until(lambda: len(cluster.steps(first)) > STEPS // 3)
    first.kill()
    first.wait()  # or its number would still be taken
    late = cluster.worker()
    out, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, (cluster.folder / "stderr").read_text()[-3000:]
    same(output, here)
    for name in PLANS:
        assert out.count(f"{name}: mean excess risk") == 1
    assert "ended; m" in out, "progress is reported"
    taken = [step for process in (first, second, late) for step in cluster.steps(process)]
    # What one worker had done and saved no other one did again.
    every = {(p.config.task.noise, step) for p in PLANS.values() for step in range(STEPS)}
    assert set(taken) == every
    assert len(taken) - len(set(taken)) < STEPS / 3


def test_after_the_scheduler_has_died_the_same_command_goes_on(cluster, here):
    output = cluster.folder / "trained"
    scheduler, started = cluster.scheduler(), [cluster.worker(), cluster.worker()]
    driver = cluster.driver(output)
    cluster.until(lambda: all(len(cluster.steps(worker)) > STEPS // 3 for worker in started))
    scheduler.kill()
    out, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1
    for process in (scheduler, *started):
        process.kill()
        process.wait()  # or its number would still be taken, and what it left would stay
    before = [step for worker in started for step in cluster.steps(worker)]
    cluster.scheduler()
    again = [cluster.worker(), cluster.worker()]
    driver = cluster.driver(output)
    out, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, out
    same(output, here)
    after = [step for worker in again for step in cluster.steps(worker)]
    assert len(before) + len(after) < len(PLANS) * STEPS + 2 * STEPS / 3


def test_where_no_scheduler_answers_one_line_says_so(monkeypatch):
    monkeypatch.setattr("icl.cluster.ANSWERS_WITHIN", 1)
    address = "tcp://127.0.0.1:1"
    with (
        pytest.raises(Refused, match=f"scheduler={address}: no scheduler answers"),
        workers(address),
    ):
        pass


@pytest.mark.parametrize("address", ["", "nonsense://x", "ucx://127.0.0.1:8786", "tcp://127.0.0.1"])
def test_what_is_no_address_of_a_scheduler_is_refused(address):
    allowed = "allowed are addresses like tcp"
    with pytest.raises(Refused, match=f"^scheduler={address}: {allowed}"), workers(address):
        pass


def test_addresses_that_dask_s_configuration_does_not_fit_are_refused():
    dask = pytest.importorskip("dask")
    with pytest.raises(Refused, match="needs certificates"), workers("tls://127.0.0.1:8786"):
        pass
    encrypted = dask.config.set({"distributed.comm.require-encryption": True})
    refused = pytest.raises(Refused, match="requires encryption")
    with encrypted, refused, workers("tcp://127.0.0.1:8786"):
        pass


def test_without_dask_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(Refused, match=r"needs Dask, which is optional: pip install .*\[cluster\]"),
        workers("tcp://127.0.0.1:1"),
    ):
        pass
