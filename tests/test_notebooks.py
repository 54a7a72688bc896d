"""Notebooks: paired, executed by papermill, checked by nbval, free of other people's recordings."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from run_notebooks import execute

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
NBVAL = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=300", "-q"]


def names(path):
    return path.stem


@pytest.mark.parametrize("source", SOURCES, ids=names)
def test_the_notebook_is_paired_with_its_source(source):
    wanted = jupytext.read(source).cells
    have = nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells
    assert [(c.cell_type, c.source) for c in have] == [(c.cell_type, c.source) for c in wanted]
    assert [c.metadata.get("tags", []) for c in have] == [
        c.metadata.get("tags", []) for c in wanted
    ]


@pytest.mark.parametrize("source", SOURCES, ids=names)
def test_the_notebook_keeps_the_rules(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
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


@pytest.mark.parametrize("source", SOURCES, ids=names)
def test_committed_outputs_hold_no_recording_of_others(source):
    """Outputs come from a run without the corpora, and name no path of a machine."""
    text = source.with_suffix(".ipynb").read_text("utf-8")
    outputs = json.dumps([c.get("outputs") for c in json.loads(text)["cells"]])
    assert not re.search(r"/(?:work|home|tmp|root|Users)/\w", outputs)
    reaches_corpora = "default_data_dir" in source.read_text("utf-8")
    if "data:audio" in outputs and reaches_corpora:  # all sound was rendered by the kit
        assert "No real recordings here" in outputs


@pytest.mark.parametrize("source", SOURCES, ids=names)
def test_papermill_executes_the_notebook(source, tmp_path):
    assert execute(source, tmp_path, {"profile": "tiny"}) is None
    executed = nbformat.read(tmp_path / f"{source.stem}.ipynb", as_version=4)
    assert any("injected-parameters" in c.metadata.get("tags", []) for c in executed.cells)
    assert (tmp_path / f"{source.stem}.html").stat().st_size > 10_000


def test_a_failing_notebook_names_its_cell(tmp_path):
    source = tmp_path / "99_bad.py"
    source.write_text("# %% tags=['parameters']\nprofile = 'tiny'\n\n# %%\n1 / 0\n")
    failure = execute(source, tmp_path / "out", {"profile": "tiny"})
    assert re.match(r"99_bad\.py, cell \d+: ZeroDivisionError: division by zero", failure)


@pytest.mark.parametrize("source", SOURCES, ids=names)
def test_nbval_confirms_the_committed_outputs(source):
    done = subprocess.run(
        [*NBVAL, source.with_suffix(".ipynb")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_nbval_refuses_a_planted_wrong_output(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(6 * 7)")],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    codes = []
    for printed in ("42\n", "41\n"):
        output = nbformat.v4.new_output("stream", name="stdout", text=printed)
        notebook.cells[0].outputs = [output]
        notebook.cells[0].execution_count = 1
        path = tmp_path / "planted.ipynb"
        nbformat.write(notebook, path)
        done = subprocess.run([*NBVAL, path], cwd=tmp_path, capture_output=True, check=False)
        codes.append(done.returncode)
    assert codes == [0, 1]
