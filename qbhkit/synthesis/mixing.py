"""Mixtures to train on: voices of known pitch over an accompaniment.

A bank keeps the stems of short excerpts on disk; mixtures are drawn from it during training.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import binary_opening

from qbhkit.config import former_names
from qbhkit.contour import F0_HOP_S, midi_to_hz
from qbhkit.errors import QbhError
from qbhkit.parallel import parallel_map
from qbhkit.provenance import made_from, record
from qbhkit.storage import map_array, read_json
from qbhkit.synthesis import degrade
from qbhkit.synthesis.accompaniment import (
    LEADS,
    SOLOISTS,
    Part,
    arrange_accompaniment,
    arrange_dense,
    cut_notes,
    read_score,
    render_parts,
)
from qbhkit.synthesis.singer import (
    LEAD_IN_S,
    RenderedVoice,
    Voice,
    add_breaths,
    harmony,
    render_line,
    sung_line,
    with_melismas,
)
from qbhkit.synthesis.timbre import Timbre, sing, sing_again
from qbhkit.training_loop import Stream, generator

MIX_RATE_HZ = 8000
MIX_HOP = round(F0_HOP_S * MIX_RATE_HZ)  # samples a frame
EXCERPT_S = 8.0
_SAMPLES = round(EXCERPT_S * MIX_RATE_HZ)
_FRAMES = round(EXCERPT_S / F0_HOP_S)
# Names of the files, in the order of Excerpt's fields; the last two only since the second recipe.
_STEMS = ("band", "lead", "voice", "f0", "backing", "lead_f0")
_TRIES = 20
_LONG_REST = round(3 / F0_HOP_S)  # frames: a shorter rest belongs to the sung melody
_PROMINENT_DB = 3.0  # a lead instrument so far below the accompaniment is still the melody


class Excerpt(NamedTuple):
    """Hold the stems of one excerpt, 8 s at 8 kHz; each may be silent."""

    accompaniment: NDArray[np.float32]  # (64000,)
    lead: NDArray[np.float32]  # (64000,) the tune played by an instrument
    voice: NDArray[np.float32]  # (64000,) the tune sung
    f0: NDArray[np.float32]  # (800,) Hz of the voice every 10 ms, 0 = unvoiced
    backing: NDArray[np.float32] = np.zeros(_SAMPLES, np.float32)  # doubles and harmonies of it
    lead_f0: NDArray[np.float32] = np.zeros(_FRAMES, np.float32)  # Hz of lead, 0 = it rests


class PlacedVoice(NamedTuple):
    """Hold samples of a voice at 8 kHz and its pitch."""

    samples: NDArray[np.float32]  # (80 N,)
    f0: NDArray[np.float32]  # (N,) Hz every 10 ms, 0 = unvoiced


class Mixture(NamedTuple):
    """Hold samples at 8 kHz, the pitch of the voice in them, and that of the lead melody."""

    samples: NDArray[np.float32]  # (80 N,)
    f0: NDArray[np.float32]  # (N,) Hz every 10 ms, 0 = unvoiced
    lead_f0: NDArray[np.float32]  # (N,) see lead_melody


class Recorded(NamedTuple):
    """Hold a recorded voice whose pitch is known, and its timbre if it has enough syllables."""

    samples: NDArray[np.float32]  # at 8 kHz
    f0: NDArray[np.float32]  # Hz every 10 ms, 0 = unvoiced
    timbre: Timbre | None


@dataclass(frozen=True)
class MixConfig:
    """Say how excerpts and mixtures are drawn; shares are probabilities."""

    excerpts: int = 2400  # in the bank
    snr_db: tuple[float, float] = (-5.0, 20.0)  # lowest and highest, voice over accompaniment
    vocal_free: float = 0.12  # share without a voice; some of these are only noise
    recorded: float = 0.3  # share of recorded voices over the accompaniment of another song
    bare: float = 0.08  # share of voices without accompaniment
    doubled: float = 0.3  # share with an instrument that plays the tune
    source_filter: float = 0.12  # share of excerpts that are not sung with a real timbre
    degraded: float = 0.15  # share of each kind of damage: room, noise, band, clipping, 8 bits
    # What follows widens the synthesis of version 1; with all shares at 0 nothing changes.
    dense: float = 0.0  # share of accompaniments by arrange_dense
    melisma: float = 0.0  # share of long notes that are sung on two or three pitches
    breaths: float = 0.0  # share of excerpts whose singer is heard breathing
    harmonised: float = 0.0  # share with doubles or harmonies of the voice
    split: float = 0.0  # share with a voice in one half and a soloist in the other
    produced: float = 0.0  # share with effects of a studio


_LATER = ("dense", "melisma", "breaths", "harmonised", "split", "produced")


class StemBank:
    """Read the excerpts that :func:`build_bank` wrote, by memory map.

    Raises:
        QbhError: if the bank is not there, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.info = read_json(folder / "bank.json", "build the bank again")
        try:
            names = [name for name in _STEMS if name in self.info.get("stems", _STEMS[:4])]
            self._stems = {name: map_array(folder / f"{name}.npy") for name in names}
        except (OSError, ValueError) as error:
            raise QbhError(f"{folder} is damaged ({error}): delete it, and train again.") from None

    def __len__(self) -> int:
        return len(self._stems["f0"])

    def __getitem__(self, index: int) -> Excerpt:
        rows = (stem[index] for stem in self._stems.values())
        return Excerpt(
            *(row.astype(np.float32) / (32768 if row.dtype == np.int16 else 1) for row in rows)
        )


