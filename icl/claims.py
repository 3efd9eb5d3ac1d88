"""What the papers claim, and the statistic and threshold that decide it, as data.

Fixed before the models that the chapters show were evaluated; what was known then, they say.
"""

from dataclasses import dataclass

CHEN = "Chen et al., 2024"
AFTER_CHEN = "this book, after Chen et al., 2024"  # implied by the paper, not stated in it
MAHANKALI = "Mahankali et al., 2024"


@dataclass(frozen=True)
class Criterion:
    """A statistic that must exceed a threshold, and why the threshold is where it is."""

    statistic: str
    threshold: float
    reason: str


@dataclass(frozen=True)
class Claim:
    """A claim of a paper; it holds in a setting if all its criteria do."""

    id: str
    paper: str
    statement: str
    criteria: tuple[Criterion, ...]


_AT_OPTIMUM = Criterion(
    "−log₁₀ of the relative distance between the trained Γ and Γ\\*",
    1.3,
    "That is a distance of 0.05, where an answer of zero has 1, and a step of rate 1, as exact "
    "gradient descent would suggest, has 0.31 at d = 8, n = 32 and noise 1.",
)
_LEAST_RISK = Criterion(
    "−log₁₀ of the excess of the trained layer's risk over the least risk of a single layer, as "
    "a fraction of it",
    3.0,
    "That is an excess of 0.1 %, below which nothing is left to gain.",
)
_ALL = (
    Claim(
        "A1",
        AFTER_CHEN,
        "More heads give lower risk.",
        (
            Criterion(
                "reduction of the mean excess risk from one head per layer to eight, as a fraction",
                0.1,
                "A tenth is clearly better: more than models of one kind differ by seed.",
            ),
            Criterion(
                "smallest reduction, as a fraction, over the doublings from one head to eight",
                0.0,
                "Above zero every doubling helps, so it is the number of heads that counts and "
                "not one special number.",
            ),
        ),
    ),
    Claim(
        "A2",
        CHEN,
        "Every head of the first layer matters.",
        (
            Criterion(
                "smallest relative rise of the mean excess risk when one first-layer head is "
                "masked",
                0.1,
                "A head matters if the model is clearly worse without it: by a tenth. The rise "
                "is relative to the risk, not to the other heads' rises, because a head with a "
                "small share of a large rise can still not be spared.",
            ),
        ),
    ),
    Claim(
        "A3",
        CHEN,
        "Later layers usually rely on one head.",
        (
            Criterion(
                "top-1 share of importance, in the later layer where it is smallest",
                0.5,
                "Above one half, one head outweighs all others of its layer together.",
            ),
            Criterion(
                "normalised entropy of importance in layer 1 minus the mean of later layers",
                0.0,
                "Above zero, the first layer spreads its work over more heads than the later "
                "ones do.",
            ),
        ),
    ),
    Claim(
        "A4",
        CHEN,
        "One head per later layer is sufficient; the first layer needs its many.",
        (
            Criterion(
                "share of the model's advantage over tuned ridge that is left when every later "
                "layer keeps only its most important head",
                0.5,
                "At 1 nothing is lost, at 0 the model is no better than ridge. Above one half, "
                "the heads that are kept are worth more than all those removed.",
            ),
            Criterion(
                "logarithm of the risk with one head in the first layer and all later ones, over "
                "the risk with all heads in the first layer and one in each later one",
                0.095,
                "That is log 1.1: pruning the first layer is worse by a tenth, although it removes "
                "fewer heads. A logarithm, because such ratios differ by orders of magnitude.",
            ),
        ),
    ),
    Claim(
        "A5",
        CHEN,
        "The first layer preprocesses, and later layers walk like gradient descent on what it "
        "leaves.",
        (
            Criterion(
                "R² of a linear read-out of the preprocessed query after layer 1",
                0.5,
                "A first layer that preprocesses must let r̂_j x_j be read off. A layer of h "
                "heads whose values read labels only, as in the paper's construction, can reach "
                "h/d; above one half it does more than half of what that construction does.",
            ),
            Criterion(
                "fraction of the probe's weights that preprocessed gradient descent explains, "
                "minus the fraction gradient descent explains, in the later layer where it is "
                "smallest",
                0.0,
                "Above zero, every later layer is nearer to the preprocessed walk.",
            ),
            Criterion(
                "fraction of the probe's weights that preprocessed gradient descent explains, in "
                "the later layer where it is smallest",
                0.9,
                "To walk like it, and not only more like it than like something else, less than "
                "a tenth may be left unexplained.",
            ),
        ),
    ),
    Claim(
        "A6",
        CHEN,
        "A transformer can preprocess with many heads, then optimise with one per layer.",
        (
            Criterion(
                "correct digits of the constructed transformer: −log₁₀ of its largest relative "
                "error against the explicit algorithm, over all layers",
                12.0,
                "Float64 carries 15 to 16 digits; with 12 of them right the two are equal but "
                "for rounding.",
            ),
        ),
    ),
    Claim(
        "A7",
        CHEN,
        "Preprocess-then-optimise beats gradient descent and ridge regression.",
        (
            Criterion(
                "reduction of the mean excess risk below the better of tuned gradient descent "
                "and tuned ridge, as a fraction",
                0.1,
                "The paper says significantly better; a tenth is the least that deserves it.",
            ),
        ),
    ),
    Claim(
        "A8",
        CHEN,
        "The trained transformer beats gradient descent and ridge regression.",
        (
            Criterion(
                "reduction of the mean excess risk below the better of tuned gradient descent "
                "and tuned ridge, as a fraction",
                0.1,
                "As for A7: a tenth is the least that deserves to be called better.",
            ),
        ),
    ),
    Claim(
        "A9",
        AFTER_CHEN,
        "Preprocessing is what many heads buy.",
        (
            Criterion(
                "share of the multi-head model's advantage over a one-head model that "
                "preprocessed inputs give to the one-head model",
                0.5,
                "Above one half, preprocessing accounts for most of what the heads buy.",
            ),
        ),
    ),
    Claim(
        "B1",
        MAHANKALI,
        "A trained layer of linear self-attention takes one step of gradient descent.",
        (_AT_OPTIMUM, _LEAST_RISK),
    ),
    Claim(
        "B2",
        MAHANKALI,
        "On features of another covariance the step is preconditioned.",
        (
            _AT_OPTIMUM,
            Criterion(
                "log₁₀ of how many times nearer the trained Γ is to Γ\\* than to every multiple "
                "of I",
                1.0,
                "Ten times nearer: Γ then is at most a tenth of the way from Γ\\* to a plain step.",
            ),
        ),
    ),
    Claim(
        "B3",
        MAHANKALI,
        "With nonlinear responses the trained layer still takes one step of gradient descent.",
        (_AT_OPTIMUM, _LEAST_RISK),
    ),
)
CLAIMS = {claim.id: claim for claim in _ALL}
