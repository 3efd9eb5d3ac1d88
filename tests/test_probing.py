"""Probes: against answers that are known, brute force, and the bound on what heads can write."""

from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import pytest
import torch

from icl import figures
from icl.architecture import Architecture
from icl.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from icl.constructions import gradient_descent
from icl.contexts import draw
from icl.descent import GradientDescent, PreprocessedGD, ReweightedGD
from icl.errors import Refused
from icl.estimators import ESTIMATORS, Ridge
from icl.experiments.comparison import REFERENCES, WALKS, algorithm
from icl.experiments.probing import (
    A5,
    Result,
    construction,
    evidence,
    run,
    study,
)
from icl.intervals import trimmed, without
from icl.predictors import excess_risk, squared_error
from icl.probing import (
    SHARES,
    Study,
    fit,
    implied_weights,
    misread,
    probe_risks,
    r_squared,
    read,
    scales,
    states,
)
from icl.tasks import SparseLinear
from icl.transformer import build

WHITE = SparseLinear(d=4, s=2, n=12, noise=0.5, values="sphere")
NEW = "new in ŵ + ĝ"
OTHER = [  # models that a query goes through token by token
    Architecture(4, (3, 2), 3, 7, attention, norm=whole, mlp=whole)
    for attention in ("softmax", "relu")
    for whole in (False, True)
]


def random_model(config, scale=0.8, seeds=(5, 6)):
    return build(config, len(seeds)).initialise(seeds, scale).double().requires_grad_(False)


def preprocessor(label_heads):
    """One layer, a head per pair: row i of `label_heads` writes (1/n) Σ y <a_i, x> <b_i, x_q>."""
    d, h = WHITE.d, len(label_heads)
    model = build(Architecture(d=d, heads=(h, 1), d_head=1, d_model=d + 1 + h)).double()
    block = model.blocks[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.weight[0, :, : d + 1] = torch.eye(d + 1)
        for i, (key, query) in enumerate(label_heads):
            block.value.weight[0, d, i, 0] = 1
            block.key.weight[0, :d, i, 0] = torch.as_tensor(key)
            block.query.weight[0, :d, i, 0] = torch.as_tensor(query)
            block.output.weight[0, i, 0, d + 1 + i] = 1
    return model.requires_grad_(False)


def readable(model, scale="r̂"):
    """R² of reading c ∘ x_q after the embedding and every layer."""
    contexts = draw(WHITE, 4000, "evaluate", seed=0)
    return r_squared(study(partial(states, model), 2, contexts).readable[scale])


def explained(weights, walk, contexts, average="trimmed"):
    """What a walk explains of weights (M, B, d), (M,)."""
    found = Study(contexts, 1, {"walk": walk}, weights[:, None], {})
    return found.explained("walk", average)[:, 0]


def copies(found, count=2):
    """A study of so many models that are the same."""
    read = {name: pair.repeat(count, 1, 1, 1) for name, pair in found.readable.items()}
    return replace(found, weights=found.weights.repeat(count, 1, 1, 1), readable=read)


def decisions(found):
    """What A5 decides of a study: the outcome, and the decision of every criterion and part."""
    verdict = A5.judge({"setting": evidence(found)}, shared=True)
    made = [{f.part: f.decision for f in verdict.of(c)} for c in A5.criteria]
    return verdict.outcome, *made


def layers(*decided):
    """Decisions of the later layers, by part."""
    return {f"layer {i}": decision for i, decision in enumerate(decided, 2)}


@pytest.fixture(scope="module")
def control():
    """The paper's own construction, probed."""
    contexts = draw(WHITE, 1000, "evaluate", seed=0)
    walk = PreprocessedGD(2, 1.0, relative=True)
    return study(partial(construction, walk, 3), 3, contexts)


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


def test_nearly_dependent_states_are_read_as_least_squares_reads_them(task):
    contexts = draw(replace(task, covariance=()), 300, "tune", seed=0)
    rng = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=rng, dtype=torch.float64))[0]
    strengths = torch.logspace(0, -5, 6, dtype=torch.float64)
    hidden = torch.randn(1, 300, 4, 6, generator=rng, dtype=torch.float64) * strengths @ basis
    answers = contexts.w[..., None]
    found = read(hidden, fit(hidden, answers, contexts)).flatten()
    rows, wanted = hidden.flatten(0, 2), answers.flatten(0, 1)
    exact = rows @ torch.linalg.lstsq(rows, wanted, driver="gelsd").solution
    assert torch.allclose(found, exact.flatten(), atol=1e-6)


