import numpy as np
import pytest

from qbhkit.corpora import Song
from qbhkit.corpora.training_songs import read_split
from qbhkit.corpora.variants import VariantFinder, held


def tune(seed: int, notes: int = 40) -> np.ndarray:
    """(M, 3) notes of 0.4 or 0.8 s."""
    rng = np.random.default_rng(seed)
    lengths = rng.choice([0.4, 0.8], notes)
    pitch = 60 + np.cumsum(rng.choice([-5, -3, -2, -1, 1, 2, 3, 4], notes))
    return np.stack([np.cumsum(lengths) - lengths, lengths, pitch], axis=1)


def curve(notes: np.ndarray) -> np.ndarray:
    return held(Song("x", "x", "x", notes=notes))


def found(others: list[np.ndarray], notes: np.ndarray) -> list[int]:
    return [variant.number for variant in VariantFinder(others).near(curve(notes))]


OTHERS = [curve(tune(seed)) for seed in range(20)]


def test_a_melody_is_found_in_any_key_at_another_tempo():
    for factor in (0.7, 1.4):
        assert found(OTHERS, tune(3) * [factor, factor, 1] + [0, 0, 5]) == [3]


def test_a_variant_that_shares_few_runs_is_found():
    notes = tune(3)
    notes[4::7, 2] += 1  # every seventh note: one run of five steps is left between two of them
    assert found(OTHERS, notes) == [3]


def test_twelve_seconds_from_the_middle_of_another_melody_are_found():
    other = tune(30)
    middle = tune(7)[12:36]
    middle[:, 0] += other[-1, :2].sum() - middle[0, 0]
    assert found(OTHERS, np.concatenate([other, middle])) == [7]


def test_a_short_melody_is_found_inside_a_long_one():
    assert found([curve(tune(5)[:14])], tune(5)) == [0]


def test_other_melodies_are_not_found():
    assert not any(found(OTHERS, tune(seed)) for seed in range(40, 60))


def test_a_stretch_with_hardly_any_change_of_pitch_tells_nothing():
    pitch = np.full(40, 60.0)
    pitch[[5, 20]] = 62  # four changes, but never four in 12 s
    notes = np.stack([np.arange(40) * 1.5, np.full(40, 1.5), pitch], axis=1)
    assert found([curve(notes)], notes) == []


def test_the_distance_is_a_share_of_the_movement():
    notes = np.stack(
        [np.arange(25) * 0.4, np.full(25, 0.4), 60.0 + np.tile([0, 2, 4, 7, 9], 5)], axis=1
    )
    sung = notes.copy()
    sung[::2, 2] += 0.3
    (near,) = VariantFinder([curve(notes)]).near(curve(sung), 0.5)
    movement = np.abs(sung[:, 2] - np.median(sung[:, 2])).mean()
    assert near.distance == pytest.approx(0.3 * 13 / 25 / movement, rel=0.02)


def test_a_melody_without_runs_finds_nothing():
    assert found(OTHERS, tune(3, 3)) == []


# Found by an independent alignment; shared runs of pitch changes miss them.
NAMED = {
    ("folk", "airdsAirs-book2-0369"): "mir-qbsh/00014",
    ("folk", "essenFolksong-fink0-76"): "mir-qbsh/00039",
    ("pop909", "442"): "mir-qbsh/00045",
    ("folk", "essenFolksong-erk30-191"): "mir-qbsh/00001",
    ("folk", "essenFolksong-lux-92"): "mirex-essen-2000/01988",
    ("folk", "essenFolksong-han1-58"): "mirex-essen-2000/01229",
    ("folk", "essenFolksong-altdeu20-297"): "mirex-essen-2000/00881",
    ("pop909", "140"): "ioacas/10312",
    ("pop909", "025"): "ioacas/10295",
    ("pop909", "591"): "ioacas/01067",
}


@pytest.mark.parametrize(("split", "song"), NAMED)
def test_known_variants_of_evaluation_songs_are_listed(split, song):
    assert song not in read_split(split)["dropped"]
    assert song in read_split("evaluation_variants")[split]


def test_a_listed_variant_names_an_evaluation_song():
    for split, listed in read_split("evaluation_variants").items():
        corpora = {near.split("/")[0] for near in listed.values()}
        assert corpora <= {"mir-qbsh", "mirex-essen-2000", "ioacas", "ultrastar"}
        assert not set(listed) & set(read_split(split)["dropped"])
