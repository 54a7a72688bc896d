"""Every tracker on the same recordings: ``qbhkit bench melody``.

Accuracy by mir_eval over the pooled frames of every set of ``melody_sets``, then, in a process of
its own, speed on 30 s of audio held in memory and what memory 60 s take. Tracks and costs are kept
in the cache under what they depend on (the set's hash, the adapter's source, the weights' hash), so
that an interrupted run goes on where it stopped. Writes data/results/melody_bench.json, unless only
some trackers or other recordings are asked for: then everything stays in the cache. Memory is read
from /proc, so it is measured on Linux only.
"""

import argparse
import hashlib
import inspect
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from qbhkit.audio import Audio, load, write_wav
from qbhkit.contour import F0_HOP_S
from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks.common import RESULTS, in_a_process, machine, memory_mb, seconds
from qbhkit.evaluation.benchmarks.melody_sets import (
    PER_SINGER,
    RECIPE,
    Clip,
    bench_sets,
    fingerprint,
    first_of_each_singer,
)
from qbhkit.metrics import melody_score
from qbhkit.pitch.trackers import TRACKERS, Tracker, default_tracker, get_tracker, identity_of
from qbhkit.storage import atomic_path, cache_dir, data_dir, read_json, write_json

OURS, MAIN = "crnn-lite", "songs 0 dB"
# Slow trackers get one clip a singer: of these sets only, or (None) of all of them.
SLOW: dict[str, tuple[str, ...] | None] = {
    "torchcrepe-full": ("hums", MAIN),
    "torchcrepe-tiny": None,
    "pyin": None,
}
MONOPHONIC = (
    "swift-f0", "pyin", "praat", "torchcrepe-tiny", "torchcrepe-full", "fcpe", "pesto",
)  # fmt: skip
NOISES = ("white noise", "pink noise")
SHORT_S, LONG_S, THREADS, WORKERS = 30.0, 60.0, 2, 2
_RESAMPLES = 2000
_worker: Tracker  # of a worker process


