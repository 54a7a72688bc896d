"""Accompaniments from notes, played by a General MIDI SoundFont: chords, a bass and drums."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.audio import Audio
from qbhkit.corpora.midi import MELODY_TRACK, note_table, open_score, pitched_tracks
from qbhkit.errors import MissingPackageError, QbhError, missing_package

_RENDER_HZ = 32000  # the samples of a SoundFont alias when they are read at 8 kHz
_DRUMS = 9  # the channel of General MIDI's drum kit
_KICK, _SNARE, _HAT = 36, 38, 42
_CRASH, _TOMS = 49, (38, 43, 47, 50)
# Bars of sixteenths by drum: rock, four on the floor with claps, sixteenths, half time with a ride.
_LOOPS = (
    {36: "x.....x.x.......", 38: "....x.......x...", 42: "x.x.x.x.x.x.x.x."},
    {36: "x...x...x...x...", 39: "....x.......x...", 46: "..x...x...x...x."},
    {36: "x..x......x..x..", 38: "....x..x.x..x...", 42: "xxxxxxxxxxxxxxxx"},
    {36: "x.....x...x.....", 40: "........x.......", 51: "x.x.x.x.x.x.x.x."},
)
_TAIL_S = 0.5
# General MIDI programs, counted from 0: what plays chords, what plays a bass, what plays a tune.
CHORDS = (*range(0, 8), *range(16, 32), *range(46, 52), *range(88, 96))
BASSES = tuple(range(32, 40))
LEADS = (0, 4, 11, 12, 13, 21, 22, 24, 25, 40, 41, 42, 56, 57, 59, 60, *range(64, 88))
# What dense arrangements draw, and the instruments of solos: they sound at the written pitch.
GUITARS, CHOIRS = (29, 30), (52, 53, 54)  # overdriven and distorted; aahs, oohs, synth voice
PADS = (44, 48, 49, 50, 51, *range(88, 104))
MORE_CHORDS = (*CHORDS, 8, 9, 10, 14, 45, 55, 61, 62, 63, *range(105, 109), 112, 114)
COUNTER_LINES = (*LEADS, 43, 104, 110)
SOLOISTS = (
    0, 21, 22, 24, 25, 26, 27, 29, 30, 40, 42, 56, 57, 59, 64, 65, 66, 67, 68, 71, 73, 74, 79, 80,
    81,
)  # fmt: skip
UNHEARD = (15, 58, 109, 111)  # dulcimer, tuba, bagpipe, shanai: only for tests, never trained on


class Part(NamedTuple):
    """Notes for one instrument."""

    program: int  # General MIDI, from 0; ignored for drums
    notes: NDArray[np.float64]  # (M, 3) onset in seconds, duration in seconds, MIDI pitch
    velocity: int  # 1 to 127
    drums: bool = False


class Score(NamedTuple):
    """A song's tune and its accompaniment, in seconds, by onset."""

    melody: NDArray[np.float64]  # (M, 3)
    chords: NDArray[np.float64]  # (K, 3) every other pitched track
    beat_s: float


def read_score(path: Path) -> Score:
    """Read a MIDI file whose tune has a named track of its own.

    Raises:
        QbhError: if the file is missing or damaged, or has no melody track or no other track.
    """
    score = open_score(path)
    tracks = pitched_tracks(score)
    named = [track for track in tracks if MELODY_TRACK.search(track.name)]
    others = [track for track in tracks if track not in named]
    if not named or not others:
        raise QbhError(f"{path} needs a track named melody and an accompaniment.")
    tempo = score.tempos[0].qpm if len(score.tempos) else 120.0
    beat_s = 60.0 / float(np.clip(tempo, 40, 240))
    melody, chords = (
        notes[np.argsort(notes[:, 0], kind="stable")]
        for notes in (note_table(named[:1]), note_table(others))
    )
    return Score(melody, chords, beat_s)


def cut_notes(notes: NDArray, start_s: float, length_s: float) -> NDArray[np.float64]:
    """Return the (M, 3) notes that begin in a span of time; onsets count from its start."""
    inside = (notes[:, 0] >= start_s) & (notes[:, 0] < start_s + length_s)
    chosen = notes[inside] - [start_s, 0, 0]
    chosen[:, 1] = np.minimum(chosen[:, 1], length_s - chosen[:, 0])
    return chosen


