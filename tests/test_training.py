"""Training: the loss, the schedule, batches of models, and resuming to the bit."""

import json
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from icl import training
from icl.architecture import Architecture
from icl.checkpoints import finished
from icl.configuration import Configuration, Split, Start, Written
from icl.constructions import preprocess_then_optimise
from icl.contexts import draw
from icl.errors import Failed, Refused
from icl.files import load, save
from icl.heads import importance, most_important, prune
from icl.predictors import excess_risk
from icl.recipe import Recipe
from icl.replay import verify
from icl.starts import begin, fresh, pruned, tuned_importance
from icl.tasks import Nonlinear, SparseLinear
from icl.training import clip_per_model
from icl.two_layers import TwoLayers

SMALL = Configuration(
    SparseLinear(d=4, s=2, n=12, values="sphere"),
    Architecture(d=4, heads=(2, 3), d_head=3, d_model=6),
    Recipe(steps=30, batch=8, weight_decay=1e-3),
)

# Everything a block can have, and a length that varies.
WHOLE = replace(
    SMALL,
    architecture=replace(SMALL.architecture, attention="softmax", norm=True, mlp=True),
    recipe=replace(SMALL.recipe, lengths=(5, 15)),
)
both = pytest.mark.parametrize("config", [SMALL, WHOLE], ids=["on statistics", "whole blocks"])


def train(config, seeds, state=None):
    return training.train(begin(config, seeds), state)


def weights(trainer):
    return list(trainer.model.parameters())


def test_training_learns():
    """One layer on an easy task falls far below the zero predictor, whatever the seed."""
    config = Configuration(
        SparseLinear(d=2, s=2, n=20, noise=0.1, values="sphere"),
        Architecture(d=2, heads=(2,), d_head=3, d_model=4),
        Recipe(steps=400, batch=64, lr=2e-2, init_scale=1.0),
    )
    trainer = train(config, (0, 1, 2, 3))
    assert (trainer.losses[0] > 1.5).all()
    assert (trainer.losses[-50:].mean(dim=0) < 0.4).all()


@both
def test_seeds_together_equal_seeds_alone(config):
    together = train(config, (3, 7))
    for m, seed in enumerate((3, 7)):
        alone = train(config, (seed,))
        assert torch.allclose(together.losses[:, m], alone.losses[:, 0], rtol=1e-4)
        for a, b in zip(weights(together), weights(alone), strict=True):
            assert torch.allclose(a[m], b[0], rtol=1e-3, atol=1e-5)


@both
def test_killed_and_resumed_training_ends_with_the_same_bits(tmp_path, config):
    """SIGKILL at some instant after a save, twice; then run to the end."""
    config = replace(config, recipe=replace(config.recipe, steps=400))
    state = tmp_path / "run.state"
    program = textwrap.dedent(
        f"""
        import time, torch, icl.training as training
        from pathlib import Path
        from icl.configuration import Configuration
        from icl.starts import begin
        torch.set_num_threads(1)
        training.SAVE_EVERY = 0
        save, saved = training.Trainer.save, []
        def told(trainer, path):
            save(trainer, path)
            print(trainer.step, flush=True)
            saved.append(trainer.step)
            if len(saved) == 150:
                time.sleep(60)  # however fast the machine, it is killed before it ends
        training.Trainer.save = told
        config = Configuration.from_dict({config.to_dict()!r})
        trainer = begin(config, (0, 1))
        trainer.keep = (1, 200)
        training.train(trainer, Path({str(state)!r}))
        """
    )
    saved = []
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as running:
            try:
                saved.append(int(running.stdout.readline()))
                time.sleep(0.3)
            finally:
                running.kill()
    assert saved[1] > saved[0], "the second run did not resume"
    seconds = [load_file(state)["seconds"].item()]
    resumed, whole = begin(config, (0, 1)), begin(config, (0, 1))
    resumed.keep = whole.keep = (1, 200)
    training.train(resumed, state, lambda *_: seconds.append(resumed.seconds))
    training.train(whole)
    assert torch.equal(resumed.losses, whole.losses)
    assert list(resumed.snapshots) == [1, 200]
    for step, kept in whole.snapshots.items():
        assert all(torch.equal(resumed.snapshots[step][name], kept[name]) for name in kept)
    assert seconds[0] > 0
    assert seconds == sorted(seconds), "the time before the kills counts, and that of every step"
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))


