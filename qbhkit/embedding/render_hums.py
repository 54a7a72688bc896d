"""Render hums to learn from: training songs sung with a hummer's errors, and tracked.

Every hum is drawn from a generator of its own, synthesised and degraded as recordings are;
``crnn-lite`` gives its pitch and its states.
"""

import hashlib
import json
import math
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qbhkit.audio import Audio
from qbhkit.config import check_range
from qbhkit.contour import CONTOUR_HOP_S, F0_HOP_S, Floats, from_notes
from qbhkit.corpora.training_songs import TrainingSongs
from qbhkit.embedding.rendered_pairs import (
    RenderedHum,
    StoredBank,
    join_rendered,
    read_rendered,
    write_rendered,
)
from qbhkit.errors import QbhError
from qbhkit.parallel import parallel_map
from qbhkit.pitch.crnn_lite import LiteExtractor
from qbhkit.pitch.frontends import STATE_NETWORK, StateFrontend
from qbhkit.pitch.trackers import get_tracker, identity_of
from qbhkit.provenance import made_from, record
from qbhkit.synthesis.accompaniment import render_accompaniment
from qbhkit.synthesis.degrade import degrade_recording
from qbhkit.synthesis.mixing import mix
from qbhkit.synthesis.singer import Line, RenderedVoice, Voice, render_line, sung_line
from qbhkit.synthesis.timbre import Timbre, sing
from qbhkit.synthesis.voices import spoken_timbres
from qbhkit.training_loop import generator

_PART_SIZE = 50  # hums in a file
_TRIES = 20
_FEWEST_NOTES = 6
_LONGEST_REST_S = 2.0  # where a stretch of song ends: nobody hums a pause
_SHORTEST_S = 3.0  # of voice that is found in a hum
_LOWEST_ST = 41.0  # MIDI: the network finds nothing under 40
_CHORD_S = 2.0
_TRIADS = np.array([[0, 4, 7], [0, 3, 7], [-4, 0, 3], [-3, 0, 5], [-7, -3, 0], [-7, -4, 0]])


@dataclass(frozen=True)
class RenderConfig:
    """Say how hums are drawn; shares are of all hums.

    Raises:
        QbhError: if ``kind`` is wrong or a number is out of its range.
    """

    kind: str = "rendered-hums"
    count: int = 3000
    seed: int = 0  # of all random numbers
    corpora: tuple[str, ...] = (  # to sing from; their held-out songs are left out
        "essenFolksong", "oneills1850", "airdsAirs", "ryansMammoth", "miscFolk", "pop909",
    )  # fmt: skip
    length_s: tuple[float, float] = (8.0, 20.0)  # of a stretch of a song as written
    at_start: float = 0.3  # share that begins with the song
    median_st: tuple[float, float] = (45.0, 70.0)  # median pitch, MIDI: the keys of real singers
    tempo_octaves: float = 0.4  # tempo 2 ** uniform(-x, x)
    spoken: float = 0.4  # share with the consonants and the timbre of a speech synthesiser
    speech: tuple[str, ...] = ("slt", "rms", "awb", "kal16")  # voices of flite; empty for none
    utterances: int = 10  # of each voice, seven words of song titles each
    accompanied: float = 0.15  # share with an accompaniment
    snr_db: tuple[float, float] = (0.0, 20.0)  # of voice to accompaniment
    degraded: float = 0.25  # share of each: room, band, clipping, 8 bits; noise twice as often

    def __post_init__(self) -> None:
        if self.kind != "rendered-hums":
            raise QbhError(f"kind must be 'rendered-hums', not {self.kind!r}.")
        check_range(self, 1, math.inf, "count", "length_s")
        check_range(self, 0, math.inf, "seed", "tempo_octaves", "utterances")
        check_range(self, 0, 1, "at_start", "spoken", "accompanied", "degraded")
        check_range(self, 0, 127, "median_st")
        check_range(self, -60, 60, "snr_db")


class SynthesisPool(NamedTuple):
    """The songs and the voices that hums are drawn from."""

    config: RenderConfig
    notes: list[NDArray[np.float64]]  # of each song
    tunes: list[int]  # of each song
    timbres: list[Timbre]  # may be empty


def make_pool(config: RenderConfig, songs: TrainingSongs) -> SynthesisPool:
    """Gather the notes of songs and the voices that sing them.

    Raises:
        QbhError: if flite is asked for and not installed, or no song has enough notes.
    """
    sung = []
    for song, tune in zip(songs.songs, songs.groups, strict=True):
        if song.notes is not None:  # of notes that begin together, the first
            notes = song.notes[np.diff(song.notes[:, 0], prepend=-np.inf) > 1e-3]
            if len(notes) >= _FEWEST_NOTES:
                sung.append((notes, tune))
    if not sung:
        raise QbhError(f"There is nothing to sing: no song has {_FEWEST_NOTES} notes.")
    titles = [song.title for song in songs.songs]
    timbres: list[Timbre] = []
    if config.speech:
        timbres = spoken_timbres(
            config.speech, titles, config.utterances, get_tracker().track, config.seed
        )
    return SynthesisPool(config, [notes for notes, _ in sung], [tune for _, tune in sung], timbres)


