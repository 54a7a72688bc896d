"""Measures of rankings (top-k and MRR, with intervals) and of pitch tracks."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import hz_to_midi
from qbhkit.errors import missing_package

INTERVAL = 0.95
_RESAMPLES = 2000


class Metrics(NamedTuple):
    """Retrieval metrics of n queries, shares from 0 to 1."""

    n: int
    top1: float
    top5: float
    top10: float
    mrr: float


def rank_of(scores: NDArray, truth: int) -> int | None:
    """Return the rank of the true song (1 is best); every song that ties with it counts as better.

    Args:
        scores: (songs,), higher is better; NaN or -inf for a song that was not found.
        truth: number of the true song; None is returned if it was not found.

    Notebook: notebooks/10_evaluation.py
    """
    found = np.asarray(scores, float)[truth]
    if not np.isfinite(found):
        return None
    return int((np.asarray(scores) >= found).sum())


def metrics(ranks: Sequence[int | None]) -> Metrics:
    """Return top-1, top-5, top-10 and MRR; None is a miss.

    Notebook: notebooks/10_evaluation.py
    """
    inverse = _inverse(ranks)
    if not len(inverse):
        return Metrics(0, 0.0, 0.0, 0.0, 0.0)
    top1, top5, top10 = (float((inverse >= 1 / k).mean()) for k in (1, 5, 10))
    return Metrics(len(inverse), top1, top5, top10, float(inverse.mean()))


def _inverse(ranks: Sequence[int | None]) -> NDArray[np.float64]:
    return np.array([1.0 / rank if rank else 0.0 for rank in ranks])


def intervals(
    ranks: Sequence[int | None], seed: int = 0, groups: Sequence[str] | None = None
) -> dict[str, list[float]]:
    """Return the 95% percentile bootstrap interval of each metric over resampled queries.

    Args:
        ranks: of every query; None is a miss.
        seed: of the resampling.
        groups: the singer of every query. If given, whole groups are resampled, since hums by the
            same singer are not independent samples.

    Returns:
        Metric to [low, high]; empty if there are no queries.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    Notebook: notebooks/10_evaluation.py
    """
    inverse = _inverse(ranks)
    if not len(inverse):
        return {}
    rng = np.random.default_rng(seed)
    names, owner = np.unique(
        np.arange(len(inverse)) if groups is None else groups, return_inverse=True
    )
    drawn = rng.integers(0, len(names), (_RESAMPLES, len(names)))
    times = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    weight = times[:, owner]  # (R, n) how often each query was drawn
    hits = {f"top{k}": inverse >= 1 / k for k in (1, 5, 10)} | {"mrr": inverse}
    return {name: _interval(weight @ hit / weight.sum(axis=1)) for name, hit in hits.items()}


def _interval(sample: NDArray) -> list[float]:
    tail = 100 * (1 - INTERVAL) / 2
    return [float(value) for value in np.percentile(sample, [tail, 100 - tail])]


def paired_difference(
    ranks: Sequence[int | None], others: Sequence[int | None], k: int = 1, seed: int = 0
) -> list[float]:
    """Return [gain, low, high]: the gain in top-k over another method and its 95% interval.

    Args:
        ranks: of every query; None is a miss.
        others: of the same queries by the other method; they are resampled in pairs.
        k: of top-k.
        seed: of the resampling.

    Notebook: notebooks/07_train_supervised.py
    """
    found, found_by_other = ((_inverse(row) >= 1 / k).astype(float) for row in (ranks, others))
    gain = found - found_by_other
    rng = np.random.default_rng(seed)
    sample = gain[rng.integers(0, len(gain), (_RESAMPLES, len(gain)))].mean(axis=1)
    return [float(gain.mean()), *_interval(sample)]


def grouped(ranks: Sequence[int | None], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the metrics of each group (song or singer), sorted by name."""
    members: dict[str, list[int | None]] = {}
    for rank, name in zip(ranks, names, strict=True):
        members.setdefault(name, []).append(rank)
    return {name: metrics(members[name])._asdict() for name in sorted(members)}


