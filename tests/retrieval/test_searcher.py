import os
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from qbhkit.catalogue.build import build_catalogue
from qbhkit.catalogue.edit import add_songs, remove_songs
from qbhkit.catalogue.memmap import StackedArrays
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import Contour, from_notes, from_pitch
from qbhkit.corpora import Song
from qbhkit.corpora.folders import pitch_track
from qbhkit.embedding.windows import QueryWindows, Reading
from qbhkit.errors import QbhError
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval import searcher as searcher_module
from qbhkit.retrieval.align import CAP_ST, heard
from qbhkit.retrieval.index import build_index
from qbhkit.retrieval.index_faiss import FaissChoices
from qbhkit.retrieval.searcher import Searcher, open_searcher, search, weights_for
from qbhkit.synthesis.singer import Voice, render_hum

# Of 30 s and more; in all but one the part from 6 to 16 s comes once.
WHOLE_TUNES = [0, 3, 8, 12, 20]
PART_S = (6.0, 16.0)


class FakeEmbedder:
    """Embed a window as its pitch after the first note, without any network."""

    identity = "fake-1"
    reading = Reading(40)
    embedding_dim = 40
    states_of = None
    calibration = None

    def embed(self, frames):
        pitch = np.where(frames[..., 1] > 0, frames[..., 0] - frames[:, :1, 0] + 1e-3, 0)
        length = np.linalg.norm(pitch, axis=1, keepdims=True)
        return (pitch / np.maximum(length, 1e-9)).astype(np.float32)


