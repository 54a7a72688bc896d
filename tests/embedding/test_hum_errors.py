import numpy as np
import pytest

from qbhkit.contour import from_pitch
from qbhkit.embedding.augment import GROUPS, Distortions, without
from qbhkit.embedding.hum_errors import HumErrors
from qbhkit.embedding.hum_pairs import AlignedHum, Alignment
from qbhkit.embedding.sampling import ContourBank, SongPairs
from qbhkit.embedding.windows import Reading, WindowRange
from qbhkit.training_loop import generator

NOTHING = without(Distortions(), *GROUPS)
READING = Reading(80)


def hummed(error_st, frames, key_st=5.0, rests=()):
    """Return a hum, with some errors, of the frames of a song of one note, and the song."""
    pitch = 60 + key_st + error_st
    pitch[list(rests)] = 0
    song = from_pitch(np.full(400, 60.0))
    times_s = (np.arange(len(pitch)) + 0.5) / 10, (frames + 0.5) / 10
    return AlignedHum(from_pitch(pitch), 0, Alignment(*times_s, key_st, 0.5)), song


def errors_of(*args, rules=NOTHING, **kwargs):
    hum, song = hummed(*args, **kwargs)
    return HumErrors([hum], [song], rules)


def hum_windows(errors, bank, length=80.0, count=50):
    song, start = np.zeros(count, int), np.full(count, 100.0)
    rng = np.random.default_rng(0)
    return errors.hum(bank, song, start, np.full(count, length), READING, rng)


def test_a_song_gets_the_wrong_pitch_and_the_pauses_of_a_hum():
    rising, rests = np.linspace(-2, 2, 120), range(50, 60)
    found = hum_windows(
        errors_of(rising, np.arange(120), rests=rests), ContourBank([from_pitch(np.full(400, 50))])
    )
    voiced = found[..., 1] > 0
    assert ((~voiced).sum(axis=1) > 3).any()
    for row, sung in zip(found[..., 0], voiced, strict=True):
        wrong = row[sung] - 50
        assert np.isclose(wrong[:, None], rising, atol=1e-4).any(axis=1).all()
        assert (np.diff(wrong) >= 0).all()
        assert not ((wrong > rising[49] + 0.01) & (wrong < rising[60] - 0.01)).any()


def test_a_song_gets_the_timing_of_a_hum():
    twice_as_fast = np.concatenate([np.arange(60), np.arange(60, 180, 2)])  # from the middle on
    bank = ContourBank([from_pitch(40 + np.arange(400) / 10)])  # whose pitch says where it is
    found = hum_windows(errors_of(np.zeros(120), twice_as_fast), bank, length=120.0)[..., 0]
    at = (found - 40) * 10
    np.testing.assert_allclose(at[:, 0], 100, atol=3)
    assert (np.abs(at[:, -1] - 220) < 6).all()
    whole = at[np.argmin(at[:, 40])]  # the row that was slowest at first: both halves of the hum
    assert 0.25 < (whole[39] - whole[0]) / (whole[-1] - whole[0]) < 0.4


def test_rests_of_the_song_are_sung_through_in_half_of_the_windows_only():
    pitch = np.full(400, 50.0)
    pitch[120:150] = 0
    found = hum_windows(errors_of(np.zeros(120), np.arange(120)), ContourBank([from_pitch(pitch)]))
    rests = (found[..., 1] == 0).any(axis=1)
    assert 10 < rests.sum() < 40
    assert (found[..., 0][found[..., 1] > 0] == 50).all()


def test_further_rules_are_applied():
    rules = without(Distortions(jitter_st=1), "time", "pitch", "voicing")
    errors = errors_of(np.zeros(120), np.arange(120), rules=rules)
    found = hum_windows(errors, ContourBank([from_pitch(np.full(400, 50.0))]))
    assert found[..., 0].std() > 0.1


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_pairs_borrows_and_the_others_stay_as_they_are(share):
    bank = ContourBank([from_pitch(np.full(300, 55.0 + k)) for k in range(16)])
    songs = SongPairs(bank, WindowRange(), NOTHING, "published")
    errors = errors_of(np.full(100, 3.0), np.arange(100))
    plain = songs.draw(16, generator(0))
    borrowed = songs.borrowing(errors, share).draw(16, generator(0))
    np.testing.assert_array_equal(plain.anchors, borrowed.anchors)
    np.testing.assert_array_equal(plain.groups, borrowed.groups)
    raised = borrowed.positives[..., 0] - plain.positives[..., 0]
    assert (raised > 0.5).all(axis=1).sum() == round(16 * share)
    assert (raised[round(16 * share) :] == 0).all()
