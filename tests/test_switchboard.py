"""The interactive pages: their numbers against Python's, by mouse, by keyboard, and with no script.

The pages are built in a small book of their own and opened as files, without a server.
"""

import json
import re
import shutil
from base64 import b64decode
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import ESTIMATORS
from icl.heads import importance, least_first, mask, top_later
from icl.intervals import AVERAGES
from icl.predictors import excess_risk
from icl.site import build, explorer, switchboard, widgets
from icl.site.switchboard import MODELS, ONE_LATER, PRUNED, RANDOM, TRAINED

ROOT = Path(__file__).parent.parent
LINKED = ("baselines", "head-utilization", "conditions", "pruning", "why-one-head")
OURS, NEAREST, BUILT = MODELS
# Who preprocesses or selects features.
SPARSE = ("lasso", "preprocessed GD", "preprocessed GD, fixed rate", "re-weighted GD")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A book of the two pages and of stubs for those they link to."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    for page in ("head-switchboard", "baseline-explorer"):
        shutil.copy(ROOT / "book" / f"{page}.md", folder / "book")
    for stub in ("intro", *LINKED):
        (folder / "book" / f"{stub}.md").write_text(f"# {stub}\n", encoding="utf-8")
    names = ("head-switchboard", "baseline-explorer", *LINKED)
    chapters = "".join(f"  - file: book/{name}\n" for name in names)
    toc = f"format: jb-book\nroot: book/intro\nchapters:\n{chapters}"
    (folder / "_toc.yml").write_text(toc, encoding="utf-8")
    widgets.write(folder / "book")
    build._jupyter_book(folder, folder / "out")
    return folder / "out" / "_build" / "html"


@pytest.fixture
def visit(browser, site):
    """Open a page as a file; at the end nothing may have gone wrong or been asked of a network."""
    wrong, pages = [], []

    def open_page(name, width=1100, **settings):
        page = browser.new_page(viewport={"width": width, "height": 800}, **settings)
        page.on("console", lambda m: m.type == "error" and wrong.append(f"console: {m.text}"))
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:", "blob:")) or wrong.append(r.url),
        )
        page.goto((site / "book" / f"{name}.html").as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong


def head(page, layer, number):
    """The button of a head, counted from 1."""
    return page.locator(".layer").nth(layer - 1).locator("button").nth(number - 1)


def preset(page, name):
    return page.locator(".presets").get_by_role("button", name=name)


def shown_heads(page):
    """The heads that the page says work, a mask (1, H) per layer."""
    rows = page.locator(".layer").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('button')]"
        ".map(button => button.getAttribute('aria-pressed') === 'true'))"
    )
    return [torch.tensor([row]) for row in rows]


def shown_numbers(page):
    """The averages the page has computed, by name."""
    found = page.locator(".switchboard output.status").evaluate("element => ({...element.dataset})")
    return {name: float(value) for name, value in found.items()}


def computed(shown, kept):
    """The same averages from `mask` and `excess_risk`, in double precision."""
    risks = excess_risk(mask(shown.model, kept), shown.contexts)[0]
    averages = {name: float(average(risks, dim=0)) for name, average in AVERAGES.items()}
    return {
        "risk": averages["trimmed"],
        "mean": averages["mean"],
        "median": averages["median"],
        "worst": float(risks.max()),
    }


@pytest.mark.parametrize("shown", MODELS, ids=lambda shown: shown.file)
def test_the_page_computes_what_mask_and_excess_risk_compute(visit, shown):
    page = visit("head-switchboard")
    page.get_by_label(shown.title).check()

    def agree():
        kept = shown_heads(page)
        assert shown_numbers(page) == pytest.approx(computed(shown, kept), rel=1e-7)
        return kept

    whole = agree()
    assert all(layer.all() for layer in whole)
    for name in (ONE_LATER, PRUNED):
        preset(page, name).click()
        kept = agree()
        assert preset(page, name).get_attribute("aria-pressed") == "true"
        expected = shown.presets[name]
        assert all(bool((a == b).all()) for a, b in zip(kept, expected, strict=True))
    drawn = []
    for _ in range(2):  # another half each time
        preset(page, RANDOM).click()
        drawn.append([int(on) for layer in agree() for on in layer[0]])
    assert drawn[0] != drawn[1]
    assert sum(drawn[0]) == sum(drawn[1]) == sum(shown.model.config.heads) // 2
    preset(page, TRAINED).click()
    for layer, number in ((2, 1), (3, 4), (1, 8), (2, 1)):  # one after the other, the last on again
        before = head(page, layer, number).get_attribute("aria-pressed")
        head(page, layer, number).click()
        assert head(page, layer, number).get_attribute("aria-pressed") != before
        agree()
    for number in range(1, 5):  # a whole layer
        head(page, 2, number).click()
    agree()


