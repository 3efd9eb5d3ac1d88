"""Checkpoint files: whole, honest about damage, and provably from this code."""

import copy
import json
import lzma
import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

import icl
from icl import configuration, files, replay
from icl.architecture import Architecture
from icl.checkpoints import finished, join, recorded_risk
from icl.configuration import Configuration, Plan
from icl.contexts import draw
from icl.errors import Refused
from icl.experiments import experiments, models, plans
from icl.files import catalogue, load
from icl.heads import mask
from icl.predictors import excess_risk, squared_error
from icl.recipe import Recipe
from icl.replay import verify
from icl.starts import begin
from icl.tasks import SparseLinear
from icl.training import coarse, train

SMALL = Configuration(
    SparseLinear(d=3, s=1, n=9), Architecture(3, (2, 1), 3, 5), Recipe(steps=25, batch=8)
)
WHOLE = replace(
    SMALL,
    architecture=replace(SMALL.architecture, attention="relu", norm=True, mlp=True),
    recipe=replace(SMALL.recipe, lengths=(5, 9)),
)


@pytest.fixture(scope="module", params=[SMALL, WHOLE], ids=["on statistics", "whole blocks"])
def small(request):
    trainer = begin(request.param, (4, 9))
    trainer.keep = (5, 25)
    return finished("small", train(trainer))


def unpacked(file):
    """The tensors and the metadata of a file, by what anybody would take to read it."""
    plain = file.with_suffix("")
    plain.write_bytes(lzma.decompress(file.read_bytes()))
    with safe_open(plain, framework="pt") as found:
        return {key: found.get_tensor(key) for key in found.keys()}, found.metadata()  # noqa: SIM118


def pack(file, content):
    file.write_bytes(lzma.compress(content))


@pytest.fixture
def file(small, tmp_path):
    path = tmp_path / "small.safetensors.xz"
    files.save(small, path)
    return path


