"""The command: what a user types, and what a user mistypes."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from icl import experiments, files, replay, runs
from icl.errors import Failed, Refused
from icl.experiments.models import SINGLE_HEAD
from icl.files import load
from icl.runs import Job, train_all
from icl.site.chapters import chapters
from icl.starts import begin

SMALL = SINGLE_HEAD["heads-1-3"]


@pytest.fixture
def trial(monkeypatch):
    """Make an experiment of these plans the only one there is."""

    def plan(plans):
        found = {"trial": SimpleNamespace(PLANS=plans)}
        monkeypatch.setattr(experiments, "experiments", lambda: found)

    return plan


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["biuld"], "did you mean build?"),
        (["run", "head-utilisation"], "did you mean head-utilization?"),
        (["run", "head-utilization", "--context", "5"], "did you mean --contexts?"),
        (["run", "head-utilization", "--colour", "5"], "--contexts, --examples, --seed"),
        (["run", "head-utilization", "--contexts", "many"], "'many' is not a valid integer"),
        (["run", "head-utilization", "--contexts"], "requires an argument"),
        (["run", "head-utilization", "512"], "unexpected extra argument"),
        (["train", "flagshp"], "did you mean flagship?"),
        (["train"], "NAME is missing"),
        (["train", "--experiment", "prunning"], "did you mean pruning?"),
        (["train", "flagship", "--experiment", "pruning"], "NAME: not allowed with --experiment"),
        (["train", "--experiment", "pruning", "--steps", "5"], "--steps: not allowed"),
        (["train", "flagship", "--seeds", "a,b"], "whole numbers separated by commas"),
        (["train", "flagship", "--seeds", "1,1"], "different whole numbers"),
        (["train", "flagship", "--seeds", "²"], "different whole numbers"),
        (["train", "flagship", "--seeds", "9" * 30], "different whole numbers"),
        (["train", "flagship", "--steps", "0"], "--steps"),
        (["train", "flagship", "--device", "gpu"], "allowed are cpu"),
        (["train", "flagship", "--output", "model.pt"], "must end in .safetensors.xz"),
        (["verify", "flagship2"], "more; did you mean flagship?"),
        (["verify", "none.safetensors.xz"], "no such file"),
        (["list", "--all"], "--help"),
    ],
)
def test_mistakes_exit_2_with_one_line(icl, arguments, words):
    status, out, err = icl(*arguments)
    assert status == 2
    assert not out
    assert err.startswith("icl: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(
    "command",
    ["", "list", "run", "run head-utilization", "run setup", "run all", "train", "verify", "build"],
)
def test_help_reads_well(icl, command):
    status, out, _ = icl(*command.split(), "--help")
    assert status == 0
    assert out.startswith(f"Usage: icl {command}".rstrip())
    assert max(map(len, out.splitlines())) <= 80
    if command.startswith("run "):
        assert "INTEGER" in out
        assert ("[default: " in out) == (command != "run all")


def test_list_names_chapters_and_fits_a_screen(icl):
    status, out, _ = icl("list")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    found = chapters(Path(__file__).parent.parent)
    assert len(out.splitlines()) < 2 * len(found)
    for name, chapter in found.items():
        title = re.search(rf"^{name}  +(.+(\n {{4}}.+)*)$", out, re.MULTILINE)[1]
        assert " ".join(title.split()) == chapter.title
    assert "--help" in out.splitlines()[-1]
    assert "--models" in out.splitlines()[-1]


def test_list_names_models_with_label_risk_and_seeds(icl):
    status, out, _ = icl("list", "--models")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    for name in files.catalogue():
        model = load(name)
        mean, low, high = (f"{x:.3g}" for x in (model.risks.mean(), *model.risks.aminmax()))
        about = f"{model.label}: risk {mean} ({low} to {high}), {len(model.seeds)} seeds"
        assert f"{name} {about}" in text
    trainable = text.split("CHAPTER): ")[1].split(", ")
    assert {"preprocessing", "pruning"} <= set(trainable)


def test_train_writes_a_file_that_verifies_and_is_not_trained_twice(icl, tmp_path):
    file = tmp_path / "mine.safetensors.xz"
    again = ["train", "workhorse-3", "--steps", 4, "--seeds", "100,101", "--output", file]
    status, out, err = icl(*again)
    assert status == 0, err
    assert "mean excess risk" in out
    assert "risk=" in err
    assert load(file).seeds == (100, 101)
    assert list(tmp_path.glob("[!.]*")) == [file]
    assert not list(tmp_path.glob("*.state")), "it must be gone once the model is there"
    status, out, _ = icl(*again)
    assert (status, "trained already" in out) == (0, True)
    status, out, _ = icl("verify", file)
    assert (status, out.count("same")) == (0, 2)


def test_train_adds_missing_seeds_and_refuses_another_configuration(icl, tmp_path):
    file = tmp_path / "mine.safetensors.xz"
    base = ["train", "workhorse-3", "--output", file]
    assert icl(*base, "--steps", 4, "--seeds", "100")[0] == 0
    alone = load(file)
    assert icl(*base, "--steps", 4, "--seeds", "100,7")[0] == 0
    both = load(file)
    assert both.seeds == (100, 7)
    assert both.risks[0] == alone.risks[0]
    assert icl("verify", file)[0] == 0
    status, _, err = icl(*base, "--steps", 5, "--seeds", "100")
    assert (status, "holds another configuration" in err) == (2, True)
    assert load(file).seeds == (100, 7)


def test_an_experiment_trains_what_is_missing_and_says_how_long_it_will_take(icl, tmp_path, trial):
    trial({f"m{seed}": SMALL.adjusted(4, (seed,)) for seed in (0, 1, 2)})
    assert icl("train", "--experiment", "trial", "--output", tmp_path)[0] == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")}
    assert sorted(before) == ["m0.safetensors.xz", "m1.safetensors.xz", "m2.safetensors.xz"]
    (tmp_path / "m1.safetensors.xz").unlink()
    status, out, _ = icl("train", "--experiment", "trial", "--output", tmp_path)
    assert status == 0
    assert "2 of 3 models are trained already" in out
    assert re.search(r"training 1 on \d+ cores: about \d\d:\d\d:\d\d", out)
    assert "m1: mean excess risk" in out
    assert "m0: " not in out
    assert load(tmp_path / "m1.safetensors.xz").seeds == (1,)
    assert (tmp_path / "m0.safetensors.xz").read_bytes() == before["m0.safetensors.xz"]
    status, out, _ = icl("train", "--experiment", "trial", "--output", tmp_path)
    assert (status, "3 of 3 models" in out, "training" in out) == (0, True, False)


def good_and_bad():
    """A model that trains, and one whose loss explodes soon after its first step."""
    good = SMALL.adjusted(3, (0,))
    recipe = replace(good.config.recipe, lr=1e6, steps=30, clip=1e9, batch=4)
    return {"bad": replace(good, config=replace(good.config, recipe=recipe)), "good": good}


@pytest.mark.parametrize("timed", [1, 8])  # it fails in training, and while it is timed
def test_one_model_that_fails_does_not_stop_the_others(icl, tmp_path, monkeypatch, trial, timed):
    monkeypatch.setattr(runs, "TIMED_STEPS", timed)
    threads = torch.get_num_threads()
    trial(good_and_bad())
    status, out, err = icl("train", "--experiment", "trial", "--output", tmp_path)
    assert status == 1
    assert "bad: step" in out
    assert "not finite" in out
    assert "good: mean excess risk" in out
    assert err == "icl: 1 of 2 models failed; the others are trained\n"
    assert (tmp_path / "good.safetensors.xz").exists()
    assert not (tmp_path / "bad.safetensors.xz").exists()
    assert torch.get_num_threads() == threads


def test_any_executor_trains_what_is_missing_longest_first(tmp_path, monkeypatch, capsys):
    plans = {f"m{steps}": SMALL.adjusted(steps, (0,)) for steps in (3, 50, 10)}
    submitted = []

    class Noted(ThreadPoolExecutor):
        def submit(self, function, *arguments):
            submitted.extend(arguments[:1])
            return super().submit(function, *arguments)

    with monkeypatch.context() as patched, Noted(1) as executor:
        patched.setattr(Job, "seconds_left", lambda job: job.plan.config.recipe.steps)
        train_all(plans, tmp_path, executor=executor)
        assert [job.name for job in submitted] == ["m50", "m10", "m3"]
        capsys.readouterr()
        assert load(tmp_path / "m10.safetensors.xz").config.recipe.steps == 10
        train_all(plans, tmp_path, executor=executor)
        assert capsys.readouterr().out == "3 of 3 models are trained already\n"
        with pytest.raises(Failed, match="1 of 2 models failed"):
            train_all(good_and_bad(), tmp_path, executor=executor)
        assert (tmp_path / "good.safetensors.xz").exists()
        assert executor.submit(int).result() == 0, "an executor that is given stays open"


def test_where_no_file_can_be_read_every_model_fails_in_a_line(tmp_path, capsys):
    (tmp_path / "m.safetensors.xz").write_bytes(b"garbage")
    with ThreadPoolExecutor(1) as executor, pytest.raises(Failed, match="1 of 1 models failed"):
        train_all({"m": SMALL.adjusted(3, (0,))}, tmp_path, executor=executor)
    assert "damaged" in capsys.readouterr().out


def test_more_threads_than_any_machine_has_are_refused(icl):
    status, _, err = icl("train", "heads-1-1", "--threads", 3_000_000_000)
    assert status == 2
    assert "--threads" in err
    assert "1<=x<=1024" in err


def test_a_worker_that_dies_is_a_failed_model(tmp_path, capsys):
    class Dies:
        def submit(self, *_):
            dead = Future()
            dead.set_exception(error)
            return dead

    for error in (BrokenExecutor("a worker died"), RuntimeError("out of memory")):
        with pytest.raises(Failed, match="1 of 1 models failed"):
            train_all({"m": SMALL.adjusted(3, (0,))}, tmp_path, executor=Dies())
        assert f"m: {error}" in capsys.readouterr().out


def test_a_worker_needs_no_file_of_the_caller_s(tmp_path, monkeypatch):
    """Seeds are added to a file that a worker on another machine would not see."""
    file = tmp_path / "here" / "m.safetensors.xz"
    train_all({"m": SMALL.adjusted(3, (0,))}, file.parent, executor=ThreadPoolExecutor(1))
    job = Job.of(SMALL.adjusted(3, (0, 1)), file)
    assert job.plan.seeds == (1,)
    elsewhere = replace(job, output=tmp_path / "there" / "m.safetensors.xz")
    job.store(elsewhere.run())
    assert load(file).seeds == (0, 1)
    assert Job.of(SMALL.adjusted(3, (0, 1)), file).plan.seeds == ()


def test_a_file_where_a_folder_should_be_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="a folder is needed"):
        train_all({"m": SMALL.adjusted(3, (0,))}, tmp_path / "file")


def test_long_times_count_their_hours():
    assert runs._clock(100_000) == "27:46:40"
    assert runs._clock(59.6) == "00:01:00"


# Where the tests run in the background of a shell, children start with SIGINT ignored.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
# An interrupt that comes just when the first process is started.
LATE = """
import os
from icl import runs
start = runs.ProcessPoolExecutor.submit
def submit(*given):
    os.killpg(os.getpid(), signal.SIGINT)
    runs.ProcessPoolExecutor.submit = start
    return start(*given)