@pytest.fixture(scope="module")
def searcher(tunes, embedder, tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "catalogue"
    build_catalogue(tunes, path, embedder, "swift-f0", get_tracker, progress=False)
    return Searcher(open_catalogue(path), embedder)


@pytest.fixture(scope="module")
def fake(tunes, tmp_path_factory):
    path = tmp_path_factory.mktemp("fake") / "catalogue"
    build_catalogue(tunes[:20], path, FakeEmbedder(), "swift-f0", get_tracker, progress=False)
    return Searcher(open_catalogue(path), FakeEmbedder())


def part_of(notes, begin_s, end_s, key_st=0.0, tempo=1.0):
    """Notes of a part, moved to time 0, as sung in another key and at another speed."""
    part = notes[(notes[:, 0] >= begin_s) & (notes[:, 0] < end_s)].copy()
    part[:, 0] -= part[0, 0]
    part[:, :2] /= tempo
    part[:, 2] += key_st
    return part


def covered(answer, begin_s, end_s):
    """Share of the union of two stretches that both cover."""
    both = min(answer.end_s, end_s) - max(answer.start_s, begin_s)
    return both / (max(answer.end_s, end_s) - min(answer.start_s, begin_s))


@pytest.mark.parametrize(("key_st", "tempo"), [(7, 1.0), (-14, 0.8), (-5, 1.25)])
def test_a_part_from_the_middle_tells_tune_seconds_key_and_tempo(searcher, tunes, key_st, tempo):
    missed = 0
    for number in WHOLE_TUNES:
        hum = from_notes(part_of(tunes[number].notes, *PART_S, key_st, tempo))
        best = searcher.search(hum, 3)[0]
        assert best.song_id == tunes[number].id
        missed += covered(best, *PART_S) <= 0.7
        if number != WHOLE_TUNES[0]:
            assert best.distance_st < 0.3
            assert best.transposition_st == pytest.approx(key_st, abs=0.1)
            assert best.tempo_ratio == pytest.approx(tempo, rel=0.08)
            found = np.array([searcher.catalogue.number[best.song_id]])
            (folded_st,) = searcher.aligner.folded_distance(hum, found)
            used = searcher.calibration
            fused = best.vote - used.distance * best.distance_st - used.folded * folded_st
            assert best.score == pytest.approx(fused, abs=1e-4)
    assert missed <= 1  # where a strain comes twice


def test_songs_that_are_not_aligned_count_as_fitting_nowhere(searcher, tunes, monkeypatch):
    hum = from_notes(part_of(tunes[3].notes, *PART_S))
    everything = searcher.scores(hum)
    monkeypatch.setattr(searcher_module, "SHORTLIST", 5)
    monkeypatch.setattr(searcher_module, "FOLDED", 5)
    few = searcher.scores(hum)
    assert len(few.aligned) == 5
    np.testing.assert_array_equal(few.score[few.aligned], everything.score[few.aligned])
    others = np.setdiff1d(np.arange(len(tunes)), few.aligned)
    worst = (searcher.calibration.distance + searcher.calibration.folded) * CAP_ST
    np.testing.assert_allclose(few.score[others], few.vote[others] - worst)
    answers = searcher.search(hum, len(tunes))
    assert sum(answer.distance_st is not None for answer in answers) == 5
    assert all(answer.start_s < answer.end_s for answer in answers)


def test_gaps_count_less_where_a_tracker_heard_the_melody(tunes, tmp_path):
    """One melody with gaps, as notes and as the track of a recording, and the hum without them."""
    notes = tunes[3].notes[:40]
    gaps = notes[np.arange(len(notes)) % 3 > 0]
    track = pitch_track(from_notes(gaps).pitch_st, 0.1)
    songs = [
        Song("notes", "notes", "", "", notes=gaps), Song("track", "track", "", "", f0=track),
    ]  # fmt: skip
    build_catalogue(songs, tmp_path, FakeEmbedder(), "swift-f0", get_tracker, progress=False)
    searcher = Searcher(open_catalogue(tmp_path), FakeEmbedder())
    assert heard(searcher.catalogue.songs).tolist() == [False, True]
    found = {a.song_id: a.distance_st for a in searcher.search(from_notes(notes[:30]), 2)}
    assert 0.1 < found["track"] < found["notes"] - 0.05


def test_octave_errors_cost_little_by_pitch_class(searcher, tunes, monkeypatch):
    notes = part_of(tunes[3].notes, *PART_S)
    notes[:, 2] += 12 * (np.arange(len(notes)) % 3 == 0)
    hum = from_notes(notes)
    number = searcher.catalogue.number[tunes[3].id]
    everything = np.arange(len(tunes))
    (segment,) = searcher.cut_query(hum).segments  # some notes are too far away to be kept
    folded = searcher.aligner.folded_distance(segment, everything)
    assert folded.argmin() == number
    assert folded[number] < 0.3
    monkeypatch.setattr(searcher, "calibration", replace(searcher.calibration, folded=0.0))
    plain = searcher.scores(hum)
    monkeypatch.setattr(searcher_module, "FOLDED", 5)
    monkeypatch.setattr(searcher, "calibration", replace(searcher.calibration, folded=0.2))
    found = searcher.scores(hum)
    best = np.argsort(-plain.score, kind="stable")[:5]
    np.testing.assert_allclose(found.score[best], plain.score[best] - 0.2 * folded[best])
    others = np.delete(everything, best)
    np.testing.assert_allclose(found.score[others], plain.score[others] - 0.2 * CAP_ST)
    long = from_notes(np.concatenate([notes, notes + np.array([40, 0, 0])]))  # in two segments
    assert len(searcher.cut_query(long).segments) > 1
    assert np.isfinite(searcher.scores(long).score).all()


def test_a_wrong_song_is_less_sure_than_the_right_one(searcher, tunes):
    hum = from_notes(part_of(tunes[3].notes, *PART_S))
    answers = searcher.search(hum, len(tunes))
    assert answers[0].confidence > 0.8
    assert max(answer.confidence for answer in answers[1:]) < 0.2
    assert searcher.confident(answers)
    assert not searcher.confident(answers[1:])
    assert not searcher.confident([])
    assert not searcher.confident(searcher.search(hum, 3, method="vote"))


def test_a_hum_of_two_notes_is_never_sure(searcher):
    hum = from_pitch(np.tile(np.repeat([60.0, 64.0], 5), 6))
    assert [answer.confidence for answer in searcher.search(hum, 3)] == [0, 0, 0]


def test_takes_of_a_tune_are_scored_together(searcher, tunes):
    notes = tunes[8].notes
    takes = [from_notes(part_of(notes, 6, 12)), from_notes(part_of(notes, 8, 16, key_st=5))]
    for method in ("vote", "full"):
        assert searcher.search(takes, 1, method=method)[0].song_id == tunes[8].id
        found, alone = searcher.scores(takes, method=method), searcher.scores(takes[0])
        assert not np.array_equal(found.vote, alone.vote)
        again = searcher.scores(takes[::-1], method=method)
        np.testing.assert_allclose(found.score, again.score, atol=1e-6)  # in any order
    with pytest.raises(QbhError, match="voiced"):
        searcher.search([takes[0], from_pitch(np.zeros(30))])


def test_the_distance_of_several_segments_is_their_mean_and_the_path_that_of_the_nearest(
    searcher, tunes
):
    takes = [from_notes(part_of(tunes[number].notes, *PART_S)) for number in (8, 12)]
    both, *alone = (searcher.scores(hum) for hum in (takes, *takes))

    def by_song(found):
        return [column[np.argsort(found.aligned)] for column in (found.distance_st, *found.paths)]

    each = [by_song(found) for found in alone]
    together = by_song(both)
    np.testing.assert_allclose(together[0], (each[0][0] + each[1][0]) / 2)
    nearest = np.argmin([each[0][1], each[1][1]], axis=0)
    for column, one, other in zip(together[1:], each[0][1:], each[1][1:], strict=True):
        np.testing.assert_array_equal(column, np.where(nearest == 0, one, other))


def test_the_beginning_finds_its_tune_at_the_start(searcher, tunes):
    for number in WHOLE_TUNES:
        hum = from_notes(part_of(tunes[number].notes, 0, 9, key_st=-5, tempo=1.25))
        best = searcher.search(hum, 3, "start")[0]
        assert best.song_id == tunes[number].id
        assert best.start_s == 0
        assert covered(best, 0, 9) > 0.7


def test_long_hums_are_cut_into_segments(searcher, tunes):
    tune = max(tunes, key=lambda tune: tune.notes[-1, 0])
    assert tune.notes[-1, 0] > 60
    hum = from_notes(part_of(tune.notes, 0, 60, key_st=3))
    cut = searcher.cut_query(hum, "anywhere")
    windows = len(QueryWindows().windows)
    assert len(cut.frames) == len(cut.begins_s) == len(cut.segments) * windows
    assert len(cut.segments) >= 8
    np.testing.assert_allclose(np.diff(cut.begins_s[::windows])[:-1], 7.0)
    assert len(searcher.cut_query(hum, "start").segments) == 1
    alone = searcher.cut_query(hum, "anywhere", "vector")  # one window a segment: the whole of it
    np.testing.assert_array_equal(alone.frames, cut.frames[::windows])
    assert searcher.search(hum, 3)[0].song_id == tune.id
    assert searcher.search(hum, 3, "start")[0].song_id == tune.id


def test_the_segments_of_a_long_hum_reach_its_end(searcher):
    pitch = 60 + np.arange(450) / 100  # 45 s; the pitch says which frame it is
    frames = searcher.cut_query(from_pitch(pitch), "anywhere").frames
    whole = frames[:: len(QueryWindows().windows), :, 0]
    assert whole[0, 0] == pytest.approx(60, abs=0.02)
    assert whole[-1, -1] == pytest.approx(pitch[-1], abs=0.02)
    assert (np.diff(whole[:, 0]) > 0).all()
    assert np.diff(whole[:, 0]).max() < 0.75  # 7 s


def test_answers_lie_inside_their_songs(searcher, tunes):
    length_s = {tune.id: tune.contour().duration_s for tune in tunes}
    titles = {tune.id: tune.title for tune in tunes}
    for match_from in ("start", "anywhere"):
        hum = from_notes(part_of(tunes[3].notes, *PART_S))
        answers = searcher.search(hum, len(tunes), match_from)
        assert sorted(answer.song_id for answer in answers) == sorted(length_s)
        for answer in answers:
            assert answer.title == titles[answer.song_id]
            assert 0 <= answer.start_s < answer.end_s <= length_s[answer.song_id] + 1e-6
        scores = [answer.score for answer in answers]
        assert scores == sorted(scores, reverse=True)
        assert -1 <= scores[-1] <= scores[0] <= 1.001


def test_an_answer_says_whether_its_seconds_are_played(searcher, tunes, monkeypatch):
    hum = from_notes(part_of(tunes[3].notes, *PART_S))
    best = searcher.search(hum, 1)[0]
    assert best.instrumental is None  # notes: not known
    song = searcher.catalogue.number[best.song_id]
    contour = searcher.catalogue.contours[song]
    first, last = round(best.start_s * 10), round(best.end_s * 10)
    for share, method, wanted in ((0.6, "full", True), (0.4, "full", False), (0.6, "vote", True)):
        marks = np.zeros(len(contour), bool)
        marks[first : first + round(share * (last - first))] = True
        marks[:first] = marks[last:] = method == "vote"  # its seconds are those of a window
        marked = replace(contour, instrumental=marks)
        contours = [*searcher.catalogue.contours]
        contours[song] = marked
        monkeypatch.setattr(searcher, "catalogue", replace(searcher.catalogue, contours=contours))
        assert searcher.search(hum, 1, method=method)[0].instrumental is wanted


def test_k_cuts_the_list(fake):
    hum = from_pitch(np.repeat([60, 64, 62, 67, 65.0], 5))
    everything = fake.search(hum, 1000)
    assert len(everything) == 20
    assert fake.search(hum, 4) == everything[:4]
    assert fake.search(hum, 0) == []


@pytest.mark.parametrize(("sharpness", "match_from"), [(0.0, "start"), (4.0, "anywhere")])
def test_scores_are_soft_means_of_the_best_cosines(fake, sharpness, match_from):
    fake = Searcher(fake.catalogue, fake.embedder)
    fake.windows = QueryWindows(sharpness=sharpness)
    hum = from_pitch(np.repeat([60, 64, 62, 67, 65, 60, 59.0], 10))
    frames, begins_s, _ = fake.cut_query(hum, match_from)
    np.testing.assert_allclose(begins_s, [0, 0, 0, 0, 1.05, 2.1, 3.5])
    vectors = fake.embedder.embed(frames)
    found = fake.scores(hum, match_from, "vote")
    catalogue = fake.catalogue
    for song in range(len(catalogue.songs)):
        rows = np.flatnonzero(catalogue.song == song)
        since_s = catalogue.start_s[rows] - catalogue.start_s[rows].min()
        best = []
        for vector, begin_s in zip(vectors, begins_s, strict=True):
            cosines = catalogue.vectors[rows].astype(np.float32) @ vector
            if match_from == "start" and begin_s == 0:
                cosines = cosines[catalogue.at_start[rows]]
            elif match_from == "start":
                about = (since_s >= 0.65 * begin_s - 0.7) & (since_s <= 1.55 * begin_s + 0.7)
                cosines = cosines[about] if about.any() else cosines[since_s == since_s.max()]
            best.append(cosines.max())
        expected = np.mean(best)
        if sharpness:
            expected = np.log(np.mean(np.exp(sharpness * np.array(best)))) / sharpness
        assert found.score[song] == pytest.approx(expected, abs=1e-5)
        if match_from == "anywhere":
            whole = catalogue.vectors[rows].astype(np.float32) @ vectors[0]
            assert found.row[song] == rows[whole.argmax()]
        else:
            assert catalogue.at_start[found.row[song]]


def test_from_the_start_any_window_of_an_aligned_song_may_vote(searcher, tunes):
    notes = tunes[12].notes
    late = part_of(notes, notes[-1, 0] / 2, notes[-1, 0] / 2 + 9)
    hum = from_notes(late)
    anywhere, start = searcher.scores(hum), searcher.scores(hum, "start")
    np.testing.assert_allclose(start.vote[start.aligned], anywhere.vote[start.aligned], atol=1e-5)
    assert start.vote[12] > searcher.scores(hum, "start", "vote").vote[12] + 0.05


def test_a_song_shorter_than_the_hum_is_compared_to_its_end(song_notes, embedder, catalogue):
    short = Searcher(open_catalogue(catalogue), embedder)
    slow = from_notes(song_notes["short"] * [3.0, 3.0, 1.0])
    assert slow.duration_s > 2 * from_notes(song_notes["short"]).duration_s
    assert np.isfinite(short.scores(slow, "start").score).all()
    assert short.search(slow, 1, "start", "vote")[0].song_id == "short"
    full = {answer.song_id: answer for answer in short.search(slow, 100, "start")}["short"]
    assert (full.start_s, full.end_s) == (0, 2.4)  # whose rest costs the cap, so that
    assert 1 < full.distance_st < CAP_ST
    assert full.tempo_ratio == pytest.approx(1 / 3, abs=0.02)


def test_silence_around_the_hum_changes_nothing(fake):
    pitch = np.repeat([60, 64, 62, 67, 65.0], 6)
    quiet = np.concatenate([np.zeros(23), pitch, np.zeros(11)])
    for match_from in ("start", "anywhere"):
        plain, padded = (fake.scores(from_pitch(hum), match_from) for hum in (pitch, quiet))
        np.testing.assert_array_equal(plain.score, padded.score)


def test_one_second_of_voice_is_needed(fake):
    for voiced in (0, 9):
        hum = from_pitch(np.array([62.0] * voiced + [0.0] * 50))
        with pytest.raises(QbhError, match=f"only {voiced / 10:.1f} s of the hum is voiced"):
            fake.scores(hum)
    with pytest.raises(QbhError, match="only 0"):
        fake.search(Contour(np.zeros((0, 2))))
    hum = from_pitch(np.array([62.0] * 5 + [0.0] * 5 + [64.0] * 5))
    assert len(fake.search(hum, 3)) == 3


def test_weights_that_did_not_make_the_catalogue_are_refused(fake):
    class Other(FakeEmbedder):
        identity = "other-2"

    with pytest.raises(QbhError, match="was made by the model fake-1, not other-2"):
        Searcher(fake.catalogue, Other())


def test_silent_segments_do_not_vote(searcher, tunes):
    tune = tunes[WHOLE_TUNES[0]]
    hum = from_notes(part_of(tune.notes, *PART_S)).trimmed()[0].pitch_st
    for tail in (np.full(3, 60.0), hum):
        long = from_pitch(np.concatenate([hum, np.zeros(600), tail]))
        assert searcher.search(long, k=1)[0].song_id == tune.id
        assert searcher.cut_query(long, "anywhere").frames[..., 1].any(axis=1).all()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("vector", {"kind": "hnsw"}),
        ("full", {"kind": "ivf-pq", "probes": 4}),
    ],
)
def test_an_approximate_index_answers_as_the_exact_one(searcher, tunes, method, options, tmp_path):
    catalogue = searcher.catalogue
    choices = FaissChoices(size=64, lists=8, pq_parts=32, **options)
    other = Searcher(catalogue, searcher.embedder)
    other.index = build_index("faiss", catalogue, folder=tmp_path, choices=choices)
    for number in (3, 8, 12):
        hum = from_notes(part_of(tunes[number].notes, *PART_S, 3.0, 0.9))
        exact = searcher.search(hum, 3, method=method)
        found = other.search(hum, 3, method=method)
        assert found[0].song_id == exact[0].song_id == tunes[number].id
        assert found[0].score == pytest.approx(exact[0].score, abs=1e-5)
        assert (found[0].start_s, found[0].end_s) == (exact[0].start_s, exact[0].end_s)


