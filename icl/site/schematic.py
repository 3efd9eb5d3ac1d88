"""A drawing of the mechanism that Chen et al. (2024) propose: preprocess once, then take steps."""

from torch import Tensor

from icl.contexts import draw
from icl.descent import PreprocessedGD
from icl.tasks import SparseLinear

# Units are pixels where the drawing is 340 wide, as on a phone: no letter is below 11.
WIDTH, TEXT, SMALL = 340, 13, 11
BAR, PANEL, GAP = 17, 96, 22  # heights: of a bar of length 1, of a layer, and between layers
# What is shown is computed: these are a context and the steps of which the first, second and last.
TASK, SEED, STEPS = SparseLinear(d=8, s=2, n=32, noise=0.5, values="signs"), 5, 5
PREPROCESS, OPTIMISE = "var(--pst-color-primary, #176de8)", "var(--pst-color-secondary, #e89217)"

TITLE = "What the paper proposes: the first layer preprocesses, later layers optimise"
DESCRIPTION = (
    "From top to bottom. Tokens: the examples (x1, y1) to (xn, yn), and the query, which has no "
    "label. Layer 1, preprocess: eight heads, one per feature, each of which multiplies its "
    "feature by r̂, its correlation with the labels. Bars show r̂ in one context: long for the two "
    "features that matter, short for the six others. Layers 2 to L, optimise: one head in each "
    "takes one gradient step. Bars show the weights ŵ after one, two and five steps: they come "
    "near the true weights, which are marked. Answer: the inner product of ŵ and the query."
)


def svg() -> str:
    """The drawing as an SVG element, in the colours of the page's theme."""
    contexts = draw(TASK, 1, "evaluate", SEED)
    walk = [u[0] for u in PreprocessedGD(STEPS, 1.0, relative=True).iterates(contexts)]
    parts = [
        _text(0, 14, "What the paper proposes", weight="bold"),
        *_tokens(26),
        *_layer(92, "1", PREPROCESS, contexts.xy[0]),
    ]
    y = 92
    for layer, step in (("2", 1), ("3", 2), ("L", STEPS)):
        y += PANEL + GAP
        parts += _layer(y, layer, OPTIMISE, walk[step - 1], contexts.w[0])
    y += PANEL + GAP
    parts += [_arrow(y), *_box(90, y, 160, f"answer ⟨ŵ, {_indexed('x', 'q')}⟩")]
    opening = (
        f'<svg class="schematic" viewBox="0 0 {WIDTH} {y + 30}" role="img" aria-labelledby='
        '"schematic-title schematic-description" fill="none" stroke="currentColor" style="display: '
        'block; width: 100%; max-width: 27rem; height: auto; margin: 1.5rem auto">'
    )
    title = f'<title id="schematic-title">{TITLE}</title>'
    description = f'<desc id="schematic-description">{DESCRIPTION}</desc>'
    return "\n".join([opening, title, description, *parts, "</svg>"])


def _tokens(y: float) -> list[str]:
    """The examples and the query, each a token."""
    parts = [_text(0, y + 10, "examples"), _text(WIDTH, y + 10, "query", "end")]
    for x, i in ((0, "1"), (77, "2"), (179, "n")):
        parts += _box(x, y + 16, 70, f"({_indexed('x', i)}, {_indexed('y', i)})")
    parts.append(_text(163, y + 35, "…", "middle"))
    return parts + _box(270, y + 16, 70, f"({_indexed('x', 'q')}, ?)")


def _layer(
    y: float, name: str, colour: str, values: Tensor, true: Tensor | None = None
) -> list[str]:
    """A layer with its heads, and below them a number per feature that it leaves."""
    first = true is None
    about = "a head per feature · bars: r̂" if first else "one head · bars: ŵ, marks: w"
    parts = [
        _text(WIDTH / 2, y - 7, "⋮", "middle") if name == "L" else _arrow(y),
        f'<rect x="0.5" y="{y}" width="{WIDTH - 1}" height="{PANEL}" rx="6" stroke="{colour}"/>',
        _text(8, y + 17, f"Layer {name}: {'preprocess' if first else 'optimise'}", weight="bold"),
        _text(WIDTH - 8, y + 17, about, "end", SMALL),
    ]
    if first:
        for j, x in enumerate(_places(), 1):
            parts += _box(x - 18, y + 25, 36, f"{_indexed('r̂', j)}{_indexed('x', j)}", colour)
    else:
        parts += _box(WIDTH / 2 - 70, y + 25, 140, "one gradient step", colour)
    return parts + _bars(y + PANEL - BAR - 6, colour, values, true)


def _bars(y: float, colour: str, values: Tensor, true: Tensor | None) -> list[str]:
    """A bar per feature, up or down from y, with a mark at its true value."""
    parts = [f'<path d="M8 {y}H{WIDTH - 8}" opacity="0.5"/>']
    for x, value in zip(_places(), values.tolist(), strict=True):
        top = y - BAR * max(value, 0)
        size = f'width="18" height="{BAR * abs(value):.1f}"'
        parts.append(f'<rect x="{x - 9}" y="{top:.1f}" {size} fill="{colour}" stroke="none"/>')
    for x, value in zip(_places(), [] if true is None else true.tolist(), strict=False):
        if value:
            parts.append(f'<path d="M{x - 14} {y - BAR * value:.1f}h28" stroke-width="2"/>')
    return parts


def _places() -> list[float]:
    """The horizontal middle of every feature."""
    step = (WIDTH - 16) / TASK.d
    return [8 + step * (j + 0.5) for j in range(TASK.d)]


def _box(x: float, y: float, width: float, text: str, colour: str = "currentColor") -> list[str]:
    box = f'<rect x="{x + 0.5}" y="{y}" width="{width - 1}" height="26" rx="4" stroke="{colour}"/>'
    return [box, _text(x + width / 2, y + 17, text, "middle")]


def _arrow(y: float) -> str:
    """Down to y, from what is above it."""
    x = WIDTH / 2
    return f'<path d="M{x} {y - GAP + 4}V{y - 4}m-4 -5l4 5l4 -5"/>'


def _text(
    x: float, y: float, text: str, anchor: str = "start", size: int = TEXT, weight: str = "normal"
) -> str:
    look = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" {look} fill="currentColor" stroke="none">{text}</text>'


def _indexed(symbol: str, index: str | int) -> str:
    """A symbol with an index, which lies a little lower."""
    low = f'<tspan dy="3" font-size="{SMALL}">{index}</tspan>'
    back = '<tspan dy="-3">\N{ZERO WIDTH SPACE}</tspan>'
    return f'<tspan font-style="italic">{symbol}</tspan>{low}{back}'
