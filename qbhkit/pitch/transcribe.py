"""Melodies as a network hears them: songs in notes, sung over their own band, and listened to."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
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
from qbhkit.pitch.extract import Extraction
from qbhkit.pitch.trackers import Tracker, get_tracker, identity_of
from qbhkit.provenance import made_from, record
from qbhkit.synthesis.accompaniment import arrange_accompaniment, cut, read_score, render_parts
from qbhkit.synthesis.mixing import MIX_RATE_HZ, Mixture, mix, placed, random_singer
from qbhkit.synthesis.singer import LEAD_IN_S, render_hum
from qbhkit.training import Stream, generator

_INTRO_S = 1.0  # of the accompaniment before the first note that is sung
_SHORTEST_S = 1.0
_NOTE = "transcribed.json"  # beside the melodies: how they were made


@dataclass(frozen=True)
class TranscribeConfig:
    """Say how songs are sung and played before they are listened to.

    Args:
        seed: of everything that is drawn; each song has draws of its own.
        length_s: how much of each song, from a second before its first note; None for all of it.
        level_db: lowest and highest ratio of voice to accompaniment.

    Raises:
        QbhError: if a song would last less than a second, or the lowest level is above the highest.
    """

    seed: int = 0
    length_s: float | None = None
    level_db: tuple[float, float] = (-3.0, 6.0)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise QbhError(f"The seed must be 0 or more, not {self.seed}.")
        if self.length_s is not None and not _SHORTEST_S <= self.length_s < float("inf"):
            raise QbhError(f"Songs must be heard for at least 1 s, not {self.length_s:g} s.")
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
    """Render the songs of a corpus as sung over a band, and write what a tracker hears.

    Only songs that may be trained on are rendered. Writes ``ID.f0.csv`` for each, on the grid of
    contours; a song that is there already is passed over, so that a stopped run goes on.

    Args:
        name: a corpus of MIDI files with a melody track and an accompaniment, and with a split.
        data: the folder that holds corpora.
        folder: where the melodies are written.
        config: how songs are rendered.
        tracker: name of the tracker.
        songs: only the first so many; None for all.
        progress: show a bar on standard error.

    Returns:
        How many were written and were there, and the songs in which nothing could be heard.

    Raises:
        QbhError: if the corpus is not there, is not of this kind, or may not be trained on; if
            there is no such tracker; if the folder holds melodies that were made otherwise.
        MissingPackageError: if a package is not installed.
    """
    if songs is not None and songs < 1:
        raise QbhError(f"At least one song must be heard, not {songs}.")
    forbidden = forbidden_ids(split_of(name))
    corpus = open_corpus(name, data)
    if not isinstance(corpus, MidiFiles):
        raise QbhError(f"{name} has no accompaniment to sing over: use pop909.")
    listener = get_tracker(tracker)
    _claim(folder, {"corpus": name, "tracker": identity_of(tracker), **asdict(config)})
    allowed = [path for path in corpus.files if stem_of(path) not in forbidden][:songs]
    outputs = {path: folder / f"{stem_of(path)}.f0.csv" for path in allowed}
    due = [path for path in allowed if not outputs[path].is_file()]
    failures = []
    for path in tqdm(due, "hear", unit="song", disable=not progress):
        try:
            write_f0_csv(transcribe_song(path, config, listener), outputs[path])
        except MissingPackageError:
            raise  # no other song would fare better
        except QbhError as error:
            failures.append(Failure(str(path), str(error)))
    return Extraction(len(due) - len(failures), len(allowed) - len(due), failures)


def _claim(folder: Path, recipe: dict[str, Any]) -> None:
    """Note how the melodies of a folder are made; refuse one that holds others."""
    note = folder / _NOTE
    if made_from(note, recipe):
        return
    if note.is_file() or any(folder.glob("*.f0.csv")):
        raise QbhError(
            f"{folder} holds melodies that were made otherwise: delete it, or choose another "
            "with --out."
        )
    record(note, recipe)


def transcribe_song(path: Path, config: TranscribeConfig, tracker: Tracker) -> F0Track:
    """Render a song and listen to it.

    Args:
        path: a MIDI file with a melody track and an accompaniment; its name is the song's id.
        config: how it is rendered; the draws depend on the seed and the song's id alone.
        tracker: what listens.

    Returns:
        What was heard, every 100 ms, from a second before the first note.

    Raises:
        QbhError: if the file is damaged or lacks a part, or no voice was heard.
    """
    rng = generator(
        config.seed, Stream.TRANSCRIPTION, int.from_bytes(stem_of(path).encode(), "big")
    )
    mixture = song_mixture(path, config, rng)
    samples = soxr.resample(mixture.samples, MIX_RATE_HZ, tracker.rate_hz)
    heard = from_f0(tracker.track(Audio(samples, tracker.rate_hz)))
    if not heard.voiced.any():
        raise QbhError(f"{path} was sung and played, but no voice was heard in it: leave it out.")
    return pitch_track(heard.pitch_st, heard.hop_s)


def song_mixture(path: Path, config: TranscribeConfig, rng: Generator) -> Mixture:
    """Sing a song's melody on vowels, in its own key or an octave lower, over its accompaniment.

    Args:
        path: a MIDI file with a melody track and an accompaniment.
        config: length and levels.
        rng: the random generator.

    Returns:
        Samples at 8 kHz and the pitch that was sung, from a second before the first note.

    Raises:
        QbhError: if the file is damaged, or has no melody track or nothing beside it.
    """
    melody, score = read_midi(path), read_score(path)
    start_s = melody[0, 0] - _INTRO_S
    rest_s = max(_end_s(melody), _end_s(score.chords)) - start_s
    frames = int(min(rest_s, config.length_s or rest_s) / F0_HOP_S)
    length_s = frames * F0_HOP_S
    octave = np.array([0, 0, 12])
    sung = cut(melody, start_s, length_s) - octave * rng.integers(0, 2)
    hum = render_hum(sung, replace(random_singer(rng), style="vowels"), rng)
    voice, f0 = placed(hum, _INTRO_S - LEAD_IN_S, length_s)
    parts = arrange_accompaniment(cut(score.chords, start_s, length_s), score.beat_s, length_s, rng)
    band = render_parts(parts, length_s, MIX_RATE_HZ)
    return Mixture(mix(voice, f0, band.samples, rng.uniform(*config.level_db)), f0)


def _end_s(notes: NDArray) -> float:
    return float((notes[:, 0] + notes[:, 1]).max())
