import os
import shutil
import sys

import pytest
import torch
from hypothesis import settings

from icl import cli
from icl.architecture import Architecture
from icl.tasks import SparseLinear
from icl.transformer import build

# One property per test: the number of examples, not the clock, bounds the search.
settings.register_profile("icl", max_examples=20, deadline=None, derandomize=True)
settings.load_profile("icl")
torch.set_num_threads(1)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What takes longest begins first, or one process would be left with it at the end.
LONG = ("site", "checkpoints", "chapters", "unwritable", "cli", "fork", "cluster", "training")


def pytest_collection_modifyitems(items):
    files = [f"test_{name}" for name in LONG]
    items.sort(key=lambda item: [*files, item.path.stem].index(item.path.stem))


@pytest.fixture(scope="module")
def browser():
    """A browser; tests of pages are skipped without, but where ICL_REQUIRE_BROWSER is set."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        (pytest.fail if os.environ.get("ICL_REQUIRE_BROWSER") else pytest.skip)(
            "chromium is not on the PATH"
        )
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", *quiet]
        )
        yield running
        running.close()


@pytest.fixture
def task():
    """A small task with a full covariance, so that a missing Σ shows."""
    sigma = (
        (1.0, 0.5, 0.2, 0.0),
        (0.5, 2.0, -0.3, 0.1),
        (0.2, -0.3, 0.7, 0.0),
        (0.0, 0.1, 0.0, 1.5),
    )
    return SparseLinear(d=4, s=2, n=9, noise=0.7, values="gaussian", covariance=sigma)


@pytest.fixture
def model():
    """Two small models with unequal head counts, float64."""
    config = Architecture(d=4, heads=(3, 1, 2), d_head=3, d_model=7)
    return build(config, 2).initialise((5, 6), 1.0).double()


@pytest.fixture
def icl(monkeypatch, capsys):
    """Run `icl ARGUMENTS`; returns exit status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["icl", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return run
