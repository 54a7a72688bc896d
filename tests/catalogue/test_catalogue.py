import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qbhkit.audio import Audio, write_wav
from qbhkit.catalogue import build as module
from qbhkit.catalogue.build import build_catalogue, read_sources, songs_from
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import Contour, F0Track, from_pitch
from qbhkit.corpora import Song
from qbhkit.corpora.folders import AudioFiles
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.windows import Reading, WindowGrid, cut_song
from qbhkit.errors import QbhError
from qbhkit.retrieval.matches import matched_audio
from qbhkit.retrieval.searcher import Answer
from qbhkit.synthesis.singer import Voice, render_hum

GRID = WindowGrid()


class FakeEmbedder:
    """Embed windows by a fixed random projection; count calls, and stop after ``calls``."""

    identity = "fake-1"
    reading = Reading(20)
    embedding_dim = 16

    def __init__(self, calls=10**9):
        self.calls, self.left = 0, calls
        self.matrix = np.random.default_rng(0).normal(size=(40, 16))

    def embed(self, frames):
        if not self.left:
            raise KeyboardInterrupt
        self.calls, self.left = self.calls + 1, self.left - 1
        vectors = (frames.reshape(len(frames), -1) + 1e-3) @ self.matrix
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def build(sources, path, embedder=None, **options):
    embedder = embedder or FakeEmbedder()
    return build_catalogue(sources, path, embedder, "swift-f0", lambda name: None, progress=False,
                           **options)  # fmt: skip


def files_of(path):
    return {child.name: child.read_bytes() for child in (path / "shards").iterdir()}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "_SONGS_PER_SHARD", 4)


@pytest.fixture
def songs(tunes):
    return tunes[:18]


def voiced_line(frames, rests=()):
    pitch = 60 + (np.arange(frames) % 50) / 10
    for begin, end in rests:
        pitch[begin:end] = 0
    return from_pitch(pitch)


class TestCutSong:
    def test_windows_lie_on_the_grid_and_hold_the_frames_of_their_seconds(self):
        contour = voiced_line(300)
        cut = cut_song(contour, GRID, Reading(20))
        spans = set(zip(cut.start.tolist(), cut.end.tolist(), strict=True))
        for length_s in GRID.lengths_s:
            length = round(length_s * 10)
            step = round(length_s * GRID.step_share * 10)
            for start in [*range(0, 300 - length, step), 300 - length]:
                assert (start, start + length) in spans
        every = sorted(round(10 * s) for s in (*GRID.lengths_s, *GRID.first_lengths_s))
        assert sorted({end - start for start, end in spans}) == every
        assert len(spans) == len(cut.start)
        np.testing.assert_array_equal(cut.at_start, cut.start == 0)
        assert sorted((cut.end - cut.start)[cut.at_start]) == every
        for frames, start, end in zip(cut.frames, cut.start, cut.end, strict=True):
            at = (start + (np.arange(20) + 0.5) / 20 * (end - start)).astype(int)
            np.testing.assert_allclose(frames, contour.frames[at], atol=1e-6)

    def test_a_late_first_note_moves_all_windows(self):
        plain = cut_song(voiced_line(200), GRID, Reading(20))
        rest = np.zeros((37, 2))
        song = Contour(np.concatenate([rest, voiced_line(200).frames]))
        late = cut_song(song, GRID, Reading(20))
        for column, moved, by in zip(plain, late, (0, 37, 37, 0), strict=True):
            np.testing.assert_array_equal(moved, column + by if by else column)

    @pytest.mark.parametrize("frames", [1, 39])
    def test_a_short_song_is_one_window(self, frames):
        cut = cut_song(voiced_line(frames), GRID, Reading(20))
        assert [column.tolist() for column in cut[1:]] == [[0], [frames], [True]]
        assert cut.frames[0, :, 1].all()

    def test_windows_that_are_mostly_rest_are_left_out_but_for_those_at_the_start(self):
        cut = cut_song(voiced_line(400, rests=[(100, 300)]), GRID, Reading(20))
        assert not ((cut.start >= 100) & (cut.end <= 300)).any()
        assert (cut.start >= 280).any()
        sparse = cut_song(voiced_line(400, rests=[(2, 399)]), GRID, Reading(20))
        assert len(sparse.start)
        assert sparse.at_start.all()


