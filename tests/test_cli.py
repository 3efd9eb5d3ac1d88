"""The command: what a user types, and what a user mistypes."""

import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from icl import checkpoints, cli, jobs, provenance
from icl.checkpoints import load
from icl.jobs import Job
from icl.sweeps import MODELS
from icl.training import Trainer


@pytest.fixture
def icl(monkeypatch, capsys):
    """Run `icl ARGUMENTS`; returns exit status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["icl", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


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
        (["train", "flagship", "--output", "model.pt"], "must end in .safetensors"),
        (["verify", "flagship2"], "more; did you mean flagship?"),
        (["verify", "none.safetensors"], "no such file"),
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
    "command", ["", "list", "run", "run head-utilization", "run setup", "train", "verify", "build"]
)
def test_help_reads_well(icl, command):
    status, out, _ = icl(*command.split(), "--help")
    assert status == 0
    assert out.startswith(f"Usage: icl {command}".rstrip())
    assert max(map(len, out.splitlines())) <= 80
    if command.startswith("run "):
        assert "INTEGER" in out
        assert "[default: " in out


def test_list_names_chapters_parameters_and_models(icl):
    status, out, _ = icl("list")
    assert status == 0
    for word in ("head-utilization: ", "--contexts", "(default 1024)", "setup: ", "--nonzero"):
        assert word in out
    for name in checkpoints.catalogue():
        assert f"{load(name).risks[0]:.3f}" in out


def test_train_writes_a_file_that_verifies_and_is_not_trained_twice(icl, tmp_path):
    file = tmp_path / "mine.safetensors"
    again = ["train", "workhorse-3", "--steps", 4, "--seeds", "100,101", "--output", file]
    status, out, err = icl(*again)
    assert status == 0, err
    assert "mean excess risk" in out
    assert "risk=" in err
    assert load(file).seeds == (100, 101)
    assert list(tmp_path.iterdir()) == [file], "the state must be gone once the model is there"
    status, out, _ = icl(*again)
    assert (status, "trained already" in out) == (0, True)
    status, out, _ = icl("verify", file)
    assert (status, out.count("same")) == (0, 2)


def test_train_adds_missing_seeds_and_refuses_another_configuration(icl, tmp_path):
    file = tmp_path / "mine.safetensors"
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


def test_an_experiment_trains_what_is_missing_and_says_how_long_it_will_take(
    icl, tmp_path, monkeypatch
):
    plans = {f"m{seeds}": MODELS["heads-1-3"].adjusted(4, (seeds,)) for seeds in (0, 1, 2)}
    monkeypatch.setattr(jobs, "MODELS", plans)
    monkeypatch.setattr(jobs, "EXPERIMENTS", {"trial": tuple(plans)})
    assert icl("train", "--experiment", "trial", "--output", tmp_path)[0] == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["m0.safetensors", "m1.safetensors", "m2.safetensors"]
    (tmp_path / "m1.safetensors").unlink()
    status, out, _ = icl("train", "--experiment", "trial", "--output", tmp_path)
    assert status == 0
    assert "2 of 3 models are trained already" in out
    assert re.search(r"training 1 on \d+ cores: about \d\d:\d\d:\d\d", out)
    assert "m1: mean excess risk" in out
    assert "m0: " not in out
    assert load(tmp_path / "m1.safetensors").seeds == (1,)
    assert (tmp_path / "m0.safetensors").read_bytes() == before["m0.safetensors"]
    status, out, _ = icl("train", "--experiment", "trial", "--output", tmp_path)
    assert (status, "3 of 3 models" in out, "training" in out) == (0, True, False)


def test_one_model_that_fails_does_not_stop_the_others(icl, tmp_path, monkeypatch):
    good = MODELS["heads-1-3"].adjusted(3, (0,))
    recipe = replace(good.config.recipe, lr=1e6, steps=30, clip=1e9, batch=4)
    bad = replace(good, config=replace(good.config, recipe=recipe))
    monkeypatch.setattr(jobs, "TIMED_STEPS", 1)
    monkeypatch.setattr(jobs, "MODELS", {"bad": bad, "good": good})
    monkeypatch.setattr(jobs, "EXPERIMENTS", {"trial": ("bad", "good")})
    status, out, err = icl("train", "--experiment", "trial", "--output", tmp_path)
    assert status == 1
    assert "bad: step" in out
    assert "not finite" in out
    assert "good: mean excess risk" in out
    assert err == "icl: 1 of 2 models failed; the others are trained\n"
    assert (tmp_path / "good.safetensors").exists()
    assert not (tmp_path / "bad.safetensors").exists()


def test_an_interrupt_ends_an_experiment_at_once(tmp_path):
    # Where the tests run in the background of a shell, children start with SIGINT ignored.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from icl.cli import main; main()"
    program = [sys.executable, "-c", code, "train", "--experiment", "preprocessing"]
    run = subprocess.Popen(
        [*program, "--output", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "training" not in run.stdout.readline():
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 130
    assert err.strip() == "interrupted"


def test_the_time_left_of_a_cut_training_counts_only_what_is_left(tmp_path):
    plan = MODELS["heads-1-3"].adjusted(1000, (0,))
    job = Job("m", plan, tmp_path / "m.safetensors")
    whole = job.seconds_left()
    trainer = Trainer(plan.config, (0,))
    for _ in range(3):
        trainer.advance()
    trainer.losses = torch.cat([trainer.losses[:3], torch.ones(897, 1), trainer.losses[900:]])
    trainer.step = 900
    trainer.save(job.state)
    assert 0 < job.seconds_left() < 0.5 * whole


def test_verify_fails_for_a_file_from_elsewhere(icl, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "REPLAY_TOLERANCE", -1.0)
    status, out, _ = icl("verify", "workhorse-3")
    assert status == 1
    assert "DIFFERENT" in out


def test_commands_that_need_the_book_say_so_elsewhere(icl, tmp_path, monkeypatch):
    from icl import chapters

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chapters, "__file__", str(tmp_path / "site-packages" / "icl" / "x.py"))
    status, _, err = icl("build")
    assert status == 2
    assert "not inside a checkout" in err