def test_the_bars_show_the_answer_in_the_context_that_is_chosen(visit):
    page = visit("head-switchboard")
    preset(page, ONE_LATER).click()
    page.locator("#context").fill("256")
    worst = excess_risk(OURS.model, OURS.contexts)[0].argmax()
    row = OURS.contexts[worst : worst + 1]
    expected = {
        "True": row.w[0],
        "Model": mask(OURS.model, OURS.presets[ONE_LATER]).weights(row)[0, 0],
        "Ridge": OURS.estimators["ridge"].weights(row)[0],
    }
    label = page.locator(".answers svg").get_attribute("aria-label")
    for name, weights in expected.items():
        listed = re.search(rf"{name}: ([^a-zA-Z]*)\.", label)[1]
        shown = [float(x) for x in listed.split(", ")]
        assert shown == pytest.approx(weights.tolist(), abs=0.00501)
    assert page.locator(".answers rect.ours").count() == OURS.task.d


def test_what_the_model_is_compared_with_stands_beside_it(visit):
    page = visit("head-switchboard")
    rows = page.locator(".dots tbody tr").all_inner_texts()
    text = "\n".join(rows)
    for name in ("ridge", "GD", "Bayes", "zero"):
        tuned = ESTIMATORS[name].tuned(OURS.task)
        risk = AVERAGES["trimmed"](excess_risk(tuned, OURS.contexts), dim=0)
        (row,) = (row for row in rows if row.startswith(name))
        assert float(row.split()[-1]) == pytest.approx(float(risk), rel=6e-3), text


def test_heads_are_switched_by_keyboard_and_the_risk_is_announced(visit):
    page = visit("head-switchboard")
    status = page.get_by_role("status")
    before = status.inner_text()
    preset(page, "random half").focus()
    page.keyboard.press("Tab")
    button = head(page, 1, 1)
    assert button.evaluate("element => element === document.activeElement")
    assert button.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert button.evaluate("element => element === document.activeElement"), "the focus is kept"
    assert status.inner_text() != before
    assert "23 of 24 heads" in status.inner_text()
    page.keyboard.press("Enter")
    assert status.inner_text() == before
    page.get_by_label(OURS.title).focus()
    page.keyboard.press("ArrowDown")
    assert page.get_by_label(NEAREST.title).is_checked()
    assert "16 of 16 heads" in status.inner_text()
    page.locator("#context").focus()
    page.keyboard.press("ArrowRight")
    assert "ontext 129 of 256" in page.locator("#context").get_attribute("aria-valuetext")