def build_bank(
    folder: Path,
    songs: list[Path],
    timbres: list[Timbre],
    config: MixConfig,
    seed: int,
    workers: int = 2,
    progress: bool = True,
) -> StemBank:
    """Render excerpts of songs, unless the folder already holds exactly these.

    Args:
        folder: where the bank is kept.
        songs: MIDI files with a melody track and an accompaniment.
        timbres: real voices to sing with; may be empty.
        config: how to draw.
        seed: of all draws.
        workers: processes.
        progress: show a bar.

    Raises:
        QbhError: if there is no song, or none of those drawn has a melody and an accompaniment.
    """
    from tqdm.auto import tqdm

    if not songs:
        raise QbhError("There is no song to render: is POP909 in the data folder?")
    digest = hashlib.sha256()
    for timbre in timbres:
        digest.update(timbre.f0_hz.tobytes() + timbre.envelope.tobytes())
    later = [name for name in _LATER if getattr(config, name)]
    kept = {key: value for key, value in asdict(config).items() if value or key not in _LATER}
    described = {
        "seed": seed,
        "songs": [path.name for path in songs],
        "timbres": digest.hexdigest(),
        "config": former_names("MixConfig", kept),  # banks of version 1.0 stay valid
    } | ({"stems": _STEMS} if later else {})
    note = folder / "bank.json"
    if made_from(note, described):
        return StemBank(folder)
    note.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    stores = [
        np.lib.format.open_memmap(
            folder / f"{name}.npy",
            "w+",
            np.float32 if "f0" in name else np.int16,
            (config.excerpts, _FRAMES if "f0" in name else _SAMPLES),
        )
        for name in (_STEMS if later else _STEMS[:4])
    ]
    drawn = parallel_map(
        _draw_excerpt, range(config.excerpts), workers, _share, (songs, timbres, config, seed)
    )
    bar = tqdm(drawn, "bank", config.excerpts, unit="excerpt", disable=not progress)
    for index, excerpt in enumerate(bar):
        for store, stem in zip(stores, excerpt, strict=False):
            whole = store.dtype == np.int16
            store[index] = np.round(np.clip(stem, -1, 1) * 32767) if whole else stem
    for store in stores:
        store.flush()
    record(note, described)
    return StemBank(folder)


# What a worker process draws from: gigabytes of timbres are sent once, not with every task.
_shared: tuple[list[Path], list[Timbre], MixConfig, int]


def _share(*shared: Any) -> None:
    global _shared
    _shared = shared  # type: ignore[assignment]


def _draw_excerpt(index: int) -> Excerpt:
    songs, timbres, config, seed = _shared
    rng = generator(seed, Stream.EXCERPTS, index)
    for _ in range(_TRIES):
        try:
            score = read_score(songs[rng.integers(len(songs))])
        except QbhError:
            continue
        start_s = score.melody[rng.integers(len(score.melody)), 0] - rng.uniform(0, EXCERPT_S / 2)
        key = np.array([0, 0, rng.integers(-6, 7)])  # of the whole song
        melody = cut_notes(score.melody, start_s, EXCERPT_S - LEAD_IN_S) + key
        chords = cut_notes(score.chords, start_s, EXCERPT_S) + key
        if len(melody) < 2 or not len(chords):
            continue
        dense = by_chance(config.dense, rng)
        arrange = arrange_dense if dense else arrange_accompaniment
        parts = arrange(chords, score.beat_s, EXCERPT_S, rng)
        band: degrade.Samples = render_parts(parts, EXCERPT_S, MIX_RATE_HZ).samples
        octave = np.array([0, 0, 12])
        program = int(rng.choice(SOLOISTS if config.split else LEADS))
        played = melody + octave * rng.integers(-1, 2)
        if config.split:  # one note at a time
            played[:-1, 1] = np.minimum(played[:-1, 1], np.diff(played[:, 0]))
        lead = render_parts([Part(program, played, 100)], EXCERPT_S, MIX_RATE_HZ).samples
        sung = melody - octave * rng.integers(0, 2)
        voice, f0 = _sing(sung, timbres, config, rng)
        if by_chance(config.breaths, rng):
            voice = add_breaths(voice, f0, MIX_RATE_HZ, rng)
        if by_chance(config.produced, rng):
            band = degrade.pump(band, score.beat_s, rng.uniform(2, 12), MIX_RATE_HZ)
        backing = np.zeros_like(voice)
        for _ in range(rng.integers(1, 4) if config.harmonised else 0):
            late_s, detuned_st = 0.01 * rng.integers(1, 4), rng.uniform(-0.2, 0.2)
            double = sung + np.array([late_s, 0, detuned_st])
            other = double if rng.random() < 0.4 else harmony(double, chords, rng)
            backing += _sing(other, timbres, config, rng).samples
        stems = (_peak(band), _peak(lead), voice, f0, _peak(backing), played_f0(played))
        return Excerpt(*stems)
    raise QbhError("None of the songs drawn has a melody and an accompaniment: give other files.")


