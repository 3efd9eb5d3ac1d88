"""The site: executes the chapters that changed, then builds what the reader sees."""

import contextlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import yaml

from icl.errors import Failed, require
from icl.experiments import TEMPLATE
from icl.site import downloads, generated, widgets
from icl.site.chapters import Job, chapters, execute_all, toc
from icl.site.digests import digest

# jupyter-book's own redirect names no icon, and browsers then ask for one that is not there.
FRONT_DOOR = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>How Transformers Use Their Heads In Context</title>
<link rel="icon" href="_static/favicon.svg">
<meta http-equiv="refresh" content="0; url=book/intro.html">
<a href="book/intro.html">How Transformers Use Their Heads In Context</a>
</html>
"""
DOWNLOADS = "downloads"  # in the stage, notebooks as the site offers them


def build(folder: Path, say: Callable[[str], None] = print) -> Path:
    """Execute what changed, build the site, and swap it into _build/html when it is whole.

    Returns the page to open. Raises `Failed` and leaves the last good site untouched.
    """
    work = folder / "_build"
    executed = _execute_changed(folder, work / "executed", say)
    site, index = work / "html", work / "html" / "index.html"
    stage = _stage(folder, work / "stage", executed)
    mark = digest(sorted(p for p in stage.rglob("*") if p.is_file()))
    stamp = site / ".digest"
    if index.exists() and stamp.exists() and stamp.read_text() == mark:
        say("nothing changed")
        return index
    say("building the site ...")
    _jupyter_book(stage, work / "next")
    whole = work / "next" / "_build" / "html"
    (whole / "index.html").write_text(FRONT_DOOR, encoding="utf-8")
    # The theme's button links to these copies of what Sphinx read, which are executed notebooks.
    shutil.copytree(stage / DOWNLOADS, whole / "_sources" / "book", dirs_exist_ok=True)
    (whole / stamp.name).write_text(mark)
    shutil.rmtree(work / "previous", ignore_errors=True)
    if site.exists():
        site.rename(work / "previous")
    whole.rename(site)
    for left in ("previous", "next"):
        shutil.rmtree(work / left, ignore_errors=True)
    return index


def _execute_changed(folder: Path, done: Path, say: Callable) -> dict[str, Path]:
    """Execute the chapters whose digest differs from their last execution's."""
    listed = toc(folder)
    found = {
        name: it for name, it in chapters(folder).items() if name in listed or name != TEMPLATE
    }
    for name in found:
        require(name in listed, f"book/{name}.ipynb is not in _toc.yml: add it there, or remove it")
    for name in listed:
        pages_there = [folder / "book" / f"{name}.{kind}" for kind in ("ipynb", "md")]
        require(any(p.exists() for p in pages_there), f"_toc.yml lists book/{name}: no such page")
    files = {name: done / f"{name}.ipynb" for name in found}
    execute_all([Job(chapter, files[name]) for name, chapter in found.items()], say)
    return files


def _stage(folder: Path, stage: Path, executed: dict[str, Path]) -> Path:
    """Lay out what jupyter-book reads: sources, executed chapters and generated tables."""
    shutil.rmtree(stage, ignore_errors=True)
    skip = shutil.ignore_patterns("*.ipynb", ".*")
    shutil.copytree(folder / "book", stage / "book", ignore=skip)
    shutil.copy(folder / "_toc.yml", stage)
    address = repository(folder)
    for name, path in executed.items():
        page = f"{name}.ipynb"
        shutil.copy(path, stage / "book" / page)
        downloads.write(folder / "book" / page, stage / DOWNLOADS / page, address)
    config = yaml.safe_load((folder / "_config.yml").read_text(encoding="utf-8"))
    if address:
        config["repository"] = {"url": address, "branch": "main"}
        config["launch_buttons"] = {"binderhub_url": "https://mybinder.org"}
        config["html"] |= {"use_repository_button": True, "use_issues_button": True}
    (stage / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    widgets.write(stage / "book")
    generated.write(folder, stage / "book", executed)
    return stage


def repository(folder: Path) -> str | None:
    """The project's web address, from ICL_REPOSITORY or the git remote, if there is one."""
    address = os.environ.get("ICL_REPOSITORY", "")
    if not address:
        ask = ["git", "-C", str(folder), "remote", "get-url", "origin"]
        with contextlib.suppress(OSError):
            address = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    address = re.sub(r"^git@([^:]+):", r"https://\1/", address.strip()).removesuffix(".git")
    known = r"https://(github\.com|gitlab\.com)/[\w.-]+/[\w.-]+"  # hosts the theme can link to
    return address if re.fullmatch(known, address) else None


def _jupyter_book(stage: Path, out: Path) -> None:
    """Run jupyter-book, nitpicky and with warnings as errors; only its complaints are shown."""
    shutil.rmtree(out, ignore_errors=True)
    program = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    command = [program, "build", stage, "--path-output", out, "-n", "-W", "--keep-going", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        complaints = [s for s in plain.splitlines() if "WARNING" in s or "ERROR" in s]
        raise Failed("\n".join(["the site was not built:", *(complaints or [plain[-2000:]])]))
