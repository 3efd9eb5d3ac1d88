"""Multi-head transformers built of blocks, many models of one architecture side by side.

A token is e = [x, y], the query's is [x_q, 0]. With h the hidden state of a token,

    h_0 = W_E e,   h ← h + Σ_heads O_h Σ_{i ≤ n} a_h(h, h_i) V_h h_i,   ŷ = <w_out, h_L>,

where the sum over i runs over the context's examples only: a query is never a key. The weight
a_h(h, h_i) is (1/n) <Q_h h, K_h h_i> (linear), (1/n) max(0, <Q_h h, K_h h_i>) (relu), or a
softmax over i of <Q_h h, K_h h_i> / √k (softmax). With `norm` heads and MLP read layer-normalised
states; with `mlp` a layer of 4D GELU units adds to the state after the heads of every layer.
"""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional

from icl.architecture import Architecture
from icl.blocks import ATTENTION, Attention, Block, Maps, mapped, through_state
from icl.contexts import Contexts
from icl.errors import fits, require, whole
from icl.predictors import LinearPredictor, Predictor, asked, mean_error, squared_error
from icl.threads import side_by_side

AT_ONCE = 512  # answers at a time, of all models together: arrays that stay near the processor
Reading = tuple[int | None, Attention]  # how many tokens are keys, and how all attend to them