def test_states_are_those_of_all_contexts_at_once(task, model):
    contexts = draw(task, 600, "tune", seed=0)
    together = (hidden[..., :-1, :] for hidden in model.hidden(contexts))
    for found, expected in zip(states(model, contexts), together, strict=True):
        assert torch.allclose(found, expected.expand_as(found))


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


def test_probes_on_statistics_and_on_tokens_have_the_same_risk(task):
    model = gradient_descent(d=4, steps=2, rate=0.3)
    fitting = draw(task, 300, "tune", seed=0, queries=100)
    contexts = draw(task, 300, "evaluate", seed=0, queries=400)
    exact = probe_risks(model, fitting, contexts)
    drawn = probe_risks(model.on_tokens(), fitting, contexts)
    assert exact.shape == drawn.shape == (1, 3, 300)
    assert (exact.mean(dim=-1).diff(dim=-1) < -0.1).all(), "every layer has a risk of its own"
    assert torch.allclose(exact.mean(dim=-1), drawn.mean(dim=-1), rtol=0.02)
    # The mean of 400 squares of a Gaussian is off by √(2/400) of its value, typically.
    apart = (drawn / exact - 1).square().mean(dim=-1).sqrt()
    assert torch.allclose(apart, torch.full_like(apart, (2 / 400) ** 0.5), rtol=0.3)


@pytest.mark.parametrize("config", OTHER, ids=str)
def test_any_model_is_probed_and_its_last_probe_is_the_best_there_is(task, config):
    model = random_model(config)
    fitting = draw(task, 80, "tune", seed=0, queries=20)
    found = probe_risks(model, fitting, fitting).mean(dim=-1)
    assert found.shape == (2, 3)
    assert (found[:, -1] <= excess_risk(model, fitting).mean(dim=-1)).all()
    *_, last = model.hidden(fitting)
    answers = torch.einsum("bqd,bd->bq", fitting.queries, fitting.w).flatten()
    for m in range(2):
        rows = last[m, :, task.n :].flatten(0, 1)
        left = rows @ torch.linalg.lstsq(rows, answers[:, None]).solution - answers[:, None]
        assert torch.allclose(found[m, -1], left.square().mean())


def test_read_outs_fitted_at_one_length_are_judged_at_another(task):
    config = Architecture(d=4, heads=(2, 2), d_head=3, d_model=7, attention="softmax")
    model = build(config).initialise((0,), 1.0).double()
    fitting = draw(task, 40, "tune", 0, queries=6)
    longer = draw(replace(task, n=20), 30, "evaluate", 0, queries=5)
    assert probe_risks(model, fitting, longer).shape == (1, 3, 30)


def test_answers_of_a_linear_model_imply_its_weights(task):
    model = random_model(Architecture(d=4, heads=(3, 1, 2), d_head=3, d_model=7))
    contexts = draw(task, 30, "evaluate", seed=0, queries=6)
    weights, unexplained = implied_weights(model.on_tokens(), contexts)
    assert torch.allclose(weights, model.weights(contexts))
    assert unexplained.shape == (2, 30)
    assert unexplained.max() < 1e-20


@pytest.mark.parametrize("config", OTHER, ids=str)
def test_what_no_weights_explain_is_what_least_squares_leaves(task, config):
    model = random_model(config)
    contexts = draw(task, 30, "evaluate", seed=0, queries=15)
    weights, unexplained = implied_weights(model, contexts)
    answers = model.predict(contexts)
    for m in range(2):
        for b, asked in enumerate(contexts.queries):
            found = torch.linalg.lstsq(asked, answers[m, b][:, None]).solution
            left = answers[m, b] - (asked @ found)[:, 0]
            assert torch.allclose(weights[m, b], found[:, 0])
            share = left.square().sum() / answers[m, b].square().sum()
            assert unexplained[m, b] == pytest.approx(share.item())
    assert unexplained.min() > 0
    assert unexplained.mean() > 1e-3


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
    missed, size = (x.square().mean(dim=-2).sum(dim=-1) for x in (answers - truth, truth))
    ours = misread(products, contexts.xy, contexts)
    assert ours.shape == (2, 2, 300)
    assert torch.allclose(ours, torch.stack([missed, size.expand(2, -1)], dim=1), rtol=0.2)
    assert torch.allclose(r_squared(ours), 1 - missed.mean(dim=-1) / size.mean(), atol=0.02)