def main() -> None:
    """Measure, write, and print the table and the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trackers", nargs="+", metavar="NAME", help="only these")
    parser.add_argument(
        "--per-singer", type=int, default=PER_SINGER, help="hums of each; 0 takes all"
    )
    parser.add_argument("--quick", action="store_true", help="as --per-singer 1")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--cost", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cost or options.peak:
        name, path = options.cost or options.peak
        print(json.dumps((_cost if options.cost else _peak)(name, Path(path))))
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers share the cores
    per_singer = 1 if options.quick else options.per_singer
    folder = cache_dir() / "melody-bench"
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    sets = bench_sets(data_dir(), folder / f"sets-{per_singer}", per_singer)
    result = measure(sets, options.trackers or list(TRACKERS), folder)
    whole = per_singer == PER_SINGER and not options.trackers
    target = (RESULTS if whole else folder) / "melody_bench.json"
    write_json(target, result)
    print("\n".join(table(result)), "\n")
    for line in result["targets"]:
        state = "reached" if line["reached"] else "MISSED"
        print(f"{state:8}{line['what']}: {line['measured']:.3f} ({line['wanted']})")
    print(f"written: {'data/results' if whole else 'the cache,'} {target.name}")


def measure(sets: dict[str, list[Clip]], names: list[str], folder: Path) -> dict[str, Any]:
    """Return everything that is known about the named trackers.

    Args:
        sets: recordings by set; ``songs 0 dB`` gives the audio for speed and memory.
        names: of trackers; those that cannot be had are listed with the reason.
        folder: where tracks and costs are kept.
    """
    hashes = {name: fingerprint(clips) for name, clips in sets.items()}
    minute = _minute(sets[MAIN], folder / f"minute-{hashes[MAIN][:12]}.wav")
    found, missing, correct = {}, {}, {}
    for name in names:
        try:
            identity = _identity(name)
        except QbhError as error:
            missing[name] = str(error).replace(str(data_dir()), "QBHKIT_DATA")
            print(f"{name} is left out: {missing[name]}")
            continue
        block: dict[str, Any] = {"identity": identity_of(name), "sets": {}}
        given = _clips_for(name, sets)
        paths = {
            kind: folder / "tracks" / f"{name}-{_key(identity, hashes[kind], len(clips))}.npy"
            for kind, clips in given.items()
        }
        tracks = _tracks(name, given, paths)
        for kind, clips in given.items():
            block["sets"][kind] = _scores(clips, tracks[kind]) | {"clips": len(clips)}
        correct[name] = _correct(given[MAIN], tracks[MAIN])
        block["sets"][MAIN]["overall_accuracy_interval"] = list(
            _interval(*np.array(list(correct[name].values())).T)
        )
        key = _key(identity, hashes[MAIN])
        block |= _costs(name, minute, folder / "costs" / f"{name}-{key}.json")
        found[name] = block
    result: dict[str, Any] = {
        "recipe": RECIPE,
        "sets": {
            kind: {
                "clips": len(clips),
                "seconds": round(sum(len(clip.f0_hz) for clip in clips) * F0_HOP_S, 1),
                "sha256": hashes[kind],
            }
            for kind, clips in sets.items()
        },
        "machine": machine() | {"threads": THREADS},
        "default_tracker": default_tracker(),
        "trackers": found,
        "missing": missing,
        "margins": _margins(correct),
    }
    crnn = RESULTS / "bench_crnn.json"
    speed = read_json(crnn, "run 'qbhkit bench crnn'") if crnn.is_file() else {}
    return result | {"targets": targets(result, speed)}


def _identity(name: str) -> str:
    """Return a hash of a tracker's source and weights; raise QbhError if it cannot be had.

    Its packages are not counted: ``--fresh`` when they change.
    """
    classes = type(get_tracker(name)).__mro__[:-1]
    digest = hashlib.sha256(identity_of(name).encode())
    for path in dict.fromkeys(inspect.getfile(cls) for cls in classes):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _clips_for(name: str, sets: dict[str, list[Clip]]) -> dict[str, list[Clip]]:
    if name not in SLOW:
        return sets
    return {kind: first_of_each_singer(sets[kind], 1) for kind in SLOW[name] or sets}


def _tracks(
    name: str, sets: dict[str, list[Clip]], paths: dict[str, Path]
) -> dict[str, list[NDArray[np.float32]]]:
    """Return (2, N) Hz and voicing for every clip of every set, as long as its true pitch."""
    missing = [kind for kind, path in paths.items() if not path.is_file()]
    if missing:
        with ProcessPoolExecutor(WORKERS, get_context("spawn"), _start, (name,)) as pool:
            for kind in tqdm(missing, name, unit="set", file=sys.stderr):
                lengths = [len(clip.f0_hz) for clip in sets[kind]]
                rows = list(pool.map(_track, [clip.path for clip in sets[kind]], lengths))
                with atomic_path(paths[kind]) as part:
                    np.save(part, np.concatenate(rows, axis=1))
    found = {}
    for kind, path in paths.items():
        ends = np.cumsum([len(clip.f0_hz) for clip in sets[kind]])
        found[kind] = np.split(np.load(path, allow_pickle=False), ends[:-1], axis=1)
    return found


def _start(name: str) -> None:
    global _worker
    _worker = get_tracker(name)


def _track(path: Path, count: int) -> NDArray[np.float32]:
    track = _worker.track(load(path, _worker.rate_hz))
    rows = np.stack([track.frequency_hz, track.voicing])
    return np.pad(rows, ((0, 0), (0, max(0, count - rows.shape[1]))))[:, :count]


def _scores(clips: list[Clip], tracks: list[NDArray]) -> dict[str, float]:
    true = np.concatenate([clip.f0_hz[clip.scored] for clip in clips])
    pairs = zip(clips, tracks, strict=True)
    hz, voicing = np.concatenate([track[:, clip.scored] for clip, track in pairs], axis=1)
    if not true.any():
        return {"voicing_false_alarm": float(((hz > 0) & (voicing >= 0.5)).mean())}
    return melody_score(true, hz, voicing)._asdict()


def _correct(clips: list[Clip], tracks: list[NDArray]) -> dict[str, tuple[float, int]]:
    """Return right frames and all frames of every clip, by its name."""
    return {
        clip.name: (
            _scores([clip], [track])["overall_accuracy"] * len(clip.scored),
            len(clip.scored),
        )
        for clip, track in zip(clips, tracks, strict=True)
    }


def _interval(right: NDArray, frames: NDArray) -> tuple[float, float]:
    """Return the 95% bootstrap interval of right / frames, clips resampled."""
    drawn = np.random.default_rng(0).integers(0, len(right), (_RESAMPLES, len(right)))
    low, high = np.percentile(right[drawn].sum(axis=1) / frames[drawn].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _margins(correct: dict[str, dict[str, tuple[float, int]]]) -> dict[str, Any]:
    """Return how far crnn-lite lies above each other tracker, on the clips of both."""
    margins: dict[str, dict[str, Any]] = {}
    for name in set(correct) - {OURS} if OURS in correct else set():
        both = [clip for clip in correct[name] if clip in correct[OURS]]
        ours, frames = np.array([correct[OURS][clip] for clip in both]).T
        ahead = ours - np.array([correct[name][clip][0] for clip in both])
        margins[name] = {
            "overall_accuracy": float(ahead.sum() / frames.sum()),
            "interval": list(_interval(ahead, frames)),
            "clips": len(both),
        }
    return dict(sorted(margins.items(), key=lambda item: item[1]["overall_accuracy"]))


def _minute(clips: list[Clip], path: Path) -> Path:
    """Write 60 s of clips, one after the other, and again if they are too few."""
    samples = np.concatenate([load(clip.path, 16000).samples for clip in clips])
    write_wav(Audio(np.resize(samples, round(LONG_S * 16000)), 16000), path)
    return path


def _costs(name: str, minute: Path, path: Path) -> dict[str, float]:
    """Return speed and memory, each measured in a process of its own with nothing beside it."""
    if not path.is_file():
        threads = {"OMP_NUM_THREADS": str(THREADS)}
        costs = in_a_process("bench_melody", "--cost", name, minute, **threads)
        if name == OURS:
            with tempfile.TemporaryDirectory(dir=path.parents[1]) as folder:
                hour = Path(folder) / "hour.wav"
                write_wav(Audio(np.tile(load(minute).samples, 60), 16000), hour)
                costs |= in_a_process("bench_melody", "--peak", name, hour, **threads)
        write_json(path, costs)
    return dict(read_json(path, "delete it"))


def _cost(name: str, path: Path) -> dict[str, float]:
    """Time a tracker on 30 s, and see how much 60 s add to its memory once it is loaded."""
    tracker = get_tracker(name)
    audio = load(path, tracker.rate_hz)
    short = Audio(audio.samples[: round(SHORT_S * tracker.rate_hz)], tracker.rate_hz)
    tracker.track(Audio(short.samples[: tracker.rate_hz], tracker.rate_hz))  # import, compile
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak so far is forgotten
    before_mb = memory_mb("VmRSS")
    began = time.perf_counter()
    tracker.track(audio)
    whole_s = time.perf_counter() - began
    peak_mb = memory_mb("VmHWM")
    slow = whole_s > LONG_S
    factor = whole_s / LONG_S if slow else seconds(lambda: tracker.track(short)) / SHORT_S
    return {
        "real_time_factor": factor,
        "loaded_mb": round(before_mb, 1),
        "memory_mb": round(peak_mb - before_mb, 1),
    }


def _peak(name: str, path: Path) -> dict[str, float]:
    """Track a long file as a user would, and return the most memory that the process ever had."""
    tracker = get_tracker(name)
    began = time.perf_counter()
    tracker.track(load(path, tracker.rate_hz))
    return {"hour_s": time.perf_counter() - began, "hour_peak_mb": round(memory_mb("VmHWM"), 1)}


def targets(result: dict[str, Any], crnn: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare a result with the numbers to reach; what was not measured is passed over.

    Args:
        result: of :func:`measure`.
        crnn: data/results/bench_crnn.json, or nothing.
    """
    found = {name: block["sets"] for name, block in result["trackers"].items()}
    lines: list[dict[str, Any]] = []

    def want(what: str, measured: float | None, sign: str, bound: float) -> None:
        if measured is not None:
            reached = measured >= bound if sign == ">=" else measured <= bound
            wanted = f"{sign} {bound:g}" if bound == round(bound, 3) else f"{sign} {bound:.3f}"
            lines.append({"what": what, "wanted": wanted, "measured": measured, "reached": reached})

    def value(tracker: str, kind: str, measure: str) -> float | None:
        return found.get(tracker, {}).get(kind, {}).get(measure)

    def most(names: Iterator[str] | tuple[str, ...], kind: str, measure: str) -> str | None:
        whole = [name for name in names if name not in SLOW and value(name, kind, measure)]
        return max(whole, key=lambda name: value(name, kind, measure) or 0, default=None)

    hums = result["default_tracker"]
    want(f"{hums}, hums, raw pitch", value(hums, "hums", "raw_pitch_accuracy"), ">=", 0.95)
    want(f"{hums}, hums, overall", value(hums, "hums", "overall_accuracy"), ">=", 0.90)
    for kind, bound in ((MAIN, 0.80), ("songs +5 dB", 0.85)):
        want(f"{OURS}, {kind}, overall", value(OURS, kind, "overall_accuracy"), ">=", bound)
    for rival in ("melodia", most(MONOPHONIC, MAIN, "overall_accuracy")):
        margin = result["margins"].get(rival, {}).get("overall_accuracy")
        want(f"{OURS} over {rival}, songs 0 dB, overall", margin, ">=", 0.15)
    want(f"{OURS}, agreement, raw pitch", value(OURS, "agreement", "raw_pitch_accuracy"), ">=", 0.8)
    alarm = value(OURS, "agreement", "voicing_false_alarm")
    want(f"{OURS}, agreement, false alarm", alarm, "<=", 0.25)
    ours = value(OURS, "rivals 0 dB", "raw_pitch_accuracy")
    want(f"{OURS}, rivals 0 dB, raw pitch, the best number given", ours, ">=", 0.81)
    others = (name for name in found if name not in (OURS, "crnn"))
    if best := most(others, "rivals 0 dB", "raw_pitch_accuracy"):
        bound = value(best, "rivals 0 dB", "raw_pitch_accuracy") or 0
        want(f"{OURS}, rivals 0 dB, raw pitch, the best of this run ({best})", ours, ">=", bound)
    for name in dict.fromkeys((hums, OURS)):
        for noise in NOISES:
            want(f"{name}, {noise}, voiced", value(name, noise, "voicing_false_alarm"), "<=", 0.05)
    if cost := result["trackers"].get(OURS):
        want(f"{OURS}, times real time", 1 / cost["real_time_factor"], ">=", 25)
        want(f"{OURS}, MB for an hour", cost["hour_peak_mb"], "<=", 1000)
    if crnn:
        ratio = crnn["ratios"]["network_over_convolutions"]
        if ratio < 0.6:  # either will do
            want("crnn, times real time", crnn["times_real_time"]["network"], ">=", 3)
        else:
            want("crnn over its convolutions alone", ratio, ">=", 0.6)
        want("crnn, MB for an hour", crnn["memory"]["peak_mb"], "<=", 1000)
    return lines