def test_a_foreign_or_damaged_state_is_refused(tmp_path):
    state = tmp_path / "run.state"
    begin(SMALL, (0, 1)).save(state)
    for config, seeds in ((SMALL, (0, 2)), (replace(SMALL, recipe=Recipe(steps=30)), (0, 1))):
        with pytest.raises(Refused, match="another training"):
            train(config, seeds, state)
    state.write_bytes(state.read_bytes()[:99])
    with pytest.raises(Refused, match="damaged"):
        train(SMALL, (0, 1), state)


def test_a_loss_beyond_single_precision_is_within_double():
    """Large initial weights overflow with four layers, whose answers have degree 81."""
    deep = Architecture(4, (1,) * 4, 5, 8)
    config = Configuration(SMALL.task, deep, Recipe(2, 8, init_scale=2.5))
    with pytest.raises(Failed, match="not finite"):
        train(config, (0, 1))
    trained = train(replace(config, recipe=replace(config.recipe, precision="double")), (0, 1))
    assert all(x.isfinite().all() and x.dtype == torch.float64 for x in weights(trained))
    assert all(x.dtype == torch.float32 for x in weights(finished("double", trained)))


def test_a_loss_that_is_not_finite_stops_training_by_name():
    trainer = begin(SMALL, (0, 1))
    with torch.no_grad():
        trainer.model.readout.weight[1] = torch.inf
    with pytest.raises(Failed, match=r"step 0: the loss of seeds \[1\]"):
        trainer.advance()


def test_loss_is_the_expectation_over_queries(task):
    trainer = begin(SMALL, (0,))
    contexts = draw(task, 6, "evaluate", seed=0, queries=40_000)
    model = trainer.model.double()
    truth = torch.einsum("bqd,bd->bq", contexts.queries, contexts.w)
    errors = (model.predict(contexts)[0] - truth).square()
    standard_error = errors.std(dim=1) / errors.shape[1] ** 0.5
    gap = (excess_risk(model, contexts)[0] - errors.mean(dim=1)).abs()
    assert (gap < 4 * standard_error).all()


@pytest.mark.parametrize("attention", ["linear", "softmax", "relu"])
@pytest.mark.parametrize("mlp", [False, True])
def test_models_with_norm_and_mlp_train_too(attention, mlp):
    architecture = replace(SMALL.architecture, attention=attention, norm=True, mlp=mlp)
    recipe = replace(SMALL.recipe, steps=300, lr=1e-2, batch=32, init_scale=1.0, weight_decay=0.0)
    trainer = train(replace(SMALL, architecture=architecture, recipe=recipe), (0,))
    assert trainer.losses[-50:].mean() < 0.8 * trainer.losses[:10].mean()
    assert all(p.grad is not None and p.grad.any() for p in trainer.model.parameters())


@both
def test_training_draws_from_its_own_stream_seed_and_step_only(monkeypatch, config):
    seen = []

    def spy(task, batch, *key, queries):
        seen.append(key)
        return draw(task, batch, *key, queries=queries)

    monkeypatch.setattr(training, "draw", spy)
    trainer = begin(config, (3, 7))
    for _ in range(2):
        trainer.advance()
    assert set(seen) == {("train", seed, step) for seed in (3, 7) for step in (0, 1)}


def test_lengths_are_drawn_per_batch_from_the_whole_range_and_for_all_seeds_alike(monkeypatch):
    seen = {}

    def spy(task, batch, stream, seed, step, queries):
        seen.setdefault(seed, []).append(task.n)
        return draw(task, batch, stream, seed, step, queries=queries)

    monkeypatch.setattr(training, "draw", spy)
    recipe = replace(SMALL.recipe, lengths=(6, 9), steps=60)
    train(replace(SMALL, recipe=recipe), (3, 7))
    assert seen[3] == seen[7]
    assert set(seen[3]) == {6, 7, 8, 9}
    children = training.generator("train", 0, 5).spawn(2)
    assert seen[3][5] == children[1].integers(6, 9, endpoint=True)
    again, seen[7] = seen[7], []
    train(replace(SMALL, recipe=recipe), (7,))
    assert seen[7] == again