def test_what_is_new_in_a_scale_owes_nothing_to_the_first(task):
    contexts = draw(task, 30, "tune", seed=0)
    at_start = scales(contexts, torch.zeros_like(contexts.xy))
    assert torch.equal(at_start["ŵ + ĝ"], contexts.xy)
    assert at_start[NEW].abs().max() < 1e-12
    weights = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    found = scales(contexts, weights)
    assert torch.allclose(
        found["ŵ + ĝ"], ReweightedGD(1, 1.0).scale(weights, found["ŵ + ĝ"] - weights)
    )
    residual = contexts.xy - (contexts.xx @ weights[..., None])[..., 0]
    assert torch.allclose(found["ŵ + ĝ"], weights + residual)
    assert (found[NEW] * contexts.xy).sum(dim=-1).abs().max() < 1e-10


@pytest.mark.parametrize("average", SHARES)
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


def test_the_paper_s_own_construction_passes_the_criteria_that_probes_decide(control):
    found = evidence(control)
    assert found.preprocessing().item() == pytest.approx(1)
    assert list(found.lead()) == list(found.fraction()) == ["layer 2", "layer 3"]
    assert min(x.item() for x in found.lead().values()) > 0.05
    assert min(x.item() for x in found.fraction().values()) > 0.9
    assert control.risks.shape == (1, 4, 1000)
    falling = control.risks.mean(dim=-1)[0]
    assert (falling.diff() < 0).all()


def test_the_criteria_on_numbers_made_up():
    contexts = draw(WHITE, 50, "evaluate", seed=0)
    # Of s·w the step w explains 1 − (1 − 1/s)², and the step w/2 explains 1 − (1 − 1/2s)².
    walks = {"preprocessed GD": [0 * contexts.w, contexts.w], "GD": [contexts.w / 2]}
    scale = torch.tensor([[9.0, 5.0, 2.0, 1.0], [9.0, 5.0, 1.0, 1.0]]).double()
    weights = scale[:, :, None, None] * contexts.w
    missed = 1 - torch.tensor([[0.1, 0.7, 0.2, 0.3], [0.1, 0.6, 0.9, 0.9]])
    pair = torch.stack([missed, torch.ones_like(missed)], dim=-1)
    found = evidence(Study(contexts, 3, walks, weights, {"r̂": pair[..., None] * torch.rand(50)}))
    assert found.preprocessing().tolist() == pytest.approx([0.7, 0.6])
    fraction, lead = (
        {k: v.tolist() for k, v in x.items()} for x in (found.fraction(), found.lead())
    )
    assert fraction == {"layer 2": pytest.approx([0.75, 1]), "layer 3": pytest.approx([1, 1])}
    assert lead == {
        "layer 2": pytest.approx([0.3125, 0.25]),
        "layer 3": pytest.approx([0.25, 0.25]),
    }


def test_what_decides_is_what_the_table_of_averages_shows(control):
    found = evidence(control)
    ours, plain = (control.explained(walk)[0, 2:] for walk in ("preprocessed GD", "GD"))
    assert [x.item() for x in found.fraction().values()] == pytest.approx(ours.tolist())
    assert [x.item() for x in found.lead().values()] == pytest.approx((ours - plain).tolist())


def test_the_verdict_turns_when_walks_are_swapped_or_turned_round(control):
    good = copies(control, 5)
    both = layers(REPRODUCED, REPRODUCED)
    assert decisions(good) == (REPRODUCED, {"": REPRODUCED}, both, both)
    walks = good.walks | {"GD": good.walks["preprocessed GD"], "preprocessed GD": good.walks["GD"]}
    outcome, first, lead, _ = decisions(replace(good, walks=walks))
    assert (outcome, first) == (NOT_REPRODUCED, {"": REPRODUCED})
    assert lead == layers(NOT_REPRODUCED, NOT_REPRODUCED)
    outcome, _, lead, fraction = decisions(replace(good, weights=-good.weights))
    assert (outcome, fraction) == (NOT_REPRODUCED, layers(NOT_REPRODUCED, NOT_REPRODUCED))
    assert REPRODUCED not in lead.values()


