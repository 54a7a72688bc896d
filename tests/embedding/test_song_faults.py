from dataclasses import fields, replace

import numpy as np
import pytest

from qbhkit.contour import from_notes
from qbhkit.embedding.augment import Distortions, with_only
from qbhkit.embedding.sampling import ContourBank, SongPairs
from qbhkit.embedding.song_faults import SongFaults, as_heard
from qbhkit.embedding.windows import WindowRange
from qbhkit.errors import QbhError

OFF = SongFaults(**{field.name: 0 for field in fields(SongFaults) if field.name != "glide_frames"})


def windows(batch=400, notes=10, frames=8):
    """(B, L, 2): notes of 8 frames, of which the last two are a rest."""
    rng = np.random.default_rng(0)
    pitch = np.repeat(rng.integers(55, 75, (batch, notes)), frames, axis=1)
    voiced = np.tile(np.arange(frames) < frames - 2, (batch, notes))
    return np.stack([np.where(voiced, pitch, 0), voiced], axis=-1).astype(np.float32)


def heard(**faults):
    """Windows before and after, and the steps between them (NaN where one is unvoiced)."""
    before = windows()
    after = as_heard(before, replace(OFF, heard=1, **faults), np.random.default_rng(1))
    assert after.dtype == np.float32
    assert not after[after[..., 1] == 0].any()
    assert after[..., 1].any(axis=1).all()
    both = (before[..., 1] > 0) & (after[..., 1] > 0)
    return before, after, np.where(both, after[..., 0] - before[..., 0], np.nan)


def runs_of(marks):
    """Lengths of the runs of true frames in each row that has any: one list for each row."""
    edges = np.diff(np.pad(marks, ((0, 0), (1, 1))).astype(int), axis=1)
    rows = (np.flatnonzero(edge) for edge in edges if edge.any())
    return [(ends[1::2] - ends[::2]).tolist() for ends in rows]


def test_without_faults_nothing_changes():
    before, after, _ = heard()
    np.testing.assert_array_equal(after, before)
    plain = as_heard(before, SongFaults(), np.random.default_rng(0))
    np.testing.assert_array_equal(plain, before)


def test_only_a_share_of_the_windows_is_heard():
    before = windows()
    faults = replace(OFF, heard=0.25, jitter_st=0.1)
    after = as_heard(before, faults, np.random.default_rng(0))
    assert (after != before).any(axis=(1, 2)).mean() == pytest.approx(0.25, abs=0.06)


def test_a_stretch_or_a_note_is_heard_at_another_harmonic():
    for faults in ({"octave_chance": 0.5}, {"octave_note_share": 0.1}):
        _, _, step = heard(**faults)
        moved = np.nan_to_num(step) != 0
        assert set(np.unique(step[moved])) == {-19, -12, 12, 19}
        assert 0.8 < np.isin(step[moved], (-12, 12)).mean() < 0.97
        rows = moved.any(axis=1)
        if "octave_chance" in faults:
            assert rows.mean() == pytest.approx(0.5, abs=0.08)
            for number in np.flatnonzero(rows):
                assert len(np.unique(step[number][moved[number]])) == 1
        else:
            assert all(set(lengths) <= {6, 8} for lengths in runs_of(moved))


def test_another_note_of_the_chord_is_heard():
    _, _, step = heard(chord_note_share=0.2)
    moved = step[np.nan_to_num(step) != 0]
    assert len(moved) / np.isfinite(step).sum() == pytest.approx(0.2, abs=0.03)
    assert set(np.unique(np.abs(moved))) == {3, 4, 5, 7, 8}


