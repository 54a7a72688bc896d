"""Confidence of an answer: the probability that it is the right song, and when to refuse it.

It is a logistic regression on the score and on its lead over the next songs (some hums resemble
every song), fitted on hums with their song in the catalogue and on the same hums without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from qbhkit.config import build_config
from qbhkit.errors import QbhError

_OTHERS = 10  # more than one, since a catalogue may hold a tune twice
# In a small catalogue the best wrong song leads by as much as the right one does in a large one. To
# keep false accepts as rare, ten imagined songs are added to catalogues of fewer than 1,000 songs
# (DECISIONS.md).
_FEW_SONGS = 1000
# One or two notes fit too many songs, however well. Where two are sung in turn, glides beside them
# take up to 22% of the frames; of real hums, at least 27% lie beside the two most frequent notes.
_NOTE_ST, _OTHER_NOTES = 0.5, 0.25
# On the squared weights of the fit. Without it, the weight of the score was -18 on a set where
# nearly all hums find their song; where all do, the fit would not converge (DECISIONS.md).
_PENALTY = 1e-3


@dataclass(frozen=True)
class Calibration:
    """The constants that turn distances and scores into confidence; stored with the weights.

    Args:
        distance: subtracted from the vote per semitone of mean distance.
        folded: subtracted per semitone of the mean distance between pitch classes.
        unvoiced: the highest cost, in semitones, of a frame where a melody that a tracker heard is
            unvoiced.
        bias: of the logistic regression.
        score: its weight of the score.
        lead: its weight of the lead over the best ten other songs.
        threshold: answers with less confidence are refused, 0 to 1.
        imagined: score of ten songs that are imagined in a small catalogue: the median of what the
            best ten wrong songs of a large one score.

    Notebook: notebooks/09_search_and_align.py
    """

    distance: float = 0.1
    folded: float = 0.2
    unvoiced: float = 1.0
    bias: float = -6.1
    score: float = 4.8
    lead: float = 23.2
    threshold: float = 0.44
    imagined: float = 0.35

    @classmethod
    def of(cls, embedder: Any) -> Self:
        """Return the calibration stored with an embedder's weights, or the default one."""
        stored = getattr(embedder, "calibration", None)
        # Older weights name none of these: gaps cost what notes do, nothing was folded, and all
        # imagined the same score.
        older = {"folded": 0.0, "unvoiced": 3.0, "imagined": 0.42}
        values = older | stored if stored else {}
        return build_config(cls, values, "the calibration")

    def confidence(self, score: NDArray, lead: NDArray) -> NDArray[np.float64]:
        """Return the probabilities (N,) of songs from their scores (N,) and their leads (N,)."""
        return 1 / (1 + np.exp(-(self.bias + self.score * score + self.lead * lead)))

    def leads(self, scores: NDArray, order: NDArray) -> NDArray[np.float64]:
        """Return how much higher songs score than the mean of the best ten others.

        Args:
            scores: (songs,); under 1,000 songs, ten imagined ones are added.
            order: (K,) numbers of some songs.

        Returns:
            (K,) leads.
        """
        if len(scores) < _FEW_SONGS:
            scores = np.concatenate([scores, np.full(_OTHERS, self.imagined)])
        best = np.argsort(-scores, kind="stable")[: _OTHERS + 1]
        others = [scores[best[best != song][:_OTHERS]].mean() for song in order]
        return np.asarray(scores[order] - np.array(others))


class Case(NamedTuple):
    """A search whose right answer is known."""

    scores: NDArray[np.float64]  # (songs,) of the search
    truth: int  # number of the song that was hummed


class Refusal(NamedTuple):
    """The effect of a threshold, as shares of hums from 0 to 1."""

    kept: float | None  # right first answers that are not refused
    refused: float | None  # of the hums whose song is not in the catalogue
    precision: float | None  # right ones among the answers kept, of hums with their song
    brier: float | None  # mean squared error of the first answer's confidence, over both kinds