def test_clipping_is_part_of_a_step():
    tight = replace(SMALL, recipe=replace(SMALL.recipe, clip=1e-9, weight_decay=0.0))
    loose = replace(SMALL, recipe=replace(SMALL.recipe, clip=1e9, weight_decay=0.0))
    assert not torch.allclose(train(tight, (0,)).losses[-1], train(loose, (0,)).losses[-1])


def test_the_rate_warms_up_then_falls_to_zero():
    recipe = Recipe(steps=1000, lr=0.5, warmup=0.1)
    rates = [recipe.rate(step) for step in range(1000)]
    assert rates.index(max(rates)) == 100
    assert max(rates) == pytest.approx(0.5)
    assert rates[0] < 0.01
    assert rates[-1] < 1e-4
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_clipping_bounds_each_model_s_own_norm():
    before = [torch.tensor([[3.0], [0.03], [torch.nan]]), torch.tensor([[4.0], [0.04], [1.0]])]
    parameters = [torch.zeros(3, 1, requires_grad=True) for _ in before]
    for p, g in zip(parameters, before, strict=True):
        p.grad = g.clone()
    clip_per_model(parameters, 1.0)
    after = torch.cat([p.grad for p in parameters], dim=1)
    assert torch.allclose(after[0], torch.tensor([0.6, 0.8]))
    assert torch.equal(after[1], torch.tensor([0.03, 0.04]))


def test_coupled_and_decoupled_decay_are_different_things():
    decoupled = replace(SMALL, recipe=replace(SMALL.recipe, optimiser="adamw"))
    none = replace(SMALL, recipe=replace(SMALL.recipe, weight_decay=0.0))
    ends = [weights(train(config, (0,)))[0] for config in (SMALL, decoupled, none)]
    assert not torch.allclose(ends[0], ends[1])
    assert not torch.allclose(ends[1], ends[2], atol=1e-7)


def test_sgd_takes_plain_steps_with_momentum():
    recipe = Recipe(steps=3, batch=8, optimiser="sgd", betas=(0.5, 0.9), clip=1e9, warmup=0.0)
    trainer = begin(replace(SMALL, recipe=recipe), (0,))
    embed, velocity = trainer.model.embed.weight, 0
    for step in range(3):
        before = embed.detach().clone()
        trainer.advance()
        velocity = 0.5 * velocity + embed.grad
        assert torch.allclose(embed - before, -recipe.rate(step) * velocity, atol=1e-6)


def test_the_hash_sees_every_setting_and_survives_a_round_trip():
    assert Configuration.from_dict(SMALL.to_dict()) == SMALL
    whole = replace(SMALL, task=replace(SMALL.task, noise=1, covariance=(1, 1, 1, 1)))
    assert whole.hash == replace(whole, task=replace(whole.task, noise=1.0)).hash
    assert Configuration.from_dict(SMALL.to_dict()).hash == SMALL.hash
    whole, floats = Recipe(weight_decay=0, clip=1, betas=(0, 0.99)), Recipe(betas=(0.0, 0.99))
    assert whole == floats
    assert replace(SMALL, recipe=whole).hash == replace(SMALL, recipe=floats).hash
    for part in ("task", "architecture", "recipe"):
        for name, value in SMALL.to_dict()[part].items():
            other = {
                "values": "signs", "covariance": (1.0, 1.0, 2.0, 1.0),
                "prior": (1.0, 1.0, 2.0, 1.0), "heads": (2, 2),
                "attention": "relu", "inputs": "preprocessed", "betas": (0.8, 0.9),
                "optimiser": "sgd", "s": 1, "d": None, "warmup": 0.2,
                "norm": True, "mlp": True, "lengths": (4, 8), "precision": "double",
            }.get(name, value * 2 if isinstance(value, (int, float)) else value)  # fmt: skip
            if other is None:
                continue
            changed = replace(SMALL, **{part: replace(getattr(SMALL, part), **{name: other})})
            assert changed.hash != SMALL.hash, name


