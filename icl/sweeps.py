"""Named experiments as data: every model that ships, and how it was trained."""

from dataclasses import dataclass

from icl.errors import choose
from icl.tasks import SparseLinear
from icl.training import Configuration, Recipe
from icl.transformer import Architecture


@dataclass(frozen=True)
class Experiment:
    """A configuration and the training seeds it is repeated over."""

    about: str
    config: Configuration
    seeds: tuple[int, ...]
