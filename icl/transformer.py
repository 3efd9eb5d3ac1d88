"""Attention-only multi-head transformers, many models of one architecture side by side.

A token is e = [x, y], the query's is [x_q, 0]. With h the hidden state of a token,

    h_0 = W_E e,   h ← h + Σ_heads O_h Σ_{i ≤ n} a_h(h, h_i) V_h h_i,   ŷ = <w_out, h_L>,

where the sum over i runs over the context's examples only: a query is never a key. The
attention weight a_h(h, h_i) is (1/n) <Q_h h, K_h h_i> (linear), (1/n) max(0, <Q_h h, K_h h_i>)
(relu), or a softmax over i of <Q_h h, K_h h_i> / √k (softmax).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icl.contexts import Contexts
from icl.errors import choose, require
from icl.predictors import LinearPredictor, Predictor

ATTENTION = ("linear", "relu", "softmax")
INPUTS = ("raw", "preprocessed", "scaled")


@dataclass(frozen=True)
class Architecture:
    """d features, heads per layer, head dimension k = d_head, width D = d_model.

    With `inputs = "preprocessed"` every input x, of examples and queries, becomes r̂ ∘ x with
    r̂ = (1/n) Σ x_i y_i before the model sees it: Algorithm 1 of Chen et al. (2024). With
    `"scaled"` it becomes √d r̂/|r̂| ∘ x, the same without the length of r̂, so that a context
    with a large r̂ does not blow up what follows.
    """

    d: int = 8
    heads: tuple[int, ...] = (8, 8, 8)
    d_head: int = 9
    d_model: int = 32
    attention: str = "linear"
    inputs: str = "raw"

    def __post_init__(self):
        object.__setattr__(self, "heads", tuple(self.heads))
        choose("attention", self.attention, ATTENTION)
        choose("inputs", self.inputs, INPUTS)
        require(
            len(self.heads) > 0 and min(self.heads) >= 1,
            f"heads={self.heads}: every layer needs at least one head, and there must be a layer",
        )
        for name in ("d", "d_head", "d_model"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: must be at least 1")


class Transformer(nn.Module, Predictor):
    """M models of one architecture; works on tokens, with any attention.

    Parameters, all with a leading axis over models: `embed` (M, d+1, D); per layer `query`,
    `key`, `value` (M, D, H, k) and `output` (M, H, k, D); `readout` (M, D). A gate per head,
    `gates[layer]` (M, H), is 1 where the head works; where it is 0 the head's output is
    replaced by zero or, with `fill = "mean"`, by its mean over the batch of contexts.
    """

    def __init__(self, config: Architecture, n_models: int = 1):
        super().__init__()
        self.config, self.n_models, self.fill = config, n_models, "zero"
        d_model, k = config.d_model, config.d_head

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(n_models, *shape))

        self.embed = empty(config.d + 1, d_model)
        self.query = nn.ParameterList(empty(d_model, h, k) for h in config.heads)
        self.key = nn.ParameterList(empty(d_model, h, k) for h in config.heads)
        self.value = nn.ParameterList(empty(d_model, h, k) for h in config.heads)
        self.output = nn.ParameterList(empty(h, k, d_model) for h in config.heads)
        self.readout = empty(d_model)
        self.gates = [torch.ones(n_models, h) for h in config.heads]

    @torch.no_grad()
    def initialise(self, seeds: tuple[int, ...], scale: float) -> "Transformer":
        """Draw model m's weights from N(0, scale²/fan_in) with seeds[m] alone."""
        for m, seed in enumerate(seeds):
            rng = torch.Generator().manual_seed(seed)
            for name, parameter in self.named_parameters():
                model = parameter[m]
                fan_in = model[..., 0].numel() if name.startswith("output") else model.shape[0]
                model.copy_(torch.randn(model.shape, generator=rng) * scale / fan_in**0.5)
        return self

    def predict(self, contexts: Contexts, queries: Tensor) -> Tensor:
        """Answers (M, B, q) to the queries (B, q, d), computed token by token."""
        *_, hidden = self.hidden_tokens(contexts, queries)
        queries_only = hidden[:, :, -queries.shape[-2] :]
        return torch.einsum("mbqd,md->mbq", queries_only, self.readout)

    def hidden_tokens(self, contexts: Contexts, queries: Tensor) -> Iterator[Tensor]:
        """Hidden states (M, B, n+q, D) of examples, then queries, before and after each layer."""
        require(
            contexts.tokens is not None,
            f"contexts without tokens: {self.config.attention} attention on tokens needs "
            "contexts drawn with tokens=True",
        )
        n = contexts.tokens.shape[-2]
        unlabelled = torch.nn.functional.pad(queries, (0, 1))
        tokens = torch.cat([contexts.tokens, unlabelled.to(contexts.tokens)], dim=-2)
        tokens = _with_models(tokens, 3).to(self.embed) * self._scale(contexts).unsqueeze(-2)
        x = project(tokens, self.embed)
        average = 1 if self.config.attention == "softmax" else n
        yield x
        for layer in range(len(self.config.heads)):
            x = x + self._layer(layer, x, x[:, :, :n], lambda values: values / average)
            yield x

    def _scale(self, contexts: Contexts) -> Tensor:
        """What the entries of a token [x, y] are multiplied with, (M or 1, B or 1, d+1)."""
        if self.config.inputs == "raw":
            return self.embed.new_ones(1, 1, self.config.d + 1)
        r = _with_models(contexts.xy, 2).to(self.embed)
        if self.config.inputs == "scaled":
            r = self.config.d**0.5 * r / r.norm(dim=-1, keepdim=True)
        return torch.nn.functional.pad(r, (0, 1), value=1.0)

    def _layer(self, layer: int, x: Tensor, keys: Tensor, mix: Callable) -> Tensor:
        """What a layer adds to x (M, B, T, D); the values of `keys` go through `mix`."""
        z = self._heads(layer, x, keys, mix)
        gate = self.gates[layer].to(z)[:, None, None, :, None]
        replacement = z.mean(dim=1, keepdim=True) if self.fill == "mean" else 0
        z = gate * z + (1 - gate) * replacement
        return project(z.flatten(3), self.output[layer].flatten(1, 2))

    def _heads(self, layer: int, x: Tensor, keys: Tensor, mix: Callable) -> Tensor:
        """Every head's output before its output matrix, (M, B, T, H, k)."""
        q, k = project(x, self.query[layer]), project(keys, self.key[layer])
        v = mix(project(keys, self.value[layer]))
        if self.config.attention == "linear":
            # Associativity: a k×k state per head instead of T×T scores.
            state = torch.einsum("mbthk,mbthj->mbhkj", k, v)
            return torch.einsum("mbthk,mbhkj->mbthj", q, state)
        scores = torch.einsum("mbqhk,mbthk->mbhqt", q, k)
        if self.config.attention == "softmax":
            attention = (scores / self.config.d_head**0.5).softmax(dim=-1)
        else:
            attention = scores.relu()
        return torch.einsum("mbhqt,mbthk->mbqhk", attention, v)


