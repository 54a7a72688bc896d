import hashlib
import os
import stat

import pytest

from qbhkit.errors import QbhError
from qbhkit.storage import (
    atomic_path,
    cache_dir,
    data_dir,
    read_json,
    sha256_file,
    write_json,
)


def test_atomic_path_replaces_the_file_and_makes_its_folder(tmp_path):
    target = tmp_path / "deep" / "er" / "a.txt"
    for text in ("first", "second"):
        with atomic_path(target) as part:
            assert part.parent == target.parent
            assert part.suffix == ".txt"
            part.write_text(text)
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def break_off() -> None:
        with atomic_path(target) as part:
            part.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        break_off()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_files_have_the_usual_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        with atomic_path(tmp_path / "a.txt") as part:
            part.write_text("x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_json_round_trip_keeps_order_and_letters(tmp_path):
    value = {"z": [1, 2.5, None, True], "a": {"title": "小毛驢 Ä"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", "build it") == value
    text = (tmp_path / "a.json").read_text("utf-8")
    assert "小毛驢" in text
    assert text.index('"z"') < text.index('"a"')
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"score": float("nan")})
    assert (tmp_path / "a.json").read_text("utf-8") == text


def test_missing_and_damaged_json_name_the_cure(tmp_path):
    with pytest.raises(QbhError, match=r"a\.json does not exist: build it again\."):
        read_json(tmp_path / "a.json", "build it again")
    for content in (b'{"a": ', b"\xff\xfe", b"", b"[" * 100_000):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(QbhError, match=r"a\.json is damaged .*: build it again\."):
            read_json(tmp_path / "a.json", "build it again")


def test_sha256_is_of_all_bytes(tmp_path):
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QBHKIT_DATA", raising=False)
    assert cache_dir() == tmp_path / "cache"
    assert data_dir() == tmp_path / "cache" / "corpora"
    monkeypatch.setenv("QBHKIT_DATA", str(tmp_path / "data"))
    assert data_dir() == tmp_path / "data"
    monkeypatch.delenv("QBHKIT_CACHE")
    assert "qbhkit" in cache_dir().parts
