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
from filelock import FileLock, Timeout

from icl.errors import Failed, Refused, require
from icl.experiments import TEMPLATE
from icl.site import downloads, front, generated, widgets
from icl.site.chapters import Job, chapters, execute_all, toc
from icl.site.digests import digest

DOWNLOADS = "downloads"  # in the stage, notebooks as the site offers them


def build(folder: Path, say: Callable[[str], None] = print) -> Path:
    """Execute what changed, build the site, and swap it into _build/html when it is whole.

    Returns the page to open. Raises `Failed` and leaves the last good site untouched. Builds of one
    book take turns.
    """
    work = folder / "_build"
    work.mkdir(exist_ok=True)
    lock = FileLock(work / ".lock")
    try:
        turn = lock.acquire(blocking=False)
    except Timeout:
        say("another build is running; waiting for its end ...")
        turn = lock.acquire()
    with turn:
        if (work / "previous").exists() and not (work / "html").exists():
            (work / "previous").rename(work / "html")  # killed as it swapped them
        return _built(folder, work, say)


def _built(folder: Path, work: Path, say: Callable[[str], None]) -> Path:
    executed = _execute_changed(folder, work / "executed", say)
    site, index = work / "html", work / "html" / "index.html"
    stage = _stage(folder, work / "stage", executed)
    read = [*stage.rglob("*"), *Path(__file__).parent.glob("*.py")]
    mark = digest(sorted(p for p in read if p.is_file()))
    stamp = site / ".digest"
    if index.exists() and stamp.exists() and stamp.read_text() == mark:
        say("nothing changed")
        return index
    say("building the site ...")
    _jupyter_book(stage, work / "next")
    whole = work / "next" / "_build" / "html"
    # The theme's button links to these copies of what Sphinx read, which are executed notebooks.
    (stage / DOWNLOADS).mkdir(exist_ok=True)  # a book may have no notebook
    shutil.copytree(stage / DOWNLOADS, whole / "_sources" / "book", dirs_exist_ok=True)
    front.write(whole, toc(folder), address())
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
    _configuration(folder)  # what is wrong with it is told before chapters take minutes
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
    project = repository(folder)
    for name, path in executed.items():
        page = f"{name}.ipynb"
        shutil.copy(path, stage / "book" / page)
        downloads.write(folder / "book" / page, stage / DOWNLOADS / page, project)
    (stage / "_config.yml").write_text(yaml.safe_dump(_configuration(folder)), encoding="utf-8")
    widgets.write(stage / "book")
    generated.write(folder, stage / "book", executed, project)
    return stage


def _configuration(folder: Path) -> dict:
    """Jupyter Book's settings, with what is known of the book's addresses and its age."""
    try:
        config = yaml.safe_load((folder / "_config.yml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Refused(f"_config.yml: {' '.join(str(error).split())}") from None
    for part in ("html", "sphinx"):
        good = isinstance(config, dict) and isinstance(config.get(part), dict)
        require(good, f"_config.yml: {part} is missing, or has no settings")
    if project := repository(folder):
        config["repository"] = {"url": project, "branch": "main"}
        config["launch_buttons"] = {"binderhub_url": "https://mybinder.org"}
        buttons = ("repository", "issues", "edit_page")
        config["html"] |= {f"use_{name}_button": True for name in buttons}
    day = _git(folder, "log", "-1", "--format=%cs")
    known = {"html_baseurl": address(), "html_last_updated_fmt": day}
    settings = config["sphinx"].setdefault("config", {})
    settings |= {name: text for name, text in known.items() if text}
    return config


def repository(folder: Path) -> str | None:
    """The project's web address, from ICL_REPOSITORY or the git remote, if there is one."""
    found = os.environ.get("ICL_REPOSITORY") or _git(folder, "remote", "get-url", "origin")
    found = re.sub(r"^git@([^:]+):", r"https://\1/", found).removesuffix(".git")
    known = r"https://(github\.com|gitlab\.com)/[\w.-]+/[\w.-]+"  # hosts the theme can link to
    return found if re.fullmatch(known, found) else None


def address() -> str | None:
    """Where the site is published, from ICL_SITE, ending in a slash; None if that is not set."""
    found = os.environ.get("ICL_SITE", "").strip()
    good = re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", found)
    require(not found or good, f"ICL_SITE={found}: allowed is an address like https://host/path/")
    return found.removesuffix("/") + "/" if found else None


def _git(folder: Path, *question: str) -> str:
    """What git answers about a folder; nothing where there is no git, or no answer."""
    with contextlib.suppress(OSError):
        ask = ["git", "-C", str(folder), *question]
        return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    return ""


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
