"""The house rules: who may import whom, what an import loads, what ships, what stays equal."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "qbhkit"
# The ground floor from the bottom up: a module imports only what stands before it.
GROUND_FLOOR = [
    "qbhkit.errors", "qbhkit", "qbhkit.storage", "qbhkit.runs", "qbhkit.config", "qbhkit.audio",
    "qbhkit.contour", "qbhkit.f0_csv", "qbhkit.corpora", "qbhkit.weights", "qbhkit.figures",
]  # fmt: skip
MAY_ENTER = {
    "qbhkit.melody": set(),
    "qbhkit.embedding": set(),
    "qbhkit.retrieval": {"qbhkit.melody", "qbhkit.embedding"},
    "qbhkit.service": {"qbhkit.melody", "qbhkit.embedding", "qbhkit.retrieval"},
    "qbhkit.widgets": {"qbhkit.melody", "qbhkit.embedding", "qbhkit.retrieval"},
}


def room_of(module):
    """The second level of a module's name: qbhkit.corpora.abc lives in qbhkit.corpora."""
    return ".".join(module.split(".")[:2])


def imports_of(path):
    """Every module of the kit that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("qbhkit"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qbhkit"):
            assert node.level == 0, f"{path.name} imports relatively"
            yield node.module


def offences(name, imported):
    """Name the imports that the table of the design forbids to a module."""
    room = room_of(name)
    if room == "qbhkit.cli":
        return
    for target in map(room_of, imported):
        if room in GROUND_FLOOR:
            fine = target in GROUND_FLOOR[: GROUND_FLOOR.index(room) + 1]
        else:
            fine = target in {*GROUND_FLOOR, room, *MAY_ENTER[room]}
        if not fine:
            yield f"{name} imports {target}"


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_every_import_keeps_to_the_table():
    found = [line for name, path in modules() for line in offences(name, imports_of(path))]
    assert found == []


def test_the_table_can_be_broken():
    assert list(offences("qbhkit.embedding.training", ["qbhkit.retrieval.evaluate"]))
    assert list(offences("qbhkit.melody.trackers", ["qbhkit.embedding.augment"]))
    assert list(offences("qbhkit.contour", ["qbhkit.corpora.abc"]))
    assert not list(offences("qbhkit.retrieval.search", ["qbhkit.melody.trackers"]))


def loaded_by(statement):
    code = f"import sys; {statement}; print(' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "faiss", "dask", "matplotlib", "numba", "librosa", "pandas", "scipy", "numpy"}
    assert not heavy & loaded_by("import qbhkit")
    assert not {"torch", "matplotlib", "librosa", "fastapi"} & loaded_by("import qbhkit.cli")
    assert "torch" in loaded_by("import qbhkit.embedding.encoders")


def tracked_files():
    """What git tracks; only an unpacked source archive, which has no .git, is let off."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_the_top_level_holds_only_what_the_design_names():
    allowed = {
        "notebooks", "qbhkit", "data", "figures", "tests", "environment.yml", "README.md",
        "pyproject.toml", "Makefile", "LICENSE", "CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md",
        "DECISIONS.md", ".ci", ".gitignore", ".pre-commit-config.yaml",
    }  # fmt: skip
    names = tracked_files()
    assert {name.split("/")[0] for name in names} <= allowed


def requirement(text):
    """Split 'name >=1,<2' into a name as PyPI compares them, and its bounds without spaces."""
    name, bounds = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?\s*(.*)", text).groups()
    name = re.sub(r"[-_.]+", "-", name).lower()
    return {"matplotlib-base": "matplotlib"}.get(name, name), bounds.replace(" ", "")


def test_environment_yml_equals_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    names = ("notebooks", "phone", "service", "trackers", "training", "dask", "faiss", "postgres")
    for name in (*names, "test"):
        wanted += extras[name]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    have = [entry for entry in listed if isinstance(entry, str)] + pip
    have.remove("pip")
    have.remove("-e .")
    have.remove(f"python {project['requires-python']}")
    assert sorted(map(requirement, have)) == sorted(set(map(requirement, wanted)))


def harmless(path, line):
    """A line without what runs nothing: a network's .eval(), and the one restricted unpickler."""
    line = line.replace("encoder.eval()", "").replace(".eval()", "")
    if path == PACKAGE / "embedding" / "original.py":
        line = re.sub(r"\bpickle\b(?!\.load)", "", line)
    return line


def test_nothing_is_unpickled_or_evaluated():
    forbidden = re.compile(
        r"\bpickle\b|allow_pickle\s*=\s*True|\byaml\.load\(|\beval\(|\bexec\(|weights_only\s*=\s*False"
        r"|torch\.load\((?!.*weights_only=True)"
    )
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for _, path in modules()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if forbidden.search(harmless(path, line))
    ]
    assert found == []


def test_every_public_function_has_a_docstring_that_says_something():
    missing = []
    for name, path in modules():
        top = ast.parse(path.read_text("utf-8")).body
        public = [c for c in top if isinstance(c, ast.ClassDef) and c.name[0] != "_"]
        inside = [node for cls in public for node in cls.body]
        for node in [*top, *inside]:
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if named and node.name[0] != "_" and len(ast.get_docstring(node) or "") < 15:
                missing.append(f"{name}.{node.name}")
    assert missing == []


def test_docstrings_name_notebooks_that_exist():
    named = {
        notebook
        for _, path in modules()
        for notebook in re.findall(r"notebooks/\w+\.py", path.read_text("utf-8"))
    }
    assert len(named) > 9
    assert [notebook for notebook in named if not (ROOT / notebook).is_file()] == []


def test_the_wheel_works_outside_the_checkout(tmp_path):
    """Build the wheel, unpack it elsewhere, and search from there with what it brought along."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "-t", site, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    code = (
        "import sys; sys.path.insert(0, 'site'); import qbhkit; from pathlib import Path; "
        "assert Path(qbhkit.__file__).parent.parent.name == 'site', qbhkit.__file__; "
        "from qbhkit.cli import main; from qbhkit.storage import asset; "
        "from qbhkit.corpora.training_songs import read_split; "
        "assert read_split('folk')['held_out']; "
        "from importlib.resources import files; page = files('qbhkit.service') / 'page'; "
        "assert (page / 'index.html').is_file() and (page / 'recorder.js').is_file(); "
        "view = files('qbhkit') / 'widgets'; "
        "assert all((view / f'recorder.{kind}').is_file() for kind in ('py', 'js', 'css')); "
        "hum = str(asset('hums/demo_1.flac')); "
        "assert main(['melody', hum, '--out', 'out']) == 0; "
        "assert main(['catalogue', 'build', 'out/demo_1.f0.csv', '--out', 'cat']) == 0; "
        "sys.exit(main(['search', hum, '--catalogue', 'cat', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"song_id": "demo_1"' in done.stdout


def test_no_machine_path_stands_in_the_repository():
    names = tracked_files()
    private = re.compile(r"/(?:work|root|tmp|home)/\w")
    found = []
    for name in names:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yml", ".toml", ".ipynb", ".json", ".cff", ""}:
            text = path.read_text("utf-8", errors="ignore") if path.is_file() else ""
            found += [f"{name}: {hit}" for hit in private.findall(text)]
    assert found == []


def test_the_command_line_offers_every_index():
    from qbhkit.cli import catalogues
    from qbhkit.retrieval.index import INDEXES

    assert tuple(INDEXES) == catalogues.INDEXES