def comparable_to(songs: int, match_from: str) -> str:
    """Return a sentence that says what a score is comparable to."""
    where = "at the beginning of the songs" if match_from == "start" else "anywhere in the songs"
    return (
        f"Queries searched {where}, in a closed set of {songs} songs that holds every true one; "
        "comparable only to results on the same queries and songs. Published systems report 48 to "
        "2,048 songs on MIR-QBSH, and 87,000 songs with 250 hums of their own (top-10 0.656)."
    )


def pair_mrr(
    queries: NDArray, references: NDArray, ignored: NDArray[np.bool_] | None = None
) -> float:
    """Return the MRR of row k of ``queries`` finding row k of ``references``, by dot product.

    Args:
        queries: (N, D).
        references: (M, D), M >= N.
        ignored: (N, M) references that are not counted; a query's own always is.
    """
    similarity = queries @ references.T
    better = similarity >= similarity.diagonal()[:, None]
    if ignored is not None:
        better &= ~ignored
        np.fill_diagonal(better, True)
    return float((1.0 / better.sum(axis=1)).mean())


class LabelledQuery(NamedTuple):
    """One line of a query list."""

    path: str
    song_id: str
    singer: str | None


def summarise(ranks: Sequence[int | None], queries: Sequence[LabelledQuery]) -> dict[str, Any]:
    """Return metrics, intervals and ranks of one method as plain values for JSON."""
    block: dict[str, Any] = metrics(ranks)._asdict()
    block["intervals"] = intervals(ranks)
    block["ranks"] = list(ranks)
    block["per_song"] = grouped(ranks, [query.song_id for query in queries])
    if any(query.singer for query in queries):
        singers = [query.singer or "unknown" for query in queries]
        block["intervals_by_singer"] = intervals(ranks, groups=singers)
        block["per_singer"] = grouped(ranks, singers)
    return block


class MelodyScore(NamedTuple):
    """Shares of frames, 0 to 1.

    Raw accuracies count the truly voiced frames whose pitch is within 50 cents (chroma: octaves
    apart are equal), whatever the voicing decision; overall accuracy counts all frames.
    """

    raw_pitch_accuracy: float
    raw_chroma_accuracy: float
    voicing_recall: float
    voicing_false_alarm: float
    overall_accuracy: float


def melody_score(
    true_hz: NDArray, found_hz: NDArray, voicing: NDArray, threshold: float = 0.5
) -> MelodyScore:
    """Score a pitch track frame by frame.

    Args:
        true_hz: (N,), 0 = unvoiced.
        found_hz: (N,); a pitch may be given for frames that are called unvoiced.
        voicing: (N,) 0 to 1.
        threshold: of voicing.

    Raises:
        MissingPackageError: if mir_eval is not installed.

    Source: Salamon et al., "Melody extraction from polyphonic music signals", 2014.
    Notebook: notebooks/01_audio_to_melody.py, notebooks/02_trackers.py
    """
    try:
        from mir_eval import melody
    except ImportError:
        raise missing_package("mir_eval", "mir_eval") from None
    true_voiced, found_voiced = true_hz > 0, (voicing >= threshold) & (found_hz > 0)
    frames = (true_voiced, _cents(true_hz), found_voiced, _cents(found_hz))
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # a track without voiced frames is a result too
        recall, false_alarm = melody.voicing_measures(true_voiced, found_voiced)
        pitch, chroma = melody.raw_pitch_accuracy(*frames), melody.raw_chroma_accuracy(*frames)
        overall = melody.overall_accuracy(*frames)
    return MelodyScore(*map(float, (pitch, chroma, recall, false_alarm, overall)))


def _cents(hz: NDArray) -> NDArray:
    """Return cents above MIDI 0; where there is no pitch 0, which means unvoiced to mir_eval."""
    return np.where(hz > 0, 100 * hz_to_midi(np.maximum(hz, 1e-3)), 0.0)
