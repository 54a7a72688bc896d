import numpy as np
import pytest

from qbhkit.contour import Contour, from_pitch, held_pitch
from qbhkit.errors import QbhError
from qbhkit.retrieval.baselines import (
    SCALES,
    CappedDtw,
    FoldedDtw,
    LinearScaling,
    SubsequenceDtw,
)

ALL = [LinearScaling, SubsequenceDtw, CappedDtw, FoldedDtw]
EVERY = [(baseline, match_from) for baseline in ALL for match_from in ("start", "anywhere")]


def random_song(rng, frames, rests=True):
    """A walk of notes of 1 to 5 frames, with rests, in whole semitones."""
    pitch = []
    now = float(rng.integers(55, 75))
    while len(pitch) < frames:
        now = float(np.clip(now + rng.integers(-5, 6), 45, 90))
        pitch += [now] * int(rng.integers(1, 6))
        if rests and rng.random() < 0.2:
            pitch += [0.0] * int(rng.integers(1, 4))
    return from_pitch(np.array(pitch[:frames]))


def random_songs(seed, count=5, frames=40):
    rng = np.random.default_rng(seed)
    return [random_song(rng, frames + 3 * k) for k in range(count)]


def linear_scaling_by_hand(song: Contour, hum: Contour, match_from: str) -> float:
    held = []
    for pitch, voiced in song.trimmed()[0].frames:
        held.append(float(pitch) if voiced else held[-1])
    sung = hum.trimmed()[0].frames
    lowest = np.inf
    for scale in SCALES:
        last = 0 if match_from == "start" else max(0, int(len(held) - len(sung) * scale))
        for start in range(0, last + 1, 2):
            differences = [
                held[min(int(start + (k + 0.5) * scale), len(held) - 1)] - float(pitch)
                for k, (pitch, voiced) in enumerate(sung)
                if voiced
            ]
            key = np.mean(differences)
            lowest = min(lowest, float(np.mean(np.abs(np.array(differences) - key))))
    return -lowest


def path_cost_by_hand(hum, song, match_from, cap=np.inf, folded=False):
    """Full table; cell (i, j) ends a path that has used hum[: i + 1]."""
    cost = np.full((len(hum), len(song)), np.inf)
    far = np.abs(np.subtract.outer(hum, song))
    if folded:
        far = np.minimum(far % 12, -far % 12)
    far = np.minimum(far, cap)
    cost[0, :] = far[0]
    if match_from == "start":
        cost[0, 1:] = np.inf
    for i in range(1, len(hum)):
        for j in range(1, len(song)):
            ways = [cost[i - 1, j - 1] + far[i, j]]
            if j >= 2:
                ways.append(cost[i - 1, j - 2] + far[i, j])
            if i >= 2:
                ways.append(cost[i - 2, j - 1] + far[i - 1, j] + far[i, j])
            cost[i, j] = min(ways)
    return cost[-1].min() / len(hum)