class Shortsighted:
    """An index that finds only the best windows, of a few songs."""

    name = "shortsighted"

    def __init__(self, searcher, windows):
        self.exact, self.windows = searcher.exact, windows

    def nearest(self, queries, k):
        return self.exact.nearest(queries, self.windows)


def test_songs_that_an_index_misses_come_last_with_windows_of_their_own(
    searcher, tunes, monkeypatch
):
    monkeypatch.setattr("qbhkit.retrieval.searcher.SHORTLIST", 5)
    hum = from_notes(part_of(tunes[8].notes, *PART_S, key_st=2))
    for windows in (3, 40):
        other = Searcher(searcher.catalogue, searcher.embedder)
        other.index = Shortsighted(searcher, windows)
        found = other.scores(hum)
        looked_at, exact = found.aligned, searcher.scores(hum)
        missed = np.setdiff1d(np.arange(len(tunes)), looked_at)
        assert found.vote[missed].max() <= found.vote[looked_at].min()
        assert found.score.argmax() == 8
        np.testing.assert_array_equal(searcher.catalogue.song[found.row], np.arange(len(tunes)))
        np.testing.assert_allclose(found.vote[looked_at], exact.vote[looked_at], atol=1e-5)
        voted = other.scores(hum, method="vote")
        np.testing.assert_array_equal(voted.score, found.vote)


