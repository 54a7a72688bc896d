"""Add and remove songs, merge catalogues, and find every flipped byte."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_catalogue import FakeEmbedder, build, files_of

from qbhkit.audio import load
from qbhkit.catalogue import build as building
from qbhkit.catalogue import files, read
from qbhkit.catalogue.duplicates import Duplicate
from qbhkit.catalogue.edit import (
    add_songs,
    describe_catalogue,
    merge_catalogues,
    remove_songs,
    verify_catalogue,
)
from qbhkit.catalogue.read import open_catalogue
from qbhkit.cli import main
from qbhkit.contour import F0Track, midi_to_hz
from qbhkit.corpora import Song
from qbhkit.embedding.windows import WindowGrid
from qbhkit.errors import QbhError


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(building, "_SONGS_PER_SHARD", 4)


@pytest.fixture
def songs(tunes):
    return tunes[:18]


@pytest.fixture
def path(songs, tmp_path):
    """A catalogue of ten songs in three shards."""
    build(songs[:10], tmp_path / "c")
    return tmp_path / "c"


class FakeTracker:
    """Return a melody that depends on the seed of :func:`recording`; list the seeds."""

    rate_hz = 16000

    def __init__(self):
        self.seeds = []

    def track(self, audio):
        seed = round(float(np.abs(audio.samples).max()) * 1000)
        self.seeds.append(seed)
        pitch = 60 + np.cumsum(np.random.default_rng(seed).choice([-3, -2, -1, 1, 2, 3], 40))
        return F0Track(np.repeat(midi_to_hz(pitch), 30), np.ones(1200), 0.01)


def recording(folder, name, seed, subtype="PCM_16"):
    file = folder / f"{name}.wav"
    folder.mkdir(exist_ok=True)
    samples = np.sin(np.arange(32000) * 0.1) * seed / 1000
    soundfile.write(file, samples, 16000, subtype=subtype)
    return Song(name, name, str(file), audio=file)


def add(songs, path, fake_tracker=None, embedder=None, tracker=None):
    return add_songs(
        songs, path, embedder or FakeEmbedder(), tracker, lambda _: fake_tracker, progress=False
    )


def ids_of(path):
    return [song["id"] for song in open_catalogue(path).songs]


def snapshot(path):
    """Every file below a folder."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*.*")}


def same_search(one, other):
    """Return whether two catalogues give the same answers."""
    one, other = open_catalogue(one), open_catalogue(other)
    arrays = ("vectors", "song", "start_s", "end_s", "at_start")
    return one.songs == other.songs and all(
        np.array_equal(getattr(one, key), getattr(other, key)) for key in arrays
    )


