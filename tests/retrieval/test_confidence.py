from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize

from qbhkit.errors import QbhError
from qbhkit.retrieval import confidence
from qbhkit.retrieval.confidence import Calibration, Case, calibrate, is_tune, refusal

USED = Calibration(distance=0.2, folded=0.1, unvoiced=2.0)


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


def first_answers(some):
    """Score, lead and rightness (N,) of the first answers, with the hummed songs and without."""
    rows = []
    for case in some:
        for scores, truth in ((case.scores, case.truth), (np.delete(case.scores, case.truth), -1)):
            best = np.argsort(-scores)[:1]
            rows.append((scores[best[0]], Calibration().leads(scores, best)[0], best[0] == truth))
    score, lead, right = np.array(rows).T
    return score, lead, right == 1


def test_a_lead_is_the_distance_to_the_ten_best_others():
    scores = np.array([0.9, 0.1, 0.8, *np.linspace(0.5, 0.3, 12), *np.zeros(1000)])
    found = Calibration().leads(scores, np.array([0, 2]))
    for lead, song in zip(found, (0, 2), strict=True):
        others = np.sort(np.delete(scores, song))[::-1][:10].mean()
        assert lead == pytest.approx(scores[song] - others)


def test_among_fewer_than_a_thousand_songs_the_lead_is_no_longer_than_among_many():
    few, leads = np.array([0.62, 0.1, -0.8]), Calibration(imagined=0.42).leads
    assert leads(few, np.array([0, 1])) == pytest.approx([0.2, -0.34])
    assert leads(np.array([0.3]), np.array([0])) == pytest.approx([-0.12])
    for songs, lead in ((999, 0.2), (1000, 0.42)):
        scores = np.concatenate([few, np.full(songs - 3, 0.2)])
        assert leads(scores, np.array([0])) == pytest.approx([lead])


def test_imagined_songs_score_as_the_best_wrong_ones_of_many():
    some = [
        Case(np.concatenate([[0.9], np.full(10, score), np.zeros(songs)]), 0)
        for score, songs in ((0.3, 2000), (0.35, 2000), (0.6, 2000))
    ]
    assert calibrate(some, USED).imagined == pytest.approx(0.35)
    few = [case._replace(scores=case.scores[:999]) for case in some]
    assert calibrate(few, USED).imagined == USED.imagined


def test_the_curve_is_the_likeliest_of_hums_with_their_song_and_without():
    """With a small penalty: hums that all find their song must not give endless weights."""
    some, _ = cases(150)
    score, lead, right = first_answers(some)
    rows = np.stack([(column - column.mean()) / column.std() for column in (score, lead)], axis=1)

    def loss(weights):
        margins = np.where(right, 1, -1) * (weights[0] + rows @ weights[1:])
        return np.logaddexp(0, -margins).mean() + 1e-3 * weights[1:] @ weights[1:]

    bias, *weights = minimize(loss, np.zeros(3), options={"gtol": 1e-8}).x
    found = calibrate(some, USED, keep=0.8)
    expected = weights / np.std([score, lead], axis=1)
    assert (found.score, found.lead) == pytest.approx(expected, rel=1e-4)
    assert found.bias == pytest.approx(bias - expected @ [score.mean(), lead.mean()], rel=1e-4)
    sure = found.confidence(score, lead)
    assert np.mean(sure[right] >= found.threshold) == pytest.approx(0.8, abs=0.01)
    assert (found.distance, found.folded, found.unvoiced) == (0.2, 0.1, 2.0)
    assert sure.mean() == pytest.approx(right.mean(), abs=1e-6)  # neither too sure nor too unsure


def test_the_threshold_keeps_what_it_was_asked_to_keep():
    some, groups = cases()
    strict, usual, mild = (refusal(some, groups, USED, keep) for keep in (0.5, 0.8, 0.99))
    assert strict.kept == pytest.approx(0.5, abs=0.05)
    assert usual.kept == pytest.approx(0.8, abs=0.05)
    assert strict.refused > usual.refused > 0.9
    assert usual.refused > mild.refused
    assert strict.precision > 0.95 > mild.precision
    assert 0 < usual.brier < 0.2


def test_what_cannot_be_counted_is_none():
    """Four hums, two of them right, and a threshold that none of them passes."""
    rows = np.random.default_rng(8).random((4, 6))
    truths = [*rows[:2].argmax(axis=1), *rows[2:].argmin(axis=1)]
    some = [Case(scores, int(truth)) for scores, truth in zip(rows, truths, strict=True)]
    found = refusal(some, ["a", "b", "c", "d"], USED)
    assert (found.kept, found.refused, found.precision) == (0.0, 1.0, None)


def test_hums_of_a_song_are_never_on_both_sides(monkeypatch):
    some, groups = cases(60)
    seen = []

    def watched(cases, used, keep):
        seen.append({case.truth for case in cases})
        return calibrate(cases, used, keep)

    monkeypatch.setattr(confidence, "calibrate", watched)
    refusal(some, groups, USED, folds=4)
    assert [len(songs) for songs in seen] == [15] * 4  # of 20 songs, a quarter is measured


def test_nothing_to_learn_from_is_refused():
    hopeless = [Case(np.array([0.9, 0.1, 0.0]), 2)] * 5
    for some in (hopeless, []):
        with pytest.raises(QbhError, match="find their songs"):
            calibrate(some, USED)
    with pytest.raises(QbhError, match="two songs or more"):
        calibrate([Case(np.array([0.9]), 0)], USED)


def test_what_is_stored_with_weights_is_used():
    stored = SimpleNamespace(calibration={"distance": 0.3, "threshold": 0.7})
    older = Calibration(distance=0.3, threshold=0.7, folded=0.0, unvoiced=3.0, imagined=0.42)
    assert Calibration.of(stored) == older  # which did not fold
    stored.calibration |= {"folded": 0.1, "unvoiced": 0.7, "imagined": 0.3}
    assert Calibration.of(stored) == Calibration(0.3, 0.1, 0.7, threshold=0.7, imagined=0.3)
    assert Calibration.of(SimpleNamespace()) == Calibration()
    stored.calibration = {"distanse": 0.3}
    with pytest.raises(QbhError, match="distanse"):
        Calibration.of(stored)


def test_a_tune_has_more_than_two_notes():
    rng = np.random.default_rng(0)

    def sung(*notes):
        return np.repeat(notes, 10) + 0.45 + rng.normal(0, 0.08, 10 * len(notes))

    assert is_tune(sung(60, 62, 64, 65, 62))
    assert not is_tune(sung(60, 62, 60, 62))
    assert not is_tune(sung(60, 60, 60))
    glides = np.linspace(60, 67, 12)
    assert not is_tune(np.concatenate([sung(60, 60, 67, 67), glides]))
