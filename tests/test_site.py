"""The built site: its files, and its pages in a real browser, from a server of nothing else."""

import base64
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup

from icl.site import build
from icl.site.chapters import chapters, toc

ROOT = Path(__file__).parent.parent
PAGES = [f"book/{name}.html" for name in toc(ROOT)]
OTHERS = ["index.html", "404.html", "search.html", "genindex.html"]
REQUIRED = os.environ.get("ICL_REQUIRE_BROWSER")
DESK, PHONE = 1280, 375

# The npm package that judges accessibility, and the hash that npm publishes of it.
AXE = "axe-core-4.14.1"
AXE_HASH = (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)
# What axe finds in the theme and in the folded cells of myst-nb, neither of which is ours: names
# for screen readers that are not the words one sees, and a title outside every landmark.
THEIRS = {
    "label-content-name-mismatch": ("search-button", "theme-switch-button"),
    "region": ("sidebar-primary-item",),
    "summary-name": (".has-children",),
    # Sphinx writes a signature of several lines as a list of definitions without terms.
    "definition-list": ("#icl", ".sig"),
    # docutils gives entries of the bibliography roles of their own, which have gone out of use.
    "aria-required-children": (".citation-list",),
    "aria-allowed-role": ("#id",),
    "aria-deprecated-role": ("#id",),
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    """The folder of the site as it is now, built where needed."""
    return build.build(ROOT, lambda _: None).parent


@pytest.fixture(scope="module")
def address(site):
    """A server of its own."""
    handler = functools.partial(Quiet, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def axe():
    """The source of axe-core, which npm fetches once."""
    file = ROOT / "_build" / f"{AXE}.js"
    if not file.exists():
        npm = shutil.which("npm")
        if not npm and not REQUIRED:
            pytest.skip("npm is not on the PATH, and axe-core was not fetched before")
        file.parent.mkdir(exist_ok=True)
        ask = [npm, "pack", "--silent", AXE.replace("core-", "core@")]
        subprocess.run(ask, cwd=file.parent, check=True, capture_output=True)
        package = file.with_suffix(".tgz")
        found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        assert found == AXE_HASH
        with tarfile.open(package) as content:
            part = file.with_suffix(".part")  # what is cut here must not be taken for the whole
            part.write_bytes(content.extractfile("package/axe.min.js").read())
        part.replace(file)
        package.unlink()
    return file.read_text(encoding="utf-8")


# Has the page's script seen how wide its code and tables are?
SEEN = """[...document.querySelectorAll('article pre, .pst-scrollable-table-container')].every(
    box => box.scrollWidth - box.clientWidth <= 1 || box.tabIndex === 0)"""

# Until then a column is wider than it will be.
SLIDES = """Promise.allSettled(document.getAnimations()
    .filter(one => one instanceof CSSTransition).map(one => one.finished))"""


class Visit:
    """A page in the browser, and all that went wrong on it or left the site."""

    def __init__(self, browser, address, path, width=DESK, **settings):
        self.wrong = []
        self.page = browser.new_page(viewport={"width": width, "height": 800}, **settings)
        self.page.on("console", lambda m: m.type == "error" and self.note("console", m.text))
        self.page.on("pageerror", lambda error: self.note("script", error))
        self.page.on("request", lambda request: self._asks(request.url, address))
        self.page.on("response", lambda r: r.ok or r.status == 304 or self.note(r.status, r.url))
        self.page.goto(f"{address}/{path}", wait_until="load")
        self.settle()

    def note(self, kind, what):
        self.wrong.append(f"{kind}: {what}")

    def _asks(self, url, address):
        if not url.startswith((address, "data:", "blob:")):
            self.note("left the site", url)

    def settle(self):
        """Wait for mathematics, for sidebars that slide, and for what a drawn frame measures."""
        self.page.evaluate("async () => await window.MathJax?.startup?.promise")
        frame = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.page.evaluate(frame)
        self.page.evaluate(SLIDES)
        self.page.evaluate(frame)
        self.page.wait_for_function(SEEN)

    def turn(self, theme):
        self.page.emulate_media(color_scheme=theme)
        self.page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")

    def at(self, width):
        self.page.set_viewport_size({"width": width, "height": 800})
        self.settle()
        return self.page


@pytest.fixture
def visit(browser, address):
    """Open a page; at the end nothing may have gone wrong or left the site."""
    visits = []

    def open_page(path, **settings):
        visits.append(Visit(browser, address, path, **settings))
        return visits[-1].page

    yield open_page
    for one in visits:
        one.page.close()
    assert not [wrong for one in visits for wrong in one.wrong]


@pytest.fixture(scope="module", params=PAGES)
def read(browser, address, request):
    """Every page of the book in turn, with all its dropdowns open."""
    found = Visit(browser, address, request.param)
    found.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    found.settle()
    yield found
    found.page.close()


def soup(site, path):
    return BeautifulSoup((site / path).read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def documents(site):
    """All files of the site, parsed."""
    return {path: soup(site, path) for path in (*OTHERS, *PAGES)}


def test_every_link_within_the_site_leads_somewhere(site, documents):
    names = {path: {tag["id"] for tag in d.find_all(id=True)} for path, d in documents.items()}
    dead = []
    for path, document in documents.items():
        for link in document.find_all("a", href=True):
            url, place = urldefrag(link["href"])
            if urlsplit(url).scheme or (path == "404.html" and url == "/"):
                continue
            target = (site / path).parent / unquote(url) if url else site / path
            to = str(target.resolve().relative_to(site.resolve()))
            if not target.is_file() or (place and unquote(place) not in names.get(to, {place})):
                dead.append(f"{path}: {link['href']}")
    assert not dead


def test_every_page_has_a_title_and_a_description_of_its_own(documents):
    titles = {path: documents[path].title.get_text() for path in (*PAGES, "404.html")}
    assert len(set(titles.values())) == len(titles)
    found = {}
    for path in PAGES:
        tags = {
            tag.get("name") or tag.get("property"): tag["content"]
            for tag in documents[path].find_all("meta", content=True)
        }
        found[path] = tags["description"]
        assert 30 < len(tags["description"]) <= 210, path
        assert tags["og:description"] == tags["description"]
        assert tags["og:title"] in titles[path].replace("’", "'"), path
    assert len(set(found.values())) == len(found)


def test_the_readme_shows_the_front_page_s_picture_on_a_ground_of_its_own(site):
    """Where the README is shown is not known: on a dark page its words need a light ground."""
    shown, published = (
        path.read_text(encoding="utf-8")
        for path in (ROOT / "book" / "images" / "glance.svg", site / "_images" / "glance.svg")
    )
    words = re.compile(r"<text[^>]*>([^<]*)</text>")
    assert words.findall(shown) == words.findall(published), "the numbers have changed"
    drawn = re.search(r"<(?!\?|!|svg)\w+[^>]*>", shown)[0]
    assert drawn == '<rect width="100%" height="100%" fill="white"/>', "behind all that follows"


def test_the_book_can_be_cited(documents):
    text = documents["book/bibliography.html"].find("article").get_text()
    about = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    title = re.search(r'^title: "(.+)"$', about, re.MULTILINE)[1]
    assert f"title = {{{title}}}" in text


def test_references_are_labelled_as_the_text_cites_them(documents):
    labels = {
        tag.get_text(" ", strip=True).strip("[] ")
        for tag in documents["book/bibliography.html"].select("div.citation .label")
    }
    cited = {
        tag.get_text()
        for path in PAGES
        for tag in documents[path].select("a.reference.internal span")
        if re.fullmatch(r".*[^\d\s], \d{4}", tag.get_text())
    }
    assert len(labels) > 5
    assert all(re.fullmatch(r"\D+, \d{4}", label) for label in labels)
    assert cited <= labels


def test_a_page_loads_with_no_error_and_no_request_that_leaves_the_site(read):
    assert read.page.locator(".stderr").all_inner_texts() == [], "a chapter warned"
    for image in read.page.locator("article img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("i => i.complete && i.naturalWidth > 0")
        assert len(image.get_attribute("alt")) > 30
    assert not read.wrong


# Equations and tables that are shown, as [what, by how much it is too wide, too high].
SIZES = """() => [...document.querySelectorAll(
    'article mjx-container[display="true"], article .pst-scrollable-table-container')]
  .filter(box => box.clientWidth)
  .map(box => [
    (box.closest('[id]') ?? box).id + ' ' + box.innerText.slice(0, 60),
    box.scrollWidth - box.clientWidth,
    box.scrollHeight - box.clientHeight,
    box.tabIndex, box.getAttribute('role') ?? '', box.getAttribute('aria-label') ?? ''])"""


def test_no_equation_is_cut_and_no_table_is_wider_than_its_column(read):
    for what, wide, high, *_ in read.at(DESK).evaluate(SIZES):
        assert wide <= 1, f"{what}: {wide} px too wide"
        assert high <= 0, f"{what}: {high} px too high"


def test_on_a_phone_wide_things_scroll_in_reach_of_the_keyboard_and_the_page_does_not(read):
    page = read.at(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    for what, wide, high, tab, role, name in page.evaluate(SIZES):
        assert high <= 0, f"{what}: {high} px too high"
        if wide > 1:
            assert "Equation" not in name, f"{what}: {wide} px too wide"
            assert (tab, role) == (0, "region"), what
            assert name, what
    read.at(DESK)
    assert not read.wrong


def found_by(axe, page, where, *rules):
    """What axe finds, without what is theirs: [rule, element, what is wrong]."""
    page.evaluate("source => { if (!window.axe) (0, eval)(source) }", axe)
    found = page.evaluate(
        """([where, rules]) => axe.run({
            include: where, // rows of a table are alike, and so is what MathJax draws
            exclude: ['tbody tr:nth-child(n+4)', 'mjx-container > *'],
        }, {
            resultTypes: ['violations'],
            ...(rules.length && { runOnly: { type: 'rule', values: rules } }),
        }).then(found => found.violations.flatMap(v =>
            v.nodes.map(n => [v.id, n.target.join(' '), n.failureSummary])))""",
        [where, list(rules)],
    )
    return [
        (rule, element, why)
        for rule, element, why in found
        if not any(part in element for part in THEIRS.get(rule, ()))
    ]


def test_axe_finds_nothing_of_ours_in_either_theme(read, axe):
    assert found_by(axe, read.page, "article") == []
    read.turn("dark")
    assert found_by(axe, read.page, "article", "color-contrast") == []
    read.turn("light")
    phone = found_by(axe, read.at(PHONE), "article", "scrollable-region-focusable")
    read.at(DESK)
    assert phone == []
    assert not read.wrong


def test_mathematics_is_rendered(visit):
    page = visit("book/setup.html")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() > 20
    assert page.locator("mjx-merror").count() == 0
    assert "$$" not in page.locator("article").inner_text()


def test_figures_and_equations_are_numbered(visit):
    page = visit("book/emergence.html")
    captions = page.locator("figcaption .caption-number").all_inner_texts()
    assert len(captions) >= 3
    assert len(set(captions)) == len(captions)
    assert page.locator("figure img").count() == len(captions)


def appears(page, name, **how):
    """Wait for what a search finds by its title: results come one by one."""
    page.locator("#search-results").get_by_role("link", name=name, **how).first.wait_for()


def test_the_search_finds_head(visit):
    appears(visit("search.html?q=head"), "heads")


def prose(path):
    cells = nbformat.read(path, as_version=4).cells
    return " ".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_the_search_finds_prose_and_not_the_code_that_pages_fold_away(visit, site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    places = {term: np.atleast_1d(found) for term, found in index["terms"].items()}
    setup = index["docnames"].index("book/setup")
    assert setup in places["jackknif"]
    notebooks = {
        i
        for i, name in enumerate(index["docnames"])
        if (path := ROOT / f"{name}.ipynb").exists() and "plot_" not in prose(path)
    }
    assert len(notebooks) > 20
    drawn = {i for term, found in places.items() if term.startswith("plot_") for i in found}
    assert not drawn & notebooks, "every chapter calls plot_… in its code"
    appears(visit("search.html?q=jackknife"), "Task, model and the collapse", exact=True)


def test_the_scorecard_has_every_verdict(visit):
    page = visit("book/intro.html")
    text = " ".join(page.locator("article .scorecard table").all_inner_texts())
    for claim in ("A2", "A3"):
        assert claim in text
    assert "reproduced" in text or "undecided" in text


def test_code_is_folded_and_opens(visit):
    page = visit("book/head-utilization.html")
    toggle = page.locator("details.hide summary").first
    hidden = page.locator("details.hide .highlight").first
    assert not hidden.is_visible()
    toggle.click()
    assert hidden.is_visible()


def test_figures_have_no_ground_and_turn_light_and_dark_around_in_the_dark(visit):
    page = visit("book/head-utilization.html", color_scheme="dark")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    image = page.locator("figure img").first
    style = image.evaluate("i => [getComputedStyle(i).backgroundColor, getComputedStyle(i).filter]")
    assert style == ["rgba(0, 0, 0, 0)", "invert(0.93) hue-rotate(180deg)"]


@pytest.mark.parametrize("name", [name for name in chapters(ROOT) if name in toc(ROOT)])
def test_a_download_is_the_clean_notebook_with_an_installation_on_top(site, documents, name):
    path = f"book/{name}.html"
    link = documents[path].select_one("a.btn-download-source-button")["href"]
    given = nbformat.read((site / path).parent / unquote(link), as_version=4).cells
    source = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4).cells
    assert "%pip install" in given[1].source
    assert [cell.source for cell in given[2:]] == [cell.source for cell in source]
    for cell in given:
        assert "injected-parameters" not in cell.metadata.get("tags", [])
        assert not cell.get("outputs")


def test_a_page_prints_whole_and_without_what_one_clicks(visit):
    page = visit("book/head-utilization.html")
    page.emulate_media(media="print")
    for hidden in (
        ".bd-sidebar-primary",
        ".bd-header-article",
        ".tag_hide-input details.hide",
        ".prev-next-footer",
    ):
        assert not page.locator(hidden).first.is_visible(), hidden
    assert page.locator("h1:visible").count() == 1
    assert page.locator("figure img").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_page_of_what_is_missing_leads_home_and_searches(visit):
    page = visit("404.html")
    page.get_by_role("searchbox").fill("heads")
    page.get_by_role("button").click()
    page.wait_for_selector("#search-results li a")


def test_the_first_column_stays_and_a_shadow_says_that_a_table_scrolls(visit):
    page = visit("book/one-step-gd.html", width=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    page.wait_for_selector("[data-more]")
    wide = page.locator(".pst-scrollable-table-container[role=region]").first
    cell = wide.locator("tbody tr td").first
    before = cell.bounding_box()["x"]
    wide.focus()
    wide.evaluate("box => { box.scrollLeft = box.scrollWidth }")
    page.wait_for_function("!document.activeElement.hasAttribute('data-more')")
    assert cell.bounding_box()["x"] == pytest.approx(before, abs=1)
    background = cell.evaluate("c => getComputedStyle(c).backgroundColor")
    assert background not in ("transparent", "rgba(0, 0, 0, 0)"), "other columns show through"


def test_axe_finds_nothing_of_ours_around_a_page(visit, axe):
    assert found_by(axe, visit("book/setup.html"), "html") == []