def test_the_index_is_not_asked_for_beginnings(searcher, tunes):
    hum = from_notes(part_of(tunes[8].notes, 0, 10))
    other = Searcher(searcher.catalogue, searcher.embedder)
    other.index = object()  # the beginnings of all songs are read
    assert other.search(hum, 3, "start") == searcher.search(hum, 3, "start")


def test_a_catalogue_with_many_windows_stays_on_disk(searcher, tunes, monkeypatch):
    path = searcher.catalogue.path
    monkeypatch.setattr("qbhkit.catalogue.read._MOST_IN_MEMORY", 1)
    monkeypatch.setattr("qbhkit.retrieval.index._MOST_SINGLE_BYTES", 1)
    mapped = open_catalogue(path)
    assert isinstance(mapped.vectors, StackedArrays)
    np.testing.assert_array_equal(mapped.vectors[:], searcher.catalogue.vectors)
    hum = from_notes(part_of(tunes[8].notes, *PART_S))
    for match_from in ("start", "anywhere"):
        found = Searcher(mapped, searcher.embedder).search(hum, 5, match_from)
        expected = searcher.search(hum, 5, match_from)
        assert [answer.song_id for answer in found] == [answer.song_id for answer in expected]
        assert found[0].score == pytest.approx(expected[0].score, abs=1e-5)
    build_index("faiss", mapped, choices=FaissChoices(kind="hnsw"))
    assert open_searcher(path, index="faiss").search(hum, 1)[0].song_id == tunes[8].id