class TestAdd:
    def test_new_songs_are_new_shards(self, songs, path, tmp_path):
        before = files_of(path)
        lost = Song("lost", "lost", "lost.wav", audio=tmp_path / "lost.wav")
        report = add([*songs[10:], lost], path, FakeTracker())
        assert (report.added, report.songs, report.duplicates) == (8, 18, [])
        assert [failure.name for failure in report.failures] == ["lost.wav"]
        assert before.items() < files_of(path).items()
        build(songs, tmp_path / "whole")
        assert same_search(path, tmp_path / "whole")
        assert verify_catalogue(path) == (18, report.windows, [])

    def test_only_new_songs_are_embedded(self, songs, path):
        before, embedder = snapshot(path), FakeEmbedder()
        retitled = dataclasses.replace(songs[0], title="another title", source="other.mid")
        assert add([retitled, songs[1]], path, embedder=embedder).added == 0
        assert snapshot(path) == before
        report = add(songs[8:13], path, embedder=embedder)
        assert embedder.calls == 1
        assert report.added == 3
        assert report.duplicates == [Duplicate(song.id, song.id) for song in songs[8:10]]
        assert ids_of(path) == [song.id for song in songs[:13]]

    def test_a_melody_in_another_key_and_tempo_is_there_already(self, songs, path):
        again = []
        for number, song in enumerate(songs[:10]):
            tempo = (0.5, 0.8, 1.37)[number % 3]
            notes = song.notes / [tempo, tempo, 1] + [0.7, 0, 5]
            again.append(dataclasses.replace(song, id=f"{song.id} again", notes=notes))
        copy = dataclasses.replace(songs[10], id="copy")
        report = add([*again, songs[10], copy], path)
        expected = [Duplicate(f"{song.id} again", song.id) for song in songs[:10]]
        assert report.duplicates == [*expected, Duplicate("copy", songs[10].id)]
        assert report.added == 1

    def test_an_id_with_another_melody_is_refused(self, songs, path):
        before = snapshot(path)
        other = dataclasses.replace(songs[12], id=songs[3].id, source="new.mid")
        embedder = FakeEmbedder()
        with pytest.raises(QbhError, match=r"is taken by .* not the same as new.mid: remove") as e:
            add([songs[11], other], path, embedder=embedder)
        assert str(e.value).count(songs[3].id) == 2
        assert embedder.calls == 0
        assert snapshot(path) == before
        remove_songs([songs[3].id], path)
        assert add([songs[11], other], path).added == 2

    def test_another_model_or_tracker_is_refused(self, songs, path, tmp_path, monkeypatch):
        before = snapshot(path)
        other = FakeEmbedder()
        other.identity = "fake-2"
        with pytest.raises(QbhError, match="made by the model fake-1, not fake-2"):
            add(songs[10:], path, embedder=other)
        with pytest.raises(QbhError, match="made by the tracker swift-f0, not pyin"):
            add(songs[10:], path, tracker="pyin")
        assert snapshot(path) == before
        assert add(songs[10:12], path, tracker="swift-f0").added == 2
        monkeypatch.setattr(building.trackers, "identity_of", lambda name: f"{name}@new")
        with pytest.raises(QbhError, match="tracker swift-f0, not swift-f0@new"):
            add([recording(tmp_path, "new", 500)], path, FakeTracker())
        assert add(songs[12:], path).added == 6  # songs in notes are not tracked

    def test_recordings_are_compared_by_their_contours(self, path, tmp_path):
        fake_tracker = FakeTracker()
        one, two = recording(tmp_path, "one", 500), recording(tmp_path, "two", 600)
        assert add([one, two], path, fake_tracker).added == 2
        assert fake_tracker.seeds == [500, 600]
        copy = dataclasses.replace(one, id="copy")
        other_file = recording(tmp_path, "other file", 600, "PCM_24")
        third = recording(tmp_path, "third", 700)
        report = add([one, copy, other_file, third], path, fake_tracker)
        assert fake_tracker.seeds == [500, 600, 600, 700]  # the same bytes are not tracked again
        assert report.duplicates == [
            Duplicate("one", "one"),
            Duplicate("copy", "one"),
            Duplicate("other file", "two"),
        ]
        assert report.added == 1
        assert ids_of(path)[-3:] == ["one", "two", "third"]
        f0 = FakeTracker().track(load(third.audio, FakeTracker.rate_hz))
        song = Song("f0", "f0", "third.f0.csv", f0=f0)
        assert add([song], path).duplicates == [Duplicate("f0", "third")]
        with pytest.raises(QbhError, match="The id one is taken"):
            add([recording(tmp_path / "b", "one", 800)], path, fake_tracker)

    def test_nothing_is_added_to_what_is_damaged(self, songs, path):
        victim = next((path / "shards").iterdir())
        victim.write_bytes(victim.read_bytes()[:-1])
        with pytest.raises(QbhError, match=f"{victim.name} is missing or damaged"):
            add(songs[10:], path)


class TestRemove:
    def test_only_the_shards_of_removed_songs_change(self, songs, path, tmp_path):
        before = files_of(path)
        report = remove_songs([songs[5].id, songs[8].id, songs[9].id], path)
        after = files_of(path)
        assert report == (7, len(open_catalogue(path).vectors), 0, (), ())
        assert len(after) == 2  # the third held nothing else
        assert len(before.keys() & after.keys()) == 1
        left = [song for k, song in enumerate(songs[:10]) if k not in (5, 8, 9)]
        build(left, tmp_path / "left")
        assert same_search(path, tmp_path / "left")
        assert verify_catalogue(path).problems == []
        add(songs[5:6], path)  # what is removed can come back
        assert ids_of(path) == [song.id for song in [*left, songs[5]]]

    def test_opening_during_a_change_gives_the_new_catalogue(self, songs, path, monkeypatch):
        real, calls = read.read_shard, []

        def slow(*arguments):
            if not calls:
                remove_songs([songs[9].id], path)
            calls.append(arguments)
            return real(*arguments)

        monkeypatch.setattr(read, "read_shard", slow)
        assert len(open_catalogue(path).songs) == 9

    def test_a_rewritten_shard_is_the_one_that_a_build_writes(self, songs, path, tmp_path):
        remove_songs([songs[9].id, songs[9].id], path)
        build(songs[:9], tmp_path / "built")
        assert snapshot(path) == snapshot(tmp_path / "built")
        assert build(songs[:9], path, FakeEmbedder(0)).reused == 9

    def test_unknown_songs_are_refused_before_anything_changes(self, songs, path):
        before = snapshot(path)
        with pytest.raises(QbhError, match="holds no song nobody: nothing was removed"):
            remove_songs([songs[0].id, "nobody"], path)
        with pytest.raises(QbhError, match="would hold no song: delete the folder"):
            remove_songs([song.id for song in songs[:10]], path)
        assert snapshot(path) == before

    def test_an_interrupted_removal_changes_nothing(self, songs, path, monkeypatch):
        before = snapshot(path)

        def stopped(folder, manifest):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("qbhkit.catalogue.edit.publish", stopped)
            with pytest.raises(KeyboardInterrupt):
                remove_songs([songs[0].id], path)
        assert before.items() < snapshot(path).items()  # one shard more, which no manifest lists
        assert len(ids_of(path)) == 10
        assert verify_catalogue(path).problems == []


