"""Malicious files at the command line: one sentence, exit code 2, little memory and little time.

Random damage is tested in evaluation/test_fuzz.py, archives in corpora/test_fetch.py, pickles in
embedding/test_import_checkpoint.py.
"""

import io
import json
import resource
import signal
import struct
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qbhkit.cli import main
from qbhkit.evaluation.benchmarks.fuzzing import LONGEST_S, MOST_BYTES, virtual_bytes
from qbhkit.storage import asset, write_json

TEN_GB = 10 * 10**9
PATIENCE_S = 60.0
HUM = asset("hums/demo_1.flac")


class Hang(BaseException):
    """Raised when the limit is reached; not an Exception, so that only the test catches it."""


def hang(*_):
    raise Hang


@contextmanager
def within_limits():
    """Allow 1 GB more memory, 5 s of processor time and 60 s in all."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (virtual_bytes() + MOST_BYTES, hard))
    clocks = [
        (signal.ITIMER_PROF, signal.SIGPROF, LONGEST_S),
        (signal.ITIMER_REAL, signal.SIGALRM, PATIENCE_S),
    ]
    usual = [signal.signal(number, hang) for _, number, _ in clocks]
    try:
        for clock, _, most_s in clocks:
            signal.setitimer(clock, most_s)
        yield
    finally:
        for clock, _, _ in clocks:
            signal.setitimer(clock, 0)
        for (_, number, _), handler in zip(clocks, usual, strict=True):
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


@pytest.fixture(scope="module")
def warm(catalogue):
    """Load the lazy imports before memory and time are limited."""
    assert main(["search", str(HUM), "--catalogue", str(catalogue)]) == 0


@pytest.fixture
def refused(capfd, monkeypatch, tmp_path, warm):
    """Run a command; return its sentence."""
    monkeypatch.setenv("QBHKIT_DATA", str(tmp_path / "data"))
    capfd.readouterr()

    def refused(*arguments) -> str:
        with within_limits():
            code = main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert (code, said.out) == (2, "")
        (sentence,) = said.err.splitlines()
        assert sentence.startswith("qbhkit: ")
        return sentence

    return refused


def chord(notes: int) -> bytes:
    """Return a MIDI file of notes that all sound at the same time."""
    keys = (np.arange(notes) % 128).astype(np.uint8)
    on, off = np.zeros((2, notes, 3), np.uint8)  # running status: delta, key, velocity
    on[:, 1] = off[:, 1] = keys
    on[:, 2] = 90
    events = b"\0\x90" + on.tobytes()[1:] + b"\x83\x60" + off.tobytes()[1:] + b"\0\xff\x2f\0"
    head = struct.pack(">4sIHHH4sI", b"MThd", 6, 0, 1, 480, b"MTrk", len(events))
    return head + events


def tune(body: str, head: str = "") -> bytes:
    return f"X:1\nT:x\nM:4/4\nL:1/8\n{head}K:C\n{body}\n".encode()


def wav_of_ten_gb() -> bytes:
    """Return an RF64 file, a wav whose length may exceed 32 bits."""
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, TEN_GB + 72, TEN_GB, TEN_GB // 2, 0)
    kind = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    noise = np.random.default_rng(0).integers(-9000, 9000, 8000, np.int16).tobytes()
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + kind + b"data\xff\xff\xff\xff" + noise


def flac_of_ten_gb() -> bytes:
    """Return a flac file of 8,000 samples whose header claims 5 * 10**9."""
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(8000) / 9), 8000, format="FLAC", subtype="PCM_16")
    raw = file.getvalue()
    info = int.from_bytes(raw[18:26], "big") >> 36 << 36 | TEN_GB // 2
    return raw[:18] + info.to_bytes(8, "big") + raw[26:]


def npy_of_ten_gb() -> bytes:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({TEN_GB // 4},)}}".ljust(117)
    return b"\x93NUMPY\x01\0" + struct.pack("<H", 118) + head.encode() + b"\n" + bytes(100)


def safetensors_of_ten_gb() -> bytes:
    array = {"dtype": "F32", "shape": [TEN_GB // 4], "data_offsets": [0, TEN_GB]}
    head = json.dumps({"__metadata__": {"qbhkit": "{}"}, "a": array}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(100)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.abc", tune("|:" + "CDEF " * 20_000 + ":|"), "holds no readable ABC tune"),
        ("a.abc", tune("CDEF " + "Z900|" * 15_000), "holds no readable ABC tune"),
        ("a.abc", tune("P:A\nCDEF|", f"P:{'(' * 12}A{'9)' * 12}\n"), "holds no readable ABC"),
        ("a.mid", chord(8)[:-30] + b"\xff\xff\xff\x7f" * 1000, "is not a readable MIDI file"),
        ("a.wav", wav_of_ten_gb(), "its header claims 10000000080 bytes"),
        ("a.flac", flac_of_ten_gb(), "is damaged or is not audio"),
    ],
    ids=["endless", "rests", "parts of parts", "midi", "wav", "flac"],
)  # fmt: skip
def test_songs(refused, tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    assert says in refused("catalogue", "build", tmp_path / name, "--out", tmp_path / "c")


def test_a_million_notes_at_once_are_one(tmp_path):
    from qbhkit.corpora.midi import read_midi

    (tmp_path / "a.mid").write_bytes(chord(1_000_000))
    with within_limits():
        notes = read_midi(tmp_path / "a.mid")
    np.testing.assert_allclose(notes, [[0, 0.5, 127]], atol=0.01)


def test_a_tune_opens_no_other_file(tmp_path):
    from qbhkit.corpora.abc import split_tunes, tune_notes

    (tmp_path / "other.abc").write_text("GABc|\n")
    for line in (f"%%abc-include {tmp_path / 'other.abc'}", "%%abc-include /dev/stdin"):
        for body in (f"CDEF|\n{line}\nCDEF|", f"CDEF|\n  {line}\r\nCDEF|", f"CDEF|\nCDEF|{line}"):
            with within_limits():
                (found,) = split_tunes(tune(body).decode())
                assert len(tune_notes(found)) == 8


@pytest.mark.parametrize("content", [npy_of_ten_gb(), safetensors_of_ten_gb()])
def test_weights(refused, catalogue, tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    options = ["--catalogue", catalogue, "--weights", tmp_path / "w.safetensors"]
    assert "w.safetensors is damaged" in refused("search", HUM, *options)


def test_arrays(refused, tmp_path):
    for name in ("x.hdf5", "mean.npy"):
        (tmp_path / name).write_bytes(npy_of_ten_gb())
    files = [tmp_path / "x.hdf5", tmp_path / "mean.npy", tmp_path / "mean.npy"]
    assert "mean.npy is damaged" in refused("weights", "convert", *files, "--out", tmp_path)
    corpus = tmp_path / "data" / "ioacas"
    corpus.mkdir(parents=True)
    with zipfile.ZipFile(corpus / "ioacas_melodies_100ms_midi.npz", "w") as archive:
        archive.writestr("a.npy", npy_of_ten_gb())
    refused("data", "verify", "ioacas")


def test_a_list_of_checksums_stays_in_its_folder(refused, tmp_path, write_midi):
    data = tmp_path / "data"
    write_midi(data / "mir-qbsh" / "midiFile" / "00001.mid", np.array([[0, 1, 60.0]]))
    for sums in ({"../secret": "0"}, {str(HUM): "0"}, {"a/../../secret": "0"}, ["a"], 7):
        write_json(data / "mir-qbsh.sums.json", sums)
        assert "sums.json is no list of checksums" in refused("data", "verify", "mir-qbsh")


NAMES = (
    "two\nlines",
    "$(touch owned)",
    "a; touch owned; `touch owned`",
    "'); DROP TABLE songs; --",
    "\x1b[2J\x1b]0;owned\a",
    "--help",
    "\u202egnp.song",
    "<img src=x onerror=alert(1)>",
)


@pytest.fixture
def nasty(tmp_path, monkeypatch, tunes, write_midi) -> Path:
    """A catalogue of songs with such ids; the ABC tune's contains slashes."""
    monkeypatch.chdir(tmp_path)
    for name, song in zip(NAMES, tunes, strict=False):
        write_midi(tmp_path / "songs" / f"{name}.mid", song.notes)
    two = "X:1\nT:One\nK:C\nCDEF GABc CDEF GABc|\n\nX:../../owned\nT:Two\nK:C\ncBAG FEDC EGEG|\n"
    (tmp_path / "songs" / "book.abc").write_text(two)
    assert main(["catalogue", "build", "songs", "--out", "c"]) == 0
    return tmp_path / "c"