def by_chance(share: float, rng: Generator) -> bool:
    """Return True with a probability; nothing is drawn for 0, so that old streams stay the same."""
    return bool(share and rng.random() < share)


def _sing(notes: NDArray, timbres: list[Timbre], config: MixConfig, rng: Generator) -> PlacedVoice:
    """Sing notes with any voice."""
    singer, timbre = random_singer(rng), None
    if timbres and rng.random() >= config.source_filter:
        timbre = timbres[rng.integers(len(timbres))]
    line = sung_line(notes, singer, rng)
    if config.melisma:
        line = with_melismas(line, config.melisma, rng)
    if timbre is None:
        hum = render_line(line, singer, rng)
    else:
        hum = sing(line, timbre, rng.uniform(0.85, 1.2), rng)
    return place_hum(hum, notes[0, 0] - LEAD_IN_S)


def played_f0(notes: NDArray) -> NDArray[np.float32]:
    """Return (800,) Hz every 10 ms of (M, 3) notes in an excerpt; the last begun note counts."""
    middles_s = (np.arange(_FRAMES) + 0.5) * F0_HOP_S
    owner = np.searchsorted(notes[:, 0], middles_s, side="right") - 1
    sounds = (owner >= 0) & (middles_s < notes[owner, 0] + notes[owner, 1])
    return np.where(sounds, midi_to_hz(notes[owner, 2]), 0.0).astype(np.float32)


def random_singer(rng: Generator) -> Voice:
    """Draw a singer who keeps time with an accompaniment."""
    return Voice(
        style="mm" if rng.random() < 0.4 else "vowels",
        note_error_st=rng.uniform(0, 0.4),
        timing_error=0.0,  # together with the accompaniment
        glide_s=rng.uniform(0.02, 0.12),
        scoop_st=rng.exponential(0.7),
        vibrato_st=rng.uniform(0, 0.8) * (rng.random() < 0.6),
        vibrato_hz=rng.uniform(4.5, 7),
        jitter_st=rng.uniform(0.02, 0.15),
        breath=rng.uniform(0, 0.1),
        gap=rng.uniform(0, 0.3),
        consonants=rng.uniform(0, 1),
        tract=rng.uniform(0.8, 1.15),
    )


def place_hum(hum: RenderedVoice, begin_s: float, length_s: float = EXCERPT_S) -> PlacedVoice:
    """Pad or cut a hum at 8 kHz so that it begins at a given second, on the frame grid."""
    samples = soxr.resample(hum.audio.samples, hum.audio.rate_hz, MIX_RATE_HZ)
    first, frames = round(begin_s / F0_HOP_S), round(length_s / F0_HOP_S)
    voice = _fit(samples, first * MIX_HOP, frames * MIX_HOP)
    return PlacedVoice(voice, _fit(hum.f0.frequency_hz, first, frames))


def _fit(row: NDArray, begin: int, count: int) -> NDArray[np.float32]:
    row = row[-begin:] if begin < 0 else np.concatenate([np.zeros(begin, row.dtype), row])
    return np.pad(row, (0, max(0, count - len(row))))[:count].astype(np.float32)