def test_a_switch_takes_a_tenth_of_a_second_at_most(visit):
    """In time of the page's thread, which other work on the machine does not lengthen."""
    page = visit("head-switchboard")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    taken = []
    for _ in range(9):  # a head of the first layer, after which everything changes
        before = spent()
        head(page, 1, 1).evaluate("button => button.click()")
        taken.append(spent() - before)
    assert median(taken) <= 0.1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_phone_in_both_themes(visit, scheme):
    for name in ("head-switchboard", "baseline-explorer"):
        page = visit(name, width=375, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        for button in page.locator("article button").all():
            box = button.bounding_box()
            if box:
                assert min(box["width"], box["height"]) >= 24
        table = page.locator(".dots")
        assert table.evaluate("t => t.scrollWidth <= t.parentElement.clientWidth")
        ink, paper = (
            page.locator(".board").evaluate(
                f"board => getComputedStyle(board)['{part}'].match(/[0-9]+/g).slice(0, 3)"
            )
            for part in ("color", "background-color")
        )
        lighter = sum(map(int, ink)) - sum(map(int, paper))
        assert lighter > 200 if scheme == "dark" else lighter < -200


def test_without_scripting_there_are_a_figure_and_a_table(visit):
    page = visit("head-switchboard", java_script_enabled=False)
    figure = page.locator(".switchboard svg.static")
    assert figure.is_visible()
    label = figure.get_attribute("aria-label")
    for shown in MODELS:
        assert shown.title in label
        assert f"{ONE_LATER} {widgets.risk_in_words(shown.risk(shown.presets[ONE_LATER]))}" in label
    assert page.locator(".switchboard button").count() == 0
    table = visit("baseline-explorer", java_script_enabled=False).locator(".explorer table")
    assert table.is_visible()
    assert all(name in table.inner_text() for name in ESTIMATORS)
    assert visit("head-switchboard").locator("svg.static").count() == 0


def test_sliders_show_the_recorded_risks_of_the_task_they_choose(visit):
    page = visit("baseline-explorer")
    cells = explorer.recorded(ROOT)

    def shown():
        return json.loads(page.locator(".explorer output").get_attribute("data-risks"))

    def recorded(**at):
        return next(cell["found"] for cell in cells if cell["at"] == at)

    assert shown() == recorded(**explorer.SHOWN)
    page.get_by_label("examples n").focus()
    page.keyboard.press("End")
    page.get_by_label("noise σ").focus()
    page.keyboard.press("Home")
    page.get_by_label("non-zero weights s").focus()
    page.keyboard.press("ArrowRight")
    assert shown() == recorded(n=128, noise=0.25, s=4)
    row = page.locator(".dots tr", has_text="ridge").inner_text()
    assert float(row.split()[-1]) == pytest.approx(shown()["ridge"][0], rel=6e-3)
    assert "penalty" in row


def test_a_cell_of_the_grid_is_what_the_estimators_of_today_give():
    cells = explorer.recorded(ROOT)
    assert len(cells) == np.prod([len(values) for values in explorer.GRID.values()])
    assert all(list(cell["found"]) == list(ESTIMATORS) for cell in cells)
    at = {"n": 64, "noise": 0.5, "s": 1}
    (found,) = (cell["found"] for cell in cells if cell["at"] == at)
    again = explorer.cell(**at)
    for name, (risk, chosen) in again.items():
        assert found[name][0] == pytest.approx(risk, rel=1e-2, abs=1e-9), name
        assert found[name][1] == chosen, name


def test_the_grid_says_what_its_page_says():
    """Whoever preprocesses or selects has less than ridge where s = 1, and no less at s = 8."""
    ratios = {}
    for cell in explorer.recorded(ROOT):
        risks = {name: risk for name, (risk, _) in cell["found"].items()}
        assert min(risks.values()) == risks["Bayes"], cell["at"]
        others = (risks[name] for name in SPARSE)
        ratios.setdefault(cell["at"]["s"], []).extend(risk / risks["ridge"] for risk in others)
    assert max(ratios[1]) < 1 <= min(ratios[explorer.D])
    assert 1 / 9 < min(ratios[1]) < 1 / 8


def test_the_models_are_what_the_page_says():
    """On other and more contexts than the page's."""
    for shown in MODELS:
        contexts = draw(shown.task, 1024, "evaluate", seed=5)
        found = importance(shown.model, contexts)
        assert float(least_first(found)) >= 1.1, "every head of the first layer matters"
        rules = min(float(top) for top in top_later(found).values()) > 0.5
        assert rules == (shown is not OURS), "one head outweighs the others"


def test_the_finding_is_true_on_the_page_s_contexts():
    for shown in MODELS:
        risk = {name: shown.risk(kept) for name, kept in shown.presets.items()}
        ridge = shown.references["ridge"]
        assert risk[TRAINED] < ridge
        assert (risk[ONE_LATER] < ridge) == (shown is BUILT)
        assert risk[PRUNED] > 5 * ridge
        assert f"{risk[ONE_LATER]:#.2g} (ridge: {ridge:#.2g})" in switchboard.finding()


def test_factors_of_two_heads_do_not_multiply():
    def factor(*heads):
        kept = [keep.clone() for keep in OURS.presets[TRAINED]]
        for number in heads:
            kept[1][0, number - 1] = False
        return OURS.risk(kept) / OURS.risk(OURS.presets[TRAINED])

    assert factor(5, 8) > 1.1 * factor(5) * factor(8)
    assert factor(1, 3) < 0.9 * factor(1) * factor(3)


def test_rounding_the_contexts_changes_no_risk():
    drawn = draw(OURS.task, switchboard.CONTEXTS, "evaluate", switchboard.SEED)
    exact = excess_risk(OURS.model, drawn)
    assert torch.allclose(excess_risk(OURS.model, OURS.contexts), exact, rtol=1e-4, atol=1e-7)
    assert not torch.equal(OURS.contexts.gram, drawn.gram)


@pytest.mark.parametrize("shown", MODELS, ids=lambda shown: shown.file)
def test_the_exported_weights_are_the_model_s_to_the_bit(shown):
    content = b64decode(widgets.exported(shown)["weights"])
    values = torch.from_numpy(np.frombuffer(content, "<f2").astype(float))
    weights = [parameter for _, parameter in shown.model.named_parameters()]
    assert len(values) == sum(weight.numel() for weight in weights)
    every = torch.cat([weight.flatten() for weight in weights])
    assert torch.equal(values.sort().values, every.sort().values)


def test_what_would_be_rounded_is_refused():
    with pytest.raises(Refused, match="must be exact"):
        widgets.packed(torch.tensor([0.1], dtype=torch.float64), torch.float16)


def test_the_pages_load_little(site):
    static = site / "_static"
    files = [*static.glob("switchboard*.js"), static / "dots.js", static / "widgets.css"]
    assert len(files) == 5
    assert sum(file.stat().st_size for file in files) <= 600_000


def test_a_book_without_the_pages_gets_none_of_their_files(tmp_path):
    (tmp_path / "_static").mkdir()
    widgets.write(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["_static"]
