"""The one evaluator: against searches one by one, and what becomes of hums that cannot be used."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import qbhkit
from qbhkit.catalogue.build import build_catalogue
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import F0Track, midi_to_hz
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.evaluation import METHODS
from qbhkit.evaluation.evaluate import evaluate, read_queries
from qbhkit.f0_csv import write_f0_csv
from qbhkit.metrics import LabelledQuery, intervals, metrics, rank_of
from qbhkit.pitch.frontends import to_contour
from qbhkit.retrieval.baselines import CappedDtw, FoldedDtw, LinearScaling, SubsequenceDtw
from qbhkit.retrieval.searcher import Searcher
from qbhkit.synthesis.singer import Voice, render_hum

# What ``qbhkit evaluate`` of version 1.0 wrote, in its order.
BLOCK = [
    "n", "top1", "top5", "top10", "mrr", "intervals", "ranks", "per_song",
    "intervals_by_singer", "per_singer",
]  # fmt: skip
KEYS = [
    *BLOCK, "anchor", "songs", "model", "comparable_to", "song_ids", "singers", "methods",
    "calibration", "refusal",
]  # fmt: skip
SEARCHES = ("full", "vote", "vector")
BASELINES = {
    "linear-scaling": LinearScaling, "dtw": SubsequenceDtw, "dtw-folded": FoldedDtw,
    "alignment": CappedDtw,
}  # fmt: skip
HUMMED = [3, 8, 12, 20]


@pytest.fixture(scope="module")
def opened(tunes, embedder, tmp_path_factory):
    """A catalogue of 25 tunes."""
    path = tmp_path_factory.mktemp("evaluate") / "catalogue"
    build_catalogue(tunes[:25], path, embedder, progress=False)
    return open_catalogue(path)


def part_of(notes, begin_s, end_s):
    part = notes[(notes[:, 0] >= begin_s) & (notes[:, 0] < end_s)]
    return part - [part[0, 0], 0, 0]


def write_hum(notes, path, key_st=0.0):
    """Write notes as an f0 CSV, in another key."""
    at_s = (np.arange(round((notes[-1, 0] + notes[-1, 1]) * 100)) + 0.5) / 100
    owner = np.searchsorted(notes[:, 0], at_s, side="right") - 1
    voiced = at_s < notes[owner, :2].sum(axis=1)
    hz = np.where(voiced, midi_to_hz(notes[owner, 2] + key_st), 0)
    write_f0_csv(F0Track(hz, voiced.astype(float)), path)


@pytest.fixture(scope="module")
def table(tunes, tmp_path_factory):
    """A query list of four hums by two singers, which lie beside it; the last is mislabelled."""
    folder = tmp_path_factory.mktemp("hums")
    rows = ["path,song_id,singer"]
    for number, singer in zip(HUMMED, "aabb", strict=True):
        write_hum(part_of(tunes[number].notes, 6, 16), folder / f"{number}.f0.csv", key_st=4)
        song = tunes[number if number != HUMMED[-1] else 0]
        rows.append(f"{number}.f0.csv,{song.id},{singer}")
    (folder / "hums.csv").write_text("\n".join(rows) + "\n")
    return folder / "hums.csv"


def test_a_list_of_queries_may_be_a_file_or_rows(table, opened, tunes):
    found = evaluate(str(table), opened.path)
    assert found.queries[0] == (str(table.parent / "3.f0.csv"), tunes[3].id, "a")
    assert found.ranks["full"][:3] == [1, 1, 1]
    assert found.ranks["full"][3] > 1
    assert (found.match_from, found.songs, found.model) == ("anywhere", 25, opened.model)
    assert found.failures == []
    for queries, catalogue in [(table, opened), (iter(found.queries), str(opened.path))]:
        assert evaluate(queries, catalogue) == found
    assert qbhkit.evaluate is evaluate


def test_ranks_equal_searches_one_by_one(table, opened, embedder):
    queries = read_queries(table)
    methods = [*SEARCHES, *BASELINES]
    for match_from in ("start", "anywhere"):
        found = evaluate(queries, opened, [*methods, methods[0]], match_from)
        assert list(found.ranks) == methods
        searcher = Searcher(opened, embedder)
        for method, ranks in found.ranks.items():
            for query, rank in zip(queries, ranks, strict=True):
                hum, truth = to_contour(query.path), opened.number[query.song_id]
                if method in SEARCHES:
                    scores = searcher.scores(hum, match_from, method).score
                else:
                    scores = BASELINES[method](opened.contours).scores(hum, match_from)
                assert rank == rank_of(scores, truth)
            assert found.metrics(method) == metrics(ranks)


@pytest.fixture(scope="module")
def stage1_catalogue(tunes, tmp_path_factory):
    """A catalogue of 15 tunes that end-to-end can search, too."""
    path = tmp_path_factory.mktemp("stage1") / "catalogue"
    build_catalogue(tunes[:15], path, "stage1", progress=False)
    return path


def test_every_method_finds_recordings(tunes, stage1_catalogue, tmp_path):
    queries = []
    for number in HUMMED[:2]:
        hum = render_hum(part_of(tunes[number].notes, 6, 16), Voice(), np.random.default_rng(0))
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, hum.audio.samples, hum.audio.rate_hz)
        queries.append(LabelledQuery(str(path), tunes[number].id, None))
    found = evaluate(queries, stage1_catalogue, METHODS, weights="stage1")
    assert found.ranks == {method: [1, 1] for method in METHODS}
    assert found.failures == []


def test_a_hum_that_two_trackers_cannot_read_is_named_once(tunes, stage1_catalogue):
    queries = [LabelledQuery("gone.wav", tunes[0].id, None)]
    found = evaluate(queries, stage1_catalogue, ("vote", "end-to-end"), weights="stage1")
    assert [failure.name for failure in found.failures] == ["gone.wav"]


def test_what_is_written_has_the_keys_of_version_1(table, opened):
    found = evaluate(table, opened, ("full", "dtw"))
    written = found.as_json()
    assert list(written) == KEYS
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert list(written["methods"]) == ["full", "dtw"]
    for method, block in written["methods"].items():
        assert list(block) == BLOCK
        assert block["ranks"] == found.ranks[method]
        assert block["intervals"] == intervals(block["ranks"])
    assert {key: written[key] for key in BLOCK} == written["methods"]["full"]
    assert "closed set of 25 songs" in written["comparable_to"]
    assert written["song_ids"] == [query.song_id for query in found.queries]
    assert written["singers"] == ["a", "a", "b", "b"]
    assert 0 < written["calibration"]["threshold"] < 1
    assert set(written["refusal"]) == {"kept", "refused", "precision", "brier"}


def test_without_singers_or_confidence_their_keys_are_left_out(table, opened):
    rows = [query._replace(singer=None) for query in read_queries(table)]
    written = evaluate(rows, opened, ["vote"], "start").as_json()
    gone = {"per_singer", "intervals_by_singer", "calibration", "refusal"}
    assert list(written) == [key for key in KEYS if key not in gone]
    assert written["anchor"] == "start"
    hopeless = [query._replace(song_id=rows[0].song_id) for query in rows[1:]]
    assert "calibration" not in evaluate(hopeless, opened).as_json()  # not one finds its song


def test_hums_that_cannot_be_used_are_misses(table, opened, tunes, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    (tmp_path / "damaged.wav").write_bytes(b"RIFF")
    write_hum(part_of(tunes[3].notes, 6, 6.8), tmp_path / "short.f0.csv")
    names = ["silent.wav", "damaged.wav", "gone.wav", "short.f0.csv"]
    good = read_queries(table)[0]
    queries = [good._replace(path=str(tmp_path / name)) for name in names]
    queries.insert(1, good)
    found = evaluate(queries, opened, [*SEARCHES, *BASELINES])
    for ranks in found.ranks.values():
        assert ranks == [None, 1, None, None, None]
    assert found.metrics("vote").top1 == 1 / 5
    # Each is named once for all methods; of the short one nothing went wrong but its length.
    assert [Path(failure.name).name for failure in found.failures] == names[:3]
    for failure in found.failures:
        assert failure.name in failure.reason
    assert found.as_json()["n"] == 5
    alone = evaluate(queries[-1:], opened)
    assert (alone.ranks, alone.confidence) == ({"full": [None]}, {})


def test_an_unknown_song_is_named(table, opened):
    queries, known = [LabelledQuery(str(table), "nobody", None)], opened.songs[0]["id"]
    with pytest.raises(QbhError, match=f"list of queries names the song nobody.* such as {known}"):
        evaluate(queries, opened)  # a file's name is tested with the command


def test_a_wrong_method_or_tracker_is_no_failure_of_the_hums(table, opened, monkeypatch):
    with pytest.raises(QbhError, match=f"no method 'magic': use {', '.join(METHODS)}"):
        evaluate("nowhere.csv", "nowhere", ["full", "magic"])
    with pytest.raises(QbhError, match="no tracker 'nobody'"):
        evaluate(table, opened, tracker="nobody")
    monkeypatch.setitem(sys.modules, "pesto", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        evaluate(table, opened, tracker="pesto")


def test_baselines_need_no_weights_that_made_the_catalogue(table, opened):
    other = replace(opened, model="other-1")
    expected = evaluate(table, opened, BASELINES)
    assert evaluate(table, other, BASELINES).ranks == expected.ranks
    for method in (*SEARCHES, "end-to-end"):
        with pytest.raises(QbhError, match="was made by the model other-1"):
            evaluate(table, other, [method])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,song_id\na,1\n", "must begin with the header"),
        ("path,song_id\n", "holds no queries"),
        ("path,song_id\n,1\n", "line 2: path and song_id must both be given"),
        ("path,song_id\nq.csv,1\ngone.wav,1\n", r"line 3: .*gone\.wav does not exist"),
    ],
)
def test_a_list_of_queries_that_is_wrong_is_refused(text, message, tmp_path):
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(QbhError, match=rf"q\.csv.* {message}|q\.csv, {message}"):
        read_queries(tmp_path / "q.csv")


def test_a_list_of_queries_names_recordings_and_singers(tmp_path):
    one, two = tmp_path / "a.wav", tmp_path / "b.wav"
    for path in (one, two):
        path.touch()
    rows = f"\ufeffsinger,song_id,path\n,007,b.wav\nann,2,{one}\n"
    (tmp_path / "q.csv").write_text(rows, "utf-8")
    assert read_queries(tmp_path / "q.csv") == [(str(two), "007", None), (str(one), "2", "ann")]