runs.ProcessPoolExecutor.submit = submit
"""


@pytest.mark.parametrize(("seconds", "change"), [(0, ""), (3, ""), (None, LATE)])
def test_an_interrupt_ends_an_experiment_at_once(tmp_path, seconds, change):
    """While the processes start, when they train, and in between."""
    code = f"{HEED}\n{change}\nfrom icl.cli import main; main()"
    program = [sys.executable, "-c", code, "train", "--experiment", "preprocessing"]
    run = subprocess.Popen(
        [*program, "--output", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        if seconds is not None:
            while "training" not in run.stdout.readline():
                assert run.poll() is None
            time.sleep(seconds)
            os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers, too
        _, err = run.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 130
    assert err.strip() == "interrupted"


def test_the_time_left_of_a_cut_training_counts_only_what_is_left(tmp_path):
    plan = SMALL.adjusted(1000, (0,))
    job = Job(plan, tmp_path / "m.safetensors.xz")
    whole = job.seconds_left()
    trainer = begin(plan.config, (0,))
    for _ in range(3):
        trainer.advance()
    trainer.losses = torch.cat([trainer.losses[:3], torch.ones(897, 1), trainer.losses[900:]])
    trainer.step = 900
    trainer.save(job.state)
    assert 0 < job.seconds_left() < 0.5 * whole


def test_verify_fails_for_a_file_from_elsewhere(icl, tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "REPLAY_TOLERANCE", -1.0)
    status, out, _ = icl("verify", "workhorse-3")
    assert status == 1
    assert "DIFFERENT" in out


def test_commands_that_need_the_book_say_so_elsewhere(icl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "site-packages" / "icl" / "site" / "chapters.py"
    monkeypatch.setattr("icl.site.chapters.__file__", str(elsewhere))
    status, _, err = icl("build")
    assert status == 2
    assert "not inside a checkout" in err