class TestMerge:
    @pytest.fixture
    def other(self, songs, tmp_path):
        """A catalogue of eight songs in two shards, of which the first two are in the other too."""
        build(songs[8:16], tmp_path / "other")
        return tmp_path / "other"

    def test_songs_are_kept_once(self, songs, path, other, tmp_path):
        report = merge_catalogues([path, other], tmp_path / "out")
        assert report.duplicates == [Duplicate(song.id, song.id) for song in songs[8:10]]
        assert report.songs == 16
        assert ids_of(tmp_path / "out") == [song.id for song in songs[:16]]
        build(songs[:16], tmp_path / "whole")
        assert same_search(tmp_path / "out", tmp_path / "whole")
        copied = files_of(tmp_path / "out")
        assert files_of(path).items() < copied.items()
        assert len(files_of(other).keys() & copied.keys()) == 1
        assert verify_catalogue(tmp_path / "out").problems == []

    def test_a_melody_under_two_ids_is_kept_once_unless_one_catalogue_holds_both(
        self, songs, path, tmp_path
    ):
        notes = songs[2].notes + np.array([0, 0, 2])
        renamed = dataclasses.replace(songs[2], id="renamed", notes=notes)
        copy = dataclasses.replace(songs[12], id="copy")
        build([renamed, songs[12], copy], tmp_path / "other")
        report = merge_catalogues([path, tmp_path / "other"], tmp_path / "out")
        assert report.duplicates == [Duplicate("renamed", songs[2].id)]
        assert ids_of(tmp_path / "out") == [song.id for song in [*songs[:10], songs[12], copy]]

    def test_an_id_with_two_melodies_or_a_damaged_shard_is_refused(self, songs, path, tmp_path):
        build([dataclasses.replace(songs[12], id=songs[0].id)], tmp_path / "other")
        with pytest.raises(QbhError, match=f"The id {songs[0].id} is taken"):
            merge_catalogues([path, tmp_path / "other"], tmp_path / "out")
        victim = max((path / "shards").iterdir())
        victim.write_bytes(flipped(victim, -1))
        with pytest.raises(QbhError, match=f"{victim.name} is damaged"):
            merge_catalogues([path], tmp_path / "out")
        assert not (tmp_path / "out" / "manifest.json").exists()

    @pytest.mark.parametrize("what", ["model", "tracker", "grid"])
    def test_catalogues_that_differ_are_refused(self, path, tmp_path, what):
        manifest = files.read_manifest(path)
        other = {"model": "fake-2", "tracker": "pyin", "grid": WindowGrid(step_share=0.5)}[what]
        shutil.copytree(path, tmp_path / "other")
        files.publish(tmp_path / "other", dataclasses.replace(manifest, **{what: other}))
        with pytest.raises(QbhError, match=f"differ in their {what}"):
            merge_catalogues([path, tmp_path / "other"], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_into_one_of_them_but_not_over_another(self, songs, path, other, tmp_path):
        build(songs[16:], tmp_path / "out")
        with pytest.raises(QbhError, match="is a catalogue already"):
            merge_catalogues([path, other], tmp_path / "out")
        assert len(ids_of(tmp_path / "out")) == 2
        merge_catalogues([path, other], path)
        assert ids_of(path) == [song.id for song in songs[:16]]
        assert len(ids_of(other)) == 8


class TestReembedding:
    def test_other_weights_track_nothing(self, songs, tmp_path):
        """Take the contours of recordings from the shards that the old weights made."""
        path, fake_tracker = tmp_path / "c", FakeTracker()
        recordings = [recording(tmp_path, f"r{k}", 500 + k) for k in range(3)]
        options = {"tracker": "swift-f0", "progress": False}
        building.build_catalogue(
            [*songs, *recordings], path, FakeEmbedder(), get_tracker=lambda _: fake_tracker,
            **options,
        )  # fmt: skip
        assert len(fake_tracker.seeds) == 3
        old = open_catalogue(path)
        others = FakeEmbedder()
        others.identity, others.matrix = "fake-2", others.matrix[:, ::-1]

        def no_tracker(name):
            pytest.fail("a tracker was opened")

        report = building.build_catalogue(
            [*songs, *recordings], path, others, get_tracker=no_tracker, **options
        )
        assert (report.songs, report.reused, report.failures) == (21, 0, [])
        new = open_catalogue(path)
        assert new.model == "fake-2"
        np.testing.assert_array_equal(new.vectors, old.vectors[:, ::-1])
        for one, other in zip(old.contours, new.contours, strict=True):
            np.testing.assert_array_equal(one.frames, other.frames)

        moved = [recording(tmp_path / "moved", f"r{k}", 500 + k) for k in range(3)]
        building.build_catalogue(moved, path, others, get_tracker=no_tracker, **options)

    def test_changed_bytes_are_tracked_again(self, tmp_path):
        path, fake_tracker = tmp_path / "c", FakeTracker()
        for seed in (500, 501):
            building.build_catalogue(
                [recording(tmp_path, "r", seed)], path, FakeEmbedder(), "swift-f0",
                lambda _: fake_tracker, progress=False,
            )  # fmt: skip
        assert fake_tracker.seeds == [500, 501]


class TestInfo:
    def test_it_describes_the_catalogue(self, songs, path, tmp_path):
        free = dataclasses.replace(recording(tmp_path, "free", 500), licence="CC0")
        add([free], path, FakeTracker())
        info = describe_catalogue(path)
        assert (info.songs, info.recordings, info.shards) == (11, 1, 4)
        assert info.windows == len(open_catalogue(path).vectors)
        assert info.bytes == sum(map(len, snapshot(path).values()))
        assert (info.model, info.tracker, info.grid) == ("fake-1", "swift-f0", WindowGrid())
        assert info.licences == {songs[0].licence: 10, "CC0": 1}


def flipped(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << position % 8
    return bytes(content)


class TestVerify:
    def test_a_flipped_byte_is_found_in_any_file(self, path):
        assert verify_catalogue(path) == (10, len(open_catalogue(path).vectors), [])
        rng = np.random.default_rng(0)
        for file in [path / "manifest.json", *(path / "shards").iterdir()]:
            whole = file.read_bytes()
            every = file.name == "manifest.json"
            last = len(whole) - 1
            at = range(0, len(whole), 9) if every else [0, 7, last, *rng.integers(0, last, 8)]
            for position in at:
                file.write_bytes(flipped(file, int(position)))
                problems = verify_catalogue(path).problems
                assert [problem.name for problem in problems] == [str(file)], position
                assert str(path) in problems[0].reason
                assert problems[0].reason.endswith("build the catalogue again.")
                with pytest.raises(QbhError):
                    open_catalogue(path)
                file.write_bytes(whole)
        assert verify_catalogue(path).problems == []

    def test_every_bad_file_is_named(self, path):
        files = sorted((path / "shards").iterdir())
        files[0].unlink()
        files[2].write_bytes(flipped(files[2], 100))
        verdict = verify_catalogue(path)
        assert {problem.name for problem in verdict.problems} == {str(files[0]), str(files[2])}
        (path / "manifest.json").write_text("{}")
        verdict = verify_catalogue(path)
        assert verdict[:2] == (0, 0)
        names = [problem.name for problem in verdict.problems]
        assert names == [str(path / "manifest.json"), str(files[2])]

    def test_a_build_repairs_damage(self, songs, path):
        before = snapshot(path)
        for name in ("manifest.json", f"shards/{min(files_of(path))}"):
            (path / name).write_bytes(b"rubbish")
            embedder = FakeEmbedder()
            build(songs[:10], path, embedder)
            assert embedder.calls == (name != "manifest.json")
            assert snapshot(path) == before

    @pytest.mark.parametrize(
        ("what", "change"),
        [
            ("not of length 1", lambda shard: shard.vectors.__imul__(np.float16(1.1))),
            ("not of length 1", lambda shard: shard.vectors[3].fill(np.nan)),
            ("do not fit together", lambda shard: shard.end.__iadd__(10_000)),
            ("do not fit together", lambda shard: shard.start.__isub__(10_000)),
            ("do not fit together", lambda shard: shard.song[-4:].fill(9)),
            ("do not fit together", lambda shard: shard.song.sort() or shard.song[::-1].sort()),
            ("two songs of one id", lambda shard: shard.songs[1].update(shard.songs[0])),
            ("lacks its description", lambda shard: shard.songs[0].pop("title")),
            ("is not text", lambda shard: shard.songs[0].update(title=5)),
        ],
    )
    def test_a_right_checksum_does_not_hide_wrong_content(self, path, what, change):
        manifest = files.read_manifest(path)
        shard = files.read_shard(path, manifest.shards[0])
        shard = shard._replace(**{key: getattr(shard, key).copy() for key in shard._fields[2:]})
        change(shard)
        entry = files.write_shard(path, manifest.model, manifest.grid, shard)
        changed = dataclasses.replace(manifest, shards=(entry, *manifest.shards[1:]))
        files.publish(path, changed)
        (problem,) = verify_catalogue(path).problems
        assert problem.name == str(entry.path(path))
        assert what in problem.reason

    def test_shards_that_do_not_belong_together(self, songs, path, tmp_path):
        manifest = files.read_manifest(path)
        shard = files.read_shard(path, manifest.shards[1])
        other_model = files.write_shard(path, "fake-2", manifest.grid, shard)
        wide = shard._replace(vectors=np.repeat(shard.vectors, 2, axis=1) / np.float16(2**0.5))
        wide = files.write_shard(path, manifest.model, manifest.grid, wide)
        for second, what in ((other_model, "another model"), (wide, "of another size")):
            folder = tmp_path / what
            shutil.copytree(path, folder)
            together = (manifest.shards[0], second)
            files.publish(folder, dataclasses.replace(manifest, shards=together))
            (problem,) = verify_catalogue(folder).problems
            assert what in problem.reason
        with pytest.raises(QbhError, match="its vectors differ in size"):
            open_catalogue(tmp_path / "of another size")

    def test_a_song_in_two_shards(self, path):
        manifest = files.read_manifest(path)
        shard = files.read_shard(path, manifest.shards[0]).only([1])
        again = files.write_shard(path, manifest.model, manifest.grid, shard)
        files.publish(path, dataclasses.replace(manifest, shards=(*manifest.shards, again)))
        (problem,) = verify_catalogue(path).problems
        assert f"holds {shard.songs[0]['id']}, as" in problem.reason


def signed(path, change):
    """Change a manifest and give it the checksum of what it says now."""
    values = json.loads((path / "manifest.json").read_text())
    del values["sha256"]
    change(values)
    (path / "manifest.json").write_text(files._signed(values))


HOSTILE = {
    **{
        f"path {name!r}": lambda values, name=name: values["shards"][0].update(sha256=name)
        for name in ("../x", "/etc/hostname", "", "A" * 64)
    },
    "a shard twice": lambda values: values["shards"].append(values["shards"][0]),
    "no shards": lambda values: values.update(shards=[]),
    "tracker is none": lambda values: values.update(tracker=None),
    "windows of no length": lambda values: values["grid"].update(lengths_s=[0.0]),
    "windows of endless length": lambda values: values["grid"].update(lengths_s=[1e999]),
    "no windows": lambda values: values["grid"].update(lengths_s=[]),
    "other format": lambda values: values.update(format=99),
}


class TestHostileManifests:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_wrong_values_give_one_sentence(self, songs, path, tmp_path, name):
        for file in (path / "x", tmp_path / "x", path / "shards" / "x"):
            shutil.copy(next((path / "shards").iterdir()), file)
        signed(path, HOSTILE[name])
        before = snapshot(tmp_path)
        for use in (
            open_catalogue,
            describe_catalogue,
            lambda folder: remove_songs([songs[0].id], folder),
            lambda folder: merge_catalogues([folder, folder], tmp_path / "out"),
        ):
            with pytest.raises(QbhError, match="build the catalogue again") as caught:
                use(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
        assert len(verify_catalogue(path).problems) == 1
        assert snapshot(tmp_path) == before

    @pytest.mark.parametrize(
        "text", ["", "[]", "null", "{", '{"format": 2}', "[" * 100_000, "\xff"]
    )
    def test_what_is_no_manifest(self, tmp_path, text):
        (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(QbhError, match=r"manifest\.json is damaged"):
            open_catalogue(tmp_path)

    def test_a_catalogue_of_format_1(self, path, songs):
        (path / "manifest.json").write_text(json.dumps({"format": 1, "shards": []}))
        (path / "shards" / f"{'0' * 32}.safetensors").write_bytes(b"of an older version")
        with pytest.raises(QbhError, match="has format 1, not 2: build the catalogue again"):
            open_catalogue(path)
        build(songs[:10], path)
        assert len(files_of(path)) == 3

    def test_counts_that_are_not_those_of_the_shard(self, path):
        signed(path, lambda values: values["shards"][0].update(windows=7))
        with pytest.raises(QbhError, match="its parts do not fit together"):
            open_catalogue(path)


def test_files_of_others_are_left_alone(songs, path):
    mine = [path / name for name in ("notes.txt", "shards/shard-0001.safetensors")]
    for file in mine:
        file.write_text("mine")
    remove_songs([songs[0].id], path)
    assert [file.read_text() for file in mine] == ["mine"] * 2


def test_two_writers_exclude_each_other(songs, path):
    pytest.importorskip("fcntl")
    with files.sole_writer(path):
        for change in (
            lambda: build(songs, path),
            lambda: add(songs[10:], path),
            lambda: remove_songs([songs[0].id], path),
            lambda: merge_catalogues([path], path),
        ):
            with pytest.raises(QbhError, match="is being written by another process"):
                change()
        assert len(ids_of(path)) == 10  # readers do not wait
    assert add(songs[10:], path).added == 8


class TestCommands:
    @pytest.fixture
    def qbhkit(self, capsys):
        def qbhkit(*arguments):
            code = main(["catalogue", *map(str, arguments)])
            said = capsys.readouterr()
            return code, said.out, said.err

        return qbhkit

    def test_the_life_of_a_catalogue(self, qbhkit, song_folder, tmp_path, embedder):
        files = sorted(song_folder.glob("0000*.mid"))
        path, other, again = (tmp_path / name for name in ("c", "d", "again.mid"))
        assert qbhkit("build", *files[:3], "--out", path)[0] == 0
        shutil.copy(files[0], again)
        code, out, err = qbhkit("add", files[2], files[3], again, "--catalogue", path)
        assert code == 0
        assert out.startswith(f"{path}: 1 songs added; 4 songs, ")
        assert err == "00003 is there already\nagain is there already as 00001\n"
        code, out, err = qbhkit("remove", "00001", "00002", "--catalogue", path)
        assert (code, err) == (0, "")
        assert out.startswith(f"{path}: 2 songs, ")
        qbhkit("build", *files[3:6], "--out", other)
        code, out, err = qbhkit("merge", path, other, "--out", tmp_path / "e")
        assert (code, err) == (0, "00004 is there already\n")
        assert ids_of(tmp_path / "e") == ["00003", "00004", "00005", "00006"]

        found = json.loads(qbhkit("info", tmp_path / "e", "--json")[1])
        assert (found["songs"], found["model"]) == (4, embedder.identity)
        assert found["grid"]["lengths_s"] == list(WindowGrid().lengths_s)
        out = qbhkit("info", tmp_path / "e")[1]
        assert "4 songs (0 recordings)" in out
        assert "licence:  unknown (4 songs)" in out
        out = f"{tmp_path / 'e'}: 4 songs, {found['windows']} windows, none damaged\n"
        assert qbhkit("verify", tmp_path / "e") == (0, out, "")
        victim = next((tmp_path / "e" / "shards").iterdir())
        victim.write_bytes(flipped(victim, 1000))
        code, out, err = qbhkit("verify", tmp_path / "e")
        assert (code, out) == (2, "")
        assert str(victim) in err
        assert "replaces only the damaged shards" in err

    def test_bad_input(self, qbhkit, song_folder, path, tmp_path):
        file = min(song_folder.glob("*.mid"))
        for arguments, what in (
            (("add", file, "--catalogue", path), "was made by the model fake-1"),
            (("remove", "x", "--catalogue", tmp_path / "no"), "does not exist"),
            (("verify", tmp_path / "no"), "does not exist"),
            (("merge", path, tmp_path / "no", "--out", tmp_path / "out"), "does not exist"),
        ):
            code, out, err = qbhkit(*arguments)
            assert (code, out) == (2, "")
            assert what in err
            assert len(err.splitlines()) == 1
        assert not Path(tmp_path / "no").exists()
