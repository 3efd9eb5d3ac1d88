"""What stands around the pages: addresses, dates, descriptions, and the files beside the book."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from docutils import nodes
from docutils.utils import new_document

from icl.errors import Refused
from icl.site import build, front
from icl.site.hooks import LONGEST, description

ROOT = Path(__file__).parent.parent


def test_a_site_whose_address_is_known_has_a_map_and_says_where_its_pages_are(tmp_path):
    front.write(tmp_path, ["intro", "one"], "https://host.example/book/")
    found = re.findall(r"<loc>(.*?)</loc>", (tmp_path / "sitemap.xml").read_text())
    assert found == [f"https://host.example/book/book/{name}.html" for name in ("intro", "one")]
    assert 'href="https://host.example/book/"' in (tmp_path / "404.html").read_text()
    front.write(tmp_path, ["intro"], None)
    assert 'href="/"' in (tmp_path / "404.html").read_text()


def test_the_address_of_the_site_is_the_one_that_is_set(monkeypatch):
    monkeypatch.delenv("ICL_SITE", raising=False)
    assert build.address() is None
    for given in ("https://host.example/book", "https://host.example/book/"):
        monkeypatch.setenv("ICL_SITE", given)
        assert build.address() == "https://host.example/book/"
    monkeypatch.setenv("ICL_SITE", "book.html")
    with pytest.raises(Refused, match=r"ICL_SITE=book\.html: allowed is"):
        build.address()


def test_the_last_update_is_the_last_commit_s_day(tmp_path, monkeypatch):
    monkeypatch.delenv("ICL_SITE", raising=False)
    shutil.copy(ROOT / "_config.yml", tmp_path)
    assert "html_last_updated_fmt" not in build._configuration(tmp_path)["sphinx"]["config"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    me = ["-c", "user.name=someone", "-c", "user.email=someone@host.example"]
    commit = ["commit", "-q", "--allow-empty", "-m", "x", "--date", "2001-02-03T12:00:00Z"]
    dated = os.environ | {"GIT_COMMITTER_DATE": "2001-02-03T12:00:00Z"}
    subprocess.run(["git", "-C", tmp_path, *me, *commit], check=True, env=dated)
    config = build._configuration(tmp_path)["sphinx"]["config"]
    assert config["html_last_updated_fmt"] == "2001-02-03"


def test_a_page_is_described_by_its_first_sentences():
    def page(text):
        root = new_document("page")
        root += [nodes.title("", "Title"), nodes.paragraph("", text), nodes.paragraph("", "More.")]
        return root

    assert description(page("Two  heads\nare better.")) == "Two heads are better."
    first = "Is one head of a later layer all that is needed, once it is trained to the end?"
    assert description(page(first + " As Lee et al. say " + "word " * 60)) == first
    assert description(page("No. As Lee et al. say " + "word " * 60)).startswith("No. As Lee")
    long = description(page("word " * 60))
    assert long.endswith("word …")
    assert len(long) <= LONGEST + 2
