"""Words are defined as the code has them, and where they are used their definitions show."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest
import torch

from icl.architecture import Architecture
from icl.bayes import PosteriorMean
from icl.configuration import Configuration
from icl.contexts import draw
from icl.descent import PreprocessedGD
from icl.experiments import experiments
from icl.experiments.measures import EVERY_HEAD, ONE_HEAD
from icl.files import catalogue, load
from icl.intervals import GROUPS, TRIMMED, estimate
from icl.polynomials import monomials
from icl.predictors import excess_risk
from icl.recipe import USUAL
from icl.site import familiar, schematic
from icl.site.chapters import chapters
from icl.tasks import SparseLinear

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"
GLOSSARY = (BOOK / "glossary.md").read_text(encoding="utf-8")
ENTRIES = re.search(r"^```\{glossary\}\n(.*?)^```$", GLOSSARY, re.MULTILINE | re.DOTALL)[1]
TERMS = [line.replace("\\", "") for line in re.findall(r"^\S.*$", ENTRIES, re.MULTILINE)]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def definition(term):
    """What stands under a term, on one line."""
    lines = ENTRIES.splitlines()
    start = lines.index(term)
    rest = (i for i in range(start, len(lines)) if i > start and re.match(r"\S", lines[i]))
    last = next((i for i in rest if lines[i - 1] == ""), len(lines))
    return " ".join(line.strip() for line in lines[start:last] if line.startswith(" "))


def prose(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_every_term_that_a_page_uses_is_defined_once():
    assert len(set(TERMS)) == len(TERMS)
    pages = {path.stem for path in BOOK.iterdir()}
    assert not pages & set(TERMS), "a link to a page must not be one to a term"
    for path in [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb")]:
        for used in re.findall(r"\{term\}`([^`]+)`", prose(path)):
            term = re.sub(r"^.*<(.+)>$", r"\1", used).replace("\\", "")
            assert {term, term.lower()} & set(TERMS), f"{path.name}: {used}"


def test_algorithm_1_as_stated_is_what_the_code_computes():
    contexts = draw(SparseLinear(d=5, s=2, n=20, values="sphere"), 3, "evaluate", 0, queries=4)
    steps, rate = 7, 0.05
    for b in range(3):
        x, y = contexts.tokens[b, :, :-1], contexts.tokens[b, :, -1]
        r = (x * y[:, None]).mean(dim=0)
        scaled, u = r * x, torch.zeros(5).double()
        for _ in range(steps):
            left = y - scaled @ u
            u = u + rate * (left[:, None] * scaled).mean(dim=0)
        answers = (r * contexts.queries[b]) @ u
        ours = PreprocessedGD(steps, rate)
        torch.testing.assert_close(answers, ours.predict(contexts)[b])
        torch.testing.assert_close(r * u, ours.weights(contexts)[b])


def test_numbers_in_definitions_are_those_of_the_code():
    assert "hundredth" in definition("trimmed mean")
    assert TRIMMED == 1 / 100
    assert "every twentieth" in definition("interval")
    assert GROUPS == 20
    assert "up to degree 4 there are 77" in definition("equivariant monomial")
    assert len(monomials(4)) == 77
    assert "less than a tenth" in definition("spared head")
    assert EVERY_HEAD.threshold == 1 + 1 / 10
    assert "one half" in definition("top share")
    assert ONE_HEAD.threshold == 1 / 2
    degrees = [1]
    for _ in range(2):
        degrees.append(3 * degrees[-1] + 1)
    wanted = "of degree {} with one layer, {} with two, {} with three"
    assert wanted.format(*degrees) in definition("degree")


def test_a_label_leaves_out_what_the_page_says():
    sparse = SparseLinear(d=8, s=2, n=32, noise=1.0, values="sphere")
    assert Configuration(sparse, Architecture(8, (8, 8), 9, 32)).label == "8-8 heads, d = 8"
    larger = Configuration(
        SparseLinear(d=16, s=2, n=48, noise=1.0, values="sphere"),
        Architecture(16, (8, 1), 17, 64),
        USUAL["flagship"],
    )
    assert larger.label == "8-1 heads, d = 16"
    dense = SparseLinear(d=8, s=8, n=32, noise=1.0, values="gaussian")
    assert Configuration(dense, Architecture(8, (1,), 32, 32)).label == "1 head, d = 8, dense"
    for name in familiar.FAMILIAR:
        task = load(name).config.task
        assert task.n == (48 if task.d == 16 else 32)
        assert task.values == ("gaussian" if task.s == task.d else "sphere")
    noises = {load(name).config.task.noise for name in catalogue() if name.startswith("response")}
    assert noises == {0.5}
    assert len(catalogue()) > 100


def test_a_row_has_the_model_s_risk_beside_its_bounds_on_the_same_contexts():
    model = load("lsa-d8-n32-noise1")
    name, label, about, risk, ridge, bayes = familiar.standing("One layer", model, 300)
    contexts = draw(model.config.task, 300, "evaluate", familiar.SEED)
    plain = [text.replace("\N{NO-BREAK SPACE}", " ") for text in (name, label, about)]
    assert plain == ["**One layer**", "1 head, d = 8, dense", "dense, noise 1"]
    assert risk == str(estimate(excess_risk(model.model, contexts)))
    bound = estimate(excess_risk(PosteriorMean(model.config.task), contexts)).value
    assert bayes == f"{bound:.3f}"
    assert bound <= float(ridge) < 1.05 * bound  # where weights are dense and Gaussian
    assert estimate(excess_risk(model.model, contexts)).value > 2 * bound


def test_the_table_is_kept_until_what_it_depends_on_changes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(familiar, "standing", lambda name, model: asked.append(name) or [name] * 6)
    first = familiar.standings(tmp_path / "kept.txt")
    assert asked == list(familiar.FAMILIAR.values())
    assert familiar.standings(tmp_path / "kept.txt") == first
    assert len(asked) == len(familiar.FAMILIAR)
    assert first.splitlines()[0].startswith("| model |")
    monkeypatch.setattr(familiar, "FAMILIAR", {"heads-8-2": "Two layers"})
    assert "Two layers" in familiar.standings(tmp_path / "kept.txt").splitlines()[2]


def test_familiar_models_are_used_where_the_page_says():
    found = chapters(ROOT)
    lines = familiar.uses(found).splitlines()
    plans = {name: experiment.PLANS for name, experiment in experiments().items()}
    for line, (file, name) in zip(lines, familiar.FAMILIAR.items(), strict=True):
        places = re.findall(r"\[\]\(\./([\w-]+)\)", line)
        assert name in line
        assert places
        assert set(places) == {chapter for chapter in plans if file in plans[chapter]}


SVG = "{http://www.w3.org/2000/svg}"


def test_the_schematic_is_whole_described_and_readable():
    drawing = schematic.svg()
    svg = ET.fromstring(drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert svg.get("role") == "img"
    named = {svg.find(SVG + kind).get("id") for kind in ("title", "desc")}
    assert set(svg.get("aria-labelledby").split()) == named
    _, _, width, height = map(float, svg.get("viewBox").split())
    assert width <= 345
    assert height <= 1.9 * width  # a phone's screen has it whole
    sizes = [float(x.get("font-size")) for x in svg.iter() if x.get("font-size")]
    assert min(sizes) >= 11
    colours = {x.get(kind) for x in svg.iter() for kind in ("fill", "stroke")} - {None}
    assert all(c in ("none", "currentColor") or c.startswith("var(--pst-") for c in colours)
    text = " ".join("".join(x.itertext()) for x in svg.iter(SVG + "text"))
    for word in ("the paper proposes", "Layer 1: preprocess", "Layer L: optimise", "answer ⟨ŵ, "):
        assert word in text
    assert text.count("one gradient step") == 3


def test_the_schematic_shows_a_context_in_which_the_algorithm_works():
    """Bars that scale the two features are the longest, and steps come nearer to the weights."""
    contexts = draw(schematic.TASK, 1, "evaluate", schematic.SEED)
    largest = contexts.xy[0].abs().argsort(descending=True)[:2]
    assert set(largest.tolist()) == set(contexts.w[0].nonzero()[:, 0].tolist())
    walk = PreprocessedGD(schematic.STEPS, 1.0, relative=True).iterates(contexts)
    errors = [excess.item() for excess in ((u - contexts.w).square().sum() for u in walk)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4
    bars = re.findall(r'height="([\d.]+)" fill="var\(--pst-color-primary', schematic.svg())
    wanted = [f"{schematic.BAR * abs(r):.1f}" for r in contexts.xy[0].tolist()]
    assert bars == wanted


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The glossary and a page that uses it, built by Sphinx, as files."""
    source = tmp_path_factory.mktemp("source")
    (source / "glossary.md").write_text(GLOSSARY, encoding="utf-8")
    (source / "schematic.txt").write_text(schematic.svg(), encoding="utf-8")
    (source / "index.md").write_text(
        "# Page\n\nThe {term}`excess risk`, and {term}`more of it <Γ*>`.\n\n"
        "```{toctree}\nglossary\n```\n",
        encoding="utf-8",
    )
    static = [str(BOOK / "_static")]
    (source / "conf.py").write_text(
        "extensions = ['myst_parser', 'sphinx-mathjax-offline', 'icl.site.terms']\n"
        "myst_enable_extensions = ['dollarmath']\n"
        f"html_static_path = {static!r}\nhtml_theme = 'basic'\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", source, source / "out"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return source / "out"


def anchors(site):
    """The anchor of every term of the built glossary."""
    html = (site / "glossary.html").read_text(encoding="utf-8")
    return re.findall(r'<dt id="(term-[^"]+)">', html)


def definitions(site):
    script = (site / "_static" / "definitions.js").read_text(encoding="utf-8")
    return json.loads(script.removeprefix("window.DEFINITIONS = ").rstrip(";\n"))


def test_the_script_has_the_first_paragraph_of_every_definition(site):
    found = definitions(site)
    assert sorted(found) == sorted(anchors(site))
    assert len(found) == len(TERMS)
    risk = found["term-excess-risk"]
    assert risk.startswith("<p>By how much the squared error")
    assert r"\((\hat w-w)^\top\Sigma\,(\hat w-w)\)" in risk
    for html in found.values():
        assert "<a" not in html
        assert "→" not in html
        assert html.count("<p>") == 1


def test_a_page_without_formulas_can_show_those_of_a_definition(site):
    assert "mathjax/tex-chtml.js" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not on the PATH")
def test_definitions_show_by_mouse_and_keyboard_and_go_again(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 375, "height": 600})
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((site / "index.html").as_uri(), wait_until="networkidle")
        tip, (first, second) = page.locator("#term-tip"), page.locator("a:has(.std-term)").all()
        assert tip.count() == 0
        first.hover()
        tip.get_by_text("squared error").wait_for()
        tip.locator("mjx-container").first.wait_for()
        assert first.get_attribute("aria-describedby") == "term-tip"
        assert page.locator("[role=tooltip]").count() == 1
        box = tip.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375
        tip.hover()  # the pointer may rest on it
        page.wait_for_timeout(400)
        assert tip.is_visible()
        page.mouse.move(370, 590)
        tip.wait_for(state="detached")
        second.hover()
        tip.get_by_text("least risk").wait_for()
        page.keyboard.press("Escape")
        assert tip.count() == 0
        assert second.get_attribute("aria-describedby") is None
        page.mouse.move(370, 590)
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('a:has(.std-term)')"):
                break
        tip.get_by_text("squared error").wait_for()
        page.keyboard.press("Tab")
        tip.get_by_text("least risk").wait_for()
        page.keyboard.press("Escape")
        assert tip.count() == 0
        page.keyboard.press("Enter")
        page.wait_for_url("**/glossary.html#term-*")
        browser.close()
        assert not wrong
