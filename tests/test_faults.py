"""What happens when processes die or meet: nothing is lost, and nothing is left running."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from icl.architecture import Architecture
from icl.configuration import Configuration, Plan
from icl.errors import Failed
from icl.files import load
from icl.recipe import Recipe
from icl.runs import Job, train_all
from icl.site import build
from icl.tasks import SparseLinear
from icl.training import write_atomically

CONFIG = Configuration(
    SparseLinear(d=4, s=2, n=12), Architecture(4, (2, 1), 3, 6), Recipe(steps=5, batch=8)
)


@pytest.fixture
def python():
    """Start processes of Python; they end with the test, and so does all that they have started."""
    started = []

    def start(code, *arguments, **about):
        program = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        started.append(subprocess.Popen(program, text=True, start_new_session=True, **about))
        return started[-1]

    yield start
    for process in started:
        with process, suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def alive(pid):
    """Does it run? A zombie, which nobody has waited for, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(true, within=120):
    """Does it come true? A loaded machine may need a minute to import torch."""
    until = time.monotonic() + within
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def test_trainings_that_end_at_once_in_one_file_lose_no_seed(tmp_path, python):
    """Four processes train a seed each, wait for each other, and store at the same time."""
    code = """
        import sys, time
        from pathlib import Path
        from icl.runs import Job
        from tests_config import CONFIG, Plan
        seed, output = int(sys.argv[1]), Path(sys.argv[2])
        job = Job(Plan(CONFIG, (seed,)), output)
        trained = job.run()
        (output.parent / f"ready{seed}").touch()
        while len(list(output.parent.glob("ready*"))) < 4:
            time.sleep(0.001)
        print(job.store(trained))
    """
    (tmp_path / "tests_config.py").write_text("from test_faults import CONFIG, Plan\n")
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    about = {"env": os.environ | {"PYTHONPATH": paths}, "stdout": subprocess.PIPE}
    runs = [python(code, seed, tmp_path / "m.safetensors.xz", **about) for seed in range(4)]
    for run in runs:
        said, _ = run.communicate(timeout=120)
        assert "mean excess risk" in said
    assert sorted(load(tmp_path / "m.safetensors.xz").seeds) == [0, 1, 2, 3]


def test_a_seed_that_another_has_stored_meanwhile_is_not_stored_again(tmp_path):
    job = Job(Plan(CONFIG, (0, 1)), tmp_path / "m.safetensors.xz")
    trained = job.run()
    Job(Plan(CONFIG, (1,)), job.output).store(trained.only((1,)))
    job.store(trained)
    assert load(job.output).seeds == (1, 0)
    assert "trained already" in job.store(trained)
    assert load(job.output).seeds == (1, 0)


def test_a_foreign_file_fails_its_own_job_only(tmp_path, capsys):
    plans = {name: Plan(CONFIG, (0,)) for name in ("good", "foreign", "garbage", "cut")}
    other = Plan(replace(CONFIG, recipe=Recipe(steps=4, batch=8)), (0,))
    train_all({"foreign": other}, tmp_path)
    (tmp_path / "garbage.safetensors.xz").write_bytes(b"garbage")
    Job(plans["cut"], tmp_path / "cut.safetensors.xz").state.write_bytes(b"garbage")
    with pytest.raises(Exception, match="3 of 4 models failed; the others are trained"):
        train_all(plans, tmp_path)
    said = capsys.readouterr().out
    for name, why in (("foreign", "another configuration"), ("garbage", "damaged"), ("cut", "")):
        assert [line for line in said.splitlines() if line.startswith(f"{name}: ") and why in line]
    assert load(tmp_path / "good.safetensors.xz").seeds == (0,)
    assert load(tmp_path / "foreign.safetensors.xz").config == other.config


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path, python):
    code = """
        import sys
        from pathlib import Path
        from icl.cli import main
        sys.argv = ["icl", "train", "--experiment", "preprocessing", "--output", sys.argv[1]]
        main()
    """
    run = python(code, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while "training" not in run.stdout.readline():
        assert run.poll() is None
    assert soon(lambda: len(children(run.pid)) > 1)  # the first only tracks resources
    workers = children(run.pid)
    run.kill()
    run.wait()
    assert soon(lambda: not any(map(alive, workers)))


def children(pid):
    """All processes that a process has started, and those that they have."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, listed) for found in (child, *children(child))]


def test_a_file_has_ordinary_permissions_and_what_a_dead_process_left_is_removed(tmp_path, python):
    path = tmp_path / "file"
    dead = python("pass")
    dead.wait()
    mark = []
    write_atomically(path, lambda temporary: mark.append(temporary.name) or temporary.touch())
    mine = mark[0].removesuffix(str(os.getpid()))
    orphan, foreign = tmp_path / f"{mine}{dead.pid}", tmp_path / f"{mine}{os.getppid()}"
    for left in (orphan, foreign):
        left.touch()

    def private(temporary):
        temporary.unlink(missing_ok=True)
        os.close(os.open(temporary, os.O_CREAT, 0o600))  # as safetensors does

    write_atomically(path, private)
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert not orphan.exists()
    assert foreign.exists(), "its process is alive"


def test_what_another_machine_writes_into_a_shared_folder_is_left_alone(tmp_path, monkeypatch):
    """Its processes are not known here, and may have the same numbers."""
    path = tmp_path / "file"

    def here(temporary):
        with monkeypatch.context() as there:
            there.setattr("platform.node", lambda: "another")
            there.setattr("os.getpid", lambda: 10**9)  # a number that no process here has
            write_atomically(path, lambda other: names.append(other) or other.write_text("theirs"))
        temporary.write_text("mine")

    names = []
    write_atomically(path, here)
    assert path.read_text() == "mine"
    names[0].touch()
    write_atomically(path, lambda temporary: temporary.write_text("again"))
    assert names[0].exists()


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("before")

    def full(temporary):
        temporary.write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(Failed, match=r"file: cannot be written \(no space"):
        write_atomically(tmp_path / "file", full)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_a_site_stands_after_a_kill_between_the_two_renames(tmp_path, monkeypatch):
    """The old site is found again, even if the next build fails."""
    site = tmp_path / "_build" / "previous"
    site.mkdir(parents=True)
    (site / "index.html").write_text("old")

    def fails(*_):
        raise RuntimeError("a chapter fails")

    monkeypatch.setattr(build, "_execute_changed", fails)
    with pytest.raises(RuntimeError):
        build.build(tmp_path, print)
    assert (tmp_path / "_build" / "html" / "index.html").read_text() == "old"


def test_builds_take_turns(tmp_path, python):
    """The first goes on until the second has said that it waits."""
    code = """
        import sys, time
        from pathlib import Path
        from icl.site import build
        folder = Path(sys.argv[1])
        def execute(*_):
            (folder / "busy").mkdir()  # fails for two at once
            while not (folder / "waits").exists():
                time.sleep(0.01)
            (folder / "busy").rmdir()
            sys.exit()
        def say(text):
            assert "another build is running" in text
            (folder / "waits").touch()
        build._execute_changed = execute
        build.build(folder, say)
    """
    first = python(code, tmp_path, stderr=subprocess.PIPE)
    assert soon(lambda: (tmp_path / "busy").exists() or first.poll() is not None)
    second = python(code, tmp_path, stderr=subprocess.PIPE)
    for run in (first, second):
        assert run.communicate(timeout=120) == (None, "")
        assert run.returncode == 0