class Transformer(nn.Module, Predictor):
    """M models of one architecture; works on tokens, with any attention.

    Weights, all with a leading axis over models: `embed` (M, d+1, D); per block `query`, `key`,
    `value` (M, D, H, k) and `output` (M, H, k, D); `readout` (M, D). A gate per head,
    `gates[layer]` (M, H), is 1 where the head works and 0 where it is masked.
    """

    def __init__(self, config: Architecture, n_models: int = 1):
        super().__init__()
        self.config, self.n_models = config, n_models
        self.embed = Maps(n_models, (config.d + 1,), (config.d_model,))
        shape = config.d_head, config.norm, config.mlp
        self.blocks = nn.ModuleList(
            Block(n_models, config.d_model, heads, *shape) for heads in config.heads
        )
        self.readout = Maps(n_models, (config.d_model,), ())
        self.gates = [torch.ones(n_models, heads) for heads in config.heads]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_models} models of {self.config})"

    @property
    def at_once(self) -> int:
        """How many contexts are best answered at a time."""
        return max(1, AT_ONCE // self.n_models)

    @property
    def whole(self) -> bool:
        """Does every head work, so that the weights alone say what the models are?"""
        return all(bool(gate.all()) for gate in self.gates)

    def ordered(self) -> list[nn.Parameter]:
        """All parameters, matrices kind by kind and then the rest.

        This order is part of what a seed means: weights are drawn and gradients summed in it.
        """
        weights = (maps.weight for maps in self._maps())
        return list(dict.fromkeys(chain(weights, self.parameters())))

    def _maps(self) -> list[Maps]:
        kinds = zip(*(block.maps() for block in self.blocks), strict=True)
        return [self.embed, self.readout, *chain.from_iterable(kinds)]

    @torch.no_grad()
    def initialise(self, seeds: tuple[int, ...], scale: float) -> "Transformer":
        """Draw model m's matrices from N(0, scale²/fan_in) with seeds[m] alone."""
        require(len(seeds) == self.n_models, f"seeds={seeds}: allowed are {self.n_models} of them")
        for m, seed in enumerate(seeds):
            whole("seeds", seed, 0)
            rng = torch.Generator().manual_seed(seed)
            for maps in self._maps():
                maps.draw(m, rng, scale)
        return self

    def predict(self, contexts: Contexts) -> Tensor:
        return self.finish(contexts, self.start(contexts))

    def hidden(self, contexts: Contexts) -> Iterator[Tensor]:
        """States (M, B, T, D) before and after each layer, of examples and then queries."""
        x = self.start(contexts)
        yield x
        for layer in range(len(self.blocks)):
            x = self._layer(layer, x, contexts)
            yield x

    def added_by_heads(self, contexts: Contexts, x: Tensor, layer: int) -> Tensor:
        """What each head of `layer` adds to its input x, (M, B, H, T, D)."""
        z = self.blocks[layer].heads(x, *self._reading(contexts))
        return torch.einsum("mbthk,mhkd->mbhtd", z, self._output(layer))

    def finish(self, contexts: Contexts, x: Tensor, layer: int = 0) -> Tensor:
        """Answers (M, B, q) from the states x that enter `layer`, as `hidden` yields them."""
        last = len(self.blocks) - 1
        for middle in range(layer, last):
            x = self._layer(middle, x, contexts)
        first = contexts.tokens.shape[-2]  # nothing reads the examples after the last layer
        x = self._layer(last, x, contexts, first) if layer <= last else x[:, :, first:]
        return self.readout(x)

    def risk_from(self, contexts: Contexts, x: Tensor, layer: int) -> Tensor:
        """Excess risk (M, B) if states x enter `layer`."""
        return mean_error(self.finish(contexts, x, layer), contexts)

    def start(self, contexts: Contexts) -> Tensor:
        """States of all tokens before the first layer, (M, B, T, D)."""
        needs = "attention on tokens needs contexts drawn with queries=1 or more"
        given = contexts.tokens is not None
        require(given, f"contexts without tokens: {self.config.attention} {needs}")
        unlabelled = functional.pad(asked(contexts), (0, 1))
        tokens = torch.cat([contexts.tokens, unlabelled], dim=-2)
        tokens = _with_models(tokens, 3).to(self.embed.weight)
        return self.embed(tokens * self._scale(contexts).unsqueeze(-2))

    def _scale(self, contexts: Contexts) -> Tensor:
        """What the entries of a token [x, y] are multiplied with, (M or 1, B or 1, d+1)."""
        if self.config.inputs == "raw":
            return self.embed.weight.new_ones(1, 1, self.config.d + 1)
        r = _with_models(contexts.xy, 2).to(self.embed.weight)
        if self.config.inputs == "scaled":
            r = self.config.d**0.5 * r / r.norm(dim=-1, keepdim=True)
        return functional.pad(r, (0, 1), value=1.0)

    def _reading(self, contexts: Contexts) -> Reading:
        return contexts.tokens.shape[-2], ATTENTION[self.config.attention]

    def _layer(self, layer: int, x: Tensor, contexts: Contexts, first: int = 0) -> Tensor:
        """States (M, B, T − first, D) of the tokens from `first` on after a layer."""
        block = self.blocks[layer]
        z = block.heads(x, *self._reading(contexts), first)
        return block.feed(x[:, :, first:] + mapped(z, self._output(layer), x.shape[3:]))

    def _output(self, layer: int) -> Tensor:
        """What a layer's heads put out through, (M, H, k, D): nothing where they are masked."""
        weight = self.blocks[layer].output.weight
        return weight * self.gates[layer].to(weight)[..., None, None]


class LinearTransformer(LinearPredictor, Transformer):
    """Linear attention, on Gram statistics: the cost of an answer does not depend on n.

    Every layer is linear in the token given the context, so h = A e for every token, with
    one matrix A (D, d+1) per context. Its columns are the hidden states of the d+1 basis
    tokens, so the layers run on those T = d+1 tokens, `hidden` yields Aᵀ, and the sum over
    examples becomes Σ_st G_st v_s k_tᵀ with the Gram matrix G.
    """

    def weights(self, contexts: Contexts) -> Tensor:
        """ŵ (M, B, d), by way of the statistics alone."""
        blocks = contexts.blocks(self.at_once)
        return torch.cat(side_by_side(lambda x: self.finish(x, self.start(x)), blocks), dim=1)

    def on_tokens(self) -> Transformer:
        """The same models, weights shared, that work token by token."""
        twin = Transformer.__new__(Transformer)
        twin.__dict__.update(self.__dict__)
        return twin

    def finish(self, contexts: Contexts, x: Tensor, layer: int = 0) -> Tensor:
        """ŵ (M, B, d) from the states x that enter `layer`, as `hidden` yields them."""
        last = len(self.blocks) - 1
        for middle in range(layer, last):
            x = self._layer(middle, x, contexts)
        read = self._read_last(x, contexts) if layer <= last else self.readout(x)
        return read[..., :-1]

    def risk_from(self, contexts: Contexts, x: Tensor, layer: int) -> Tensor:
        return squared_error(self.finish(contexts, x, layer), contexts)

    def start(self, contexts: Contexts) -> Tensor:
        """States of the basis tokens before the first layer, (M, B or 1, d+1, D)."""
        return self.embed.weight.unsqueeze(1) * self._scale(contexts).unsqueeze(-1)

    def _layer(self, layer: int, x: Tensor, contexts: Contexts, first: int = 0) -> Tensor:
        """Before the first layer all contexts share their states, (M, 1, T, D): what is added to
        them is linear in G, by a matrix that is computed once.
        """
        if x.shape[1] > 1:
            return super()._layer(layer, x, contexts, first)
        block = self.blocks[layer]
        query, key, value = (maps(x[:, :1])[:, 0] for maps in block.maps()[:3])
        scores = torch.einsum("mihk,mshk->mhis", query, key)
        values = torch.einsum("mthk,mhkd->mhtd", value, self._output(layer))
        each = torch.einsum("mhis,mhtd->mstid", scores, values).flatten(1, 2).flatten(2)
        added = self._gram(contexts).flatten(2) @ each
        return x + added.unflatten(2, x.shape[2:])

    def _reading(self, contexts: Contexts) -> Reading:
        gram = self._gram(contexts)
        mix = lambda values: (gram @ values.flatten(3)).unflatten(3, values.shape[3:])  # noqa: E731
        return None, lambda q, k, v: through_state(q, k, mix(v))

    def _gram(self, contexts: Contexts) -> Tensor:
        return _with_models(contexts.gram, 3).to(self.embed.weight)

    def _read_last(self, x: Tensor, contexts: Contexts) -> Tensor:
        """The read-out of x after the last layer, (M, B, T), without building its output.

        The answer is read through one vector, so a head's values shrink to one number per
        token, u = V O w_out, and the layer to one direction Σ_h Q_h K_hᵀ xᵀ G (x u_h).
        """
        block, readout = self.blocks[-1], self.readout.weight
        u = torch.einsum("mdhk,mhkc,mc->mdh", block.value.weight, self._output(-1), readout)
        rows = x.flatten(1, 2)
        values = self._gram(contexts) @ (rows @ u).view(len(u), *x.shape[1:3], -1)
        seen = torch.einsum("mbth,mbtd->mbhd", values, x).flatten(2)
        compared = torch.einsum("mdhk,mehk->mhde", block.key.weight, block.query.weight)
        direction = seen @ compared.flatten(1, 2)
        return torch.einsum("mbtd,mbd->mbt", x, readout[:, None] + direction)


def build(config: Architecture, n_models: int = 1) -> Transformer:
    """A model of this architecture, on statistics where its layers allow it."""
    whole("n_models", n_models)
    fits("n_models", n_models, 4 * config.parameters)
    return (LinearTransformer if config.collapses else Transformer)(config, n_models)


def _with_models(x: Tensor, ndim: int) -> Tensor:
    """Add a leading axis of one model where a batch of contexts has none."""
    return x if x.ndim > ndim else x.unsqueeze(0)
