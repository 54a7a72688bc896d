"""Real hums as phones, rooms and crowds spoil them: ``qbhkit bench degraded_hums``.

Every sixth hum of MIR-QBSH (2009), clean and degraded, is searched anywhere in the 2,048 songs by
``full`` with weights that were not trained on hums; a hum that is refused is a miss. Then come
sounds without a tune, which must never be answered as confident. ``--limit N`` takes N hums.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from tqdm import tqdm

from qbhkit.audio import load
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks import common
from qbhkit.metrics import metrics
from qbhkit.pitch.trackers import default_tracker
from qbhkit.retrieval.searcher import Answer, Searcher
from qbhkit.synthesis import degrade
from qbhkit.synthesis.singer import Voice, render_hum
from qbhkit.training_loop import generator

SEED = 20261130
EVERY = 6  # 71 of the 423 hums
RATE_HZ = 16000
SNR_DB = 10.0
TAIL_S = 20.0  # of the room, after a hum that nobody stopped recording
HUM_DBFS, ROOM_DBFS, HISS_DBFS = -16.0, -60.0, -70.0
GATE_DB, AGC_MOST_DB, AGC_DBFS = -20.0, 30.0, -20.0
CLIPS, CLIP_S = 8, 8.0
INTERVALS_ST = (1, 2, 3, 4, 5, 7, 9, 12)
SPEAKERS = ("slt", "rms", "awb", "kal16")  # voices of flite


def at_dbfs(samples: NDArray, level_db: float) -> NDArray:
    """Scale samples to an RMS in dB of full scale."""
    return degrade.at_level(samples, 1.0, -level_db)


def level(samples: NDArray, window_s: float) -> NDArray:
    """Return the RMS around each sample."""
    power = uniform_filter1d(np.square(samples, dtype=float), round(window_s * RATE_HZ))
    return np.sqrt(np.maximum(power, 0)) + 1e-9


def gated(samples: NDArray) -> NDArray:
    """Mute what is softer than the gate, as calls on a phone do; it opens within 20 ms."""
    loud = level(samples, 0.02)
    is_open = loud > loud.max() * 10 ** (GATE_DB / 20)
    return samples * uniform_filter1d(is_open.astype(float), round(0.02 * RATE_HZ))


def gain_controlled(samples: NDArray) -> NDArray:
    """Bring every half second to one level, as far as the gain goes: rests become noise."""
    gain = 10 ** (AGC_DBFS / 20) / level(samples, 0.5)
    return np.clip(samples * np.minimum(gain, 10 ** (AGC_MOST_DB / 20)), -1, 1)


def versions(hum: NDArray, other: NDArray, rng: Generator) -> dict[str, NDArray]:
    """Return a hum, clean and degraded; ``other`` is a hum by somebody else. All at 16 kHz."""
    count, peak = len(hum), float(np.abs(hum).max())
    long = count + round(TAIL_S * RATE_HZ)
    mains = np.sin(2 * np.pi * 100 * np.arange(long) / RATE_HZ)
    room = at_dbfs(degrade.noise(long, 1, rng), ROOM_DBFS)
    room[:count] += at_dbfs(hum, HUM_DBFS)

    def soft(peak_dbfs: float) -> NDArray:
        return degrade.quantise(hum / peak * 10 ** (peak_dbfs / 20), 24)

    def beside(sound: NDArray) -> NDArray:
        return hum + degrade.at_level(sound, degrade.rms(hum), SNR_DB)

    def low(high_hz: float, colour: float) -> NDArray:
        return degrade.band_limit(degrade.noise(count, colour, rng), 20, high_hz, RATE_HZ)

    return {
        "clean": hum,
        "peak -45 dBFS": soft(-45),
        "peak -50 dBFS": soft(-50),
        "20 s of room after it": room,
        "the same, mains -60 dBFS": room + at_dbfs(mains, -60),
        "the same, mains -50 dBFS": room + at_dbfs(mains, -50),
        "DC offset 0.1": hum + 0.1,
        "rumble": beside(low(60, 0)),
        "fan": beside(degrade.noise(count, 1.5, rng)),  # between pink and brown
        "tap": beside(degrade.noise(count, 0, rng)),
        "car": beside(low(200, 2)),
        "second voice": beside(np.resize(other, count)),
        "noise gate": gated(hum),
        "AGC": gain_controlled(hum),
        "8 bit": degrade.quantise(hum, 8, 4 * peak),
        "telephone": degrade.band_limit(hum, 300, 3400, RATE_HZ),
    }


def answers_to(searcher: Searcher, samples: NDArray) -> list[Answer]:
    """Return all songs, best first; none if the hum is refused."""
    try:
        return searcher.search((samples, RATE_HZ), len(searcher.catalogue.songs))
    except QbhError:
        return []


def degraded(
    searcher: Searcher, hums: Sequence[NDArray], song_ids: Sequence[str], others: Sequence[NDArray]
) -> dict[str, Any]:
    """Search every version of hums; losses are points of top-1 and top-10 against clean."""
    ranks: dict[str, list[int | None]] = {}
    sure: dict[str, list[bool]] = {}
    queries = zip(hums, song_ids, others, strict=True)
    for number, (hum, song_id, other) in enumerate(tqdm(queries, "hums", len(hums), unit="hum")):
        for kind, samples in versions(hum, other, generator(SEED, number)).items():
            answers = answers_to(searcher, samples)
            right = [answer.score for answer in answers if answer.song_id == song_id]
            rank = sum(answer.score >= right[0] for answer in answers) if right else None
            ranks.setdefault(kind, []).append(rank)
            sure.setdefault(kind, []).append(searcher.confident(answers))
    clean, found = metrics(ranks["clean"]), {}
    for kind, row in ranks.items():
        block = metrics(row)
        pairs = list(zip(row, sure[kind], strict=True))
        found[kind] = {
            **block._asdict(),
            "top1_loss": round(100 * (clean.top1 - block.top1), 2),
            "top10_loss": round(100 * (clean.top10 - block.top10), 2),
            "refused": row.count(None),
            "confident": sum(sure[kind]),
            "wrong_confident": sum(yes for rank, yes in pairs if rank != 1),
            "ranks": row,
        }
        wrong = found[kind]["wrong_confident"]
        print(f"{kind:26}{common.brief(found[kind])}  {wrong} wrong and confident", flush=True)
    return found


def notes_between(number: int, interval_st: int) -> NDArray:
    """Hum one note, or two in turn, at another pitch and speed for each number."""
    step_s = 0.3 + 0.1 * (number % 4)
    steps = np.arange(round(CLIP_S / step_s))
    pitch = 48 + 2 * number + interval_st * (steps % 2)
    notes = np.stack([steps * step_s, np.full(len(steps), 0.9 * step_s), pitch], axis=1)
    return render_hum(notes, Voice(), generator(SEED, number, interval_st)).audio.samples


def spoken(number: int, titles: Sequence[str]) -> NDArray:
    """Let flite read titles."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        text = ", ".join(titles[number::CLIPS])[:150]
        voice = SPEAKERS[number % len(SPEAKERS)]
        command = ["flite", "-voice", voice, "-t", text, "-o", str(path)]
        subprocess.run(command, check=True)
        return load(path, RATE_HZ).samples


