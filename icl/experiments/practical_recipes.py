"""What makes one head rule in transformers nearer to practice? Heads, recipe, attention varied."""

from dataclasses import replace

from icl.architecture import Architecture
from icl.claims import CHEN, Claim, judge
from icl.configuration import Configuration, Plan
from icl.contexts import check
from icl.experiments.comparison import Comparison
from icl.experiments.measures import FIRST_LAYER, LATER_LAYERS, Profiled, profiles
from icl.experiments.models import PRACTICAL, SPARSEST, filed, trained
from icl.recipe import USUAL

QUERIES = 8  # per context
USED = USUAL["practical"]
# Adam without decay, on contexts of one length: what a first exploration had seen one head with.
PLAIN = USUAL["plain"]


def nearer(heads: int, recipe=USED, attention: str = "relu", norm=True, mlp=False) -> Plan:
    """Three layers of as many heads, each of dimension 16, on the sparsest task."""
    model = Architecture(8, (heads,) * 3, 16, 64, attention, norm=norm, mlp=mlp)
    return Plan(Configuration(SPARSEST, model, recipe))


# By what is varied: the file, and the plan. Where nothing is said, ReLU, normalised, AdamW.
VARIED = {
    "8 heads": ("relu-norm-k16", PRACTICAL["relu-norm-k16"]),
    "8 heads, Adam": (
        "relu-norm-k16-plain",
        nearer(8, PLAIN),
    ),
    "4 heads": ("relu-norm-444", nearer(4)),
    "4 heads, Adam": (
        "relu-norm-444-plain",
        nearer(4, PLAIN),
    ),
    "4 heads, Adam, scale 0.3": (
        "relu-norm-444-init0.3",
        nearer(4, replace(PLAIN, init_scale=0.3)),
    ),
    "4 heads, softmax, no norm": filed("softmax-444", nearer(4, USED, "softmax", norm=False)),
    "4 heads, softmax, norm, MLP": ("softmax-norm-mlp", nearer(4, USED, "softmax", mlp=True)),
}
SINGLE = "relu-norm-111"
PLANS = dict(VARIED.values()) | {SINGLE: nearer(1)}

A2P = Claim(
    "A2p",
    CHEN,
    "Every head of the first layer matters, in ReLU and softmax transformers however trained.",
    FIRST_LAYER,
)
A3P = Claim(
    "A3p",
    CHEN,
    "Later layers usually rely on one head, in ReLU and softmax transformers however trained.",
    LATER_LAYERS,
)
CLAIMS = (A2P, A3P)


def run(contexts: int, seed: int) -> Profiled:
    """Measure risks on so many contexts of this seed, and importances on a quarter of them."""
    check(contexts, seed)
    models = {model.name: model.model for model in trained(PLANS).values()}
    on = Comparison.on(SPARSEST, contexts, seed, QUERIES, ["ridge"])
    many = {what: models[name] for what, (name, _) in VARIED.items()}
    found = profiles(many, models[SINGLE], on)
    return Profiled(judge(CLAIMS, found, shared=True), found)
