"""Notebooks: paired, executed by papermill, free of other people's recordings."""

import ast
import base64
import importlib
import inspect
import io
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import soundfile
from PIL import Image
from run_notebooks import execute, solutions

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_keeps_the_rules(source):
    """It is paired with its source; its first cells import nothing but the front door."""
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    paired = jupytext.read(source).cells
    for key in ("cell_type", "source"):
        assert [c[key] for c in notebook.cells] == [c[key] for c in paired]
    tags = [[c.metadata.get("tags", []) for c in cells] for cells in (notebook.cells, paired)]
    assert tags[0] == tags[1]
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert notebook.cells.index(tagged[0]) == 1
    for name in ("profile", "seed", "data_dir"):
        assert re.search(rf"^{name} = ", tagged[0].source, re.MULTILINE)
    assert source.with_suffix(".ipynb").stat().st_size < 1_500_000
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code if c.source)
    for cell in code:
        assert not re.search(r"^class ", cell.source, re.MULTILINE)
        for body in re.findall(r"^def .*\n((?: {4}.*\n?|\n)+)", cell.source, re.MULTILINE):
            assert len(body.strip().splitlines()) <= 5
        assert not any(output.get("name") == "stderr" for output in cell.outputs)
        assert not any(output.output_type == "error" for output in cell.outputs)
    head, rest = ("\n".join(c.source for c in part) for part in (code[:2], code[2:]))
    assert re.findall(r"^.*import .*qbhkit.*|^from qbhkit.*", head, re.M) == ["import qbhkit"]
    assert re.search(r"\bqbhkit\.[a-zA-Z]\w+\(|^from qbhkit\.", rest, re.MULTILINE)


def text_of(source):
    """All prose of a notebook."""
    return "\n\n".join(c.source for c in jupytext.read(source).cells if c.cell_type == "markdown")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_teaches(source):
    """Three aims, two or three exercises with a solution each, what to remember, a way on."""
    text = text_of(source)
    aims = text.split("What you will learn:\n")[1].split("\n\n")[0]
    assert re.findall(r"^(\d)\. ", aims, re.MULTILINE) == ["1", "2", "3"]
    asked, folded = text.split("## Exercises\n")[1].split("</details>")[0].split("<details>")
    count = len(re.findall(r"^\d\. ", asked, re.MULTILINE))
    assert 2 <= count <= 3
    assert len(re.findall(r"^\d\. ", folded, re.MULTILINE)) == count
    assert len(solutions("<details>" + folded)) == count
    closing = text.split("## What to remember\n")[1]
    assert re.search(r"(Next|Back)\b.*: ?\[|Back to \[", closing)
    assert all((source.parent / link).is_file() for link in re.findall(r"\]\((\w+\.ipynb)\)", text))


def listed(source):
    """The library objects that a notebook names at its end, each with the file it links to."""
    closing = text_of(source).split("Library functions used")[1]
    for name, link in re.findall(r"\[`(qbhkit[\w.]+)`\]\((\S+?)\)", closing):
        module, attribute = name.rsplit(".", 1)
        yield getattr(importlib.import_module(module), attribute), source.parent / link


def test_notebooks_and_docstrings_link_to_each_other():
    there, back = defaultdict(set), defaultdict(set)
    for source in SOURCES:
        for thing, link in listed(source):
            assert Path(inspect.getsourcefile(thing)).samefile(link)
            there[f"{thing.__module__}.{thing.__qualname__}"].add(source.name)
    for path in (ROOT / "qbhkit").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):  # methods: their class is listed
                named = re.findall(r"notebooks/(\w+\.py)", ast.get_docstring(node) or "")
                back[f"{module}.{node.name}"].update(named)
    assert there == {name: found for name, found in back.items() if found}


def sounds(notebook):
    """The samples of all sound in the outputs of a notebook, in order."""
    outputs = json.dumps([c.get("outputs") for c in notebook.cells])
    found = re.findall(r"data:audio/[^;]+;base64,([A-Za-z0-9+/=]+)", outputs)
    return [soundfile.read(io.BytesIO(base64.b64decode(sound)))[0] for sound in found]


