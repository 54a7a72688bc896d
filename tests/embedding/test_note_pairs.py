import numpy as np
import pytest

from qbhkit.contour import from_notes, normalise
from qbhkit.corpora import Song
from qbhkit.corpora.training_songs import TrainingSongs
from qbhkit.embedding.augment import Distortions, with_only
from qbhkit.embedding.note_pairs import NotePairConfig, NotePairs
from qbhkit.embedding.sampling import Humming, MixedPairs
from qbhkit.embedding.training import TrainConfig, song_source
from qbhkit.embedding.windows import Reading, stretch
from qbhkit.errors import QbhError
from qbhkit.training_loop import generator

OFF = with_only(Distortions())
FINE_S = 0.001


def songs(count=12, notes=30, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        length = rng.choice([0.2, 0.4, 0.8], notes)
        onset = np.cumsum(length) - length
        found.append(np.stack([onset, length * 0.9, rng.integers(50, 80, notes)], axis=1))
    return found


def source(notes=None, groups=None, config=None, reading=None, how="key"):
    notes = songs() if notes is None else notes
    groups = range(len(notes)) if groups is None else groups
    humming = Humming(reading or Reading(80), OFF, how)
    return NotePairs(notes, groups, config or NotePairConfig(), humming, 0.1)


def test_an_anchor_is_the_phrase_as_written():
    """Each anchor must be a stretch of its own song from one note's onset to another's end."""
    notes = songs(4)
    found = source(notes).draw(4, generator(0))
    for anchor, tune in zip(found.anchors, found.groups, strict=True):
        song = notes[tune]
        ends = song[:, 0] + song[:, 1]
        fine = from_notes(song, FINE_S).frames
        spans = [(a, b) for a in range(len(song)) for b in range(a + 5, len(song))]
        starts = np.array([song[a, 0] for a, _ in spans])
        lengths = np.array([ends[b] for _, b in spans]) - starts
        positions = Reading(80).positions(starts / FINE_S, lengths / FINE_S)
        read = normalise(stretch(fine, positions), "key")
        assert np.abs(read - anchor).max(axis=2).mean(axis=1).min() < 0.02


def test_the_rhythm_of_a_hum_is_its_own_but_its_notes_are_the_phrases():
    config = NotePairConfig(rhythm_octaves=0.4, fewest=8, most=8)
    found = source(config=config, how="published").draw(12, generator(2))
    for anchor, positive in zip(found.anchors, found.positives, strict=True):
        assert set(np.unique(positive[..., 0])) <= set(np.unique(anchor[..., 0]))
    assert (found.anchors[..., 0] != found.positives[..., 0]).mean() > 0.2
    lengths = [np.diff(np.flatnonzero(np.diff(row[:, 0]))) for row in found.positives]
    assert len(np.unique(np.concatenate(lengths))) > 8


def test_speed_is_kept_where_windows_are_not_stretched_and_without_rules_a_hum_is_the_phrase():
    notes = [np.stack([np.arange(10) * 0.5, np.full(10, 0.5), 60.0 + np.arange(10)], axis=1)]
    config = NotePairConfig(rhythm_octaves=0, fewest=10, most=10)
    found = source(notes, config=config, reading=Reading(70, window_s=7.0)).draw(1, generator(0))
    assert found.anchors[0, :, 1].tolist() == [0] * 10 + [1] * 50 + [0] * 10
    assert np.diff(np.flatnonzero(np.diff(found.anchors[0, :, 0]))).tolist() == [5] * 10
    np.testing.assert_array_equal(found.anchors, found.positives)


def test_phrases_have_the_notes_asked_for_and_begin_anywhere():
    notes = [np.stack([np.arange(60) * 0.5, np.full(60, 0.5), 40.0 + np.arange(60)], axis=1)]
    config = NotePairConfig(fewest=4, most=16, rhythm_octaves=0, at_start=0)
    rng, counts = generator(3), []
    drawn = source(notes, config=config)
    for _ in range(200):
        counts.append(len(np.unique(drawn.draw(1, rng).anchors[0, :, 0])))
    assert (min(counts), max(counts)) == (4, 16)


def test_songs_without_notes_are_never_drawn_and_groups_stay():
    notes = [None, *songs(3), np.zeros((2, 3))]
    found = source(notes, groups=[0, 5, 5, 7, 8]).draw(50, generator(0))
    assert set(found.groups) == {5, 7}
    with pytest.raises(QbhError, match="No song has 6 notes"):
        source([None, np.zeros((5, 3))])


@pytest.mark.parametrize("values", [{"share": 0}, {"fewest": 1}, {"fewest": 9, "most": 8}])
def test_impossible_values_are_refused(values):
    with pytest.raises(QbhError, match="note_pairs need"):
        NotePairConfig(**values)


def test_a_run_with_note_pairs_draws_both_from_the_same_tunes():
    notes = songs(8)
    contours = [from_notes(one) for one in notes]
    written = [Song(str(k), str(k), "here", notes=one) for k, one in enumerate(notes)]
    learnt = TrainingSongs([song.id for song in written], contours, [*range(8)], [], written)
    config = TrainConfig(note_pairs=NotePairConfig(share=0.5))
    drawn = song_source(config, learnt)
    assert isinstance(drawn, MixedPairs)
    assert drawn.tunes == 8
    found = drawn.draw(16, generator(0))
    assert sorted(found.groups[:8]) == sorted(found.groups[8:]) == [*range(8)]
    assert found.anchors.shape == (16, 80, 2)
