"""Checkpoint files: whole, honest about damage, and provably from this code."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import icl
from icl.checkpoints import catalogue, load, save
from icl.configuration import Configuration, Recipe
from icl.errors import Refused
from icl.provenance import finished, verify
from icl.sweeps import MODELS
from icl.tasks import SparseLinear
from icl.training import train
from icl.transformer import Architecture


@pytest.fixture(scope="module")
def small():
    config = Configuration(
        SparseLinear(d=3, s=1, n=9), Architecture(3, (2, 1), 3, 5), Recipe(steps=25, batch=8)
    )
    return finished("small", train(config, (4, 9)))


@pytest.fixture
def file(small, tmp_path):
    path = tmp_path / "small.safetensors"
    save(small, path)
    return path


def test_a_round_trip_keeps_everything(small, file):
    again = load(file)
    for name in ("config", "seeds", "seconds", "versions", "name"):
        assert getattr(again, name) == getattr(small, name)
    for name in ("first_losses", "curve", "risks"):
        assert torch.equal(getattr(again, name), getattr(small, name))
    for a, b in zip(again.model.parameters(), small.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(check.passed for check in verify(again))


def test_verify_sees_other_weights_and_other_losses(small):
    other = replace(small, risks=small.risks * 1.01)
    assert [check.passed for check in verify(other)] == [True, False]
    other = replace(small, first_losses=small.first_losses.flip(0))
    assert [check.passed for check in verify(other)] == [False, True]
    other = replace(small, seeds=(4, 8))
    assert [check.passed for check in verify(other)] == [False, True]


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_files_are_refused(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(Refused, match="damaged"):
        load(file)


def test_a_flipped_bit_is_refused(file):
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(Refused, match="damaged"):
        load(file)


def test_foreign_files_are_refused(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    with pytest.raises(Refused, match="not a checkpoint of this library"):
        load(foreign)
    text = tmp_path / "text.safetensors"
    text.write_text(json.dumps({"a": 1}))
    with pytest.raises(Refused, match="damaged"):
        load(text)


def test_missing_files_and_names_are_refused(tmp_path):
    with pytest.raises(Refused, match="no such file"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(Refused, match="did you mean workhorse-3"):
        load("workhorse3")


def test_load_works_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert icl.load("workhorse-3").name == "workhorse-3"


def test_every_experiment_ships_as_it_is_described():
    assert set(catalogue()) == set(MODELS)
    for name, plan in MODELS.items():
        shipped = load(name)
        assert shipped.config == plan.config
        assert shipped.seeds == plan.seeds
        assert shipped.curve.shape == (plan.config.recipe.steps // 100, len(shipped.seeds))


@pytest.mark.parametrize("name", catalogue())
def test_every_shipped_model_came_from_this_code(name):
    for check in verify(load(name)):
        assert check.passed, f"{check.what} differ by {check.difference}"
