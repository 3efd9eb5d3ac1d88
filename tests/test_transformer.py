"""The model against its formula, written out a second way, and its invariances."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icl.contexts import draw, draw_queries
from icl.errors import Refused
from icl.heads import mask
from icl.tasks import SparseLinear
from icl.transformer import ATTENTION, Architecture, build


def literal(model, contexts, queries, m):
    """Equation by equation, one context, token and head at a time: answers (B, q)."""
    kind, k = model.config.attention, model.config.d_head
    answers = torch.empty(queries.shape[:2], dtype=torch.float64)
    for b, examples in enumerate(contexts.tokens):
        n = len(examples)
        for q, x in enumerate(queries[b]):
            tokens = [*examples, torch.cat([x, torch.zeros(1, dtype=torch.float64)])]
            hidden = [e @ model.embed[m] for e in tokens]
            for layer, heads in enumerate(model.config.heads):
                after = [h.clone() for h in hidden]
                for head in range(heads):
                    q_h, k_h, v_h = (
                        getattr(model, name)[layer][m, :, head]
                        for name in ("query", "key", "value")
                    )
                    out = model.output[layer][m, head]
                    for t, h in enumerate(hidden):
                        scores = torch.stack([(h @ q_h) @ (g @ k_h) for g in hidden[:n]])
                        weights = {
                            "linear": scores / n,
                            "relu": scores.clamp(min=0) / n,
                            "softmax": (scores / k**0.5).softmax(dim=0),
                        }[kind]
                        mixed = sum(a * (g @ v_h) for a, g in zip(weights, hidden[:n], strict=True))
                        after[t] = after[t] + mixed @ out
                hidden = after
            answers[b, q] = hidden[-1] @ model.readout[m]
    return answers


@pytest.mark.parametrize("attention", ATTENTION)
def test_forward_equals_the_formula_written_out(task, attention):
    config = Architecture(d=4, heads=(3, 1, 2), d_head=3, d_model=7, attention=attention)
    model = build(config, 2).initialise((5, 6), 1.0).double()
    contexts = draw(task, 3, "evaluate", seed=0, tokens=True)
    queries = draw_queries(task, 3, 2, "evaluate", seed=0)
    ours = model.predict(contexts, queries)
    for m in range(2):
        expected = literal(model, contexts, queries, m)
        assert torch.allclose(ours[m], expected, rtol=1e-10, atol=1e-12)


@given(
    d=st.integers(1, 6),
    n=st.integers(1, 9),
    heads=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    d_head=st.integers(1, 5),
    d_model=st.integers(1, 9),
    models=st.integers(1, 3),
)
def test_statistics_path_equals_token_path(d, n, heads, d_head, d_model, models):
    model = build(Architecture(d, heads, d_head, d_model), models)
    model.initialise(range(models), 1.0).double()
    task = SparseLinear(d=d, s=1, n=n)
    contexts = draw(task, 3, "evaluate", seed=0, tokens=True)
    queries = draw_queries(task, 3, 2, "evaluate", seed=0)
    by_tokens = model.predict_tokens(contexts, queries)
    assert by_tokens.shape == (models, 3, 2)
    scale = by_tokens.abs().max().item() + 1e-30
    assert ((model.predict(contexts, queries) - by_tokens).abs().max() / scale) < 1e-10
    *_, last = model.hidden(contexts)
    unabridged = torch.einsum("mbtd,md->mbt", last, model.readout)[..., :-1]
    assert torch.allclose(unabridged, model.weights(contexts), rtol=1e-9, atol=1e-12 * scale)


def test_gradients_of_both_paths_are_equal(task, model):
    contexts = draw(task, 4, "evaluate", seed=0, tokens=True)
    queries = draw_queries(task, 4, 3, "evaluate", seed=0)
    parameters = list(model.parameters())
    fast = torch.autograd.grad(model.predict(contexts, queries).square().sum(), parameters)
    slow = torch.autograd.grad(model.predict_tokens(contexts, queries).square().sum(), parameters)
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11 * b.abs().max().item())
        assert b.abs().max() > 0


@pytest.mark.parametrize("attention", ATTENTION)
def test_gradients_are_right(attention):
    config = Architecture(d=2, heads=(2, 1), d_head=2, d_model=3, attention=attention)
    model = build(config).initialise((0,), 1.0).double()
    task = SparseLinear(d=2, s=1, n=4)
    contexts = draw(task, 2, "evaluate", seed=0, tokens=True)
    queries = draw_queries(task, 2, 2, "evaluate", seed=0)
    names = [name for name, _ in model.named_parameters()]

    def answer(*values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, state, (contexts, queries))

    model.forward = model.predict
    assert torch.autograd.gradcheck(answer, tuple(model.parameters()))
    if attention == "linear":
        model.forward = model.predict_tokens
        assert torch.autograd.gradcheck(answer, tuple(model.parameters()))


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_query_is_never_a_key(task, attention):
    config = Architecture(d=4, heads=(2, 2), d_head=3, d_model=7, attention=attention)
    model = build(config).initialise((0,), 1.0).double()
    contexts = draw(task, 2, "evaluate", seed=0, tokens=True)
    queries = draw_queries(task, 2, 3, "evaluate", seed=0).requires_grad_()
    *_, hidden = model.hidden_tokens(contexts, queries)
    answers = hidden[0, :, -3:] @ model.readout[0]
    (gradient,) = torch.autograd.grad(answers[:, 0].sum(), queries)
    assert gradient[:, 0].abs().min() > 0
    assert torch.equal(gradient[:, 1:], torch.zeros_like(gradient[:, 1:]))
    (gradient,) = torch.autograd.grad(
        list(model.hidden_tokens(contexts, queries))[-1][:, :, :-3].sum(),
        queries,
        allow_unused=True,
    )
    assert gradient is None or not gradient.any()


@pytest.mark.parametrize("attention", ATTENTION)
def test_permuting_examples_changes_nothing(task, attention):
    config = Architecture(d=4, heads=(2, 2), d_head=3, d_model=7, attention=attention)
    model = build(config).initialise((0,), 1.0).double()
    contexts = draw(task, 2, "evaluate", seed=0, tokens=True)
    queries = draw_queries(task, 2, 2, "evaluate", seed=0)
    shuffled = replace(contexts, tokens=contexts.tokens[:, torch.randperm(task.n)])
    *_, one = model.hidden_tokens(contexts, queries)
    *_, other = model.hidden_tokens(shuffled, queries)
    assert torch.allclose(one[:, :, -2:], other[:, :, -2:], rtol=1e-9, atol=1e-10)


@given(order=st.permutations(range(4)))
def test_permuting_features_with_their_embedding_permutes_the_weights(order):
    model = build(Architecture(4, (2, 2), 3, 7)).initialise((0,), 1.0).double()
    contexts = draw(SparseLinear(d=4, s=2, n=9), 3, "evaluate", seed=0)
    before = model.weights(contexts)
    with torch.no_grad():
        model.embed.copy_(model.embed[:, [*order, 4]])
    both = [*order, 4]
    permuted = replace(contexts, gram=contexts.gram[:, both][:, :, both])
    assert torch.allclose(model.weights(permuted), before[..., list(order)], rtol=1e-9)


def test_one_linear_layer_is_linear_in_the_gram_matrix(task, model):
    """Catches a wrong power of n or of the context in a layer."""
    single = build(Architecture(4, (3,), 3, 7)).initialise((0,), 1.0).double()
    contexts = draw(task, 3, "evaluate", seed=0)
    at_zero = single.weights(replace(contexts, gram=0 * contexts.gram))
    once, twice = (
        single.weights(replace(contexts, gram=factor * contexts.gram)) - at_zero
        for factor in (1, 2)
    )
    assert torch.allclose(twice, 2 * once, rtol=1e-10)


def test_a_masked_head_gets_no_gradient_and_the_others_do(task, model):
    contexts = draw(task, 4, "evaluate", seed=0)
    masked = mask(model, [(0, 1), (2, 0)])
    masked.weights(contexts).square().sum().backward()
    for layer, heads in enumerate(model.config.heads):
        for head in range(heads):
            alive = (layer, head) not in [(0, 1), (2, 0)]
            for part in (model.query, model.key, model.value):
                assert part[layer].grad[:, :, head].any() == alive
            assert model.output[layer].grad[:, head].any() == alive


def test_models_side_by_side_do_not_touch(task, model):
    contexts = draw(task, 4, "evaluate", seed=0)
    model.weights(contexts)[0].square().sum().backward()
    for parameter in model.parameters():
        assert parameter.grad[0].any()
        assert not parameter.grad[1].any()


def test_initial_weights_depend_on_the_model_s_own_seed_and_have_the_right_scale():
    config = Architecture(d=16, heads=(8, 8), d_head=17, d_model=64)
    both = build(config, 2).initialise((3, 4), 0.5)
    alone = build(config).initialise((4,), 0.5)
    for one, two in zip(alone.parameters(), both.parameters(), strict=True):
        assert torch.equal(one[0], two[1])
        assert not torch.equal(two[0], two[1])
    assert both.query[0].std().item() == pytest.approx(0.5 / 64**0.5, rel=0.02)
    assert both.output[0].std().item() == pytest.approx(0.5 / (8 * 17) ** 0.5, rel=0.02)
    assert both.embed.std().item() == pytest.approx(0.5 / 17**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"attention": "softmx"}, "did you mean softmax"),
        ({"heads": ()}, "at least one head"),
        ({"heads": (2, 0)}, "at least one head"),
        ({"d_head": 0}, "d_head=0"),
    ],
)
def test_bad_architectures_are_refused(wrong, words):
    with pytest.raises(Refused, match=words):
        Architecture(**wrong)


def test_token_models_refuse_contexts_without_tokens(task):
    model = build(Architecture(d=4, attention="softmax"))
    with pytest.raises(Refused, match="tokens=True"):
        model.predict(draw(task, 2, "evaluate", 0), draw_queries(task, 2, 1, "evaluate", 0))


@pytest.mark.parametrize("inputs", ["preprocessed", "scaled"])
def test_preprocessed_inputs_are_inputs_times_their_correlations(task, inputs):
    """The same model on contexts that were preprocessed by hand, in both paths."""
    raw = Architecture(d=4, heads=(3, 1), d_head=3, d_model=7)
    plain = build(raw).initialise((5,), 1.0).double()
    model = build(replace(raw, inputs=inputs)).double()
    model.load_state_dict(plain.state_dict())
    contexts = draw(task, 6, "evaluate", seed=0, tokens=True)
    queries = draw_queries(task, 6, 3, "evaluate", seed=0)
    x, y = contexts.tokens[..., :-1], contexts.tokens[..., -1:]
    r = (x * y).mean(dim=1, keepdim=True)
    if inputs == "scaled":
        r = r / r.square().mean(dim=-1, keepdim=True).sqrt()
    e = torch.cat([r * x, y], dim=-1)
    by_hand = replace(contexts, tokens=e, gram=e.mT @ e / task.n)
    expected = plain.predict_tokens(by_hand, r * queries)
    for answers in (model.predict_tokens(contexts, queries), model.predict(contexts, queries)):
        assert torch.allclose(answers, expected, rtol=1e-10)