def render_one(number: int, pool: SynthesisPool, frontend: StateFrontend) -> RenderedHum:
    """Sing a stretch of a song, and track it; the same number gives the same hum.

    Raises:
        QbhError: if none of twenty attempts gives 3 s of voice.
    """
    # Not from a Stream of its own, because shipped weights learnt from hums that were drawn so: hum
    # 3 and the first words of Stream.SPEECH begin with the same numbers.
    rng = generator(pool.config.seed, number)
    for _ in range(_TRIES):
        song = int(rng.integers(len(pool.notes)))
        notes = draw_stretch(pool.notes[song], pool.config, rng)
        if len(notes) < _FEWEST_NOTES:
            continue
        voice = _draw_voice(pool.config, rng)
        line = sung_line(_with_errors(notes, pool.config, rng), voice, rng)
        contour, late_s = frontend.contour_of(_record(line, voice, pool, rng)).trimmed()
        if contour.voiced_s < _SHORTEST_S:
            continue
        spans = sung_spans(notes, line, voice, late_s, len(contour))
        return RenderedHum(contour.states, spans, from_notes(pool.notes[song]), pool.tunes[song])
    raise QbhError("No voice was found in what was rendered: are the songs long enough?")


def draw_stretch(notes: NDArray, config: RenderConfig, rng: Generator) -> NDArray[np.float64]:
    """Draw a stretch of a song's notes (M, 3), in the song's own time, without long rests."""
    first = 0 if rng.random() < config.at_start else int(rng.integers(len(notes)))
    length_s = rng.uniform(*config.length_s)
    ends_s = notes[:, 0] + notes[:, 1]
    rests = np.flatnonzero(notes[first + 1 :, 0] - ends_s[first:-1] > _LONGEST_REST_S)
    last = first + int(rests[0]) + 1 if len(rests) else len(notes)
    inside = notes[first:last]
    return inside[ends_s[first:last] <= inside[0, 0] + length_s]


def _with_errors(notes: NDArray, config: RenderConfig, rng: Generator) -> NDArray[np.float64]:
    """Move a stretch to a singer's key; scale its intervals, add drift and wrong notes."""
    pitch = notes[:, 2]
    middle = np.median(pitch)
    lowest = _LOWEST_ST + middle - pitch.min()
    key = max(rng.uniform(*config.median_st), lowest)
    scale = 1 + rng.uniform(-0.15, 0.15) * (rng.random() < 0.5)
    drift = rng.uniform(-1, 1) * (rng.random() < 0.3) * np.linspace(-0.5, 0.5, len(notes))
    wrong = (rng.random(len(notes)) < 0.02) * rng.choice([-3, -2, -1, 1, 2, 3], len(notes))
    return np.stack([notes[:, 0], notes[:, 1], key + (pitch - middle) * scale + drift + wrong], 1)


def _draw_voice(config: RenderConfig, rng: Generator) -> Voice:
    return Voice(
        style="mm" if rng.random() < 0.5 else "vowels",
        tempo=float(np.exp2(rng.uniform(-config.tempo_octaves, config.tempo_octaves))),
        note_error_st=rng.uniform(0, 0.5),
        timing_error=rng.uniform(0, 0.15),
        glide_s=rng.uniform(0.02, 0.12),
        scoop_st=rng.exponential(0.7),
        vibrato_st=rng.uniform(0, 0.8) * (rng.random() < 0.5),
        vibrato_hz=rng.uniform(4.5, 7),
        jitter_st=rng.uniform(0.02, 0.15),
        breath=rng.uniform(0, 0.1),
        gap=rng.uniform(0, 0.3),
        consonants=rng.uniform(0, 1) * (rng.random() < 0.5),
        tract=rng.uniform(0.8, 1.15),
    )


def _record(line: Line, voice: Voice, pool: SynthesisPool, rng: Generator) -> Audio:
    """Return a degraded recording of a voice, with or without accompaniment."""
    config, rate_hz = pool.config, LiteExtractor.rate_hz
    if pool.timbres and rng.random() < config.spoken:
        timbre = pool.timbres[int(rng.integers(len(pool.timbres)))]
        hum = sing(line, timbre, rng.uniform(0.85, 1.2), rng)
    else:
        hum = render_line(line, voice, rng, rate_hz)
    samples = soxr.resample(hum.audio.samples, hum.audio.rate_hz, rate_hz)
    if rng.random() < config.accompanied:
        samples = _accompany(samples, line, hum, config, rng)
    return Audio(degrade_recording(samples, config.degraded, rng), rate_hz)


