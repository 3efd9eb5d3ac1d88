"""Probes: against answers that are known, brute force, and the bound on what heads can write."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from icl import probing
from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import GradientDescent, PreprocessedGD, ReweightedGD
from icl.probing import explained, fit, r_squared, read, states
from icl.risk import squared_error
from icl.tasks import SparseLinear
from icl.transformer import Architecture, build

WHITE = SparseLinear(d=4, s=2, n=12, noise=0.5, values="sphere")


def preprocessor(label_heads):
    """One layer, a head per pair: row i of `label_heads` writes (1/n) Σ y <a_i, x> <b_i, x_q>."""
    d, h = WHITE.d, len(label_heads)
    model = build(Architecture(d=d, heads=(h, 1), d_head=1, d_model=d + 1 + h)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed[0, :, : d + 1] = torch.eye(d + 1)
        for i, (key, query) in enumerate(label_heads):
            model.value[0][0, d, i, 0] = 1
            model.key[0][0, :d, i, 0] = torch.as_tensor(key)
            model.query[0][0, :d, i, 0] = torch.as_tensor(query)
            model.output[0][0, i, 0, d + 1 + i] = 1
    return model.requires_grad_(False)


def readable(model, scale="r̂"):
    """R² of reading c ∘ x_q after the embedding and every layer."""
    fitting, contexts = (draw(WHITE, 4000, stream, seed=0) for stream in ("tune", "evaluate"))
    found = probing.probe(partial(states, model), fitting, contexts)
    return torch.stack([layer.readable[scale] for layer in found], dim=1)


def test_a_probe_finds_an_answer_that_was_hidden(task):
    contexts = draw(task, 50, "tune", seed=0)
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 50, 4, 5, generator=rng, dtype=torch.float64)
    mixing = torch.randn(2, 1, 6, 6, generator=rng, dtype=torch.float64)
    hidden = torch.cat([noise, contexts.w.expand(2, -1, -1)[..., None]], dim=-1) @ mixing
    found = fit(hidden, contexts.w[..., None], contexts)
    assert torch.allclose(read(hidden, found)[..., 0], contexts.w.expand(2, -1, -1), atol=1e-8)


def test_a_probe_is_the_least_squares_fit_over_queries(task, model):
    contexts = draw(task, 60, "tune", seed=0)
    factor = torch.linalg.cholesky(torch.from_numpy(task.sigma))
    model.initialise((5, 6), 0.6).requires_grad_(False)
    for hidden in states(model, contexts):
        found = read(hidden, fit(hidden, contexts.w[..., None], contexts))[..., 0]
        for m in range(2):
            # The columns of the factor are queries that stand for N(0, Σ).
            design = torch.cat([factor.T @ hidden[m, b] for b in range(60)])
            answers = torch.cat([factor.T @ w for w in contexts.w])
            p = torch.linalg.lstsq(design, answers[:, None], driver="gelsd").solution
            assert torch.allclose(found[m], (hidden[m] @ p)[..., 0], atol=1e-7)


def test_no_read_out_is_better_and_any_other_is_worse(task, model):
    contexts = draw(task, 200, "tune", seed=0)
    *_, hidden = states(model, contexts)
    best = fit(hidden, contexts.w[..., None], contexts)
    least = squared_error(read(hidden, best)[..., 0], contexts).mean(dim=-1)
    own = squared_error(model.weights(contexts), contexts).mean(dim=-1)
    assert (least <= own).all()
    for seed in range(5):
        rng = torch.Generator().manual_seed(seed)
        other = best + 1e-2 * torch.randn(best.shape, generator=rng, dtype=best.dtype)
        assert (squared_error(read(hidden, other)[..., 0], contexts).mean(dim=-1) > least).all()


def test_hidden_states_of_trained_precision_do_not_blow_the_probe_up(task, model):
    contexts = draw(task, 200, "tune", seed=0)
    exact = list(states(model, contexts))
    for ours, theirs in zip(exact, states(model.float(), contexts), strict=True):
        risks = [
            squared_error(read(h, fit(h, contexts.w[..., None], contexts))[..., 0], contexts)
            for h in (ours, theirs)
        ]
        assert torch.allclose(*(r.mean(dim=-1) for r in risks), rtol=1e-3)


def test_preprocessing_is_read_off_a_layer_that_wrote_it():
    found = readable(preprocessor([(row, row) for row in torch.eye(4)]))[0]
    assert found[0] < 0.01
    assert torch.allclose(found[1:], torch.ones(2, dtype=found.dtype))


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_a_layer_of_fewer_heads_reaches_heads_over_features_and_no_more(heads):
    eye = torch.eye(4)
    best = readable(preprocessor([(row, row) for row in eye[:heads]]))[0, 1]
    assert best == pytest.approx(heads / 4, abs=0.01)
    rotated = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0]
    other = readable(preprocessor([(row, row) for row in rotated[:heads]]))[0, 1]
    assert other < best


def test_the_general_bound_holds_for_any_weights():
    for heads, scale in [(1, 0.5), (1, 2.0), (2, 1.0)]:
        config = Architecture(d=4, heads=(heads,), d_head=5, d_model=12)
        model = build(config, 4).initialise((0, 1, 2, 3), scale).double().requires_grad_(False)
        assert (readable(model)[:, 1] <= 2 * heads / 4 + 0.01).all()


def test_r_squared_agrees_with_drawn_queries(task):
    contexts = draw(task, 300, "tune", seed=0)
    rng = torch.Generator().manual_seed(0)
    products = torch.diag_embed(contexts.xy)[None] + 0.3 * torch.randn(
        2, 300, 4, 4, generator=rng, dtype=torch.float64
    )
    factor = torch.linalg.cholesky(torch.from_numpy(task.sigma))
    x = torch.randn(300, 4000, 4, generator=rng, dtype=torch.float64) @ factor.T
    truth = contexts.xy[:, None] * x
    answers = torch.einsum("mbij,bqi->mbqj", products, x)
    missed = (answers - truth).square().mean(dim=(1, 2)) / truth.square().mean(dim=(0, 1))
    ours = r_squared(products, contexts.xy.expand(2, -1, -1), contexts)
    assert torch.allclose(ours, 1 - missed.mean(dim=-1), atol=0.02)


def test_what_is_new_in_a_scale_owes_nothing_to_the_first(task):
    contexts = draw(task, 30, "tune", seed=0)
    at_start = probing.scales(contexts, torch.zeros_like(contexts.xy))
    assert torch.equal(at_start["ŵ + ĝ"], contexts.xy)
    assert at_start[probing.NEW].abs().max() < 1e-12
    weights = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    found = probing.scales(contexts, weights)
    assert torch.allclose(
        found["ŵ + ĝ"], ReweightedGD(1, 1.0).scale(weights, found["ŵ + ĝ"] - weights)
    )
    residual = contexts.xy - (contexts.xx @ weights[..., None])[..., 0]
    assert torch.allclose(found["ŵ + ĝ"], weights + residual)
    assert (found[probing.NEW] * contexts.xy).sum(dim=-1).abs().max() < 1e-10


@pytest.mark.parametrize("average", probing.AVERAGES)
def test_an_algorithm_explains_its_own_iterates_and_not_noise(task, average):
    contexts = draw(task, 500, "evaluate", seed=0)
    walk = list(GradientDescent(6, 0.2).iterates(contexts))
    own = torch.stack([walk[2], walk[5]])
    assert torch.allclose(explained(own, walk, contexts, average), torch.ones(2).double())
    noise = torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(0)).double()
    nothing = [torch.zeros_like(walk[0])]
    assert torch.allclose(explained(noise, nothing, contexts, average), torch.zeros(2).double())
    assert (explained(noise, walk, contexts, average) < 0.02).all()
    half = explained(own, [own[0] / 2], contexts, average)[0]
    assert half == pytest.approx(0.75)


def test_the_fraction_explained_is_measured_with_the_covariance_and_no_context_rules_it(task):
    contexts = draw(task, 500, "evaluate", seed=0)
    weights, u = contexts.w[None].clone(), contexts.xy
    by_hand = 1 - squared_error(u, contexts).sum() / squared_error(0 * u, contexts).sum()
    assert explained(weights, [u], contexts, "mean").item() == pytest.approx(by_hand.item())
    before = explained(weights, [u], contexts).item()
    weights[0, 7] *= 1e6
    assert explained(weights, [u], contexts).item() == pytest.approx(before, abs=0.02)
    assert explained(weights, [u], contexts, "mean").item() < 0.01


def test_the_paper_s_own_construction_passes_the_criteria_that_probes_decide():
    contexts = draw(WHITE, 1000, "evaluate", seed=0)
    walk = PreprocessedGD(2, 1.0, relative=True)
    found = probing.study(partial(probing.construction, walk), 3, contexts)
    first, lead, fraction = found.criteria()
    assert first.item() == pytest.approx(1)
    assert lead.item() > 0.05
    assert fraction.item() > 0.9
    assert found.risks.shape == (1, 4, 1000)
    falling = found.risks.mean(dim=-1)[0]
    assert (falling.diff() < 0).all()


def test_curves_count_layers_from_one_and_steps_as_the_layers_take_them():
    contexts = draw(WHITE, 200, "evaluate", seed=0)
    found = probing.study(probing.constructed(WHITE, 3), 3, contexts)
    two = replace(
        found, layers=[replace(i, weights=i.weights.repeat(2, 1, 1)) for i in found.layers]
    )
    lines = probing.risk_curves({"model": two})
    layers = {name: [x for x, _ in points] for name, points in lines.items()}
    assert layers["model"] == layers["GD"] == [1, 2, 3]
    assert layers["pre-GD"] == layers["re-weighted GD"] == [2, 3]
    assert layers["Bayes"] == [3]
    for name, t in (("GD", 2), ("pre-GD", 1)):
        (step,) = [e.mean for x, e in lines[name] if x == 2]
        expected = squared_error(found.walks[name][t - 1], contexts).mean()
        assert step == pytest.approx(expected.item())
    assert lines["model"][2][1].mean == pytest.approx(found.risks[0, 3].mean().item())


def test_bad_arguments_are_refused(task):
    contexts = draw(task, 4, "tune", seed=0, tokens=True)
    softmax = build(Architecture(d=4, heads=(1,), attention="softmax"))
    with pytest.raises(Refused, match="softmax"):
        next(states(softmax, contexts))
    with pytest.raises(Refused, match="average='mode'"):
        explained(contexts.w[None], [contexts.w], contexts, "mode")
    with pytest.raises(Refused, match="depth=1"):
        probing.study(lambda _: iter(()), 1, replace(contexts))