def arrange_accompaniment(
    chords: NDArray, beat_s: float, length_s: float, rng: Generator
) -> list[Part]:
    """Draw instruments for an accompaniment: one or two for chords, perhaps a bass and drums.

    Args:
        chords: (K, 3) onset in seconds from 0, duration in seconds, MIDI pitch.
        beat_s: seconds of a beat, for bass and drums.
        length_s: how long the drums play.
        rng: the random generator.

    Notebook: notebooks/01_audio_to_melody.py
    """
    programs = rng.choice(CHORDS, size=rng.integers(1, 3), replace=False)
    parts = [Part(int(program), chords, int(rng.integers(60, 110))) for program in programs]
    if len(chords) and rng.random() < 0.7:
        beat = np.floor(chords[:, 0] / beat_s).astype(int)
        lowest_of_beat = np.full(beat.max() + 1, 60.0)
        np.minimum.at(lowest_of_beat, beat, chords[:, 2])
        lowest = chords[chords[:, 2] <= lowest_of_beat[beat]].copy()
        lowest[:, 2] = 28 + (lowest[:, 2] - 28) % 12 + 12 * (rng.random() < 0.5)
        parts.append(Part(int(rng.choice(BASSES)), lowest, int(rng.integers(70, 120))))
    if rng.random() < 0.7:
        parts.append(Part(0, _beat(beat_s, length_s, rng), int(rng.integers(60, 120)), drums=True))
    return parts


def arrange_dense(chords: NDArray, beat_s: float, length_s: float, rng: Generator) -> list[Part]:
    """Draw three to six parts of a loud band; the arguments are those of the plain arrangement.

    Guitars with power chords, chords, pads, a choir, a counter-line, a bass in octaves, and drums.
    """
    beats, held = _spans(chords, beat_s), _spans(chords, 2 * beat_s)
    guitar = [
        [start_s + k * beat_s / 2, beat_s / 2, 40 + (pitches[0] - 40) % 12 + interval]
        for start_s, pitches in beats
        for k in range(2)
        for interval in (0, 7, 12)
    ]
    choir = [[s, 2 * beat_s, 57 + (p - 57) % 12] for s, pitches in held for p in pitches]
    pads = [[s, 2 * beat_s, p] for s, pitches in held for p in pitches]
    counter = [[s, beat_s, 64 + (rng.choice(pitches) - 64) % 12] for s, pitches in beats]
    bass = [[s, beat_s, 28 + (p[0] - 28) % 12 + up] for s, p in beats for up in (0, 12)]
    pitched: list[tuple[tuple[int, ...], Any]] = [
        (GUITARS, guitar), (MORE_CHORDS, chords), (PADS, pads), (CHOIRS, choir),
        (COUNTER_LINES, counter), (BASSES, bass),
    ]  # fmt: skip
    parts = [
        Part(int(rng.choice(programs)), np.reshape(notes, (-1, 3)), int(rng.integers(70, 115)))
        for programs, notes in pitched
    ]
    loop = _drum_loop(beat_s, length_s, rng)
    parts.append(Part(0, loop, int(rng.integers(90, 128)), drums=True))
    return [parts[k] for k in rng.permutation(len(parts))[: rng.integers(3, 7)]]


def _spans(chords: NDArray, span_s: float) -> list[tuple[float, NDArray]]:
    """Return the start of every span in which a chord begins, in seconds, and its pitches."""
    span = np.floor(chords[:, 0] / span_s).astype(int)
    return [(k * span_s, np.unique(chords[span == k, 2])) for k in np.unique(span)]


