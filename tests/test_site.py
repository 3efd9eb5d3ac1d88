"""The built site in a real browser, from a server that has nothing but the site."""

import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin

import nbformat
import pytest

from icl.site import build
from icl.site.chapters import chapters, toc

ROOT = Path(__file__).parent.parent
PAGES = [f"book/{name}.html" for name in toc(ROOT)]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

if not CHROMIUM and os.environ.get("ICL_REQUIRE_BROWSER"):
    raise RuntimeError("ICL_REQUIRE_BROWSER is set, and there is no chromium on the PATH")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not on the PATH")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """The site as it is now, built where needed, on a server of its own."""
    index = build.build(ROOT, lambda _: None)
    handler = functools.partial(Quiet, directory=str(index.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *quiet]
        )
        yield running
        running.close()


@pytest.fixture
def visit(browser, address):
    """Open a page; at the end nothing may have gone wrong or left the site."""
    wrong, pages = [], []

    def open_page(path, width=1100, **settings):
        page = browser.new_page(viewport={"width": width, "height": 800}, **settings)
        page.on("console", lambda m: m.type == "error" and wrong.append(f"console: {m.text}"))
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((address, "data:", "blob:"))
                or wrong.append(f"left the site: {request.url}")
            ),
        )
        page.on(
            "response",
            lambda response: (
                response.ok
                or response.status == 304
                or wrong.append(f"{response.status}: {response.url}")
            ),
        )
        page.goto(f"{address}/{path}", wait_until="networkidle")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong


@pytest.mark.parametrize("path", ["index.html", *PAGES])
def test_a_page_loads_with_no_error_and_no_request_that_leaves_the_site(visit, path):
    page = visit(path)
    assert page.title()
    assert page.locator(".stderr").all_inner_texts() == [], "a chapter warned"
    for image in page.locator("article img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("i => i.complete && i.naturalWidth > 0")
        assert len(image.get_attribute("alt")) > 30


@pytest.mark.parametrize("path", PAGES)
def test_no_page_scrolls_sideways_on_a_phone(visit, path):
    page = visit(path, width=375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


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


def test_the_search_finds_head(visit):
    page = visit("search.html?q=head")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("heads" in title.lower() for title in found)


def test_the_scorecard_has_every_verdict(visit):
    page = visit("book/intro.html")
    text = page.locator("article table").inner_text()
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
def test_a_download_is_the_clean_notebook_with_an_installation_on_top(visit, name):
    page = visit(f"book/{name}.html")
    link = page.locator("a.btn-download-source-button").first.get_attribute("href")
    response = page.request.get(urljoin(page.url, link))
    given = nbformat.reads(response.text(), as_version=4).cells
    source = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4).cells
    assert "%pip install" in given[1].source
    assert [cell.source for cell in given[2:]] == [cell.source for cell in source]
    for cell in given:
        assert "injected-parameters" not in cell.metadata.get("tags", [])
        assert not cell.get("outputs")