def test_a_configuration_of_nonlinear_responses_survives_a_round_trip():
    config = replace(SMALL, task=Nonlinear(4, 9, 1, "sine"))
    assert Configuration.from_dict(config.to_dict()) == config
    others = Nonlinear(4, 9, 1, "sign"), Nonlinear(4, 8, 1, "sine"), SparseLinear(4, 2, 9, 1)
    hashes = {config.hash, *(replace(config, task=task).hash for task in others)}
    assert len(hashes) == 4
    trainer = train(replace(config, recipe=replace(SMALL.recipe, steps=2)), (0, 3))
    assert trainer.losses.isfinite().all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recipe(steps=0), "steps=0"),
        (lambda: Recipe(warmup=1.0), "warmup=1.0"),
        (lambda: Recipe(lr=-1e-3), "lr=-0.001"),
        (lambda: Recipe(clip=0), "clip=0"),
        (lambda: Recipe(optimiser="adma"), "did you mean adam"),
        (lambda: Configuration(SparseLinear(d=4, s=1), Architecture(d=5)), "d=5"),
        (lambda: begin(SMALL, ()), "n_models=0"),
        (lambda: training.Trainer(SMALL, (0, 1), fresh(SMALL, (0,))), "wants 2 of"),
        (lambda: Recipe(lengths=(8,)), "allowed are"),
        (lambda: Recipe(lengths=(8, 4)), "low <= high"),
        (lambda: Recipe(lengths=(0, 4)), "lengths=0: allowed are"),
        (
            lambda: Configuration(Nonlinear(8, 9, 0.5, "sign"), Architecture(attention="softmax")),
            "nonlinear responses allow linear",
        ),
        (
            lambda: Configuration(Nonlinear(8, 9, 0.5, "sign"), Architecture(norm=True)),
            "without norm and mlp",
        ),
        (lambda: Nonlinear(8, 9, 0.5, "sgn"), "did you mean sign"),
    ],
)
def test_bad_settings_are_refused(make, words):
    with pytest.raises(Refused, match=words):
        make()


def test_finetuning_starts_from_the_pruned_model_and_verifies(tmp_path):
    whole = load("workhorse-3")
    smaller = replace(whole.config.architecture, heads=(8, 1, 1))
    recipe = replace(whole.config.recipe, steps=3, batch=16, lr=1e-9)
    origin = Start("workhorse-3", whole.config.hash)
    config = replace(whole.config, architecture=smaller, recipe=recipe, start=origin)
    assert Configuration.from_dict(config.to_dict()) == config
    assert config.hash != replace(config, start=replace(origin, keep="random")).hash
    start = pruned(config.start, smaller, (3, 1))
    every = pruned(config.start, smaller, whole.seeds)
    for name, value in start.state_dict().items():
        assert torch.equal(value, every.state_dict()[name][[3, 1]]), name
    trainer = train(config, (3, 1))
    contexts = draw(whole.config.task, 50, "evaluate", seed=0)
    assert torch.allclose(trainer.model.weights(contexts), start.weights(contexts), rtol=1e-3)
    save(finished("tuned", trainer), tmp_path / "tuned.safetensors.xz")
    tuned = load(tmp_path / "tuned.safetensors.xz")
    assert tuned.config == config
    assert all(check.passed for check in verify(tuned))
    wider = replace(smaller, d_head=4)
    with pytest.raises(Refused, match="cannot be pruned to"):
        begin(replace(config, architecture=wider), (0,))
    with pytest.raises(Refused, match="seeds="):
        begin(config, (99,))
    other = replace(config, start=replace(origin, hash="0" * 12))
    assert other.hash != config.hash
    with pytest.raises(Refused, match="starts from 000000000000"):
        begin(other, (0,))
    with pytest.raises(Refused, match="start from another's weights"):
        fresh(config, (0,))