@pytest.mark.parametrize(
    ("match_from", "method"),
    [("start", "vector"), ("anywhere", "vote"), ("anywhere", "full")],
)
def test_many_hums_at_once_are_answered_as_one_by_one(
    searcher, tunes, match_from, method, monkeypatch
):
    monkeypatch.setattr("qbhkit.retrieval.searcher._BATCH", 2)
    hums = [from_notes(part_of(tunes[k].notes, 0, end_s)) for k, end_s in [(3, 9), (8, 40)]]
    hums.append([hums[0], from_notes(part_of(tunes[3].notes, *PART_S))])  # two takes
    found = searcher.search_many(hums, 4, match_from, method)
    for hum, answers in zip(hums, found, strict=True):
        expected = searcher.search(hum, 4, match_from, method)
        assert [answer.song_id for answer in answers] == [answer.song_id for answer in expected]
        scores, alone = ([answer.score for answer in some] for some in (answers, expected))
        np.testing.assert_allclose(scores, alone, atol=1e-5)
        assert answers[0].start_s == expected[0].start_s
    assert searcher.search_many([], 4, match_from, method) == []


@pytest.fixture(scope="module")
def recording(tunes, tmp_path_factory):
    """A hum of tune 8, as a file."""
    hum = render_hum(part_of(tunes[8].notes, *PART_S), Voice(key_st=-9), np.random.default_rng(1))
    path = tmp_path_factory.mktemp("hum") / "hum.wav"
    soundfile.write(path, hum.audio.samples, hum.audio.rate_hz)
    return path


