"""Execute notebooks by papermill, from their py:percent sources.

A failing notebook names its cell and does not stop the others. Each run leaves the executed copy,
an HTML page and the environment with timings (``run.json``) in the output folder.

``--solve`` also runs the folded solutions of the exercises.
``--commit`` also rewrites the paired ``.ipynb`` beside the source with its fresh outputs.
``--if-changed`` skips a notebook whose source, package and weights are those of its last good run.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import textwrap
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from nbconvert import HTMLExporter

import qbhkit
from qbhkit.storage import asset, write_json

PACKAGES = ("qbhkit", "torch", "numpy", "librosa", "pandas", "matplotlib", "papermill", "jupytext")
# What papermill and jupyter write into cells and what differs from run to run.
VOLATILE = ("papermill", "execution")


def environment() -> dict[str, Any]:
    """Return OS, Python, packages and git revision of this run."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "git": done.stdout.strip() or "none",
    }


def fingerprint(source: Path) -> str:
    """Hash what a notebook's outputs depend on."""
    digest = hashlib.sha256(source.read_bytes())
    package = Path(qbhkit.__file__).parent
    for path in sorted(
        [*package.rglob("*.py"), *asset("weights").glob("*"), *asset("hums").glob("*")]
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def solutions(text: str) -> list[str]:
    """Return the Python blocks of a folded solution, or none where there is no such fold."""
    _, _, folded = text.partition("<details>")
    return [
        textwrap.dedent(block) for block in re.findall(r" *```python\n(.*?)```", folded, re.DOTALL)
    ]


def solved(notebook: Any) -> Any:
    """Add the folded solutions of a notebook to it, each as a cell after its exercise."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            for text in solutions(cell.source):
                cells.append(nbformat.v4.new_code_cell(text, metadata={"tags": ["solution"]}))
    notebook.cells = cells
    return notebook


def execute(source: Path, out: Path, parameters: dict[str, Any], solve: bool = False) -> str | None:
    """Run one notebook; return None, or the failure in one line."""
    out.mkdir(parents=True, exist_ok=True)
    plain, done = out / f".{source.stem}.plain.ipynb", out / f"{source.stem}.ipynb"
    notebook = jupytext.read(source)
    jupytext.write(solved(notebook) if solve else notebook, plain)
    try:
        papermill.execute_notebook(
            plain,
            done,
            parameters,
            kernel_name="python3",
            language="python",
            progress_bar=sys.stderr.isatty(),
            cwd=source.parent,
            extra_arguments=["--IPKernelApp.log_level=40"],  # it warns of its own TCP each time
        )
    except papermill.PapermillExecutionError as error:
        return f"{source.name}, cell {error.exec_count}: {error.ename}: {error.evalue}"
    finally:
        plain.unlink(missing_ok=True)
    page, _ = HTMLExporter().from_filename(str(done))
    done.with_suffix(".html").write_text(page, "utf-8")
    return None


def commit(source: Path, executed: Path) -> None:
    """Write the paired notebook: cells of the source with the outputs of the run."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [
        cell
        for cell in notebook.cells
        if not {"injected-parameters", "solution"} & set(cell.metadata.get("tags", []))
    ]
    for position, cell in enumerate(notebook.cells):
        for key in VOLATILE:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not passing(output)]
        cell["id"] = f"{source.stem[:2]}-{position:03d}"
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, source.with_suffix(".ipynb"))


def passing(output: Any) -> bool:
    """Return whether an output is a live widget or a progress bar, dead once the kernel is gone."""
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or output.get("name") == "stderr"


def main() -> int:
    """Run the notebooks given; exit code 1 if one failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--profile", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--out", type=Path, default=Path("data/cache/notebooks"))
    parser.add_argument("--commit", action="store_true")
    parser.add_argument("--solve", action="store_true")
    parser.add_argument("--if-changed", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    os.environ.setdefault("PYTHONHASHSEED", "0")
    record_path = out / "run.json"
    record = json.loads(record_path.read_text()) if record_path.is_file() else {}
    failures = []
    for source in options.notebooks:
        key = fingerprint(source) + options.profile
        if options.if_changed and record.get("done", {}).get(source.stem) == key:
            print(f"{source.name}: unchanged since its last run")
            continue
        began = time.monotonic()
        failure = execute(source, out, {"profile": options.profile}, options.solve)
        took = round(time.monotonic() - began, 1)
        if failure:
            failures.append(failure)
            record.setdefault("done", {}).pop(source.stem, None)
        else:
            record.setdefault("done", {})[source.stem] = key
            print(f"{source.name}: {took} s")
            if options.commit:
                commit(source, out / f"{source.stem}.ipynb")
        record.setdefault("seconds", {})[source.stem] = took
        write_json(record_path, record | {"environment": environment()})
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