def test_a_model_with_random_weights_fails(control):
    model = random_model(Architecture(4, (1, 1, 1), 5, 16), seeds=range(5))
    outcome, first, lead, _ = decisions(study(partial(states, model), 3, control.contexts))
    assert (outcome, first) == (NOT_REPRODUCED, {"": NOT_REPRODUCED})
    assert REPRODUCED not in lead.values()


def test_every_later_layer_is_judged_by_itself(control):
    good, plain = copies(control, 5), control.walks["GD"]
    for layer, expected in ((2, (NOT_REPRODUCED, REPRODUCED)), (3, (REPRODUCED, NOT_REPRODUCED))):
        weights = good.weights.clone()
        weights[:, layer] = plain[layer - 1]
        outcome, _, lead, _ = decisions(replace(good, weights=weights))
        assert (outcome, lead) == (NOT_REPRODUCED, layers(*expected))
    # Of no effect the least of several layers would be negative more often than not.
    noise = torch.randn(good.weights.shape, generator=torch.Generator().manual_seed(0))
    none = replace(good, weights=noise.to(good.weights))
    assert decisions(none)[2:] == (
        layers(UNDECIDED, UNDECIDED),
        layers(NOT_REPRODUCED, NOT_REPRODUCED),
    )


def test_intervals_cover_the_contexts_too(control):
    found = evidence(copies(control, 5))
    thinned = without(found, 0)
    assert {x.shape[-1] for x in vars(thinned).values()} == {950}
    assert thinned.lead()["layer 2"] != pytest.approx(found.lead()["layer 2"])
    # All seeds are the same, so only the contexts give an interval its width.
    for criterion in A5.criteria[1:]:
        alone, shared = (list(criterion.estimates(found, shared)) for shared in (False, True))
        for (_, narrow, _), (_, wide, _) in zip(alone, shared, strict=True):
            assert narrow.high == pytest.approx(narrow.low)
            assert wide.high - wide.low > 1e-3
    # Two layers at once hold 95 %: Student's quantile for a level of 0.975, at four degrees.
    _, estimate, seeds = next(A5.criteria[1].estimates(found, shared=True))
    groups = torch.stack([without(found, g).lead()["layer 2"][0] for g in range(20)])
    spread = (19 * groups.var(correction=0)).sqrt().item()
    assert seeds == 5
    assert estimate.high - estimate.value == pytest.approx(3.4954 * spread, rel=1e-3)


def test_walks_have_the_best_relative_rate_for_a_step_in_each_layer_but_the_first(control):
    assert list(control.walks) == [*WALKS, *REFERENCES]
    assert set(control.walks) <= set(ESTIMATORS)
    tuned = algorithm("preprocessed GD", WHITE, 3)
    assert isinstance(tuned, PreprocessedGD)
    assert (tuned.steps, tuned.relative) == (20, True)
    tuning = draw(WHITE, 1024, "tune", seed=0)
    for rate in (tuned.rate * 0.8, tuned.rate * 1.2):
        worse, best = (PreprocessedGD(2, r, relative=True) for r in (rate, tuned.rate))
        risks = [trimmed(excess_risk(walk, tuning), dim=0) for walk in (best, worse)]
        assert risks[0] < risks[1]
    assert [len(walk) for walk in control.walks.values()] == [20, 20, 20, 1, 1, 1]


def test_a_study_reads_what_probe_risks_reads():
    model = random_model(Architecture(d=4, heads=(2, 1), d_head=3, d_model=7))
    contexts = draw(WHITE, 100, "evaluate", seed=0)
    found = study(partial(states, model), 2, contexts)
    fitting = draw(WHITE, 2048, "tune", seed=1)
    assert torch.allclose(found.risks, probe_risks(model, fitting, contexts))