def test_what_was_built_is_what_is_opened(songs, tmp_path, small_shards):
    report = build(songs, tmp_path)
    assert len(files_of(tmp_path)) == 5
    assert (report.songs, report.reused, report.failures) == (18, 0, [])
    opened = open_catalogue(tmp_path)
    assert opened.model == "fake-1"
    assert opened.tracker == "swift-f0"
    assert opened.grid == GRID
    assert [entry["id"] for entry in opened.songs] == [song.id for song in songs]
    assert opened.number == {song.id: k for k, song in enumerate(songs)}
    assert len(opened.vectors) == report.windows == len(opened.song) == len(opened.at_start)
    at = 0
    for number, song in enumerate(songs):
        contour = song.contour()
        np.testing.assert_array_equal(opened.contours[number].frames, contour.frames)
        cut = cut_song(contour, GRID, Reading(20))
        rows = slice(at, at + len(cut.frames))
        assert set(opened.song[rows]) == {number}
        np.testing.assert_allclose(opened.start_s[rows], cut.start / 10)
        np.testing.assert_allclose(opened.end_s[rows], cut.end / 10)
        np.testing.assert_array_equal(opened.at_start[rows], cut.at_start)
        expected = FakeEmbedder().embed(cut.frames)
        np.testing.assert_allclose(opened.vectors[rows], expected, atol=1e-3)
        at = rows.stop


def test_what_is_played_is_kept(songs, tmp_path, small_shards):
    class Tracker:
        rate_hz = 16000

        def song_contour(self, audio):
            pitch = 60 + np.arange(round(10 * audio.duration_s)) % 12
            return dataclasses.replace(from_pitch(pitch), instrumental=pitch < 66)

    write_wav(Audio(np.sin(np.arange(96000, dtype=np.float32)), 16000), tmp_path / "song.wav")
    recording = Song("r", "r", "r.wav", audio=tmp_path / "song.wav")
    mixed, path = [*songs[:3], recording], tmp_path / "catalogue"
    hears = lambda name: Tracker()  # noqa: E731
    for grid in (GRID, WindowGrid(step_share=0.5)):  # by the tracker, then from the first build
        build_catalogue(mixed, path, FakeEmbedder(), "swift-f0", hears, grid, progress=False)
        opened = open_catalogue(path)
        for number, contour in enumerate(opened.contours):
            if number != opened.number["r"]:
                assert contour.instrumental is None
            else:
                np.testing.assert_array_equal(contour.instrumental, contour.pitch_st < 66)
                assert contour.trimmed()[0].instrumental is None  # what is cut has no marks
    with pytest.raises(QbhError, match="as many instrumental marks as frames"):
        dataclasses.replace(contour, instrumental=np.zeros(1, bool))


def test_an_interrupted_rebuild_leaves_the_old_catalogue(songs, tmp_path, small_shards):
    build(songs[:8], tmp_path)
    before = open_catalogue(tmp_path)
    changed = [dataclasses.replace(song, title=f"new {song.title}") for song in songs]
    with pytest.raises(KeyboardInterrupt):
        build(changed, tmp_path, FakeEmbedder(2))
    still = open_catalogue(tmp_path)
    assert still.songs == before.songs
    np.testing.assert_array_equal(still.vectors, before.vectors)
    empty = Song("empty", "empty", "empty.f0.csv", notes=np.zeros((0, 3)))
    with pytest.raises(QbhError, match="Not one song could be indexed"):
        build([empty], tmp_path)
    assert len(open_catalogue(tmp_path).songs) == 8
    assert build(changed, tmp_path).reused == 8
    titles = [entry["title"] for entry in open_catalogue(tmp_path).songs]
    assert titles == [song.title for song in changed]