def _accompany(
    samples: Floats, line: Line, hum: RenderedVoice, config: RenderConfig, rng: Generator
) -> Floats:
    """Mix a voice with triads, each of which contains the note sung when it begins."""
    length_s = len(samples) / LiteExtractor.rate_hz
    starts_s = np.arange(line.onsets_s[0], length_s, _CHORD_S)
    sung = line.pitch_st[np.minimum(starts_s / F0_HOP_S, len(line.pitch_st) - 1).astype(int)]
    chords = []
    for start_s, pitch in zip(starts_s, sung, strict=True):
        for tone in rng.choice(_TRIADS):
            chords.append([start_s, _CHORD_S, 48 + (round(pitch) + tone) % 12])
    accompaniment = render_accompaniment(
        np.array(chords), _CHORD_S / 4, length_s, LiteExtractor.rate_hz, rng
    )
    f0 = np.where(hum.f0.voiced, hum.f0.frequency_hz, 0.0)
    return mix(samples, f0, accompaniment[: len(samples)], rng.uniform(*config.snr_db))


def sung_spans(
    notes: NDArray, line: Line, voice: Voice, late_s: float, count: int
) -> NDArray[np.float32]:
    """Return which stretch of the song each 100 ms of a recording sings.

    Sung onsets are mapped to the song's onsets. Before the first note and after the last, the
    position in the song does not move.

    Args:
        notes: (M, 3) that were sung, in the song's own time.
        line: how they were sung.
        voice: its ``gap`` cuts the last note short.
        late_s: where the first frame begins in the recording.
        count: frames.

    Returns:
        (count, 2) begin and end, in frames of the song.
    """
    ends_s = len(line.level) * F0_HOP_S - 0.1  # a line goes on for so long after the last note
    sung_s = np.append(line.onsets_s, max(ends_s, line.onsets_s[-1] + F0_HOP_S))
    song_s = np.append(notes[:, 0], notes[-1, 0] + notes[-1, 1] * (1 - voice.gap))
    edges_s = late_s + np.arange(count + 1) * CONTOUR_HOP_S
    edges = np.interp(edges_s, sung_s, song_s) / CONTOUR_HOP_S
    return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.float32)


def render_all(
    config: RenderConfig,
    songs: TrainingSongs,
    path: Path,
    workers: int = 1,
    progress: bool = True,
) -> StoredBank:
    """Render a bank of hums, unless the file holds it already; continue an interrupted run.

    Args:
        config: how to draw.
        songs: to sing.
        path: the ``.safetensors`` file; parts are kept beside it until it is whole.
        workers: processes.
        progress: show a bar on standard error.

    Raises:
        QbhError: as :func:`make_pool` and :func:`render_one`.
    """
    digest = hashlib.sha256()
    for song in songs.songs:
        digest.update(b"" if song.notes is None else np.ascontiguousarray(song.notes).tobytes())
    recipe = {
        "states_of": identity_of(STATE_NETWORK),
        "songs": digest.hexdigest(),
        "drawn": json.loads(json.dumps(asdict(config))),
    }
    if path.is_file():
        with suppress(QbhError):  # a damaged bank is rendered again
            if (stored := read_rendered(path)).recipe == recipe:
                return stored
    folder = path.with_name(f"{path.stem}-parts")
    note = folder / "made_of.json"
    if not made_from(note, recipe):
        shutil.rmtree(folder, ignore_errors=True)  # parts of another bank
        record(note, recipe)
    parts = {
        folder / f"{first:06}.safetensors": range(first, min(first + _PART_SIZE, config.count))
        for first in range(0, config.count, _PART_SIZE)
    }
    due = [(part, numbers) for part, numbers in parts.items() if not part.is_file()]
    missing = sum(len(numbers) for _, numbers in due)
    bar = tqdm(
        desc="render", total=config.count, unit="hum", disable=not progress,
        initial=config.count - missing,
    )  # fmt: skip
    if due:
        pool = make_pool(config, songs)
        for count in parallel_map(_render_part, due, workers, _prepare, (pool,)):
            bar.update(count)
    bar.close()
    join_rendered(list(parts), path, recipe)
    shutil.rmtree(folder)
    return read_rendered(path)


_prepared: tuple[SynthesisPool, StateFrontend]  # of this process


def _prepare(pool: SynthesisPool) -> None:
    global _prepared
    _prepared = pool, StateFrontend()


def _render_part(due: tuple[Path, range]) -> int:
    """Render a part, and return how many hums it holds."""
    path, numbers = due
    write_rendered(path, [render_one(number, *_prepared) for number in numbers], {})
    return len(numbers)
