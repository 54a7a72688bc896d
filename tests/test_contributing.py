"""CONTRIBUTING.md is true: its examples, taken from the page as they stand, are added and used."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
from run_notebooks import commit, execute

from qbhkit import corpora
from qbhkit.audio import load
from qbhkit.catalogue.build import build_catalogue
from qbhkit.catalogue.read import open_catalogue
from qbhkit.cli import main
from qbhkit.contour import hz_to_midi
from qbhkit.embedding import encoders
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.errors import QbhError
from qbhkit.pitch import trackers
from qbhkit.retrieval import index
from qbhkit.storage import asset

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")
HUM, HUMMED = asset("hums/demo_1.flac"), "oneills1850-0487-0500-498"


def blocks(title):
    """The fenced examples of a section."""
    section = PAGE.split(f"### {title}\n")[1].split("\n### ")[0]
    return re.findall(r"^```\w+\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def file_of(block, root):
    """Write an example to the path that its first line names, below ``root``."""
    head, text = block.split("\n", 1)
    path = root / head.removeprefix("# ")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """A folder whose files are found as if they lay in the kit; afterwards all is as before."""
    for package in ("pitch.trackers", "embedding", "corpora", "retrieval"):
        module = importlib.import_module(f"qbhkit.{package}")
        beside = str(tmp_path / "qbhkit" / package.replace(".", "/"))
        monkeypatch.setattr(module, "__path__", [*module.__path__, beside])
    registries = (trackers.TRACKERS, encoders.ENCODER_STAGES, corpora.CORPORA, index.INDEXES)
    before, loaded = [dict(registry) for registry in registries], set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
    for name in [name for name in sys.modules if name.startswith("qbhkit.")]:
        if name not in loaded:
            del sys.modules[name]


def search(capsys, *arguments):
    """The ids of the songs that the command line finds, best first."""
    capsys.readouterr()
    assert main(["search", *map(str, arguments), "--json"]) == 0
    return [found["song_id"] for found in json.loads(capsys.readouterr().out)["results"]]


def test_a_tracker(kit, hummed_catalogue, capsys):
    page, entry = blocks("A tracker")
    file_of(page, kit)
    exec(entry, {})
    audio = load(HUM, 16000)
    mine, known = (trackers.get_tracker(name).track(audio) for name in ("autocorrelation", None))
    both = mine.voiced & known.voiced
    off_st = np.abs(hz_to_midi(mine.frequency_hz[both]) - hz_to_midi(known.frequency_hz[both]))
    assert both.sum() > 0.8 * known.voiced.sum()
    assert np.mean(off_st < 0.5) > 0.9
    assert trackers.identity_of("autocorrelation") == "autocorrelation"
    found = search(capsys, HUM, "--catalogue", hummed_catalogue, "--tracker", "autocorrelation")
    assert found[0] == HUMMED


def test_an_encoder(kit, hummed_songs, capsys):
    page, config = blocks("An encoder")
    file_of(page, kit)
    importlib.import_module("qbhkit.embedding.transformer")
    out = kit / "run"
    command = ["train", file_of(config, kit), "--out", out, "--log", kit / "curve.json"]
    assert main([str(word) for word in command]) == 0
    (weights,) = out.glob("*.safetensors")
    embedder = ContourEmbedder(str(weights))
    assert type(embedder.encoder.stages).__name__ == "Transformer"
    build_catalogue(hummed_songs, kit / "catalogue", embedder)
    found = search(capsys, HUM, "--catalogue", kit / "catalogue", "--weights", weights, "-k", "50")
    assert len(found) == len(hummed_songs)


def test_a_corpus(kit, hummed_songs, capsys):
    page, entry = blocks("A corpus")
    file_of(page, kit)
    exec(entry, {})
    for song in hummed_songs[-3:]:
        path = kit / "data" / "note-tables" / f"{song.id}.notes.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(path, song.notes, delimiter=",", header="onset_s,duration_s,midi", comments="")
    data = ["--data", str(kit / "data")]
    assert main(["data", "list", *data]) == 0
    assert "songs as tables of notes" in capsys.readouterr().out
    built = kit / "catalogue"
    assert main(["catalogue", "build", "note-tables", "--out", str(built), *data]) == 0
    assert search(capsys, HUM, "--catalogue", built)[0] == HUMMED
    (kit / "data" / "note-tables" / "bad.notes.csv").write_text("onset_s\nthree\n")
    (corpus,) = corpora.open_source("note-tables", kit / "data")
    with pytest.raises(QbhError, match=r"bad\.notes\.csv is no table of notes"):
        list(corpora.songs_of(corpus))


def test_an_index(kit, hummed_catalogue, tmp_path, capsys):
    page, entry = blocks("An index")
    file_of(page, kit)
    exec(entry, {})
    catalogue = shutil.copytree(hummed_catalogue, tmp_path / "copy")
    assert main(["catalogue", "index", str(catalogue), "--kind", "signs"]) == 0
    opened = open_catalogue(catalogue)
    queries = np.asarray(opened.vectors[::7], np.float32)
    mine, exact = (
        index.open_index(name, opened).nearest(queries, 5) for name in ("signs", "exact")
    )
    assert (mine.row[:, 0] == exact.row[:, 0]).all()
    assert np.allclose(mine.similarity[:, 0], exact.similarity[:, 0], atol=1e-3)
    assert search(capsys, HUM, "--catalogue", catalogue, "--index", "signs")[0] == HUMMED


def test_a_notebook(tmp_path):
    (page,) = blocks("A notebook")
    source = file_of(page, tmp_path)
    assert execute(source, tmp_path / "out", {"profile": "tiny"}) is None
    commit(source, tmp_path / "out" / f"{source.stem}.ipynb")
    written = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert [cell.source for cell in written.cells] == [
        c.source for c in jupytext.read(source).cells
    ]
    assert written.cells[1].metadata["tags"] == ["parameters"]
    assert "of the steps are no wider" in str(written.cells[3].outputs)