def test_only_the_shard_of_a_changed_song_is_made_again(songs, tmp_path, small_shards):
    build(songs, tmp_path)
    before = files_of(tmp_path)
    times = {child: child.stat().st_mtime_ns for child in (tmp_path / "shards").iterdir()}
    assert build(songs, tmp_path, FakeEmbedder(0)).reused == 18
    assert {child: child.stat().st_mtime_ns for child in times} == times
    changed = list(songs)
    changed[6] = dataclasses.replace(songs[6], notes=songs[6].notes + np.array([0, 0, 1.0]))
    again = FakeEmbedder()
    assert build(changed, tmp_path, again).reused == 14
    assert again.calls == 1
    after = files_of(tmp_path)
    assert len(set(after) & set(before)) == 4
    assert len(after) == 5  # the old shard is gone
    contour = open_catalogue(tmp_path).contours[6]
    np.testing.assert_array_equal(contour.frames, changed[6].contour().frames)


def test_another_grid_makes_everything_again(songs, tmp_path, small_shards):
    build(songs, tmp_path)
    assert build(songs, tmp_path, grid=WindowGrid(step_share=0.5)).reused == 0
    assert open_catalogue(tmp_path).grid.step_share == 0.5


def test_songs_that_fail_do_not_stop_the_others(songs, tmp_path, small_shards):
    silent = Song("silent", "silent", "silent.mid", notes=np.zeros((0, 3)))
    missing = Song("lost", "lost", "lost.wav", audio=tmp_path / "lost.wav")
    mixed = [*songs[:5], silent, *songs[5:], missing]

    class Tracker:
        rate_hz = 16000

    report = build_catalogue(
        mixed, tmp_path / "c", FakeEmbedder(), "swift-f0", lambda name: Tracker(), progress=False
    )
    assert report.songs == 18
    assert [failure.name for failure in report.failures] == ["silent.mid", "lost.wav"]
    assert "nothing in it is voiced" in report.failures[0].reason
    assert "does not exist" in report.failures[1].reason
    opened = open_catalogue(tmp_path / "c")
    assert [entry["id"] for entry in opened.songs] == [song.id for song in songs]
    again = build(mixed[:-1], tmp_path / "c")
    assert [failure.name for failure in again.failures] == ["silent.mid"]  # remembered


class TestSources:
    """What build_catalogue takes besides songs in memory."""

    @pytest.fixture
    def folder(self, songs, tmp_path, write_midi):
        """Three songs in notes, and a file that is none."""
        for name, song in zip("abc", songs, strict=False):
            write_midi(tmp_path / "songs" / f"{name}.mid", song.notes)
        (tmp_path / "songs" / "bad.mid").write_text("no MIDI")
        return tmp_path / "songs"

    def ids(self, path):
        return [entry["id"] for entry in open_catalogue(path).songs]

    def test_a_folder_or_several_paths(self, folder, tmp_path):
        report = build(str(folder), str(tmp_path / "c"))
        assert [failure.name for failure in report.failures] == [str(folder / "bad.mid")]
        assert self.ids(str(tmp_path / "c")) == ["a", "b", "c"]
        build([folder / "c.mid", str(folder / "a.mid")], tmp_path / "c")
        assert self.ids(tmp_path / "c") == ["c", "a"]
        build([folder / "c.mid", folder], tmp_path / "d")
        assert self.ids(tmp_path / "d") == ["c", "a", "b"]  # no file is read twice

    def test_a_corpus(self, songs, tmp_path, write_midi, monkeypatch):
        monkeypatch.setenv("QBHKIT_DATA", str(tmp_path))
        write_midi(tmp_path / "mirex-essen-2000" / "00001.mid", songs[0].notes)
        assert build("mirex-essen-2000", tmp_path / "c").songs == 1
        (song,) = open_catalogue(tmp_path / "c").songs
        assert song["licence"] == "Essen collection, research use"

    def test_what_cannot_be_read(self, folder, tmp_path):
        for sources, reason in (
            (folder / "bad.mid", "Not one song could be read: .*bad.mid is not a readable"),
            (tmp_path / "nowhere", "nowhere is neither a file, a folder nor a corpus"),
            ([folder, "no such corpus"], "no such corpus is neither"),
        ):
            with pytest.raises(QbhError, match=reason):
                build(sources, tmp_path / "c")
            assert not (tmp_path / "c" / "manifest.json").exists()

    def test_weights_by_name(self, folder, tmp_path):
        options = {"tracker": "swift-f0", "progress": False}
        build_catalogue(folder, tmp_path / "c", "stage1", **options)
        assert open_catalogue(tmp_path / "c").model == ContourEmbedder("stage1").identity
        build_catalogue(folder, tmp_path / "c", **options)
        opened = open_catalogue(tmp_path / "c")
        assert opened.model == ContourEmbedder().identity
        assert (opened.vectors.dtype, opened.vectors.shape[1]) == (np.float16, 512)
        with pytest.raises(QbhError, match="end-to-end do not hold a contour encoder"):
            build_catalogue(folder, tmp_path / "d", "end-to-end", **options)  # embeds queries only