def test_every_seed_keeps_the_heads_that_matter_to_it_on_tuning_contexts():
    whole = load("workhorse-3")
    smaller = replace(whole.config.architecture, heads=(8, 1, 1))
    found = importance(whole.model, draw(whole.config.task, 2048, "tune", seed=0)).by("mean")
    tuned = tuned_importance("workhorse-3")
    for layer, (ours, theirs) in enumerate(zip(tuned.top_share.T, found.top_share.T, strict=True)):
        torch.testing.assert_close(ours, theirs, msg=f"layer {layer + 1}")
    kept = most_important(found, smaller.heads)
    assert len({tuple(row.tolist()) for row in kept[1]}) > 1  # it is not one head in all seeds
    start = pruned(Start("workhorse-3", whole.config.hash), smaller, whole.seeds)
    for name, value in prune(whole.model, kept).state_dict().items():
        assert torch.equal(start.state_dict()[name], value), name


def is_stored_and_begins_by_hand(config, path):
    """A model trained from there comes back from its file and verifies; no drawn weights do."""
    save(finished("model", train(config, (0, 3))), path)
    again = load(path)
    assert again.config == config
    assert all(check.passed for check in verify(again))
    with pytest.raises(Refused, match="start from weights by hand"):
        fresh(config, (0,))


def test_a_split_start_is_algorithm_1_in_shares_drawn_from_the_seed(tmp_path):
    config = replace(
        SMALL, architecture=Architecture(4, (4, 3, 2), d_head=5, d_model=10), split=Split(0.1)
    )
    assert Configuration.from_dict(config.to_dict()) == config
    assert "split" not in SMALL.to_dict()
    assert len({config.hash, replace(config, split=None).hash}) == 2
    assert config.hash != replace(config, split=Split(0.2)).hash
    assert ", split" in config.label
    trainer, alone = begin(config, (0, 3)), begin(config, (3,))
    contexts = draw(SMALL.task, 50, "evaluate", seed=0)
    expected = preprocess_then_optimise(4, 2, 0.1).weights(contexts).expand(2, -1, -1)
    found = trainer.model.double().weights(contexts)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    taken = trainer.model.blocks[1].output.weight[:, :, 0, -1]
    assert not torch.allclose(taken[0], taken[1])
    torch.testing.assert_close(alone.model.blocks[1].output.weight[0, :, 0, -1].double(), taken[1])
    is_stored_and_begins_by_hand(config, tmp_path / "model.safetensors.xz")
    with pytest.raises(Refused, match="start and split: a training has one start"):
        replace(config, start=Start("workhorse-3", "0" * 12))


def test_a_written_start_is_two_layers_by_hand_for_every_seed(tmp_path):
    numbers = (-0.4, -0.2, 0.3, 1.5, -0.5, -0.1, -0.2, 0.5, 0.1, 0.8, 2.8)
    shape = Architecture(4, (6, 5), d_head=5, d_model=10)
    config = replace(SMALL, architecture=shape, written=Written(numbers))
    assert Configuration.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert "written" not in SMALL.to_dict()
    assert config.hash != replace(config, written=None).hash
    assert config.hash != replace(config, written=Written((*numbers[:-1], 2.9))).hash
    assert ", from eleven numbers" in config.label
    contexts = draw(SMALL.task, 50, "evaluate", seed=0)
    expected = TwoLayers(torch.tensor(numbers, dtype=torch.float64)).weights(contexts)
    found = begin(config, (0, 3)).model.double().weights(contexts)
    torch.testing.assert_close(found, expected.expand(2, -1, -1), rtol=1e-4, atol=1e-5)
    is_stored_and_begins_by_hand(config, tmp_path / "model.safetensors.xz")
    with pytest.raises(Refused, match="split and written: a training has one start"):
        replace(config, split=Split(0.1))
    for wrong in ((*numbers, 1.0), numbers[:-1], (*numbers[:-1], float("nan")), 3):
        with pytest.raises(Refused, match="numbers="):
            Written(wrong)
