from types import SimpleNamespace

import numpy as np
import pytest

from qbhkit.errors import QbhError
from qbhkit.retrieval.confidence import Calibration, Case, calibrate, leads, refusal


def cases(count=200, songs=40, seed=0):
    """Hums of 20 songs; the better one is hummed, the farther its song lies above the others."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        scores = rng.normal(0.5, 0.05, songs)
        truth = k % 20
        scores[truth] += rng.choice([0.0, 0.15, 0.4])
        found.append(Case(scores, truth))
    return found, [f"song {case.truth}" for case in found]


def test_a_lead_is_the_distance_to_the_ten_best_others():
    scores = np.array([0.9, 0.1, 0.8, *np.linspace(0.5, 0.3, 12), *np.zeros(1000)])
    others = np.sort(np.delete(scores, 0))[::-1][:10].mean()
    found = leads(scores, np.array([0, 2]))
    assert found[0] == pytest.approx(0.9 - others)
    assert found[1] == pytest.approx(0.8 - np.sort(np.delete(scores, 2))[::-1][:10].mean())


def test_among_few_songs_the_lead_is_no_longer_than_among_many():
    few = np.array([0.62, 0.1, -0.8])
    assert leads(few, np.array([0, 1])) == pytest.approx([0.2, -0.34])
    assert leads(np.array([0.3]), np.array([0])) == pytest.approx([-0.12])
    many = np.concatenate([few, np.full(997, 0.2)])
    assert leads(many, np.array([0])) == pytest.approx([0.42])


def test_the_best_of_a_few_wrong_songs_is_not_believed():
    wrong = np.array([0.301, 0.05, 0.02, -0.1, -0.3, -0.8])
    best, found = np.array([0]), Calibration()
    assert found.confidence(wrong[best], leads(wrong, best))[0] < 0.1
    right = np.append(wrong, 0.66)
    assert found.confidence(right[[6]], leads(right, np.array([6])))[0] > found.threshold


def test_confidence_is_a_probability():
    some, _ = cases()
    found = calibrate(some, 0.2)
    told, right = [], []
    for case in cases(seed=1)[0]:
        for scores, truth in ((case.scores, case.truth), (np.delete(case.scores, case.truth), -1)):
            best = np.argsort(-scores)[:1]
            told.append(found.confidence(scores[best], leads(scores, best))[0])
            right.append(best[0] == truth)
    told, right = np.array(told), np.array(right)
    assert told.min() >= 0
    assert told.max() <= 1
    for low, high in ((0, 0.2), (0.2, 0.8), (0.8, 1)):
        inside = (told >= low) & (told <= high)
        assert abs(told[inside].mean() - right[inside].mean()) < 0.15


def test_the_threshold_keeps_what_it_was_asked_to_keep():
    some, groups = cases()
    for keep in (0.5, 0.9):
        found = refusal(some, groups, 0.2, keep)
        assert found.kept == pytest.approx(keep, abs=0.05)
    strict, mild = (refusal(some, groups, 0.2, keep) for keep in (0.5, 0.99))
    assert strict.refused > mild.refused
    assert strict.precision > 0.95 > mild.precision


def test_a_hum_whose_song_is_absent_is_refused_more_often_than_not():
    some, groups = cases()
    assert refusal(some, groups, 0.2, 0.8).refused > 0.9


def test_what_cannot_be_counted_is_none():
    """Four hums, two of them right, and a threshold that none of them passes."""
    some = []
    for scores in np.random.default_rng(8).random((4, 6)):
        best = len(some) < 2
        some.append(Case(scores, int(np.argmax(scores) if best else np.argmin(scores))))
    found = refusal(some, ["a", "b", "c", "d"], 0.2)
    assert (found.kept, found.refused, found.precision) == (0.0, 1.0, None)


def test_an_only_song_gives_no_calibration():
    with pytest.raises(QbhError, match="two songs or more"):
        calibrate([Case(np.array([0.9]), 0)], 0.2)


def test_hums_of_a_song_are_never_on_both_sides(monkeypatch):
    from qbhkit.retrieval import confidence

    some, groups = cases(60)
    seen = []
    real = confidence.calibrate

    def watched(cases, distance, keep):
        seen.append({case.truth for case in cases})
        return real(cases, distance, keep)

    monkeypatch.setattr(confidence, "calibrate", watched)
    refusal(some, groups, 0.2, folds=4)
    assert len(seen) == 4
    for songs in seen:
        assert len(songs) == 15  # of 20 songs, a quarter is measured


def test_nothing_to_learn_from_is_refused():
    hopeless = [Case(np.array([0.9, 0.1, 0.0]), 2)] * 5
    for some in (hopeless, []):
        with pytest.raises(QbhError, match="find their songs"):
            calibrate(some, 0.2)


def test_what_is_stored_with_weights_is_used():
    stored = SimpleNamespace(calibration={"distance": 0.3, "threshold": 0.7})
    assert Calibration.of(stored) == Calibration(distance=0.3, threshold=0.7)
    assert Calibration.of(SimpleNamespace()) == Calibration()
    stored.calibration = {"distanse": 0.3}
    with pytest.raises(QbhError, match="distanse"):
        Calibration.of(stored)