def test_an_instrument_is_heard_between_phrases_or_instead_of_them():
    before, after, _ = heard(between_chance=1)
    voice, rest = before[..., 1] > 0, before[..., 1] == 0
    np.testing.assert_array_equal(after[voice], before[voice])
    assert not after[rest].any()  # all rows rest at the same time: nobody plays
    before, after, step = heard(other_chance=0.5)
    moved = np.nan_to_num(step) != 0
    assert moved.any(axis=1).mean() == pytest.approx(0.5, abs=0.1)
    assert after[moved][:, 0].min() >= 55
    other = before.copy()
    other[:200] = np.roll(other[:200], 2, axis=1)  # half of the rows now rest at other times
    between = replace(OFF, heard=1, between_chance=1)
    after = as_heard(other, between, np.random.default_rng(2))
    assert 0.2 < (after[other[..., 1] == 0][:, 1] > 0).mean() < 0.8


def test_phrases_notes_and_frames_are_lost():
    before, after, _ = heard(lost_chance=0.5)
    lost = (before[..., 1] > 0) & (after[..., 1] == 0)
    assert lost.any(axis=1).mean() == pytest.approx(0.5, abs=0.08)
    before, after, _ = heard(lost_note_share=0.1)
    lost = (before[..., 1] > 0) & (after[..., 1] == 0)
    assert lost.sum() / before[..., 1].sum() == pytest.approx(0.1, abs=0.02)
    assert all(set(lengths) == {6} for lengths in runs_of(lost))
    before, after, _ = heard(flicker_share=0.2)
    lost = 1 - after[..., 1].sum(axis=1) / before[..., 1].sum(axis=1)
    assert lost.mean() == pytest.approx(0.1, abs=0.02)
    assert lost.std() > 0.05  # some trackers are worse than others


def test_notes_and_frames_have_errors_and_glides():
    _, _, step = heard(note_st=0.3)
    assert np.nanstd(step) == pytest.approx(0.3, rel=0.05)
    inner = step.reshape(len(step), 10, 8)[..., :6]
    assert np.ptp(inner, axis=-1).max() < 1e-4  # one error for each note
    _, _, step = heard(jitter_st=0.2)
    assert np.nanstd(step) == pytest.approx(0.2, rel=0.05)
    _, _, step = heard(stray_share=0.2)
    strays = np.abs(step[np.nan_to_num(step) != 0])
    assert len(strays) / np.isfinite(step).sum() == pytest.approx(0.1, abs=0.02)
    assert set(strays) == set(range(2, 13))
    joined = windows(frames=2)[:, :, :1].repeat(8, axis=1)[:, ::2]
    legato = np.concatenate([joined, np.ones_like(joined)], axis=-1)
    legato[..., 0] = np.maximum(legato[..., 0], 50)
    after = as_heard(legato, replace(OFF, heard=1, glide_chance=1), np.random.default_rng(0))
    changed = after[..., 0] != legato[..., 0]
    edges = np.diff(legato[..., 0], axis=1) != 0
    assert changed[:, 1:][edges].all()


def test_no_window_is_lost_altogether():
    _, after, _ = heard(lost_note_share=1)
    np.testing.assert_array_equal(after, windows())


@pytest.mark.parametrize(
    "wrong", [{"heard": 1.5}, {"lost_chance": -0.1}, {"note_st": -1}, {"glide_frames": 0}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(QbhError, match=next(iter(wrong))):
        SongFaults(**wrong)


def test_only_the_song_of_a_pair_is_heard_by_a_tracker():
    notes = np.stack([np.arange(40) * 0.5, np.full(40, 0.5), 60 + np.arange(40) % 7], axis=1)
    bank = ContourBank([from_notes(notes + np.array([0, 0, k])) for k in range(4)])
    window, rules = WindowRange(at_start=1), with_only(Distortions())
    drawn = [
        SongPairs(bank, window, rules, "key", faults).draw(4, np.random.default_rng(0))
        for faults in (SongFaults(), SongFaults(heard=1, jitter_st=0.5))
    ]
    np.testing.assert_array_equal(drawn[0].positives, drawn[1].positives)
    assert not np.array_equal(drawn[0].anchors, drawn[1].anchors)