def _drum_loop(beat_s: float, length_s: float, rng: Generator) -> NDArray[np.float64]:
    """Return bars of one pattern, straight or swung, some with a crash or a fill."""
    loop, swing = _LOOPS[rng.integers(len(_LOOPS))], rng.choice([0.0, 0.0, 0.67])
    rows = []
    for bar in range(int(np.ceil(length_s / beat_s / 4))):
        fill = rng.random() < 0.25
        hits = [
            (step, drum)
            for drum, steps in loop.items()
            for step in range(12 if fill else 16)
            if steps[step] == "x"
        ]
        hits += [(step, int(rng.choice(_TOMS))) for step in range(12, 16) if fill]
        hits += [(0, _CRASH)] * (rng.random() < 0.4)
        rows += [[16 * bar + step + swing * (step % 4 == 2), 0.4, drum] for step, drum in hits]
    notes = np.array(rows) * [beat_s / 4, beat_s / 4, 1]
    return notes[notes[:, 0] < length_s]


def render_accompaniment(
    chords: NDArray, beat_s: float, length_s: float, rate_hz: int, rng: Generator
) -> NDArray[np.float32]:
    """Return the samples of :func:`arrange_accompaniment`, played by :func:`render_parts`."""
    parts = arrange_accompaniment(chords, beat_s, length_s, rng)
    return render_parts(parts, length_s, rate_hz).samples


def render_parts(parts: list[Part], length_s: float, rate_hz: int) -> Audio:
    """Play at most 15 instruments and the drums together, for exactly ``length_s``.

    Raises:
        MissingPackageError: if tinysoundfont or the SoundFont is not installed.

    Notebook: notebooks/01_audio_to_melody.py
    """
    import soxr

    try:
        import tinysoundfont
    except ImportError:
        raise missing_package("The synthesiser", "--no-deps tinysoundfont==0.3.7") from None
    synth = tinysoundfont.Synth(samplerate=_RENDER_HZ, gain=-12)
    font = synth.sfload(str(soundfont()))
    channels = iter(channel for channel in range(16) if channel != _DRUMS)
    events: list[tuple[float, int, int, int, int]] = []
    for part in parts:
        channel = _DRUMS if part.drums else next(channels)
        synth.program_select(channel, font, 128 if part.drums else 0, part.program, part.drums)
        for onset_s, duration_s, pitch in part.notes:
            events.append((onset_s, 1, channel, int(pitch), part.velocity))
            events.append((onset_s + duration_s, 0, channel, int(pitch), 0))
    stereo = bytearray()  # float32

    def play_until(at: int) -> None:
        if (missing := at - len(stereo) // 8) > 0:
            stereo.extend(bytes(synth.generate(missing)))

    for at_s, begins, channel, pitch, velocity in sorted(events):
        play_until(round(min(at_s, length_s) * _RENDER_HZ))
        if begins:
            synth.noteon(channel, pitch, velocity)
        else:
            synth.noteoff(channel, pitch)
    play_until(round((length_s + _TAIL_S) * _RENDER_HZ))
    mono = np.frombuffer(stereo, np.float32).reshape(-1, 2).mean(1)
    samples = soxr.resample(mono, _RENDER_HZ, rate_hz)
    return Audio(samples[: round(length_s * rate_hz)].astype(np.float32), rate_hz)


@cache
def soundfont() -> Path:
    """Return the SoundFont that pretty_midi ships (TimGM6mb, GPL-2: read, never redistributed).

    Raises:
        MissingPackageError: if pretty_midi is not installed.
    """
    spec = find_spec("pretty_midi")
    fonts = sorted(Path(str(spec.origin)).parent.glob("*.sf2")) if spec else []
    if not fonts:
        raise MissingPackageError(
            "No SoundFont is installed: pip install 'qbhkit[training]' brings pretty_midi's."
        )
    return fonts[0]


def _beat(beat_s: float, length_s: float, rng: Generator) -> NDArray[np.float64]:
    """Return kick, snare and hat in plain four-four time, some of the hats left out."""
    eighths = np.arange(0, length_s, beat_s / 2)
    count = np.arange(len(eighths))
    hits = [(eighths[count % 4 == 0], _KICK), (eighths[count % 4 == 2], _SNARE)]
    hits.append((eighths[rng.random(len(eighths)) < rng.uniform(0.3, 1)], _HAT))
    rows = [np.stack([at, np.full(len(at), 0.1), np.full(len(at), drum)], 1) for at, drum in hits]
    return np.concatenate(rows)
