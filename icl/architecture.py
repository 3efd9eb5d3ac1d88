"""What a transformer is built like, as immutable data."""

from dataclasses import dataclass

from icl.blocks import ATTENTION
from icl.errors import brief, choose, require, several, whole

INPUTS = ("raw", "preprocessed", "scaled")
QUERIES = 16  # per context, for models whose query expectation has no closed form


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
    norm: bool = False
    mlp: bool = False

    def __post_init__(self):
        object.__setattr__(self, "heads", several("heads", self.heads))
        choose("attention", self.attention, ATTENTION)
        choose("inputs", self.inputs, INPUTS)
        require(len(self.heads) > 0, "heads=(): allowed are the heads of one layer or more")
        for count in self.heads:
            whole("heads", count)
        for name in ("d", "d_head", "d_model"):
            whole(name, getattr(self, name))
        for name in ("norm", "mlp"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"{name}={brief(value)}: allowed are True and False")

    @property
    def parameters(self) -> int:
        """How many numbers a model's matrices have."""
        block = 4 * sum(self.heads) * self.d_head + self.mlp * 8 * self.d_model * len(self.heads)
        return self.d_model * (self.d + 2 + block)

    @property
    def collapses(self) -> bool:
        """Is every layer linear in its token, given the context?"""
        return self.attention == "linear" and not self.norm and not self.mlp

    @property
    def queries(self) -> int:
        """How many queries a context needs for such models to be trained and judged on it."""
        return 0 if self.collapses else QUERIES
