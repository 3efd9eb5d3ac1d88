"""Generated text says what was computed, with the right sign and in the right place."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from icl import files, tables
from icl.checkpoints import Checkpoint
from icl.configuration import Configuration
from icl.experiments import practical_recipes
from icl.experiments.models import PRACTICAL
from icl.files import catalogue
from icl.intervals import over_seeds
from icl.site import pages
from icl.transformer import build

ROOT = Path(__file__).parent.parent


def cells(text):
    """Rows of a Markdown table without its header, as lists of cells."""
    lines = [line.removeprefix("| ").removesuffix(" |") for line in text.splitlines()[2:]]
    rows = [line.split(" | ") for line in lines]
    return [[cell.strip().replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows]


def rows_by_file(text):
    """A row per model, as a dict by column, by the name of its file."""
    header = [name.strip() for name in text.splitlines()[0].strip("|").split("|")]
    rows = [dict(zip(header, row, strict=True)) for row in cells(text)]
    return {row["file"].strip("`"): row for row in rows}


@pytest.fixture(scope="module")
def shipped():
    return pages.shipped()


def settings_of(text):
    """Every setting of every model, by the name of its file, from what is usual and what is not."""
    usual, unlike = text.split("\n\n")
    usual = {name.strip("`"): value for name, value, _ in cells(usual)}
    rows = rows_by_file(unlike)
    return {
        name: usual | dict(re.findall(r"`(.+?)` ([^`]*?)(?:; |$)", row["not as usual"]))
        for name, row in rows.items()
    }


def test_grids_leave_gaps_where_a_row_has_no_such_column():
    one = over_seeds(torch.tensor([1.0, 1.0]))
    keys = [{"n": "16", "label": "a"}, {"n": "32", "label": "b"}, {"n": "32", "label": "a"}]
    text = tables.grid(pd.DataFrame([key | vars(one) for key in keys]), "n", "label")
    assert text.splitlines()[0] == "| n | a | b |"
    assert text.splitlines()[2] == f"| 16 | {one} |  |"
    assert text.splitlines()[3] == f"| 32 | {one} | {one} |"


def test_intervals_break_only_in_tables_that_a_page_has_no_room_for():
    one = over_seeds(torch.tensor([1.0, 1.5]))
    narrow, wide = (tables.table(["a"] * n, [[one] * n, ["b"] * n]) for n in (5, 6))
    assert narrow.count("[−1.927,\N{NO-BREAK SPACE}4.427]") == 5
    assert wide.count("[−1.927, 4.427]") == 6
    assert tables.table(["a", "b" * 80], [[one] * 2]).count("\N{NO-BREAK SPACE}") == 0


def test_settings_are_those_of_every_model_that_ships(shipped):
    text = pages.settings(shipped)
    found = settings_of(text)
    assert sorted(found) == catalogue()
    listed = rows_by_file(text.split("\n\n")[1])
    for name, model in shipped.items():
        config, settings = model.config, found[name]
        assert listed[name]["model"] == config.label
        assert listed[name]["configuration"] == f"`{config.hash}`"
        for part in (config.task, config.architecture, config.recipe):
            for key, value in vars(part).items():
                if value != ():
                    assert settings[key] == str(value).strip("()").rstrip(","), (name, key)
    assert found["workhorse-3"]["lengths"] == "the task's n"
    assert found["softmax-norm"]["lengths"] == "16, 48"


def test_settings_call_usual_what_most_models_have_and_list_all_else(tmp_path, monkeypatch):
    """Three models, of which one has another attention and an MLP."""
    monkeypatch.setattr(files, "TRAINED", tmp_path)
    first = Configuration()
    other = replace(first, architecture=replace(first.architecture, attention="softmax", mlp=True))
    for name, config in {"first": first, "second": first, "third": other}.items():
        found = {
            "first_losses": torch.ones(20, 1),
            "curve": torch.ones(config.recipe.steps // 100, 1),
            "risks": torch.ones(1).double(),
        }
        model = build(config.architecture).initialise((0,), 1.0)
        made = Checkpoint(name, model, config, (0,), **found, seconds=1.0, versions={})
        files.save(made, tmp_path / f"{name}.safetensors.xz")
    usual, unlike = pages.settings(pages.shipped()).split("\n\n")
    usual = {name: rest for name, *rest in cells(usual)}
    assert usual["`norm`"] == ["False", ""]
    assert usual["`mlp`"] == ["False", "True"]
    assert usual["`attention`"] == ["linear", "softmax"]
    assert usual["`loss`"] == ["closed form", "mean over 16 queries"]
    rows = {name: row["not as usual"] for name, row in rows_by_file(unlike).items()}
    expected = "`attention` softmax; `mlp` True; `loss` mean over 16 queries"
    assert rows == {"first": "", "second": "", "third": expected}


def test_settings_of_other_kinds_of_models_are_theirs_alone(shipped):
    found = settings_of(pages.settings(shipped))
    assert found["response-sine"]["family"] == "sine"
    assert (found["response-sine"]["s"], found["workhorse-3"]["family"]) == ("none", "none")
    losses = {name for name, row in found.items() if "closed form" not in row["loss"]}
    assert losses == {"softmax-1", "softmax-2", *PRACTICAL, *practical_recipes.PLANS}
    assert found["workhorse-3"]["start"] == "drawn weights"
    assert found["flagship-pruned"]["start"] == "8-8-8 heads, d = 16, pruned by importance"
    assert found["split-844-0"]["start"] == "an algorithm by hand, its steps split over heads"
    assert found["two-layers-written"]["start"] == "two layers by hand, in eleven numbers"
    assert found["flagship-pruned-random"]["start"] == "8-8-8 heads, d = 16, pruned at random"


def test_seeds_that_follow_each_other_are_a_range():
    seeds = [(0, 1, 2, 3), tuple(range(5, 20)), (0, 2, 5), (3, 4), (7,)]
    assert [*map(pages._seeds, seeds)] == ["0 to 3", "5 to 19", "0, 2, 5", "3, 4", "7"]


def test_a_citation_has_what_the_citation_file_has_and_an_address_only_if_it_is_known():
    file = ROOT / "CITATION.cff"
    unknown, known = (pages.citation(file, at) for at in (None, "https://host.example/book"))
    year = re.search(r"date-released: (\d{4})", file.read_text())[1]
    assert unknown.splitlines()[:2] == ["```bibtex", f"@software{{icl{year},"]
    assert "author = {{The icl authors}}" in unknown
    assert "url" not in unknown
    assert "url = {https://host.example/book}" in known
    assert all(text.count("{") == text.count("}") for text in (unknown, known))


def test_models_and_runs_are_listed_whole(shipped):
    total, listed = pages.models(shipped).split("\n\n")
    rows = rows_by_file(listed)
    assert sorted(rows) == catalogue()
    assert all(row["model"] == shipped[name].label for name, row in rows.items())
    hours = sum(m.seconds for name, m in shipped.items() if not name.endswith("-watched")) / 3600
    assert f"{hours:.1f} hours" in total
    about = {"seconds": 3.4, "when": "today", "parameters": {"x": 1}}
    ((name, seconds, when, parameters),) = cells(pages.runs({"c": about}))
    assert (name, seconds, when, parameters) == ("[c](c)", "3 s", "today", "`x=1`")


def test_versions_are_those_that_run():
    assert ["torch", torch.__version__] in cells(pages.versions())
    assert ["pandas", pd.__version__] in cells(pages.versions())