def dtw_keys_by_hand(song, length, match_from):
    spans = [song[: max(1, round(length * scale))] for scale in (0.6, 0.8, 1.0, 1.25, 1.6)]
    if match_from == "anywhere":
        width = min(len(song), length)
        begins = range(0, len(song) - width + 1, max(1, width // 4))
        spans += [song[k : k + width] for k in begins]
    return {round(float(np.sort(span)[(len(span) - 1) // 2])) for span in spans}


def dtw_by_hand(song: Contour, hum: Contour, match_from: str) -> float:
    notes = song.pitch_st[song.voiced].astype(float)
    sung = hum.pitch_st[hum.voiced].astype(float)
    sung = sung - np.sort(sung)[(len(sung) - 1) // 2]
    keys = dtw_keys_by_hand(notes, len(sung), match_from)
    return -min(path_cost_by_hand(sung, notes - key, match_from) for key in keys)


def capped_by_hand(song: Contour, hum: Contour, match_from: str) -> float:
    notes, sung = held_pitch(song).astype(float), held_pitch(hum).astype(float)
    near = dtw_keys_by_hand(notes, len(sung), match_from)
    keys = {key + beside for key in near for beside in (-1, 0, 1)}
    sung = sung - np.sort(sung)[(len(sung) - 1) // 2]
    return -min(path_cost_by_hand(sung, notes - key, match_from, 3.0) for key in keys)


def folded_by_hand(song: Contour, hum: Contour, match_from: str) -> float:
    notes = song.pitch_st[song.voiced].astype(float)
    sung = hum.pitch_st[hum.voiced].astype(float)
    keys = range(12)
    return -min(path_cost_by_hand(sung, notes + key, match_from, 3.0, True) for key in keys)


BY_HAND = {
    LinearScaling: linear_scaling_by_hand,
    SubsequenceDtw: dtw_by_hand,
    CappedDtw: capped_by_hand,
    FoldedDtw: folded_by_hand,
}


@pytest.mark.parametrize(("baseline", "match_from"), EVERY)
def test_scores_equal_a_plain_reference(baseline, match_from):
    songs = random_songs(0)
    hum = random_song(np.random.default_rng(100), 24)
    scores = baseline(songs).scores(hum, match_from)
    expected = [BY_HAND[baseline](song, hum, match_from) for song in songs]
    assert np.std(expected) > 0.05  # the songs can be told apart
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize(("baseline", "match_from"), EVERY)
def test_silence_around_hum_and_song_does_not_matter(baseline, match_from):
    songs = random_songs(10)
    hum = random_song(np.random.default_rng(10), 25).trimmed()[0]
    rest = np.zeros((7, 2), np.float32)
    late = [Contour(np.concatenate([rest, song.frames, rest])) for song in songs]
    plain = baseline(songs).scores(hum, match_from)
    np.testing.assert_allclose(baseline(late).scores(hum, match_from), plain, atol=1e-6)
    quiet = Contour(np.concatenate([rest, hum.frames, rest]))
    np.testing.assert_allclose(baseline(songs).scores(quiet, match_from), plain, atol=1e-6)


@pytest.mark.parametrize(("baseline", "match_from"), EVERY)
def test_songs_far_shorter_than_the_hum_come_last(baseline, match_from):
    songs = [*random_songs(11, count=3), from_pitch(np.full(4, 60.0))]
    scores = baseline(songs).scores(random_song(np.random.default_rng(11), 30), match_from)
    assert np.isfinite(scores[:3]).all()
    assert scores[3] < 0
    if baseline is not LinearScaling:  # no path at half to double speed: not found at all
        assert scores[3] == -np.inf


@pytest.mark.parametrize(("baseline", "match_from"), EVERY)
def test_an_unvoiced_hum_is_refused(baseline, match_from):
    rival = baseline(random_songs(12, count=2))
    for voiced in (0, 9):
        hum = from_pitch(np.array([60.0] * voiced + [0.0] * 20))
        with pytest.raises(QbhError, match=f"only {voiced / 10} s of the hum is voiced"):
            rival.scores(hum, match_from)
    assert np.isfinite(rival.scores(from_pitch(np.full(10, 60.0)), match_from)).all()


def test_a_hum_an_octave_off_at_every_other_note_is_found_by_the_folded_form():
    songs = random_songs(20, count=8, frames=60)
    pitch = songs[5].pitch_st[10:40].copy()
    voiced = pitch > 0
    jumps = np.arange(len(pitch)) // 5 % 2 * 12
    hum = from_pitch(np.where(voiced, pitch + jumps + 3, 0.0))
    scores = FoldedDtw(songs).scores(hum, "anywhere")
    assert scores.argmax() == 5
    assert scores[5] == pytest.approx(0.0, abs=1e-4)
    assert SubsequenceDtw(songs).scores(hum, "anywhere")[5] < -2


@pytest.mark.parametrize("baseline", [CappedDtw, FoldedDtw])
def test_a_hum_between_two_keys_is_met(baseline):
    songs = random_songs(21)
    hum = from_pitch(np.where(songs[2].voiced, songs[2].pitch_st + 2.4, 0.0)[:30])
    assert baseline(songs).scores(hum, "start")[2] == pytest.approx(0.0, abs=1e-4)


def test_gaps_of_melodies_that_a_tracker_heard_cost_one_semitone_at_most():
    song = random_songs(23, count=1, frames=60)[0]
    lost = np.where(np.arange(len(song)) // 6 % 2, song.pitch_st, 0.0)
    lost[0] = song.pitch_st[0]
    songs, heard = [from_pitch(lost)] * 2, np.array([False, True])
    scores = CappedDtw(songs, heard).scores(song, "start")
    assert -0.6 < scores[1] < -0.1
    assert scores[0] < scores[1] - 0.3


def test_a_wrong_note_costs_three_semitones_at_most():
    songs = random_songs(22, count=2, frames=60)
    pitch = songs[0].pitch_st[:30].copy()
    pitch[12] += 30
    scores = CappedDtw(songs).scores(from_pitch(pitch), "start")
    assert scores[0] == pytest.approx(-3 / len(from_pitch(pitch).trimmed()[0]), abs=1e-4)