def test_a_round_trip_keeps_everything(small, file):
    again = load(file)
    for name in ("config", "seeds", "seconds", "versions", "name"):
        assert getattr(again, name) == getattr(small, name)
    for name in ("first_losses", "curve", "risks"):
        assert torch.equal(getattr(again, name), getattr(small, name))
    for a, b in zip(again.model.parameters(), small.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert again.snapshots.keys() == small.snapshots.keys() == {5, 25}
    for step, weights in small.snapshots.items():
        assert all(torch.equal(again.snapshots[step][k], v) for k, v in weights.items())
    assert all(check.passed for check in verify(again))


def test_weights_that_half_precision_holds_take_half_of_the_space(small, file, tmp_path):
    """What a training ends with is rounded so; weights of another kind are kept as they are."""
    kept, _ = unpacked(file)
    assert {v.dtype for k, v in kept.items() if k.startswith("model.")} == {torch.float16}
    for a in small.model.parameters():
        assert a.dtype == torch.float32
        assert torch.equal(a, a.half().float())
    assert torch.equal(small.risks, recorded_risk(load(file).model, small.config))
    exact = replace(small, model=begin(small.config, small.seeds).model)
    files.save(exact, tmp_path / "exact.safetensors.xz")
    again = load(tmp_path / "exact.safetensors.xz").model
    for a, b in zip(exact.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_recorded_risk_is_that_of_evaluation_contexts(small):
    queries = small.config.architecture.queries  # where models need tokens, a quarter is enough
    count = 1024 if queries else 4096
    contexts = draw(small.config.task, count, "evaluate", seed=0, queries=queries)
    risks = excess_risk(copy.deepcopy(small.model).double(), contexts)
    torch.testing.assert_close(small.risks, risks.mean(dim=-1))


def test_a_snapshot_is_the_model_after_so_many_steps(small):
    trainer = begin(small.config, small.seeds)
    for _ in range(5):
        trainer.advance()
    for a, b in zip(small.at(5).parameters(), trainer.model.parameters(), strict=True):
        for one, other in zip(a, b, strict=True):
            assert (one - other).abs().max() <= other.abs().max() / 128 * (1 + 1e-3)
    with pytest.raises(Refused, match=r"step=6: small has \[5, 25\]"):
        small.at(6)


def test_coarse_weights_are_multiples_of_a_128th_model_by_model():
    weights = torch.tensor([[1.0, -0.3, 0.004], [0.25, 0.001, -0.1], [0.0, 0.0, 0.0]])
    wanted = torch.tensor([[128, -38, 1], [128, 1, -51], [0, 0, 0]])
    unit = torch.tensor([[1.0], [0.25], [1.0]]) / 128
    assert torch.equal(coarse(weights), (unit * wanted).half())
    assert torch.equal(coarse(coarse(weights).float()), coarse(weights))


def test_verify_sees_other_weights_and_other_losses(small):
    other = replace(small, risks=small.risks * 1.01)
    assert [check.passed for check in verify(other)] == [True, False]
    other = replace(small, first_losses=small.first_losses.flip(0))
    assert [check.passed for check in verify(other)] == [False, True]
    other = replace(small, seeds=(4, 8))
    assert [check.passed for check in verify(other)] == [False, True]


def test_a_part_and_the_rest_join_to_the_whole(small):
    one, two = small.only((9,)), small.only((4,))
    whole = join(two, replace(one, versions=one.versions | {"torch": "another"}))
    assert whole.seeds == small.seeds
    assert whole.seconds == pytest.approx(small.seconds)
    assert whole.versions["torch"] == f"{small.versions['torch']}, another"
    assert whole.versions["numpy"] == small.versions["numpy"]
    for name in ("first_losses", "curve", "risks"):
        assert torch.equal(getattr(whole, name), getattr(small, name))
    for a, b in zip(whole.model.parameters(), small.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for step, weights in small.snapshots.items():
        assert all(torch.equal(whole.snapshots[step][k], v) for k, v in weights.items())
    with pytest.raises(Refused, match="different seeds"):
        join(one, one)
    with pytest.raises(Refused, match="same steps"):
        join(one, replace(two, snapshots={}))


def test_a_masked_model_is_no_checkpoint(small):
    kept = [torch.zeros_like(gate) for gate in small.model.gates]
    with pytest.raises(Refused, match="masked heads"):
        replace(small, model=mask(small.model, kept))


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


@pytest.mark.parametrize("part", range(10))
def test_no_flip_of_any_bit_is_accepted(file, part):
    """Twenty flips at random places of each part: sizes, names, metadata, numbers; packed ones."""
    packed = file.read_bytes()
    content = lzma.decompress(packed)
    head = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(part)
    inside = [(0, 8), (8, head), (8, head), (head, len(content))]
    whole, (low, high) = [*((content, ends) for ends in inside), (packed, (0, None))][part % 5]
    for place in rng.integers(low, high or len(whole), size=20):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped if whole is packed else lzma.compress(flipped))
        with pytest.raises(Refused):
            load(file)


def test_a_file_that_unpacks_to_more_than_memory_holds_is_refused(file, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 1000)
    with pytest.raises(Refused, match="damaged"):
        load(file)


def test_whatever_follows_the_content_is_refused(file):
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(Refused, match="damaged"):
        load(file)


def forged(file, about=None, config=None, tensors=None):
    """Write a file again with other values, its digest and its hash right for them."""
    kept, metadata = unpacked(file)
    metadata |= about or {}
    for part, name, value in config or []:
        data = json.loads(metadata["config"])
        if name is None:
            data[part] = value
        else:
            data[part][name] = value
        metadata["config"] = json.dumps(data)
        with suppress(Exception):
            metadata["hash"] = Configuration.from_dict(data).hash
    for name, value in (tensors or {}).items():
        kept.pop(name, None)
        if value is not None:
            kept[name] = value.contiguous()
    metadata.pop("digest")
    metadata["digest"] = files._digest(kept, metadata)
    pack(file, save(kept, metadata))


NUMBERS = (0, -1, 1e12, 2**70, 1.5, math.inf, -math.inf, math.nan, None, "a", [], {}, True)
FORGED_ABOUT = [
    {name: json.dumps(value)}
    for name in ("seeds", "seconds", "versions")
    for value in (
        None, "a", [], [1], [1, 1], [-1, 2], [1.5, 2], ["a", "b"], [1, 2, 3], {"torch": 2},
        {"torch": "<script>"}, {"<b>": "2"}, {"torch": "x" * 300}, -1.0, math.nan, math.inf, True,
    )
    if (name, value) not in (("seeds", [1, 2]), ("versions", []))
] + [{name: "{"} for name in ("seeds", "seconds", "versions", "config")]  # fmt: skip
FORGED_ABOUT += [{"hash": "0" * 12}, {"format": "icl-checkpoint-2"}, {"extra": "1"}]
# Settings that a file must not have: each of these is no valid value of it, or of no model's shape.
FORGED_CONFIG = [
    [(part, name, value)]
    for part, names in {
        "recipe": ("steps", "batch", "lr", "clip", "init_scale", "betas", "optimiser", "precision"),
        "task": ("d", "s", "n", "values"),
        "architecture": ("d", "d_head", "d_model", "heads", "attention", "inputs"),
    }.items()
    for name in names
    for value in NUMBERS
    if not (name in ("lr", "clip", "init_scale") and value in (1e12, 2**70, 1.5))
] + [
    [(part, None, value)] for part in ("task", "recipe", "architecture") for value in ([], 1, "a")
]  # fmt: skip


@pytest.mark.parametrize("about", FORGED_ABOUT, ids=str)
def test_forged_metadata_are_refused(file, about):
    forged(file, about)
    with pytest.raises(Refused):
        load(file)


@pytest.mark.parametrize("config", FORGED_CONFIG, ids=str)
def test_forged_settings_are_refused(file, config):
    forged(file, config=config)
    with pytest.raises(Refused):
        load(file)


def forgeries(small):
    """Tensors that a file must not have."""
    weights = small.model.state_dict()
    embed = weights["embed.weight"]
    yield from ({f"model.{name}": None} for name in weights)
    yield from ({f"model.{name}": value * math.nan} for name, value in weights.items())
    yield from ({f"model.{name}": value[:1]} for name, value in weights.items())
    yield {"model.embed.weight": embed.long()}
    yield {"model.embed.weight": embed.double()}
    yield {"model.embed.weight": embed.bool()}
    yield {"model.embed.weight": embed.bfloat16()}
    yield {"model.embed.weight": embed * math.inf}
    yield {"model.extra": embed}
    yield {"extra": embed}
    yield {"snapshots.5.embed.weight": None}
    yield {"snapshots.99.embed.weight": embed.half()}
    yield {"snapshots.-1.embed.weight": embed.half()}
    yield {"snapshots.x.embed.weight": embed.half()}
    yield {"snapshots.5.embed.weight": embed.half() * math.nan}
    for name in ("first_losses", "curve", "risks"):
        value = getattr(small, name)
        yield from (
            {name: x} for x in (None, value[:0], value * math.nan, value.half(), value.int())
        )
        yield {name: torch.cat([value, value])}


def test_forged_tensors_are_refused(small, file):
    content, count = file.read_bytes(), 0
    for tensors in forgeries(small):
        file.write_bytes(content)
        forged(file, tensors=tensors)
        with pytest.raises(Refused):
            pytest.fail(f"{[*tensors]}: accepted {load(file)}")
        count += 1
    assert count > 40
    assert len(FORGED_ABOUT) + len(FORGED_CONFIG) + count > 300


def test_a_file_written_again_as_it_was_is_accepted(small, file):
    """What forges is right about all else."""
    forged(file)
    assert load(file).config == small.config
    forged(file, {"seconds": "2.5"}, [("recipe", "lr", 0.25)])
    again = load(file)
    assert (again.seconds, again.config.recipe.lr) == (2.5, 0.25)


def test_foreign_files_are_refused(tmp_path):
    foreign = tmp_path / "foreign.safetensors.xz"
    pack(foreign, save({"x": torch.zeros(2)}))
    with pytest.raises(Refused, match="not a checkpoint of this library"):
        load(foreign)
    plain = tmp_path / "plain.safetensors.xz"
    save_file({"x": torch.zeros(2)}, plain)
    with pytest.raises(Refused, match="damaged, or not a packed safetensors file"):
        load(plain)
    text = tmp_path / "text.safetensors.xz"
    text.write_text(json.dumps({"a": 1}))
    with pytest.raises(Refused, match="damaged"):
        load(text)


def test_missing_files_and_names_are_refused(tmp_path):
    with pytest.raises(Refused, match="no such file"):
        load(tmp_path / "none.safetensors.xz")
    with pytest.raises(Refused, match="did you mean workhorse-3"):
        load("workhorse3")


def test_load_works_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert icl.load("workhorse-3").name == "workhorse-3"


def test_every_planned_model_ships_as_it_is_described():
    planned = plans()
    assert set(catalogue()) == set(planned)
    for name, plan in planned.items():
        shipped = load(name)
        assert shipped.config == plan.config
        assert shipped.seeds == plan.seeds
        assert tuple(shipped.snapshots) == plan.snapshots
        assert shipped.curve.shape == (plan.config.recipe.steps // 100, len(shipped.seeds))


# With nonlinear responses zero can be the best linear answer.
@pytest.mark.parametrize("name", [x for x in catalogue() if not x.startswith("response-")])
def test_every_model_trained(name):
    """In every seed the last batches' median risk is a twentieth below that of answering zero."""
    shipped = load(name)
    contexts = draw(shipped.config.task, 4096, "tune", 0)
    zero = squared_error(torch.zeros_like(contexts.w), contexts).mean()
    assert (shipped.curve[-1] < 0.95 * zero).all()


def test_labels_are_short_and_no_two_configurations_share_one():
    labels = {load(name).config: load(name).label for name in catalogue()}.values()
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) < 90
    assert load("workhorse-3").label == "8-8-8 heads, d = 8"
    assert load("flagship-pruned-random").label == (
        "8-1-1 heads, d = 16, pruned at random and fine-tuned"
    )
    assert load("heads-8-2-56000").label == "8-8 heads, d = 8, 56000 steps"
    assert load("relu-norm").label == (
        "8-8-8 relu heads, d = 8, k = 8, width 64, norm, s = 1, noise 0.5, AdamW"
    )
    assert load("lsa-d8-n16-noise1").label == "1 head, d = 8, n = 16, dense"
    assert load("softmax-2").label == "2 softmax heads, d = 8, dense"
    whole = "2-1 relu heads, d = 3, k = 3, width 5, norm, MLP, n = 9, s = 1, noise 1"
    assert WHOLE.label.startswith(whole.removesuffix(", noise 1"))
    assert "trained at n = 5 to 9" in WHOLE.label


def test_every_setting_that_is_not_usual_is_in_the_label():
    plan = plans()["workhorse-3"].config
    recipes = {
        "lr": 0.1, "batch": 16, "clip": 0.5, "betas": (0.8, 0.9), "warmup": 0.2, "steps": 40_000,
        "init_scale": 0.6, "optimiser": "sgd", "weight_decay": 0.1, "lengths": (8, 9),
        "precision": "double",
    }  # fmt: skip
    others = [replace(plan, recipe=replace(plan.recipe, **{k: v})) for k, v in recipes.items()]
    tasks = {"n": 40, "s": 3, "noise": 0.5, "values": "signs", "covariance": (2.0,) * 8}
    others += [replace(plan, task=replace(plan.task, **{k: v})) for k, v in tasks.items()]
    shapes = {"d_head": 32, "d_model": 40, "norm": True, "inputs": "scaled", "attention": "relu"}
    others += [
        replace(plan, architecture=replace(plan.architecture, **{k: v})) for k, v in shapes.items()
    ]
    labels = {plan.label, *(other.label for other in others)}
    assert len(labels) == 1 + len(others)


def test_two_plans_of_one_name_and_two_models_of_one_label_are_refused(monkeypatch):
    planned = plans()["heads-1-3"]
    monkeypatch.setitem(experiments()["probing"].PLANS, "heads-1-3", planned.adjusted(steps=7))
    with pytest.raises(Refused, match="heads-1-3 is planned otherwise"):
        plans()
    twin = replace(load("heads-1-3"), name="twin")
    monkeypatch.setattr(models, "load", lambda name: twin)
    with pytest.raises(Refused, match="1-1-1 heads, d = 8"):
        models.trained({"a": planned, "b": planned})


def test_a_default_that_changes_orphans_no_file_and_an_old_file_keeps_its_meaning(
    small, file, monkeypatch
):
    """A file means the values it was written with, whatever today's defaults are."""
    before = load("workhorse-3").config.hash, small.config.hash
    for kind, name in ((Recipe, "clip"), (Recipe, "steps"), (Architecture, "norm")):
        fields = kind.__dataclass_fields__
        monkeypatch.setattr(fields[name], "default", "another")
        defaults = [f.default for f in fields.values()]
        monkeypatch.setattr(kind.__init__, "__defaults__", tuple(defaults))
    assert Recipe.__init__.__defaults__[0] == "another"
    assert (load("workhorse-3").config.hash, load(file).config.hash) == before
    data = small.config.to_dict()
    for part, added in configuration.ADDED.items():
        for name in added:
            data[part].pop(name)  # as in a file from before that setting
    old = Configuration.from_dict(data)
    assert old.architecture.norm is False
    assert (old.recipe.lengths, old.recipe.precision) == ((), "single")
    assert (
        old.hash
        == replace(
            small.config,
            architecture=replace(small.config.architecture, norm=False, mlp=False),
            recipe=replace(small.config.recipe, lengths=(), precision="single"),
        ).hash
    )


def test_adjusted_plans_change_what_is_given_and_no_more():
    plan = Plan(SMALL, (1, 2))
    assert plan.adjusted() == plan
    assert plan.adjusted(steps=7).config.recipe == replace(SMALL.recipe, steps=7)
    assert plan.adjusted(seeds=(3,)) == Plan(SMALL, (3,))


@pytest.mark.parametrize("name", catalogue())
def test_every_shipped_model_came_from_this_code(name):
    """In every fourth seed; `icl verify` replays all."""
    shipped = load(name)
    for check in verify(shipped.only(shipped.seeds[::4])):
        assert check.passed, f"{check.what} differ by {check.difference}"


def test_a_point_of_the_curve_is_the_median_of_its_steps():
    """Of a hundred steps, or of all where there are fewer, for every seed."""
    trainer = train(begin(replace(SMALL, recipe=replace(SMALL.recipe, steps=230)), (1, 2)))
    trainer.losses[50] = 1e9  # a single context can do that
    found = finished("m", trainer).curve
    assert found.shape == (2, 2)
    for point, steps in zip(found, (slice(0, 100), slice(100, 200)), strict=True):
        assert torch.equal(point, trainer.losses[steps].median(dim=0).values)


def test_checkpoints_of_two_configurations_are_not_joined(small):
    other = replace(small.only((4,)), config=replace(small.config, recipe=Recipe(25, batch=9)))
    with pytest.raises(Refused, match="one configuration"):
        join(other, small.only((9,)))


def test_what_overflows_alike_is_alike_and_nan_is_not():
    inf, nan = torch.inf, torch.nan
    assert replay._relative(torch.tensor([inf, 2.0]), torch.tensor([inf, 1.0])) == 1.0
    for ours, theirs in ((inf, 1.0), (1.0, inf), (inf, -inf), (nan, nan), (1.0, nan)):
        assert replay._relative(torch.tensor([ours]), torch.tensor([theirs])) > 1e30
    assert not replay.Check("what is no number", nan, 1.0).passed
    assert replay.Check("what is near enough", 1.0, 1.0).passed
