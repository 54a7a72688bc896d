"""Notebooks: their committed outputs are what they print when they are run again.

A file of its own, so that nbval may run beside papermill (test_notebooks.py).
"""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
NBVAL = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=300", "-q"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbval_confirms_the_committed_outputs(notebook):
    done = subprocess.run([*NBVAL, notebook], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_nbval_refuses_a_planted_wrong_output(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(6 * 7)")],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="41\n")]
    notebook.cells[0].execution_count = 1
    nbformat.write(notebook, tmp_path / "planted.ipynb")
    command = [*NBVAL, tmp_path / "planted.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "42" in done.stdout