def test_methods_are_called_by_their_names(searcher, recording):
    path = searcher.catalogue.path
    for match_from, method in (("anywhere", "full"), ("start", "vote"), ("anywhere", "vector")):
        found = search(str(recording), path, 4, match_from, method)
        assert found == searcher.search(recording, 4, match_from, method)
        assert found == search([recording], searcher, 4, match_from, method)
        assert (found[0].confidence is None) == (method != "full")
    with pytest.raises(QbhError, match="was made by the model"):  # not by stage1
        search(recording, path, method="end-to-end")


@pytest.mark.parametrize("method", ["dtw", "end-to-end"])
def test_a_method_that_the_weights_do_not_have_is_refused(searcher, recording, method):
    with pytest.raises(QbhError, match=f"'{method}' with these weights: use vector, vote"):
        search(recording, searcher.catalogue.path, method=method, weights="best")
    for ask in (searcher.search, lambda hum, method: searcher.search_many([hum], method=method)):
        with pytest.raises(QbhError, match=f"^There is no method '{method}'"):
            ask(recording, method=method)


def test_end_to_end_needs_weights_of_its_own_unless_some_are_given():
    assert weights_for("vote", None) is None
    assert weights_for("end-to-end", None) == "end-to-end"
    assert weights_for("end-to-end", "mine.safetensors") == "mine.safetensors"