def table(result: dict[str, Any]) -> list[str]:
    """Return the README's table: best first, by overall accuracy on songs at 0 dB."""
    head = ["tracker", "hums, raw pitch", "hums, overall", "songs +5 dB", "songs 0 dB (95%)"]
    head += ["songs -5 dB", "published model", "times real time", "MB"]
    blocks = result["trackers"]
    most = max((block["sets"][MAIN]["clips"] for block in blocks.values()), default=0)
    order = sorted(blocks, key=lambda name: -blocks[name]["sets"][MAIN]["overall_accuracy"])
    rows = [head, ["---"] * len(head)]
    for name in order:
        block, sets = blocks[name], blocks[name]["sets"]
        low, high = sets[MAIN]["overall_accuracy_interval"]
        few = f" ({sets[MAIN]['clips']} clips)" if sets[MAIN]["clips"] < most else ""
        rows.append([
            name + few,
            _number(sets, "hums", "raw_pitch_accuracy"),
            _number(sets, "hums", "overall_accuracy"),
            _number(sets, "songs +5 dB", "overall_accuracy"),
            f"{sets[MAIN]['overall_accuracy']:.3f} ({low:.2f}-{high:.2f})",
            _number(sets, "songs -5 dB", "overall_accuracy"),
            _number(sets, "agreement", "raw_pitch_accuracy"),
            f"{1 / block['real_time_factor']:.3g}",
            f"{block['memory_mb']:.0f}",
        ])  # fmt: skip
    return [f"| {' | '.join(cells)} |" for cells in rows]


def _number(sets: dict[str, Any], kind: str, measure: str) -> str:
    return f"{sets[kind][measure]:.3f}" if kind in sets else "-"


if __name__ == "__main__":
    main()
