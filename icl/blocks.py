"""What a transformer's layers are built of, for many models of one architecture side by side.

Shapes: M models, B contexts, T tokens, D width, H heads, k head dimension, n examples.
"""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

# What heads put out, (M, B, T, H, k), from queries of that shape, keys and values (M, B, n, H, k).
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(1/n) Σ <q, k_i> v_i; by associativity a k×k state per head instead of T×n scores."""
    return through_state(q, k, v / v.shape[2])


def through_state(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Σ <q, k_i> v_i."""
    state = torch.einsum("mbthk,mbthj->mbhkj", k, v)
    return torch.einsum("mbthk,mbhkj->mbthj", q, state)


def relu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(1/n) Σ max(0, <q, k_i>) v_i."""
    scores = torch.einsum("mbqhk,mbthk->mbhqt", q, k).relu_()  # in place: they are many
    return torch.einsum("mbhqt,mbthk->mbqhk", scores, v / v.shape[2])


def softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Σ softmax_i(<q, k_i> / √k) v_i."""
    by_head = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))
    mixed = functional.scaled_dot_product_attention(*by_head)
    return mixed.transpose(1, 2).unflatten(0, q.shape[:2])


ATTENTION: dict[str, Attention] = {"linear": linear, "relu": relu, "softmax": softmax}


class Maps(nn.Module):
    """M linear maps side by side, from axes `inputs` to axes `outputs`."""

    def __init__(self, n_models: int, inputs: tuple[int, ...], outputs: tuple[int, ...]):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_models, *inputs, *outputs))
        self.inputs, self.outputs = inputs, outputs

    def draw(self, model: int, rng: torch.Generator, scale: float) -> None:
        """Draw one model's weights from N(0, scale²/fan_in)."""
        weight = self.weight[model]
        weight.copy_(torch.randn(weight.shape, generator=rng) * scale / prod(self.inputs) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(M or 1, B, T, *inputs) to (M, B, T, *outputs)."""
        return mapped(x, self.weight, self.outputs)


def mapped(x: Tensor, weight: Tensor, outputs: tuple[int, ...]) -> Tensor:
    """x (M or 1, B, T, *inputs) through weights (M, *inputs, *outputs), one product per model."""
    rows = x.flatten(1, 2).flatten(2)
    out = rows @ weight.reshape(len(weight), rows.shape[-1], -1)
    return out.view(len(out), *x.shape[1:3], *outputs)


class Norm(nn.Module):
    """Layer normalisation of states (M, B, T, D), a gain and a bias per model."""

    def __init__(self, n_models: int, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_models, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(n_models, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:]), self.gain)


class Mlp(nn.Module):
    """A hidden layer of 4D GELU units, (M, B, T, D) to the same."""

    def __init__(self, n_models: int, width: int):
        super().__init__()
        self.up = Maps(n_models, (width,), (4 * width,))
        self.down = Maps(n_models, (4 * width,), (width,))
        self.inner = nn.Parameter(torch.zeros(n_models, 1, 1, 4 * width))
        self.outer = nn.Parameter(torch.zeros(n_models, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x) + self.inner)) + self.outer


class Block(nn.Module):
    """One layer: heads that read the examples and, if wanted, an MLP; both add to the state."""

    def __init__(self, n_models: int, width: int, heads: int, k: int, norm: bool, mlp: bool):
        super().__init__()
        self.query, self.key, self.value = (Maps(n_models, (width,), (heads, k)) for _ in range(3))
        self.output = Maps(n_models, (heads, k), (width,))
        self.norm = Norm(n_models, width) if norm else nn.Identity()
        self.norm_mlp = Norm(n_models, width) if norm and mlp else nn.Identity()
        self.mlp = Mlp(n_models, width) if mlp else None

    def maps(self) -> list[Maps]:
        """Its matrices, in the order of their kinds."""
        mlp = [self.mlp.up, self.mlp.down] if self.mlp else []
        return [self.query, self.key, self.value, self.output, *mlp]

    def heads(self, x: Tensor, examples: int | None, attend: Attention, first: int = 0) -> Tensor:
        """Every head's output before its output matrix, (M, B, T − first, H, k).

        Keys and values are of the first tokens, which are the examples; None takes all. The
        tokens before `first` put out nothing.
        """
        x = self.norm(x)
        seen = x if examples is None else x[:, :, :examples]
        return attend(self.query(x[:, :, first:]), self.key(seen), self.value(seen))

    def feed(self, x: Tensor) -> Tensor:
        """States after the MLP, if there is one, from states to which the heads have added."""
        return x + self.mlp(self.norm_mlp(x)) if self.mlp else x
