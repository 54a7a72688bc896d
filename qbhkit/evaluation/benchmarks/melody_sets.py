"""The recordings of ``qbhkit bench melody``: where they are, and the pitch that is sung in them.

What is made (mixtures, degradations) is drawn from generators seeded by the clip's own name, and
kept in a folder of the cache as 16-bit wav files. Nothing of it is ever committed.
"""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray

from qbhkit.audio import Audio, load, write_wav
from qbhkit.contour import F0_HOP_S, from_notes, midi_to_hz
from qbhkit.corpora.folders import EVALUATION_YEAR, MIR_QBSH_LABEL_HOP_S, MirQbsh, pop909
from qbhkit.corpora.training_songs import read_split
from qbhkit.errors import QbhError
from qbhkit.pitch.trackers import on_f0_grid
from qbhkit.synthesis import degrade
from qbhkit.synthesis.accompaniment import (
    UNHEARD,
    Part,
    Score,
    cut_notes,
    read_score,
    render_accompaniment,
    render_parts,
)
from qbhkit.synthesis.mixing import MIX_RATE_HZ, mix
from qbhkit.training_loop import generator

SEED = 20261122
_CHOICE, _BAND, _DEGRADE, _SOLO = range(4)  # what a generator is for
SNRS_DB = (10, 5, 0, -5)
PER_SINGER, DEGRADED_PER_SINGER = 3, 2
NOISE_S = 10.0  # also of a solo
SOLOS, SOLO_DB = 4, 5.0  # of each instrument; over the band
_NOISE_LEVEL = 0.1
CLIPPED_DB, DECAY_S, WET, SHIFT_ST = 10.0, 0.8, 0.3, 3.0
_EIGHT_BIT_PEAK = 4.0  # full scale over the hum's peak: the recordings have 8 bits to begin with
_FEWEST_CHORD_NOTES = 2.0  # a second
_FEWEST_NOTES = 10  # of a solo
_TRIES = 50
_LOUDEST = 0.99  # a file holds no more than 1
_PUBLISHED = {
    "test_audio.mp4": "pitch_test_audio_file.mp4.txt",
    "test_audio2.wav": "pitch_test_audio_file2.wav.txt",
}
_PUBLISHED_HZ = 44100
PUBLISHED_TOO_HIGH_ST = 5.0  # swift-f0, Melodia and FCPE agree on it: medians of 4.95 to 5.03
RECIPE = {
    "seed": SEED,
    "hums": "MIR-QBSH, singers that are not training_singers of data/splits/mir_qbsh.json",
    "scored": "recorded voices every 32 ms, at the labels of MIR-QBSH; all others every 10 ms",
    "songs": "each hum and vocadito clip under one accompaniment of its own: a held-out song of "
    "POP909 (data/splits/pop909.json), from a drawn second on, by "
    "qbhkit.synthesis.accompaniment; qbhkit.synthesis.mixing.mix at 8 kHz",
    "snr_db": list(SNRS_DB),
    "instrumental": f"tunes of the held-out songs of POP909, {NOISE_S:g} s each, played by General "
    f"MIDI programs {', '.join(map(str, UNHEARD))} (counted from 0), {SOLO_DB:g} dB over the band; "
    "scored as if the instrument sang",
    "agreement": "the published model's pitch on its two test recordings, lowered by "
    f"{PUBLISHED_TOO_HIGH_ST:g} semitones: its files lie so far above what is sung",
    "robustness": f"white noise at 10 and 0 dB; half level; clipped {CLIPPED_DB:g} dB too loud; "
    f"8 bits with the peak at a quarter of full scale; reverberation of {DECAY_S:g} s at {WET:g} "
    f"of the level; played faster by {SHIFT_ST:g} semitones",
}


class Clip(NamedTuple):
    """One recording and its true pitch."""

    name: str  # singer/recording
    path: Path
    f0_hz: NDArray[np.float32]  # (N,) Hz every 10 ms, 0 = unvoiced
    label_hop_s: float = F0_HOP_S  # how often the pitch was labelled, if more rarely than that

    @property
    def scored(self) -> NDArray[np.int64]:
        """The frames nearest to the labels: between labels the truth is a guess."""
        count = int(len(self.f0_hz) * F0_HOP_S / self.label_hop_s + 1e-6)
        middle_s = (np.arange(count) + 0.5) * self.label_hop_s
        return np.round(middle_s / F0_HOP_S - 0.5).astype(int)

    @property
    def singer(self) -> str:
        """Name of the singer."""
        return self.name.split("/")[0]


def bench_sets(data: Path, folder: Path, per_singer: int = PER_SINGER) -> dict[str, list[Clip]]:
    """Return all sets by name; what is made is written to a folder. 0 a singer takes all hums."""
    held_out = set(read_split("pop909")["held_out"])
    songs = [path for path in pop909(data / "pop909").files if path.stem in held_out]
    hums, solos = held_out_hums(data, per_singer), vocadito(data)
    few = first_of_each_singer(hums, DEGRADED_PER_SINGER)
    sets = {"hums": hums, "vocadito": solos, **under_bands([*hums, *solos], songs, folder)}
    sets |= {"instrumental": instrumental(songs, folder)}
    sets |= {"agreement": published(data, folder), "as recorded": few}
    return sets | degraded(few, folder) | noises(folder)