def sounds(titles: Sequence[str]) -> dict[str, Callable[[int], NDArray]]:
    """Return what makes the clips without a tune, by kind; each takes the number of a clip."""

    def noise(number: int) -> NDArray:
        return degrade.noise(round(CLIP_S * RATE_HZ), 0, generator(SEED, number))

    kinds: dict[str, Callable[[int], NDArray]] = {
        "one note": lambda number: notes_between(number, 0),
        "two notes in turn": lambda number: notes_between(number, INTERVALS_ST[number]),
        "white noise": lambda number: at_dbfs(noise(number), -20),
        "silence with hiss": lambda number: at_dbfs(noise(number), HISS_DBFS),
    }
    if shutil.which("flite"):
        return kinds | {"speech": lambda number: spoken(number, titles)}
    print("Speech is left out: flite is not installed (apt-get install flite).")
    return kinds


def without_a_tune(searcher: Searcher) -> dict[str, dict[str, int]]:
    """Count how often sounds without a tune are answered at all, and as confident."""
    titles = [song["title"] for song in searcher.catalogue.songs]
    found = {}
    for kind, make in sounds(titles).items():
        given = [answers_to(searcher, make(number)) for number in range(CLIPS)]
        found[kind] = {
            "n": CLIPS,
            "answered": sum(map(bool, given)),
            "confident": sum(map(searcher.confident, given)),
        }
        print(f"{kind:26}{found[kind]}", flush=True)
    return found


def main() -> None:
    options = common.parse(common.arguments(__doc__, limit=0, weights="stage1"))
    recorded = common.hums()
    chosen = recorded[::EVERY][: options.limit or None]
    searcher = common.database(ContourEmbedder(options.weights))
    others = []
    for number, hum in enumerate(chosen):
        strangers = [one for one in recorded if one.singer != hum.singer]
        others.append(strangers[generator(SEED, number).integers(len(strangers))])
    hums, second = ([load(one.path, RATE_HZ).samples for one in row] for row in (chosen, others))
    result = {
        "songs": len(searcher.catalogue.songs),
        "model": searcher.catalogue.model,
        "tracker": default_tracker(),
        "hums": degraded(searcher, hums, [hum.song_id for hum in chosen], second),
        "without_a_tune": without_a_tune(searcher),
    }
    common.save(options, "degraded_hums", result)