def _peak(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return 0.5 * samples / max(float(np.abs(samples).max()), 1e-6)


def mix(voice: NDArray, f0: NDArray, accompaniment: NDArray, snr_db: float) -> NDArray[np.float32]:
    """Add an accompaniment at a ratio of levels; a silent part leaves the other as it is.

    Args:
        voice: (N,) samples at 8 kHz.
        f0: (N / 80,) its pitch, to tell where it is voiced.
        accompaniment: (N,) samples.
        snr_db: RMS of the voiced voice over RMS of the accompaniment.

    Notebook: notebooks/01_audio_to_melody.py
    """
    voiced = np.repeat(f0 > 0, MIX_HOP)[: len(voice)]
    if not voiced.any() or not np.any(accompaniment):
        return (voice + accompaniment).astype(np.float32)
    level = degrade.rms(voice[: len(voiced)][voiced])
    return (voice + degrade.at_level(accompaniment, level, snr_db)).astype(np.float32)


def lead_melody(f0: NDArray, lead_f0: NDArray) -> NDArray[np.float32]:
    """Return the lead melody: the voice, and the lead instrument where the voice rests for 3 s.

    Shorter rests of the voice belong to its phrases: there is no melody in them.

    Args:
        f0: (N,) Hz of the voice every 10 ms, 0 = unvoiced.
        lead_f0: (N,) Hz of a prominent lead instrument, 0 = it rests.
    """
    resting = binary_opening(f0 == 0, np.ones(_LONG_REST))
    return np.where(resting, lead_f0, f0).astype(np.float32)


def draw_mixture(
    bank: StemBank, voices: list[Recorded], config: MixConfig, rng: Generator
) -> Mixture:
    """Draw a training mixture of 8 s from excerpts and recorded voices (there may be none)."""
    excerpt = bank[int(rng.integers(len(bank)))]
    kind = rng.random()
    voice: NDArray = excerpt.voice
    f0, lead_f0 = excerpt.f0, excerpt.lead_f0
    lead = excerpt.lead if rng.random() < config.doubled else np.zeros_like(excerpt.lead)
    if kind < config.vocal_free:
        voice, f0 = np.zeros_like(voice), np.zeros_like(f0)
        lead = excerpt.lead if rng.random() < 2 * config.doubled else lead
    elif voices and kind < config.vocal_free + config.recorded:
        voice, f0 = _recorded_voice(voices[int(rng.integers(len(voices)))], rng)
    elif by_chance(config.harmonised, rng):
        below_db = rng.uniform(3, 12)
        voice = voice + degrade.at_level(excerpt.backing, degrade.rms(voice), below_db)
    solo = by_chance(config.split, rng)
    if solo:  # the lead alone is as loud as the rest, or louder
        lead = excerpt.lead
        if f0.any():
            sings = np.arange(_FRAMES) < rng.integers(_LONG_REST, _FRAMES - _LONG_REST + 1)
            sings = sings == (rng.random() < 0.5)
            fade = np.interp(np.arange(_SAMPLES) / MIX_HOP, np.arange(_FRAMES) + 0.5, sings)
            voice, lead = voice * fade, lead * (1 - fade)
            f0, lead_f0 = f0 * sings, lead_f0 * ~sings
    if rng.random() < config.degraded:
        decay_s, wet = rng.uniform(0.2, 1.5), rng.uniform(0.1, 0.5)
        voice = degrade.reverberate(voice, decay_s, wet, MIX_RATE_HZ, rng).astype(np.float32)
    backing: degrade.Samples = excerpt.accompaniment * (rng.random() > 0.1)
    below_db = 0.0
    if lead.any() and backing.any():
        below_db = rng.uniform(-3, 10) - 7 * solo
        backing = backing + degrade.at_level(lead, degrade.rms(backing), below_db)
    elif lead.any():
        backing = lead
    if f0.any() and rng.random() < config.bare:
        backing, lead = np.zeros_like(backing), np.zeros_like(lead)
    plays = lead.any() and below_db <= _PROMINENT_DB
    mixed: degrade.Samples = mix(voice, f0, backing, rng.uniform(*config.snr_db))
    if by_chance(config.produced, rng):
        mixed = degrade.produce(mixed, rng)
    degraded = degrade.degrade_recording(mixed, config.degraded, rng)
    return Mixture(degraded, f0.astype(np.float32), lead_melody(f0, lead_f0 * plays))


def _recorded_voice(voice: Recorded, rng: Generator) -> PlacedVoice:
    """Return 8 s of a recorded voice, unchanged or in another key and with another vocal tract."""
    if voice.timbre is not None and rng.random() < 0.5:
        hum = sing_again(voice.timbre, rng.uniform(-6, 9), rng.uniform(0.85, 1.2))
        samples, f0 = place_hum(hum, 0.0)
    else:
        samples, f0 = _fit(voice.samples, 0, _SAMPLES), _fit(voice.f0, 0, _FRAMES)
    turn = int(rng.integers(_FRAMES))  # begin at any moment
    return PlacedVoice(np.roll(samples, turn * MIX_HOP), np.roll(f0, turn))
