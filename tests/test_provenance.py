import platform
import re

import numpy as np
import torch

import qbhkit
from qbhkit import provenance
from qbhkit.provenance import made_from, record, versions

RECIPE = {"seed": 0, "widths": (8, 16), "drawn": {"share": 0.5}, "name": None}


def test_files_are_made_from_the_recipe_of_their_note(tmp_path):
    note = tmp_path / "new" / "made_of.json"
    assert not made_from(note, RECIPE)
    record(note, RECIPE)
    assert made_from(note, RECIPE)
    assert made_from(note, {**RECIPE, "widths": [8, 16]})  # JSON knows lists only
    assert made_from(note, dict(reversed(RECIPE.items())))
    changes = [{"seed": 1}, {"widths": (16, 8)}, {"drawn": {"share": 0.6}}, {"more": 1}]
    assert not any(made_from(note, RECIPE | change) for change in changes)
    assert not made_from(note, {"seed": 0})
    record(note, RECIPE | {"seed": 1})
    assert not made_from(note, RECIPE)


def test_a_damaged_note_says_nothing(tmp_path):
    note = tmp_path / "made_of.json"
    for content in (b"", b"{", b"\xff\xfe", b"[1]"):
        note.write_bytes(content)
        assert not made_from(note, RECIPE)
    assert not made_from(tmp_path, RECIPE)  # a folder


def test_versions_name_what_a_result_depends_on():
    found = versions()
    assert found["python"] == platform.python_version()
    assert (found["numpy"], found["torch"]) == (np.__version__, torch.__version__)
    assert re.fullmatch("[0-9a-f]{40}|[0-9.]+", found["revision"])


def test_an_installed_kit_has_its_version_for_a_revision(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    provenance._revision.cache_clear()
    try:
        assert versions()["revision"] == qbhkit.__version__
    finally:
        provenance._revision.cache_clear()
