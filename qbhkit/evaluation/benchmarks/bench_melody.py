"""Every tracker on the same recordings: ``qbhkit bench melody``.

Accuracy by mir_eval over the pooled frames of every set of ``melody_sets``; then, in a process of
its own, speed on 30 s of audio held in memory and what memory 60 s take. Tracks and costs are kept
in the cache under what they depend on (the set, the tracker and its weights), so
an interrupted run goes on where it stopped. Memory is read from /proc, on Linux only.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.audio import Audio, load, write_wav
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.benchmarks.melody_sets import (
    PER_SINGER,
    RECIPE,
    Clip,
    bench_sets,
    fingerprint,
    first_of_each_singer,
)
from qbhkit.metrics import melody_score
from qbhkit.parallel import parallel_map
from qbhkit.pitch.trackers import TRACKERS, Tracker, get_tracker, identity_of
from qbhkit.storage import atomic_path, cache_dir, data_dir, read_json, write_json

MAIN = "songs 0 dB"
# Slow trackers get one clip a singer: of these sets only, or (None) of all of them.
SLOW: dict[str, tuple[str, ...] | None] = {
    "torchcrepe-full": ("hums", MAIN),
    "torchcrepe-tiny": None,
    "pyin": None,
}
SHORT_S, LONG_S, THREADS, WORKERS = 30.0, 60.0, 2, 2
_RESAMPLES = 2000
_worker: Tracker  # of a worker process


def main() -> None:
    parser = common.arguments(__doc__, trackers=tuple(TRACKERS), per_singer=PER_SINGER)
    parser.add_argument("--quick", dest="per_singer", action="store_const", const=1,
                        help="as --per-singer 1")  # fmt: skip
    options = common.parse(parser)
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers share the cores
    folder = cache_dir() / "melody-bench"
    sets = bench_sets(data_dir(), folder / f"sets-{options.per_singer}", options.per_singer)
    result = measure(sets, list(options.trackers), folder)
    common.save(options, "melody_bench", result)


def measure(sets: dict[str, list[Clip]], names: list[str], folder: Path) -> dict[str, Any]:
    """Return everything that is known about the named trackers, or why they cannot be had."""
    hashes = {name: fingerprint(clips) for name, clips in sets.items()}
    found = {}
    names, missing = common.available(names)
    for name in names:
        scores: dict[str, Any] = {}
        for kind, clips in _clips_for(name, sets).items():
            key = _key(identity_of(name), hashes[kind], len(clips))
            tracks = _tracks(name, clips, folder / "tracks" / f"{name}-{key}.npy")
            scores[kind] = _scores(clips, tracks) | {"clips": len(clips)}
            if kind == MAIN:
                scores[kind]["overall_accuracy_interval"] = _interval(clips, tracks)
        costs = folder / "costs" / f"{name}-{_key(identity_of(name), hashes[MAIN])}.json"
        if not costs.is_file():  # with nothing beside it
            minute = _minute(sets[MAIN], folder / f"minute-{hashes[MAIN][:12]}.wav")
            write_json(costs, common.in_a_process(cost, name, minute, OMP_NUM_THREADS=str(THREADS)))
        measured = {"identity": identity_of(name), "sets": scores}
        found[name] = measured | read_json(costs, "delete it")
        print(name, {kind: of.get("overall_accuracy") for kind, of in scores.items()}, flush=True)
    return {
        "recipe": RECIPE,
        "sets": {
            kind: {"clips": len(clips), "sha256": hashes[kind]} for kind, clips in sets.items()
        },
        "machine": {"threads": THREADS},
        "trackers": found,
        "missing": missing,
    }


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _clips_for(name: str, sets: dict[str, list[Clip]]) -> dict[str, list[Clip]]:
    if name not in SLOW:
        return sets
    return {kind: first_of_each_singer(sets[kind], 1) for kind in SLOW[name] or sets}


def _tracks(name: str, clips: list[Clip], path: Path) -> list[NDArray[np.float32]]:
    """Return (2, N) Hz and voicing for every clip, as long as its true pitch."""
    if not path.is_file():
        rows = parallel_map(_track, clips, WORKERS, _start, (name,))
        with atomic_path(path) as part:
            np.save(part, np.concatenate(list(rows), axis=1))
    ends = np.cumsum([len(clip.f0_hz) for clip in clips])
    return np.split(np.load(path, allow_pickle=False), ends[:-1], axis=1)


def _start(name: str) -> None:
    global _worker
    _worker = get_tracker(name)


def _track(clip: Clip) -> NDArray[np.float32]:
    track, count = _worker.track(load(clip.path, _worker.rate_hz)), len(clip.f0_hz)
    rows = np.stack([track.frequency_hz, track.voicing])
    return np.pad(rows, ((0, 0), (0, max(0, count - rows.shape[1]))))[:, :count]


def _scores(clips: list[Clip], tracks: list[NDArray]) -> dict[str, Any]:
    true = np.concatenate([clip.f0_hz[clip.scored] for clip in clips])
    pairs = zip(clips, tracks, strict=True)
    hz, voicing = np.concatenate([track[:, clip.scored] for clip, track in pairs], axis=1)
    if not true.any():
        return {"voicing_false_alarm": float(((hz > 0) & (voicing >= 0.5)).mean())}
    return melody_score(true, hz, voicing)._asdict()


def _interval(clips: list[Clip], tracks: list[NDArray]) -> list[float]:
    """Return the 95% bootstrap interval of overall accuracy, clips resampled."""
    frames = np.array([len(clip.scored) for clip in clips])
    alone = (_scores([clip], [track]) for clip, track in zip(clips, tracks, strict=True))
    right = frames * [score["overall_accuracy"] for score in alone]
    drawn = np.random.default_rng(0).integers(0, len(right), (_RESAMPLES, len(right)))
    shares = right[drawn].sum(axis=1) / frames[drawn].sum(axis=1)
    return [float(end) for end in np.percentile(shares, [2.5, 97.5])]


def _minute(clips: list[Clip], path: Path) -> Path:
    samples = np.concatenate([load(clip.path, 16000).samples for clip in clips])
    write_wav(Audio(np.resize(samples, round(LONG_S * 16000)), 16000), path)
    return path


def cost(name: str, path: str) -> dict[str, float]:
    """Time a tracker on 30 s, and see how much 60 s add to its memory once it is loaded."""
    tracker = get_tracker(name)
    audio = load(Path(path), tracker.rate_hz)
    short = Audio(audio.samples[: round(SHORT_S * tracker.rate_hz)], tracker.rate_hz)
    tracker.track(Audio(short.samples[: tracker.rate_hz], tracker.rate_hz))  # import, compile
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak so far is forgotten
    before_mb = common.memory_mb("VmRSS")
    whole_s = common.timed(lambda: tracker.track(audio))
    peak_mb = common.memory_mb("VmHWM")
    slow = whole_s > LONG_S
    factor = whole_s / LONG_S if slow else common.seconds(lambda: tracker.track(short)) / SHORT_S
    return {"real_time_factor": factor, "memory_mb": round(peak_mb - before_mb, 1)}
