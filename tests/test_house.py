"""The house rules: who may import whom, what an import loads, what ships, what stays equal."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler import MatchSpec

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "qbhkit"
# The ground floor from the bottom up: a module imports only what stands before it.
GROUND_FLOOR = [
    "qbhkit.errors", "qbhkit", "qbhkit.storage", "qbhkit.config", "qbhkit.provenance",
    "qbhkit.parallel", "qbhkit.training_loop", "qbhkit.audio", "qbhkit.contour", "qbhkit.f0_csv",
    "qbhkit.dtw", "qbhkit.metrics", "qbhkit.weights",
]  # fmt: skip
# The rooms in the order in which data flows: what each may import beside the ground floor.
ROOMS = {
    "qbhkit.corpora": set(),
    "qbhkit.synthesis": {"qbhkit.corpora"},
    "qbhkit.pitch": {"qbhkit.corpora", "qbhkit.synthesis"},
    "qbhkit.embedding": {"qbhkit.corpora", "qbhkit.synthesis", "qbhkit.pitch"},
    "qbhkit.catalogue": {"qbhkit.corpora", "qbhkit.pitch", "qbhkit.embedding"},
    # synthesis, to play the melody of a matched song that has no recording (DECISIONS.md)
    "qbhkit.retrieval": {f"qbhkit.{r}" for r in ("synthesis", "pitch", "embedding", "catalogue")},
}
ALL_ROOMS = set(ROOMS)
ROOMS["qbhkit.evaluation"] = ALL_ROOMS
for room in ("figures", "widgets", "service", "cli"):
    ROOMS[f"qbhkit.{room}"] = ALL_ROOMS | {"qbhkit.evaluation"}
ROOMS["qbhkit.cli"] |= {"qbhkit.figures", "qbhkit.service", "qbhkit.widgets"}
ROOMS["qbhkit.evaluation"] |= {"qbhkit.figures"}  # a benchmark draws what only it has


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
    if name == "qbhkit":
        return  # the front door: lazy
    for target in map(room_of, imported):
        if room in GROUND_FLOOR:
            fine = target in GROUND_FLOOR[: GROUND_FLOOR.index(room) + 1]
        else:
            fine = target in {*GROUND_FLOOR, room, *ROOMS[room]}
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
    assert list(offences("qbhkit.embedding.training", ["qbhkit.retrieval.searcher"]))
    assert list(offences("qbhkit.contour", ["qbhkit.corpora.abc"]))
    assert not list(offences("qbhkit.retrieval.searcher", ["qbhkit.pitch.trackers"]))


def loaded_by(statement):
    code = f"import sys; {statement}; print(' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "faiss", "dask", "matplotlib", "numba", "librosa", "pandas", "scipy", "numpy"}
    assert not heavy & loaded_by("import qbhkit")
    assert not {"torch", "matplotlib", "librosa", "fastapi"} & loaded_by("import qbhkit.cli")
    assert not {"torch", "numba"} & loaded_by("import qbhkit; qbhkit.F0Track")


def tracked_files(*options):
    """What git tracks; only an unpacked source archive, which has no .git, is let off."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", *options]
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


def pip_requirement(text):
    """The name as PyPI compares them, and the set of bounds, of 'name[extra]>=1,<2; marker'."""
    parsed = Requirement(text)
    return canonicalize_name(parsed.name), frozenset(map(str, parsed.specifier))


def conda_requirement(text):
    """The same of 'name >=1,<2', parsed as conda does; conda's names of some packages differ."""
    parsed = MatchSpec(text, strict=True)
    name = parsed.name.normalized
    bounds = frozenset(str(parsed.version).split(",")) if parsed.version else frozenset()
    return {"matplotlib-base": "matplotlib"}.get(name, canonicalize_name(name)), bounds