def test_another_tracker_tracks_recordings_alone_again(songs, tmp_path):
    path = tmp_path / "sung.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(32000) * 0.1), 16000)
    mixed = [*songs, Song("sung", "sung", str(path), audio=path)]
    tracked = []

    class Tracker:
        rate_hz = 16000

        def track(self, audio):
            tracked.append(audio)
            return F0Track(np.full(200, 220.0), np.ones(200), 0.01)

    for name, count, reused in (("swift-f0", 1, 0), ("swift-f0", 1, 19), ("pyin", 2, 18)):
        report = build_catalogue(mixed, tmp_path / "c", FakeEmbedder(), name, lambda _: Tracker(),
                                 progress=False)  # fmt: skip
        assert (len(tracked), report.reused) == (count, reused)
        assert open_catalogue(tmp_path / "c").tracker == name


def test_a_recording_is_played_from_any_folder_but_another_file_is_not(
    tmp_path, monkeypatch, embedder
):
    sung = render_hum(np.array([[k, 0.9, 57 + 2 * k] for k in range(6)]), Voice(),
                      np.random.default_rng(0)).audio  # fmt: skip
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    write_wav(sung, Path("songs/a.wav"))
    build_catalogue(read_sources([AudioFiles((Path("songs/a.wav"),))])[0], Path("c"), embedder,
                    tracker="swift-f0", progress=False)  # fmt: skip
    monkeypatch.chdir(tmp_path / "other")
    catalogue = open_catalogue(tmp_path / "c")
    answer = Answer("a", "a", 0.5, 3.0, 4.0)
    found = matched_audio(catalogue, answer)
    np.testing.assert_allclose(found.samples, sung.samples[48000:64000], atol=1e-3)
    write_wav(Audio(sung.samples[:16000], 16000), tmp_path / "songs" / "a.wav")
    assert matched_audio(catalogue, answer).duration_s > 0.5  # its melody instead


def test_only_songs_that_are_held_out_of_every_training(tmp_path, monkeypatch):
    everything, _ = songs_from("miscFolk")
    songs, _ = songs_from(["miscFolk"], held_out=True)
    split = read_split("folk")
    assert 0 < len(songs) < len(everything)
    assert {song.id for song in songs} == {song.id for song in everything} & {*split["held_out"]}
    (tmp_path / "a.abc").write_text("X:1\nT:A\nK:C\nCDEF GABc|\n")
    with pytest.raises(QbhError, match="has no split"):
        songs_from([tmp_path / "a.abc"], held_out=True)
    monkeypatch.setattr(module, "split_of", lambda name: {"held_out": []})
    with pytest.raises(QbhError, match="No song of miscFolk is held out"):
        songs_from("miscFolk", held_out=True)