@pytest.mark.parametrize("source", SOURCES[:-1], ids=lambda path: path.stem)
def test_papermill_executes_the_notebook_and_its_solutions(source, tmp_path, monkeypatch):
    """And its sounds are the committed ones, although no recording of others is at hand here."""
    monkeypatch.setenv("QBHKIT_DATA", str(tmp_path / "no corpora"))
    assert execute(source, tmp_path, {"profile": "tiny"}, solve=True) is None
    executed = nbformat.read(tmp_path / f"{source.stem}.ipynb", as_version=4)
    assert any("injected-parameters" in c.metadata.get("tags", []) for c in executed.cells)
    assert (tmp_path / f"{source.stem}.html").stat().st_size > 10_000
    committed = sounds(nbformat.read(source.with_suffix(".ipynb"), as_version=4))
    rendered = sounds(executed)  # those of the solutions too
    for kept in committed:
        alike = [made for made in rendered if made.shape == kept.shape]
        assert max(np.corrcoef(kept, made)[0, 1] for made in alike) > 0.95


def drawn(path):
    """What an SVG shows: coordinates of lines and points, words, and pictures within."""
    text = path.read_text("utf-8")
    words = re.findall(r"<!-- (.*?) -->", text)
    pictures = re.findall(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)", text)
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p))), float) for p in pictures]
    text = re.sub(r'<g id="text_.*?</g>|<defs>.*?</defs>', "", text, flags=re.DOTALL)
    shapes = re.findall(r' d="([^"]*)"', text)
    shapes += [" ".join(xy) for xy in re.findall(r'<use [^>]*x="(\S+)" y="(\S+)"', text)]
    numbers = [float(n) for shape in shapes for n in re.findall(r"-?[\d.]+", shape)]
    return words, numbers, pixels


def test_notebook_12_draws_the_committed_figures_from_the_recorded_numbers(tmp_path):
    source = SOURCES[-1]
    parameters = {"profile": "tiny", "figures_dir": str(tmp_path / "figures")}
    assert execute(source, tmp_path, parameters, solve=True) is None
    kept = sorted((ROOT / "figures").glob("*.svg"))
    assert [path.name for path in kept] == sorted(p.name for p in tmp_path.glob("figures/*.svg"))
    for path in kept:
        words, numbers, pixels = drawn(path)
        new_words, new_numbers, new_pixels = drawn(tmp_path / "figures" / path.name)
        assert new_words == words, path.name
        assert len(numbers) > 20
        np.testing.assert_allclose(new_numbers, numbers, atol=0.5, err_msg=path.name)
        for new, old in zip(new_pixels, pixels, strict=True):
            assert np.abs(new - old).mean() < 1, path.name
        alpha = Image.open(path.with_suffix(".png")).convert("RGBA").getchannel("A")
        assert alpha.getextrema() == (255, 255)  # white paper, for light and dark pages


def test_one_table_is_made_of_the_runs_over_several_catalogues(tmp_path):
    from compare_catalogues import CATALOGUES, compare

    assert len(CATALOGUES) == 3
    table = compare(["miscFolk", "oneills1850"], tmp_path, hum_count=3)
    found = table.reset_index()
    assert list(found["hums"].unique()) == [3]
    assert found["songs"].nunique() == 2
    assert set(found["method"]) == {"full", "vote", "linear-scaling", "dtw"}
    assert found.loc[found["method"] == "full", "top10"].min() > 0.6
    assert (tmp_path / "table.csv").is_file()


def test_a_failing_notebook_names_its_cell(tmp_path):
    source = tmp_path / "99_bad.py"
    source.write_text("# %% tags=['parameters']\nprofile = 'tiny'\n\n# %%\n1 / 0\n")
    failure = execute(source, tmp_path / "out", {"profile": "tiny"})
    assert re.match(r"99_bad\.py, cell \d+: ZeroDivisionError: division by zero", failure)