def fingerprint(clips: Iterable[Clip]) -> str:
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(clip.path.read_bytes())
        digest.update(clip.f0_hz.tobytes())
    return digest.hexdigest()


def first_of_each_singer(clips: list[Clip], count: int) -> list[Clip]:
    taken: dict[str, list[Clip]] = {}
    for clip in clips:
        taken.setdefault(clip.singer, []).append(clip)
    return [clip for group in taken.values() for clip in group[:count]]


def held_out_hums(data: Path, per_singer: int) -> list[Clip]:
    """Return recordings of MIR-QBSH by singers that nothing was trained on, with their labels."""
    from qbhkit.synthesis.voices import labelled_f0  # imports torch: not in every worker

    training = set(read_split("mir_qbsh")["training_singers"])
    clips = []
    for hum in MirQbsh(data / "mir-qbsh").hums(EVALUATION_YEAR):
        if hum.singer not in training and hum.labelled_st is not None:
            frames = round(load(hum.path, MIX_RATE_HZ).duration_s / F0_HOP_S)
            f0 = labelled_f0(hum.labelled_st, frames)
            name = f"{hum.path.parent.name}/{hum.song_id}"
            clips.append(Clip(name, hum.path, f0, MIR_QBSH_LABEL_HOP_S))
    shuffled = [clips[index] for index in generator(SEED, _CHOICE).permutation(len(clips))]
    chosen = first_of_each_singer(shuffled, per_singer or len(clips))
    return sorted(chosen, key=lambda clip: clip.singer)


def vocadito(data: Path) -> list[Clip]:
    """Return both vocadito clips, scored as often as MIR-QBSH: a second counts alike in a pool."""
    clips = []
    for path in sorted((data / "singing" / "vocadito").glob("*.wav")):
        with open(path.with_name(f"{path.stem}_f0.csv"), newline="", encoding="ascii") as stream:
            at_s, hz = np.array([row for row in csv.reader(stream)], float).T
        track = on_f0_grid(at_s, hz, (hz > 0).astype(float), load(path).duration_s)
        clips.append(Clip(f"{path.stem}/1", path, track.frequency_hz, MIR_QBSH_LABEL_HOP_S))
    return clips


def under_bands(clips: list[Clip], songs: list[Path], folder: Path) -> dict[str, list[Clip]]:
    """Return ``songs +10 dB`` and so on: every clip under one band of its own, at four levels."""
    names = [f"songs {snr:+d} dB" if snr else "songs 0 dB" for snr in SNRS_DB]
    sets: dict[str, list[Clip]] = {name: [] for name in names}
    for clip in clips:
        voice = load(clip.path, MIX_RATE_HZ)
        band = accompaniment(songs, voice.duration_s, _rng(_BAND, clip))
        for name, snr in zip(names, SNRS_DB, strict=True):
            mixed = mix(voice.samples[: len(band)], clip.f0_hz, band, snr)
            sets[name].append(_again(folder / name, clip, mixed))
    return sets


def accompaniment(songs: list[Path], length_s: float, rng: Generator) -> NDArray[np.float32]:
    """Render a stretch of the accompaniment of one of some MIDI files at 8 kHz."""
    _, chords, beat_s = _stretch(songs, length_s, rng)
    return render_accompaniment(chords, beat_s, length_s, MIX_RATE_HZ, rng)


def _stretch(songs: list[Path], length_s: float, rng: Generator) -> Score:
    """Return some seconds of one of some songs."""
    for _ in range(_TRIES):
        try:
            score = read_score(songs[rng.integers(len(songs))])
        except QbhError:
            continue
        latest_s = score.chords[-1, 0] - length_s
        begin_s = rng.uniform(0, max(latest_s, 1e-3))
        melody, chords = (cut_notes(notes, begin_s, length_s) for notes in score[:2])
        if latest_s > 0 and len(chords) >= _FEWEST_CHORD_NOTES * length_s:
            return Score(melody, chords, score.beat_s)
    raise QbhError(f"Not one of the songs drawn has an accompaniment of {length_s:.1f} s.")


def instrumental(songs: list[Path], folder: Path) -> list[Clip]:
    """Return tunes over bands, played by instruments that no network has learnt from."""
    clips = []
    for program in UNHEARD:
        for take in range(SOLOS):
            rng = generator(SEED, _SOLO, program, take)
            melody = np.zeros((0, 3))
            while len(melody) < _FEWEST_NOTES:
                melody, chords, beat_s = _stretch(songs, NOISE_S, rng)
            solo = render_parts([Part(program, melody, 100)], NOISE_S, MIX_RATE_HZ).samples
            band = render_accompaniment(chords, beat_s, NOISE_S, MIX_RATE_HZ, rng)
            pitch = np.pad(from_notes(melody, F0_HOP_S).pitch_st, (0, round(NOISE_S / F0_HOP_S)))
            pitch = pitch[: round(NOISE_S / F0_HOP_S)]
            f0 = np.where(pitch > 0, midi_to_hz(pitch), 0)
            made = f"{program}/{take}", mix(solo, f0, band, SOLO_DB), MIX_RATE_HZ, f0
            clips.append(_made(folder / "instrumental", *made))
    return clips