def is_tune(pitch_st: NDArray) -> bool:
    """Tell if a hum has more than two notes: its two most frequent ones leave a quarter of it.

    Args:
        pitch_st: (N,) semitones of the voiced frames; a note reaches half of one to both sides.
    """
    left = pitch_st
    for _ in range(2):
        near = np.abs(left[:, None] - left) <= _NOTE_ST
        left = left[~near[near.sum(axis=1).argmax()]] if len(left) else left
    return len(left) >= _OTHER_NOTES * len(pitch_st)


def calibrate(cases: Sequence[Case], used: Calibration, keep: float = 0.9) -> Calibration:
    """Fit the confidence, and choose the threshold.

    Args:
        cases: searches of a catalogue that holds their songs; each is also used without its song.
        used: the calibration that the scores were made with; its distances are kept.
        keep: share of the right first answers that must not be refused, 0 to 1.

    Raises:
        QbhError: if no first answer is right, or there is only one song.
    """
    from sklearn.linear_model import LogisticRegression

    if any(len(case.scores) < 2 for case in cases):
        raise QbhError("A calibration needs a catalogue of two songs or more.")
    if cases and all(len(case.scores) >= _FEW_SONGS for case in cases):
        wrong = [np.sort(np.delete(case.scores, case.truth))[-_OTHERS:] for case in cases]
        used = replace(used, imagined=float(np.median(wrong)))
    answers = [_first_answers(case, used) for case in cases]
    right = np.array([answer for _, both in answers for answer in both], bool)
    if not right.any():
        raise QbhError("A calibration needs hums that find their songs.")
    inputs = np.concatenate([rows for rows, _ in answers])  # (N, 2)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
    strength = 1 / (2 * _PENALTY * len(inputs))
    fit = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10)
    fit.fit((inputs - mean) / spread, right)
    score, lead = fit.coef_[0] / spread
    bias = fit.intercept_[0] - np.array([score, lead]) @ mean
    curve = replace(used, bias=float(bias), score=float(score), lead=float(lead))
    sure = curve.confidence(*inputs[right].T)
    return replace(curve, threshold=float(np.quantile(sure, 1 - keep)))


def refusal(
    cases: Sequence[Case],
    groups: Sequence[str],
    used: Calibration,
    keep: float = 0.9,
    folds: int = 5,
) -> Refusal:
    """Measure the threshold by cross-validation, on songs that it was not chosen on.

    Args:
        cases: as :func:`calibrate` takes them.
        groups: song of each case; its hums are never on both sides.
        used: as :func:`calibrate` takes it.
        keep: as :func:`calibrate` takes it.
        folds: number of parts into which the groups are divided.

    Returns:
        Shares over all hums; None where there is nothing to count.
    """
    names = sorted(set(groups))
    kept, refused, right, errors = [], [], [], []
    for fold in range(folds):
        tested = set(names[fold::folds])
        others = [case for case, name in zip(cases, groups, strict=True) if name not in tested]
        found = calibrate(others, used, keep)
        for case, name in zip(cases, groups, strict=True):
            if name not in tested:
                continue
            rows, truly = _first_answers(case, found)
            sure = found.confidence(*rows.T)
            passed = sure >= found.threshold
            errors += [*(sure - truly) ** 2]
            refused.append(not passed[1])
            right += [truly[0]] if passed[0] else []
            kept += [passed[0]] if truly[0] else []
    parts = (kept, refused, right, errors)
    return Refusal(*(float(np.mean(part)) if part else None for part in parts))


def _first_answers(case: Case, used: Calibration) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return (2, 2) score and lead of the first answer with and without the song; (2,) if right."""
    rows, right = [], []
    for scores, truth in ((case.scores, case.truth), (np.delete(case.scores, case.truth), -1)):
        best = np.argsort(-scores, kind="stable")[:1]
        rows.append([scores[best[0]], used.leads(scores, best)[0]])
        right.append(best[0] == truth)
    return np.array(rows), np.array(right)