class LinearTransformer(Transformer, LinearPredictor):
    """Linear attention, on Gram statistics: the cost of an answer does not depend on n.

    Every layer is linear in the token given the context, so h = A e for every token, with
    one matrix A (D, d+1) per context. Its columns are the hidden states of the d+1 basis
    tokens, so the layers run on those T = d+1 tokens, and the sum over examples becomes
    Σ_st G_st v_s k_tᵀ with the Gram matrix G.
    """

    def weights(self, contexts: Contexts) -> Tensor:
        """ŵ (M, B, d), by way of the statistics alone."""
        return self.finish(contexts, self._start(contexts))

    def finish(self, contexts: Contexts, x: Tensor, layer: int = 0) -> Tensor:
        """ŵ (M, B, d) from the hidden states x that enter `layer`, as `hidden` yields them."""
        mix = self._mixer(contexts)
        last = len(self.config.heads) - 1
        # The last layer's output is not needed, but for the mean of each head's.
        whole = last if self.fill == "zero" else last + 1
        for middle in range(layer, whole):
            x = x + self._layer(middle, x, x, mix)
        if max(layer, whole) <= last:
            return self._read(last, x, mix)[..., :-1]
        return torch.einsum("mbtd,md->mbt", x, self.readout)[..., :-1]

    def added_by_heads(self, contexts: Contexts, x: Tensor, layer: int) -> Tensor:
        """What each head of `layer` adds to its input x, (M, B, H, d+1, D)."""
        z = self._heads(layer, x, x, self._mixer(contexts))
        return torch.einsum("mbthk,mhkd->mbhtd", z, self.output[layer])

    def predict(self, contexts: Contexts, queries: Tensor) -> Tensor:
        """Answers (M, B, q) to the queries (B, q, d), from the statistics."""
        return LinearPredictor.predict(self, contexts, queries)

    def predict_tokens(self, contexts: Contexts, queries: Tensor) -> Tensor:
        """The same answers, computed token by token."""
        return Transformer.predict(self, contexts, queries)

    def hidden(self, contexts: Contexts) -> Iterator[Tensor]:
        """Aᵀ (M, B, d+1, D) before and after each layer: hidden states of the basis tokens."""
        mix = self._mixer(contexts)
        x = self._start(contexts)
        yield x
        for layer in range(len(self.config.heads)):
            x = x + self._layer(layer, x, x, mix)
            yield x

    def _start(self, contexts: Contexts) -> Tensor:
        """Hidden states of the basis tokens before the first layer, (M, B or 1, d+1, D)."""
        return self.embed.unsqueeze(1) * self._scale(contexts).unsqueeze(-1)

    def _mixer(self, contexts: Contexts) -> Callable:
        gram = _with_models(contexts.gram, 3).to(self.embed)
        return lambda values: (gram @ values.flatten(3)).unflatten(3, values.shape[3:])

    def _read(self, layer: int, x: Tensor, mix: Callable) -> Tensor:
        """The read-out of x after `layer`, (M, B, T), without building that layer's output.

        The answer is read through one vector, so a head's values shrink to one number per
        token, u = V O w_out, and the layer to one direction Σ_h Q_h K_hᵀ xᵀ G (x u_h).
        """
        output = self.output[layer] * self.gates[layer].to(x)[..., None, None]
        u = torch.einsum("mdhk,mhkc,mc->mdh", self.value[layer], output, self.readout)
        values = mix(project(x, u))
        direction = torch.einsum("mbth,mbtd->mbhd", values, x)
        direction = torch.einsum("mbhd,mdhk->mbhk", direction, self.key[layer])
        direction = torch.einsum("mbhk,mdhk->mbd", direction, self.query[layer])
        return torch.einsum("mbtd,mbd->mbt", x, self.readout[:, None] + direction)


def build(config: Architecture, n_models: int = 1) -> Transformer:
    """A model of this architecture, on statistics where its attention allows it."""
    kind = LinearTransformer if config.attention == "linear" else Transformer
    return kind(config, n_models)


def project(x: Tensor, weight: Tensor) -> Tensor:
    """x (M, B, T, D) times weight (M, D, ...) gives (M, B, T, ...), as one product per model."""
    out = x.flatten(1, 2) @ weight.flatten(2)
    return out.view(len(out), *x.shape[1:3], *weight.shape[2:])


def _with_models(x: Tensor, ndim: int) -> Tensor:
    """Add a leading axis of one model where a batch of contexts has none."""
    return x if x.ndim > ndim else x.unsqueeze(0)