def published(data: Path, folder: Path) -> list[Clip]:
    """Return the published model's two test recordings with the pitch it gave, put right.

    Its pitch lies five semitones too high, as if its classes had begun at MIDI 45 and not 40. Its
    frame k is centred on k * 10 ms, the kit's on (k + 0.5) * 10 ms: so the recordings are put off
    by 5 ms. Frames that only fill up its last patch are dropped.
    """
    lower = 2 ** (-PUBLISHED_TOO_HIGH_ST / 12)
    place, clips = data / "singing" / "kum2020", []
    for name, label in _PUBLISHED.items():
        audio = load(place / name, _PUBLISHED_HZ)
        samples = np.pad(audio.samples, (round(F0_HOP_S / 2 * _PUBLISHED_HZ), 0))
        frames = round(len(samples) / _PUBLISHED_HZ / F0_HOP_S)
        hz = np.loadtxt(place / label)[:frames, 1]
        made = folder / "agreement", f"{Path(name).stem}/1", samples, _PUBLISHED_HZ, lower * hz
        clips.append(_made(*made))
    return clips


def degraded(clips: list[Clip], folder: Path) -> dict[str, list[Clip]]:
    """Return the clips as a bad microphone, a loud room or a higher voice would give them."""
    sets: dict[str, list[Clip]] = {}
    for clip in clips:
        whole, rng = load(clip.path, MIX_RATE_HZ).samples, _rng(_DEGRADE, clip)
        full_scale = _EIGHT_BIT_PEAK * float(np.abs(whole).max())
        kinds = {
            "noise 10 dB": degrade.add_noise(whole, 10, 0, rng),
            "noise 0 dB": degrade.add_noise(whole, 0, 0, rng),
            "half level": 0.5 * whole,
            "clipped": degrade.clip(whole, CLIPPED_DB),
            "8 bit": degrade.quantise(whole, 8, full_scale),
            "reverberation": degrade.reverberate(whole, DECAY_S, WET, MIX_RATE_HZ, rng),
        }
        for kind, samples in kinds.items():
            sets.setdefault(kind, []).append(_again(folder / kind, clip, samples))
        higher, f0 = faster(whole, clip.f0_hz, SHIFT_ST)
        hop_s = clip.label_hop_s / 2 ** (SHIFT_ST / 12)
        made = _made(folder / "transposed", clip.name, higher, MIX_RATE_HZ, f0)
        sets.setdefault("transposed", []).append(made._replace(label_hop_s=hop_s))
    return sets


def faster(
    samples: NDArray, f0_hz: NDArray, shift_st: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Play 8 kHz faster, so that the pitch rises: nothing is estimated, labels stay exact."""
    ratio = 2 ** (shift_st / 12)
    higher = soxr.resample(samples.astype(np.float32), MIX_RATE_HZ * ratio, MIX_RATE_HZ)
    count = round(len(higher) / MIX_RATE_HZ / F0_HOP_S)
    before = np.minimum(((np.arange(count) + 0.5) * ratio).astype(int), len(f0_hz) - 1)
    return higher, (f0_hz[before] * ratio).astype(np.float32)


def noises(folder: Path) -> dict[str, list[Clip]]:
    """Return nothing but noise, white and pink: whatever is found in it is invented."""
    count, silence = round(NOISE_S * MIX_RATE_HZ), np.zeros(round(NOISE_S / F0_HOP_S), np.float32)
    sets = {}
    for colour, name in enumerate(("white noise", "pink noise")):
        samples = _NOISE_LEVEL * degrade.noise(count, colour, generator(SEED, _DEGRADE, colour))
        sets[name] = [_made(folder / name, "nobody/1", samples, MIX_RATE_HZ, silence)]
    return sets


def _made(folder: Path, name: str, samples: NDArray, rate_hz: int, f0_hz: NDArray) -> Clip:
    """Write a recording, softer where it would not fit into a file."""
    softer = min(1.0, _LOUDEST / max(float(np.abs(samples).max()), 1e-9))
    path = folder / f"{name}.wav"
    write_wav(Audio((softer * samples).astype(np.float32), rate_hz), path)
    return Clip(name, path, f0_hz.astype(np.float32))


def _again(folder: Path, clip: Clip, samples: NDArray) -> Clip:
    made = _made(folder, clip.name, samples, MIX_RATE_HZ, clip.f0_hz)
    return made._replace(label_hop_s=clip.label_hop_s)


def _rng(purpose: int, clip: Clip) -> Generator:
    return generator(SEED, purpose, crc32(clip.name.encode()))
