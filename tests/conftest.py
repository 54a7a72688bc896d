"""What the tests share: sixty public-domain tunes, hums of them, and a small catalogue."""

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import correlate

from qbhkit.audio import Audio
from qbhkit.catalogue.read import Catalogue
from qbhkit.corpora import Song, songs_of
from qbhkit.corpora.abc import music21_collection
from qbhkit.embedding.windows import WindowGrid

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = ["--no-sandbox"] if os.geteuid() == 0 else []
FAKE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
LATE_S = 3.3  # every third song of the folder begins with so long a rest
SHORT_SONG = [71, 64, 67, 60, 72, 65, 69, 62]  # 2.4 s: shorter than every window


def midi_file(path: Path, notes: NDArray, track: str = "melody") -> Path:
    """Write (M, 3) notes (onset s, duration s, MIDI pitch) as a MIDI file at 120 beats a minute."""
    import symusic

    score = symusic.Score(480)
    part = symusic.Track(name=track)
    for onset, duration, pitch in notes:
        begin, end = round(onset * 960), round((onset + duration) * 960)
        part.notes.append(symusic.Note(begin, max(1, end - begin), int(pitch), 90))
    score.tracks.append(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    score.dump_midi(path)
    return path


def pop_song(path: Path, shift: int = 0) -> Path:
    """Write an intro of 3 s and 13 s of a tune, over triads, at 120 beats a minute."""
    import symusic

    score = symusic.Score(480)
    tune, piano = symusic.Track(name="MELODY"), symusic.Track(name="PIANO")
    for beat in range(32):
        if beat >= 6:
            tune.notes.append(symusic.Note(480 * beat, 440, 64 + (5 * beat + shift) % 12, 90))
        for pitch in (48, 55, 60):
            piano.notes.append(symusic.Note(480 * beat, 470, pitch + 5 * (beat // 4 % 2), 80))
    score.tracks.append(tune)
    score.tracks.append(piano)
    path.parent.mkdir(parents=True, exist_ok=True)
    score.dump_midi(path)
    return path


def score_of(hum, tracker="swift-f0"):
    """Score a tracker on a rendered voice by the pitch that the voice states."""
    from qbhkit.metrics import melody_score
    from qbhkit.pitch.trackers import get_tracker

    found = get_tracker(tracker).track(hum.audio)
    return melody_score(hum.f0.frequency_hz, found.frequency_hz, found.voicing)


@pytest.fixture(scope="session")
def write_midi() -> Callable[..., Path]:
    return midi_file


@pytest.fixture(scope="session")
def tunes() -> list[Song]:
    """The first 60 tunes of Aird's Airs, by their notes."""
    return list(islice(songs_of(music21_collection("airdsAirs")), 60))


@pytest.fixture(scope="session")
def embedder():
    """The shipped weights."""
    from qbhkit.embedding.embedder import ContourEmbedder

    return ContourEmbedder()


@pytest.fixture(scope="session")
def song_notes(tunes: list[Song]) -> dict[str, NDArray]:
    """Id to notes: 00001 to 00060 (every third begins late), and ``short``."""
    notes = {}
    for number, tune in enumerate(tunes, 1):
        assert tune.notes is not None
        shift_s = LATE_S if number % 3 == 0 else 0.0
        notes[f"{number:05}"] = tune.notes + np.array([shift_s, 0.0, 0.0])
    at = np.arange(len(SHORT_SONG))
    notes["short"] = np.stack([0.3 * at, np.full(len(at), 0.28), SHORT_SONG], axis=1)
    return notes


@pytest.fixture(scope="session")
def sung(song_notes) -> Audio:
    """The first eight seconds of song 00004, hummed a fifth lower."""
    from qbhkit.synthesis.singer import Voice, render_hum

    notes = song_notes["00004"]
    voice = Voice(key_st=-7, tempo=0.95)
    return render_hum(notes[notes[:, 0] < 8], voice, np.random.default_rng(0)).audio


@pytest.fixture(scope="session")
def song_folder(song_notes, tmp_path_factory) -> Path:
    """A folder of MIDI files."""
    folder = tmp_path_factory.mktemp("songs")
    for song_id, notes in song_notes.items():
        midi_file(folder / f"{song_id}.mid", notes)
    return folder


@pytest.fixture(scope="session")
def catalogue(song_folder, tmp_path_factory) -> Path:
    """The catalogue of ``song_folder``, built by the command line; copy it before breaking it."""
    from qbhkit.cli import main

    path = tmp_path_factory.mktemp("built") / "catalogue"
    assert main(["catalogue", "build", str(song_folder), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def hummed_songs() -> list[Song]:
    """Twenty folk tunes and the one that is hummed in ``demo_1.flac``, which stands last."""
    songs = {song.id: song for song in songs_of(music21_collection("oneills1850"))}
    hummed = songs.pop("oneills1850-0487-0500-498")
    return [*islice(songs.values(), 20), hummed]


@pytest.fixture(scope="session")
def hummed_catalogue(hummed_songs, tmp_path_factory) -> Path:
    """The catalogue of ``hummed_songs``, built through the front door."""
    import qbhkit

    path = tmp_path_factory.mktemp("hummed") / "catalogue"
    report = qbhkit.build_catalogue(hummed_songs, out=str(path), progress=False)
    assert (report.songs, report.failures) == (21, [])
    return path


@pytest.fixture
def share_heard() -> Callable[[np.ndarray, np.ndarray, int], float]:
    """Return what tells how much of three seconds of a recording stands in the file as it was.

    Each quarter of a second has to follow the one before it. On a busy machine the browser itself
    skips a moment, before anything of ours hears it: that breaks the piece in which it falls.
    """

    def share(heard: np.ndarray, original: np.ndarray, rate_hz: int) -> float:
        size, slack = rate_hz // 4, rate_hz // 10
        pieces = heard[rate_hz : 4 * rate_hz].reshape(-1, size)
        at = int(np.argmax(correlate(original, pieces.ravel(), "valid")))
        whole = 0
        for piece in pieces:
            low = max(0, at - slack)
            place = original[low : at + size + slack]
            energy = correlate(place**2, np.ones(size), "valid").clip(1e-9)
            fit = correlate(place, piece, "valid") / np.sqrt(energy * np.sum(piece**2) + 1e-12)
            best = int(np.argmax(fit))
            whole += fit[best] > 0.99
            at = low + best + size
        return whole / len(pieces)

    return share


def catalogue_of(vectors: NDArray, name: str = "song", windows_a_song: int = 2) -> Catalogue:
    """A catalogue in memory whose songs are called name-0, name-1 and so on."""
    song = np.arange(len(vectors)) // windows_a_song
    start_s = np.arange(len(vectors)) * 1.5
    songs = [
        {"id": f"{name}-{k}", "title": f"Title {k}", "source": "test", "licence": "CC0"}
        for k in range(len(np.unique(song)))
    ]
    return Catalogue(
        Path(name), "model-1", "tracker", WindowGrid(), songs, [],
        vectors.astype(np.float16), song, start_s, start_s + 4.0, song == 0,
    )  # fmt: skip


def clustered(count: int, size: int, seed: int = 0, clusters: int = 60) -> NDArray[np.float16]:
    """(count, size) unit vectors that lie as melodies do: in clouds, none of them alone."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(clusters, size))  # the same for all seeds
    vectors = centres[rng.integers(0, clusters, count)] + 0.6 * rng.normal(size=(count, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def launch() -> "Iterator[Callable[..., Page]]":
    """Open an empty page in a Chromium of its own; it may hear a file as its microphone."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:

        def launch(*arguments: str, hears: Path | None = None, **context) -> "Page":
            if hears:
                arguments += (*FAKE, f"--use-file-for-fake-audio-capture={hears}%noloop")
            options = [*ROOT, "--disable-gpu", *arguments]
            browser = running.chromium.launch(executable_path=CHROMIUM, args=options)
            return browser.new_context(**context).new_page()

        yield launch
