"""Render MIDI songs with voice and accompaniment, and transcribe their melodies by a tracker."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soxr
from numpy.random import Generator
from tqdm.auto import tqdm

from qbhkit.audio import Audio
from qbhkit.contour import F0_HOP_S, F0Track, from_f0
from qbhkit.corpora import open_corpus
from qbhkit.corpora.folders import pitch_track
from qbhkit.corpora.midi import MidiFiles, read_midi
from qbhkit.corpora.songs import stem_of
from qbhkit.corpora.training_songs import forbidden_ids, split_of
from qbhkit.errors import Failure, MissingPackageError, QbhError
from qbhkit.f0_csv import write_f0_csv
from qbhkit.pitch.folder_to_csv import Extraction
from qbhkit.pitch.trackers import Tracker, get_tracker, identity_of
from qbhkit.provenance import made_from, record
from qbhkit.storage import read_json
from qbhkit.synthesis.accompaniment import cut_notes, read_score, render_accompaniment
from qbhkit.synthesis.mixing import MIX_RATE_HZ, Mixture, mix, place_hum, random_singer
from qbhkit.synthesis.singer import LEAD_IN_S, render_hum
from qbhkit.training_loop import Stream, generator

INTRO_S = 1.0  # of accompaniment before the first note of the voice


@dataclass(frozen=True)
class TranscribeConfig:
    """Say how songs are rendered.

    Raises:
        QbhError: if a value is out of range.
    """

    seed: int = 0  # of all draws; each song has its own
    length_s: float | None = None  # from a second before the first note; None for all of it
    level_db: tuple[float, float] = (-3.0, 6.0)  # lowest and highest, voice over accompaniment

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise QbhError(f"The seed must be 0 or more, not {self.seed}.")
        if self.length_s is not None and not 1 <= self.length_s < float("inf"):
            raise QbhError(f"The length of songs must be at least 1 s, not {self.length_s:g} s.")
        if not -60 <= self.level_db[0] <= self.level_db[1] <= 60:
            raise QbhError(
                "The levels must be two numbers from -60 to 60 dB, the lower one first, not "
                f"{self.level_db[0]:g} and {self.level_db[1]:g}."
            )


def transcribe_corpus(
    name: str,
    data: Path,
    folder: Path,
    config: TranscribeConfig,
    tracker: str,
    songs: int | None = None,
    progress: bool = True,
) -> Extraction:
    """Render the songs of a corpus with voice and accompaniment, and track them.

    Only songs that may be trained on are rendered. Writes ``ID.f0.csv`` for each, every 100 ms; a
    song whose file is there is skipped.

    Args:
        name: a corpus of MIDI files with a melody track and an accompaniment, and with a split.
        data: the folder that holds corpora.
        folder: where the melodies are written.
        config: how songs are rendered.
        tracker: name of the tracker.
        songs: how many of the first ones; None for all.
        progress: show a bar on standard error.

    Raises:
        QbhError: if the corpus is not there, is not of this kind, or may not be trained on; if
            there is no such tracker; if the folder holds melodies made with other settings.
        MissingPackageError: if a package is not installed.
    """
    if songs is not None and songs < 1:
        raise QbhError(f"At least one song must be transcribed, not {songs}.")
    forbidden = forbidden_ids(split_of(name))
    corpus = open_corpus(name, data)
    if not isinstance(corpus, MidiFiles):
        raise QbhError(f"{name} has no accompaniment to render: use pop909.")
    loaded = get_tracker(tracker)
    note = folder / "transcribed.json"
    recipe = {"corpus": name, "tracker": identity_of(tracker), **asdict(config)}
    if not made_from(note, recipe):
        if note.is_file():
            read_json(note, f"delete {folder}")  # says so if the note is damaged
        if note.is_file() or any(folder.glob("*.f0.csv")):
            raise QbhError(
                f"{folder} holds melodies made with other settings: delete it, or choose another "
                "with --out."
            )
        record(note, recipe)
    allowed = [path for path in corpus.files if stem_of(path) not in forbidden][:songs]
    outputs = {path: folder / f"{stem_of(path)}.f0.csv" for path in allowed}
    due = [path for path in allowed if not outputs[path].is_file()]
    failures = []
    for path in tqdm(due, "transcribe", unit="song", disable=not progress):
        try:
            write_f0_csv(transcribe_song(path, config, loaded), outputs[path])
        except MissingPackageError:
            raise  # no other song would fare better
        except QbhError as error:
            failures.append(Failure(str(path), str(error)))
    return Extraction(len(due) - len(failures), len(allowed) - len(due), failures)


def transcribe_song(path: Path, config: TranscribeConfig, tracker: Tracker) -> F0Track:
    """Render a song by :func:`song_mixture` and track its melody every 100 ms.

    The draws depend only on the seed and the name of the file.

    Raises:
        QbhError: if the file is damaged or lacks a part, or no voice is found.
    """
    song_number = int.from_bytes(stem_of(path).encode(), "big")
    mixture = song_mixture(path, config, generator(config.seed, Stream.TRANSCRIPTION, song_number))
    samples = soxr.resample(mixture.samples, MIX_RATE_HZ, tracker.rate_hz)
    contour = from_f0(tracker.track(Audio(samples, tracker.rate_hz)))
    if not contour.voiced.any():
        raise QbhError(f"{path} was rendered, but no voice was found in it: leave it out.")
    return pitch_track(contour.pitch_st, contour.hop_s)


def song_mixture(path: Path, config: TranscribeConfig, rng: Generator) -> Mixture:
    """Render a MIDI song from a second before its first note.

    The melody is sung on vowels, in its key or an octave lower, over the accompaniment.

    Raises:
        QbhError: if the file is damaged, or has no melody track or no accompaniment.
    """
    melody, score = read_midi(path), read_score(path)
    start_s = melody[0, 0] - INTRO_S
    rest_s = max((part[:, 0] + part[:, 1]).max() for part in (melody, score.chords)) - start_s
    frames = int(min(rest_s, config.length_s or rest_s) / F0_HOP_S)
    length_s = frames * F0_HOP_S
    octave = np.array([0, 0, 12])
    sung = cut_notes(melody, start_s, length_s) - octave * rng.integers(0, 2)
    hum = render_hum(sung, replace(random_singer(rng), style="vowels"), rng)
    voice, f0 = place_hum(hum, INTRO_S - LEAD_IN_S, length_s)
    chords = cut_notes(score.chords, start_s, length_s)
    backing = render_accompaniment(chords, score.beat_s, length_s, MIX_RATE_HZ, rng)
    return Mixture(mix(voice, f0, backing, rng.uniform(*config.level_db)), f0, f0)