def test_environment_yml_equals_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    names = ("notebooks", "phone", "service", "trackers", "training", "dask", "faiss", "postgres")
    wanted = [
        *project["dependencies"],
        *(line for name in (*names, "test") for line in extras[name]),
    ]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    conda = [conda_requirement(entry) for entry in listed if isinstance(entry, str)]
    conda.remove(("pip", frozenset()))
    conda.remove(("python", frozenset(project["requires-python"].split(","))))
    pip.remove("-e .")
    have = conda + [pip_requirement(line) for line in pip]
    assert len(have) == len(set(have))
    assert set(have) == set(map(pip_requirement, wanted))


# What is done with an installed kit, in a folder of its own: a page of help for every command, and
# the README's lines of Python with songs and a hum that the kit ships.
OUTSIDE = """
import contextlib, io, shutil, sys
from pathlib import Path
import numpy as np
import typer
import qbhkit
assert Path(qbhkit.__file__).is_relative_to(Path("site").resolve()), qbhkit.__file__
from qbhkit.cli import app, main
from qbhkit.contour import F0Track, midi_to_hz
from qbhkit.corpora import songs_of
from qbhkit.corpora.abc import music21_collection
from qbhkit.f0_csv import write_f0_csv
from qbhkit.storage import asset

def commands(command, *path):
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, *path, name)

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([str(argument) for argument in arguments])
    assert code == 0, (arguments, code, out.getvalue())
    return out.getvalue()

pages = [run(*path, "--help") for path in commands(typer.main.get_command(app))]
assert len(pages) > 20 and all("Usage: qbhkit" in page for page in pages)
assert "essenFolksong" in run("data", "list", "--data", "nowhere")
assert main(["weights", "convert", "none.hdf5", "none.npy", "none.npy"]) == 2  # and no traceback

truth = "oneills1850-0487-0500-498"
songs = {song.id: song.notes for song in songs_of(music21_collection("oneills1850"))}
Path("my_songs").mkdir()
for song in [truth, *[name for name in songs if name != truth][:9]]:
    notes = songs[song]
    at = np.arange(round(100 * notes[-1, :2].sum())) / 100
    pitch = notes[np.searchsorted(notes[:, 0], at, "right") - 1, 2]
    write_f0_csv(F0Track(midi_to_hz(pitch), np.ones(len(at))), Path("my_songs") / f"{song}.f0.csv")
shutil.copy(asset("hums/demo_1.flac"), "hum.flac")
exec(sys.argv[1])
assert qbhkit.search("hum.flac", "catalogue")[0].song_id == truth
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist and the wheel, each built from the checkout."""
    out = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", out]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def outside(built, tmp_path_factory):
    """A folder with the wheel unpacked in ``site``, and the environment that finds it there."""
    folder = tmp_path_factory.mktemp("outside")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    return folder, os.environ | {"PYTHONPATH": path}


def test_what_ships_is_the_kit_and_no_more(built):
    """The wheel holds the package, and each package of it; the sdist is what git tracks."""
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = set(tracked_files())
    splits = {
        f"qbhkit/assets/{name[5:]}" for name in tracked if re.match(r"data/splits/.*json", name)
    }
    assert names == {name for name in tracked if name.startswith("qbhkit/")} | splits
    with tarfile.open(sdist) as archive:
        shipped = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    lying_about = set(tracked_files("--others", "--exclude-standard"))
    assert shipped - tracked - lying_about == {"PKG-INFO"}
    assert {name for name in tracked if name.startswith(("tests/", "notebooks/"))} <= shipped


def test_the_wheel_works_outside_the_checkout(outside):
    """Every command's help, and the README's lines of Python."""
    folder, environment = outside
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (block,) = blocks
    command = [sys.executable, "-c", OUTSIDE, block.replace("hum.wav", "hum.flac")]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


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


def test_the_version_is_the_same_everywhere():
    import qbhkit

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == qbhkit.__version__
    latest = re.search(r"^## \[(.+?)] - (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert latest.groups() == (qbhkit.__version__, str(cited["date-released"]))
