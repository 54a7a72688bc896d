from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from qbhkit.corpora import Song, songs_of, training_songs
from qbhkit.corpora.abc import MUSIC21_COLLECTIONS, music21_collection
from qbhkit.corpora.duplicates import (
    RUN,
    MelodyMatcher,
    note_pitches,
    pitch_changes,
    same_melodies,
    too_short_to_tell,
    training_filter,
)
from qbhkit.corpora.folders import EVALUATION_YEAR
from qbhkit.corpora.training_songs import forbidden_ids, read_split
from qbhkit.corpora.training_songs import training_songs as read_training_songs
from qbhkit.errors import QbhError


def melodies(count: int = 30, length: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    steps = rng.choice([-4, -3, -2, -1, 1, 2, 3, 4], (count, length))
    return {f"m{k}": 60.0 + np.cumsum(row) for k, row in enumerate(steps)}


def test_pitch_changes_merge_repeated_notes_and_round():
    assert pitch_changes([60, 60, 62, 62, 62, 59]) == (2, -3)
    assert pitch_changes([60.1, 59.9, 62.2]) == (2,)
    assert pitch_changes([]) == ()
    notes = np.array([60, 62, 64, 62, 67, 60.0])
    grid = np.repeat(notes, [3, 1, 4, 2, 2, 5])
    with_rests = np.insert(grid, [3, 8], 0.0)
    assert pitch_changes(note_pitches(with_rests)) == pitch_changes(notes)


def test_duplicates_variants_and_excerpts_are_found_and_another_tune_is_not():
    tunes = melodies()
    matcher = MelodyMatcher(tunes)
    for key, pitches in tunes.items():  # in any key and at any speed
        assert matcher.near(pitches + 7) == matcher.near(np.repeat(pitches - 5, 3)) == {key: 1.0}
    variant = tunes["m3"].copy()
    variant[20] += 1  # one note sung differently changes two steps, and so RUN + 1 of 34 runs
    found = matcher.near(variant)
    assert set(found) == {"m3"}
    assert found["m3"] == pytest.approx(1 - (RUN + 1) / 34)
    assert matcher.near(tunes["m3"][5:20] + 2) == {"m3": 1.0}
    assert matcher.near(melodies(seed=1)["m0"]) == {}


def test_melodies_too_short_to_tell_never_match():
    tunes = melodies()
    short = tunes["m0"][: RUN + 3]  # RUN + 2 changes: three runs
    assert too_short_to_tell(pitch_changes(short))
    assert not too_short_to_tell(pitch_changes(tunes["m0"][: RUN + 4]))
    assert MelodyMatcher(tunes).near(short) == {}
    assert MelodyMatcher({"short": short}).near(tunes["m0"]) == {}
    assert too_short_to_tell(pitch_changes([60, 62] * 40))  # long, but the same run over and over


def test_groups_join_near_duplicates_through_each_other():
    tunes = melodies(12, 60)
    a, other = tunes["m0"], tunes["m1"]
    bridge = np.concatenate([a[30:], a[-1] + 1 + other[:30] - other[0]])
    grouped = {"a": a, "bridge": bridge, "b": other, "m5": tunes["m5"], "copy": tunes["m5"] + 3}
    lone = {"m7": tunes["m7"], "m8": tunes["m8"]}
    matcher = MelodyMatcher({**lone, **grouped})
    assert "b" not in matcher.near(a, 0.4)
    groups = [sorted(group) for group in matcher.groups(0.4)]
    assert groups == [["a", "b", "bridge"], ["copy", "m5"]]
    assert MelodyMatcher(lone).groups() == []
    assert MelodyMatcher({}).groups() == []


def test_same_melodies_are_the_same_but_for_key_and_tempo():
    onsets = np.cumsum([0.0, 0.5, 0.25, 0.25, 1.0, 0.5])
    pitches = np.array([60, 62, 64, 62, 67, 60.0])

    def song(start_s: float, tempo: float, key_st: float) -> np.ndarray:
        return np.stack([start_s + onsets / tempo, np.full(6, 0.1), pitches + key_st], axis=1)

    other_rhythm, other_note = song(0, 1, 0), song(0, 1, 0)
    other_rhythm[2:, 0] += 0.3
    other_note[3, 2] += 1
    notes = {
        "a": song(0, 1, 0), "b": song(3, 1, 0), "c": song(0, 1.7, 5), "rhythm": other_rhythm,
        "note": other_note, "tiny": song(0, 1, 0)[:1], "tiny too": song(0, 1, 0)[:1],
        "pair": song(0, 1, 0)[:2], "pair too": song(0, 2, 1)[:2],
    }  # fmt: skip
    assert same_melodies(notes) == [["a", "b", "c"], ["pair", "pair too"]]


def test_training_filter_names_the_protected_melody():
    tunes = melodies()
    protected = {"p1": tunes["m0"] + 5, "p2": tunes["m1"][:15], "p3": melodies(seed=5)["m0"]}
    assert training_filter(tunes, protected, 0.5) == {"m0": "p1", "m1": "p2"}
    assert training_filter(melodies(seed=9), protected, 0.5) == {}


def test_song_folds_and_singer_folds_partition_the_corpus():
    split = read_split("mir_qbsh")
    songs = [song for fold in split["song_folds"] for song in fold]
    assert sorted(songs) == [f"{number:05}" for number in range(1, 49)]
    singers = [singer for fold in split["singer_folds"] for singer in fold]
    assert len(singers) == len(set(singers))
    assert (len(split["song_folds"]), len(split["singer_folds"])) == (3, 3)
    training = split["training_singers"]
    evaluated = {name for name in singers if name.startswith(EVALUATION_YEAR)}
    assert len(training) == len(set(training)) == len(evaluated) // 2
    assert set(training) < evaluated


@pytest.mark.parametrize(("name", "share"), [("folk", 0.2), ("pop909", 0.2), ("seed_contours", 0)])
def test_held_out_dropped_and_short_songs_never_count_as_training(name, share):
    split = read_split(name)
    held = split["held_out"]
    assert len(held) == len(set(held))
    assert len(held) == pytest.approx(share * split["songs"], rel=0.01)
    assert forbidden_ids(split) == set(held) | set(split["dropped"]) | set(split["too_short"])
    assert split["training"] == split["songs"] - len(forbidden_ids(split))
    assert split["training"] > split["songs"] / 2
    assert not set(split["dropped"]) & set(split["too_short"])
    corpora = {near.split("/")[0] for near in split["dropped"].values()}
    assert corpora <= {"mir-qbsh", "mirex-essen-2000", "ioacas"}
    assert len(corpora) == (3 if share else 1)
    members = [key for group in split["variants"] for key in group]
    assert len(members) == len(set(members))
    for group in split["variants"]:  # variants of a tune are held out together
        assert len(set(held) & set(group)) in (0, len(group)), group


@cache
def aird() -> tuple[Song, ...]:
    corpus = music21_collection("airdsAirs")
    return tuple(songs_of(replace(corpus, files=corpus.files[:2])))


class Few:
    name = "airdsAirs"
    files = (Path("x"),)

    def read(self, path):
        yield from aird()


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(training_songs, "open_corpus", lambda _name, _data: Few())


def test_training_songs_never_give_a_forbidden_id(few, tmp_path):
    split = read_split("folk")
    forbidden = forbidden_ids(split)
    everything = {song.id for song in aird()}
    training = read_training_songs(("airdsAirs",), tmp_path)
    assert everything & forbidden
    assert set(training.ids) == everything - forbidden
    assert len(training.ids) == len(set(training.ids)) == len(training.contours)
    by_id = {song.id: song for song in aird()}
    for song_id, contour in zip(training.ids, training.contours, strict=True):
        whole = by_id[song_id].contour()
        np.testing.assert_array_equal(contour.frames, whole.trimmed()[0].frames)


def test_variants_share_a_group_and_others_do_not(few, tmp_path):
    training = read_training_songs(("airdsAirs",), tmp_path)
    group_of = dict(zip(training.ids, training.groups, strict=True))
    variants = [
        [key for key in group if key in group_of] for group in read_split("folk")["variants"]
    ]
    several = [group for group in variants if len(group) > 1]
    assert several
    for group in several:
        assert len({group_of[key] for key in group}) == 1
    surplus = sum(len(group) - 1 for group in several)
    assert len(set(training.groups)) == len(training.ids) - surplus


def test_what_is_held_out_is_disjoint_from_training(few, tmp_path, monkeypatch):
    split = read_split("folk")
    held = set(split["held_out"]) - set(split["dropped"]) - set(split["too_short"])
    expected = [song for song in aird() if song.id in held]
    found = read_training_songs(("airdsAirs",), tmp_path)
    assert len(found.held_out) == len(expected) > 10
    for contour, song in zip(found.held_out, expected, strict=True):
        np.testing.assert_array_equal(contour.frames, song.contour().trimmed()[0].frames)
    assert not {song.id for song in expected} & set(found.ids)
    monkeypatch.setattr(training_songs, "_MOST_HELD_OUT", 3)
    assert len(read_training_songs(("airdsAirs",), tmp_path).held_out) == 3


def test_the_filter_by_alignment_drops_variants_too(few, tmp_path, monkeypatch):
    by_runs = read_training_songs(("airdsAirs",), tmp_path)
    variant = by_runs.ids[3]
    lists = {"evaluation_variants": {"folk": {variant: "mir-qbsh/00001"}}}
    monkeypatch.setattr(
        training_songs, "read_split", lambda name: lists.get(name) or read_split(name)
    )
    assert variant not in read_training_songs(("airdsAirs",), tmp_path, 0.1, "alignment").ids
    assert read_training_songs(("airdsAirs",), tmp_path).ids == by_runs.ids


def test_the_split_knows_the_songs_that_the_reader_gives():
    split = read_split("folk")
    named = {*forbidden_ids(split), *(key for group in split["variants"] for key in group)}
    books = {song.id.rsplit("-", 1)[0] for song in aird()}
    mine = {key for key in named if key.rsplit("-", 1)[0] in books}
    assert len(mine) > 50
    assert mine <= {song.id for song in aird()}
    assert {key.split("-")[0] for key in named} == set(MUSIC21_COLLECTIONS)


def test_a_corpus_without_a_split_cannot_be_trained_on(tmp_path):
    for name in ("mir-qbsh", "mirex-essen-2000", "ioacas"):
        with pytest.raises(QbhError, match=f"{name} has no split"):
            read_training_songs((name,), tmp_path)