@pytest.fixture
def openings(monkeypatch):
    """The catalogues that are opened, in order."""
    opened = []

    def watched(path):
        opened.append(path)
        return open_catalogue(path)

    monkeypatch.setattr(searcher_module, "open_catalogue", watched)
    searcher_module._opened.cache_clear()
    yield opened
    searcher_module._opened.cache_clear()


def test_a_catalogue_is_opened_again_only_when_it_has_changed(tunes, embedder, tmp_path, openings):
    path = tmp_path / "catalogue"
    build_catalogue(tunes[:6], path, embedder, progress=False)
    hum = from_notes(part_of(tunes[8].notes, *PART_S))
    assert len(search(hum, path, 20)) == len(search(hum, str(path), 20)) == 6
    assert openings == [path]
    add_songs(tunes[6:9], path, embedder, progress=False)
    found = search(hum, path, 20)
    assert (len(found), found[0].song_id) == (9, tunes[8].id)
    remove_songs([tunes[8].id], path)
    assert tunes[8].id not in {answer.song_id for answer in search(hum, path, 20)}
    os.utime(path / "manifest.json")
    search(hum, path)
    assert openings == [path] * 4
    search(hum, path, tracker="praat")  # another searcher
    assert openings == [path] * 5


def test_the_same_name_in_another_folder_is_another_catalogue(
    tunes, embedder, tmp_path, openings, monkeypatch
):
    hum = from_notes(part_of(tunes[3].notes, *PART_S))
    for name, count in (("a", 4), ("b", 3)):
        path = tmp_path / name / "songs"
        build_catalogue(tunes[:count], path, embedder, progress=False)
        os.utime(path / "manifest.json", (0, 0))  # of the same time
        monkeypatch.chdir(tmp_path / name)
        assert len(search(hum, "songs", 9)) == count


def test_what_cannot_be_read_is_named(searcher, recording, tmp_path):
    hum = from_pitch(np.full(30, 60.0))
    with pytest.raises(QbhError, match="nowhere"):
        search(hum, tmp_path / "nowhere")
    with pytest.raises(QbhError, match=r"^hum 2: only 0\.0 s"):
        searcher.search_many([hum, from_pitch(np.zeros(50)), hum])
    with pytest.raises(QbhError, match=r"gone\.wav"):
        search(tmp_path / "gone.wav", searcher.catalogue.path)
    with pytest.raises(QbhError, match=r"^hum 2: .*gone\.wav"):
        searcher.search_many([recording, tmp_path / "gone.wav"])
