"""The model against its formula, written out a second way, and its invariances."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from icl.architecture import Architecture
from icl.blocks import ATTENTION
from icl.contexts import draw
from icl.errors import Refused
from icl.heads import mask
from icl.tasks import SparseLinear
from icl.transformer import LinearTransformer, build

KINDS = {
    **{kind: {"attention": kind} for kind in ATTENTION},
    "linear, norm": {"attention": "linear", "norm": True},
    "relu, norm": {"attention": "relu", "norm": True},
    "softmax, MLP": {"attention": "softmax", "mlp": True},
    "softmax, norm, MLP": {"attention": "softmax", "norm": True, "mlp": True},
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def made(kind, heads=(2, 2), models=1, **shape):
    """Models in float64 whose norms and biases are not those of the start."""
    shape = {"d": 4, "d_head": 3, "d_model": 7} | shape
    model = build(Architecture(heads=heads, **shape, **kind), models)
    model.initialise(range(5, 5 + models), 1.0).double()
    drawn = {id(maps.weight) for maps in model._maps()}
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if id(p) not in drawn:
                p.add_(0.3 * torch.randn(p.shape, generator=rng, dtype=p.dtype))
    return model


def normed(norm, h, m):
    """A state, layer-normalised where the model does it, by the textbook."""
    if isinstance(norm, torch.nn.Identity):
        return h
    z = (h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt()
    return z * norm.gain[m].flatten() + norm.bias[m].flatten()


def literal(model, contexts, m):
    """Equation by equation, one context, token and head at a time: answers (B, q)."""
    kind, k, queries = model.config.attention, model.config.d_head, contexts.queries
    answers = torch.empty(queries.shape[:2], dtype=torch.float64)
    for b, examples in enumerate(contexts.tokens):
        n = len(examples)
        for q, x in enumerate(queries[b]):
            tokens = [*examples, torch.cat([x, torch.zeros(1, dtype=torch.float64)])]
            hidden = [e @ model.embed.weight[m] for e in tokens]
            for block, heads in zip(model.blocks, model.config.heads, strict=True):
                after = [h.clone() for h in hidden]
                read = [normed(block.norm, h, m) for h in hidden]
                for head in range(heads):
                    q_h, k_h, v_h = (
                        getattr(block, name).weight[m, :, head]
                        for name in ("query", "key", "value")
                    )
                    out = block.output.weight[m, head]
                    for t, h in enumerate(read):
                        scores = torch.stack([(h @ q_h) @ (g @ k_h) for g in read[:n]])
                        weights = {
                            "linear": scores / n,
                            "relu": scores.clamp(min=0) / n,
                            "softmax": (scores / k**0.5).softmax(dim=0),
                        }[kind]
                        mixed = sum(a * (g @ v_h) for a, g in zip(weights, read[:n], strict=True))
                        after[t] = after[t] + mixed @ out
                if block.mlp:
                    mlp, states = block.mlp, [normed(block.norm_mlp, h, m) for h in after]
                    units = [h @ mlp.up.weight[m] + mlp.inner[m].flatten() for h in states]
                    gelu = [u * (1 + torch.erf(u / 2**0.5)) / 2 for u in units]
                    adds = [u @ mlp.down.weight[m] + mlp.outer[m].flatten() for u in gelu]
                    after = [h + a for h, a in zip(after, adds, strict=True)]
                hidden = after
            answers[b, q] = hidden[-1] @ model.readout.weight[m]
    return answers


@kinds
def test_forward_equals_the_formula_written_out(task, kind):
    model = made(kind, heads=(3, 1, 2), models=2)
    contexts = draw(task, 3, "evaluate", seed=0, queries=2)
    ours = model.predict(contexts)
    for m in range(2):
        expected = literal(model, contexts, m)
        assert torch.allclose(ours[m], expected, rtol=1e-9, atol=1e-11)


@kinds
def test_only_what_is_linear_in_its_tokens_runs_on_statistics(kind):
    collapses = kind == {"attention": "linear"}
    assert isinstance(made(kind), LinearTransformer) == collapses
    assert made(kind).config.collapses == collapses


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
    contexts = draw(task, 3, "evaluate", seed=0, queries=2)
    by_tokens = model.on_tokens().predict(contexts)
    assert by_tokens.shape == (models, 3, 2)
    scale = by_tokens.abs().max().item() + 1e-30
    assert ((model.predict(contexts) - by_tokens).abs().max() / scale) < 1e-10
    *_, last = model.hidden(contexts)
    unabridged = torch.einsum("mbtd,md->mbt", last, model.readout.weight)[..., :-1]
    assert torch.allclose(unabridged, model.weights(contexts), rtol=1e-9, atol=1e-12 * scale)


def test_gradients_of_both_paths_are_equal(task, model):
    contexts = draw(task, 4, "evaluate", seed=0, queries=3)
    parameters = list(model.parameters())
    fast = torch.autograd.grad(model.predict(contexts).square().sum(), parameters)
    slow = torch.autograd.grad(model.on_tokens().predict(contexts).square().sum(), parameters)
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11 * b.abs().max().item())
        assert b.abs().max() > 0


@kinds
def test_gradients_are_right(kind):
    model = made(kind, (2, 1), d=2, d_head=2, d_model=3)
    contexts = draw(SparseLinear(d=2, s=1, n=4), 2, "evaluate", seed=0, queries=2)
    names = [name for name, _ in model.named_parameters()]

    def answer(*values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, state, (contexts,))

    model.forward = model.predict
    assert torch.autograd.gradcheck(answer, tuple(model.parameters()))


@kinds
def test_a_query_is_never_a_key(task, kind):
    model = on_tokens(made(kind))
    contexts = draw(task, 2, "evaluate", seed=0, queries=3)
    queries = contexts.queries.requires_grad_()
    answers = model.predict(contexts)[0]
    (gradient,) = torch.autograd.grad(answers[:, 0].sum(), queries)
    assert gradient[:, 0].abs().min() > 0
    assert torch.equal(gradient[:, 1:], torch.zeros_like(gradient[:, 1:]))
    *_, last = model.hidden(contexts)
    (gradient,) = torch.autograd.grad(last[:, :, :-3].sum(), queries, allow_unused=True)
    assert gradient is None or not gradient.any()


@kinds
def test_permuting_examples_changes_nothing(task, kind):
    model = on_tokens(made(kind))
    contexts = draw(task, 2, "evaluate", seed=0, queries=2)
    shuffled = replace(contexts, tokens=contexts.tokens[:, torch.randperm(task.n)])
    one, other = model.predict(contexts), model.predict(shuffled)
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-10)


def on_tokens(model):
    return model.on_tokens() if isinstance(model, LinearTransformer) else model


@given(order=st.permutations(range(4)))
def test_permuting_features_with_their_embedding_permutes_the_weights(order):
    model = build(Architecture(4, (2, 2), 3, 7)).initialise((0,), 1.0).double()
    contexts = draw(SparseLinear(d=4, s=2, n=9), 3, "evaluate", seed=0)
    before = model.weights(contexts)
    with torch.no_grad():
        model.embed.weight.copy_(model.embed.weight[:, [*order, 4]])
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
    kept = [torch.ones(2, heads) for heads in model.config.heads]
    kept[0][:, 1] = kept[2][:, 0] = 0
    masked = mask(model, kept)
    masked.weights(contexts).square().sum().backward()
    for layer, (block, heads) in enumerate(zip(model.blocks, model.config.heads, strict=True)):
        for head in range(heads):
            alive = (layer, head) not in [(0, 1), (2, 0)]
            for part in (block.query, block.key, block.value):
                assert part.weight.grad[:, :, head].any() == alive
            assert block.output.weight.grad[:, head].any() == alive


def test_models_side_by_side_do_not_touch(task, model):
    contexts = draw(task, 4, "evaluate", seed=0)
    model.weights(contexts)[0].square().sum().backward()
    for parameter in model.parameters():
        assert parameter.grad[0].any()
        assert not parameter.grad[1].any()


def test_initial_weights_depend_on_the_model_s_own_seed_and_have_the_right_scale():
    config = Architecture(d=16, heads=(8, 8), d_head=17, d_model=64, norm=True, mlp=True)
    both = build(config, 2).initialise((3, 4), 0.5)
    alone = build(config).initialise((4,), 0.5)
    for one, two in zip(alone._maps(), both._maps(), strict=True):
        assert torch.equal(one.weight[0], two.weight[1])
        assert not torch.equal(two.weight[0], two.weight[1])
    fan_in = {
        both.embed: 17, both.readout: 64, both.blocks[0].query: 64, both.blocks[1].key: 64,
        both.blocks[0].output: 8 * 17, both.blocks[1].mlp.up: 64, both.blocks[1].mlp.down: 256,
    }  # fmt: skip
    for maps, count in fan_in.items():
        assert maps.weight.std().item() == pytest.approx(0.5 / count**0.5, rel=0.15)
    gains = [p for name, p in both.named_parameters() if name.endswith("gain")]
    rest = [p for name, p in both.named_parameters() if p.ndim == 4 and "gain" not in name]
    assert gains
    assert all((p == 1).all() for p in gains)
    assert not any(p.any() for p in rest if p.shape[1:3] == (1, 1))


def test_the_order_of_parameters_is_by_kind_and_whole():
    model = build(Architecture(heads=(2, 3), norm=True, mlp=True))
    ordered = model.ordered()
    assert set(map(id, ordered)) == set(map(id, model.parameters()))
    assert len(ordered) == len(list(model.parameters()))
    first = [model.embed, model.readout, *(block.query for block in model.blocks)]
    assert all(a is b.weight for a, b in zip(ordered, first, strict=False))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"attention": "softmx"}, "did you mean softmax"),
        ({"heads": ()}, r"heads=\(\): allowed are"),
        ({"heads": (2, 0)}, "heads=0: allowed are"),
        ({"d_head": 0}, "d_head=0"),
    ],
)
def test_bad_architectures_are_refused(wrong, words):
    with pytest.raises(Refused, match=words):
        Architecture(**wrong)


def test_token_models_refuse_contexts_without_tokens(task):
    model = build(Architecture(d=4, attention="softmax"))
    with pytest.raises(Refused, match="queries=1 or more"):
        model.predict(draw(task, 2, "evaluate", 0))


@pytest.mark.parametrize("inputs", ["preprocessed", "scaled"])
def test_preprocessed_inputs_are_inputs_times_their_correlations(task, inputs):
    """The same model on contexts that were preprocessed by hand, in both paths."""
    raw = Architecture(d=4, heads=(3, 1), d_head=3, d_model=7)
    plain = build(raw).initialise((5,), 1.0).double()
    model = build(replace(raw, inputs=inputs)).double()
    model.load_state_dict(plain.state_dict())
    contexts = draw(task, 6, "evaluate", seed=0, queries=3)
    x, y = contexts.tokens[..., :-1], contexts.tokens[..., -1:]
    r = (x * y).mean(dim=1, keepdim=True)
    if inputs == "scaled":
        r = r / r.square().mean(dim=-1, keepdim=True).sqrt()
    e = torch.cat([r * x, y], dim=-1)
    gram, queries = e.mT @ e / task.n, r * contexts.queries
    by_hand = replace(contexts, tokens=e, gram=gram, queries=queries)
    expected = plain.on_tokens().predict(by_hand)
    for answers in (model.on_tokens().predict(contexts), model.predict(contexts)):
        assert torch.allclose(answers, expected, rtol=1e-10)