IDS = {*NAMES, "book-1", "book-../../owned"}


def test_ids_are_only_text_at_the_command_line(nasty, capfd):
    search = ["search", str(HUM), "--catalogue", str(nasty), "-k", "99"]
    before = {path for path in nasty.parent.rglob("*") if nasty not in path.parents}
    capfd.readouterr()
    assert main([*search, "--json", "--save-match", "matches"]) == 0
    found = [row["song_id"] for row in json.loads(capfd.readouterr().out)["results"]]
    assert (set(found), len(found)) == (IDS, len(IDS))
    assert main(search) == 0
    told = capfd.readouterr().out
    assert len(told.splitlines()) <= 2 + len(IDS)  # one line per song
    assert all(sign.isprintable() for sign in told.replace("\n", ""))
    assert r"[two\nlines]" in told
    assert main(["catalogue", "info", str(nasty)]) == 0
    assert main(["catalogue", "add", "songs", "--catalogue", str(nasty)]) == 0
    assert all(sign.isprintable() for sign in capfd.readouterr().err.replace("\n", ""))
    assert main(["catalogue", "remove", "--catalogue", str(nasty), "--", *NAMES]) == 0
    new = {path for path in nasty.parent.rglob("*") if nasty not in path.parents} - before
    ranks = {f"demo_1.match{rank}.wav" for rank in range(1, 1 + len(IDS))}
    assert {path.name for path in new} == {"matches", "demo_1.hum.wav", *ranks}