def test_curves_count_layers_from_one_and_steps_as_the_layers_take_them(control, monkeypatch):
    two, drawn = copies(control), []
    monkeypatch.setattr(figures, "curves", lambda frame, *_: drawn.append(frame))
    studies = {"8-8-8 heads, d = 4": two, "construction": control}
    Result({}, studies, {"8-8-8 heads, d = 4": two.risks[:, -1]}).plot_risks()
    (frame,) = drawn
    assert set(frame.panel) == {"d = 4, n = 12, 3 layers"}
    lines = {label: line.set_index("layer").value for label, line in frame.groupby("label")}
    layers = {label: list(line.index) for label, line in lines.items()}
    assert layers["8-8-8 heads"] == layers["GD"] == [1, 2, 3]
    assert layers["preprocessed GD"] == layers["re-weighted GD"] == [2, 3]
    assert layers["Bayes"] == [3]
    assert len(layers) == 5
    for label, t in (("GD", 2), ("preprocessed GD", 1)):
        expected = trimmed(squared_error(control.walks[label][t - 1], control.contexts), dim=0)
        assert lines[label][2] == pytest.approx(expected.item())
    assert lines["8-8-8 heads"][3] == pytest.approx(trimmed(control.risks[0, 3], 0).item())


def test_the_heat_map_shows_what_is_left_unexplained(control):
    Result({}, {"a": copies(control), "construction": control}, {}).plot_nearest()
    figure = plt.gcf()
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "construction"]
    shown = [float(text.get_text()) for text in figure.axes[1].texts]
    left = [100 * (1 - control.explained(label)[0, 1:]) for label in control.walks]
    assert shown == pytest.approx(torch.stack(left, dim=1).flatten().tolist(), abs=0.051)
    plt.close(figure)


def test_tables_have_a_row_per_layer_and_intervals_where_there_are_seeds(control):
    two = copies(control)
    two = replace(two, weights=two.weights * torch.tensor([1.0, 1.1])[:, None, None, None])
    own = excess_risk(Ridge(0.1), two.contexts).repeat(2, 1)
    found = Result({}, {"a": two, "construction": control}, {"a": own})
    risks = [line.split(" | ") for line in found.risks().splitlines()[2:]]
    places = ["layer 1", "layer 2", "layer 3", "its own read-out"]
    assert [line[:2] for line in risks] == [["| a", place] for place in places]
    assert float(risks[-1][2].split()[0]) == pytest.approx(trimmed(own[0], dim=0).item(), abs=6e-4)
    head, _, *lines = found.readable().splitlines()
    assert head == f"| model | layer | r̂ | ŵ | ŵ + ĝ | {NEW} |"
    assert len(lines) == 6
    assert ["[" in line for line in lines] == [True] * 3 + [False] * 3
    assert lines[3].startswith("| construction | 1 | 1.000 | 1.000 |")
    head, _, *lines = found.averages().splitlines()
    assert head.count("lead over GD, ") == head.count("explained, ") == len(SHARES) == 3
    assert [line.split(" | ")[:2] for line in lines[:2]] == [["| a", "2"], ["| a", "3"]]
    assert [line.count("[") for line in lines] == [6, 6, 0, 0]
    ours, plain = (
        torch.stack([control.explained(walk, way)[0, 3] for way in SHARES])
        for walk in ("preprocessed GD", "GD")
    )
    values = [f"{value.item():.3f}" for value in (*(ours - plain), *ours)]
    assert lines[-1] == f"| construction | 3 | {' | '.join(values)} |"


def test_bad_arguments_are_refused(task):
    contexts = draw(task, 4, "tune", seed=0, queries=4)
    softmax = build(Architecture(d=4, heads=(1,), attention="softmax"))
    with pytest.raises(Refused, match="softmax"):
        next(states(softmax, contexts))
    with pytest.raises(Refused, match="average='mode'"):
        explained(contexts.w[None], [contexts.w], contexts, "mode")
    with pytest.raises(Refused, match="depth=1"):
        study(lambda _: iter(()), 1, contexts)
    with pytest.raises(Refused, match="queries=4"):
        implied_weights(softmax, contexts)
    with pytest.raises(Refused, match="contexts=1: allowed are whole numbers from 2 on"):
        run(contexts=1, seed=0)
