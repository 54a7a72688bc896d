import json

import numpy as np
import pytest

from qbhkit.contour import Contour, from_pitch
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.contour_shards import open_shards, write_shards
from qbhkit.embedding.sampling import ContourBank, SongPairs
from qbhkit.embedding.windows import WindowRange
from qbhkit.errors import QbhError
from qbhkit.storage import sha256_file
from qbhkit.training_loop import generator


def melodies(songs=30, hop_s=0.1):
    """Uneven lengths, rests, pitches between the semitones, and an empty song at the end."""
    rng = np.random.default_rng(0)
    for _ in range(songs):
        pitch = np.repeat(rng.normal(60, 6, rng.integers(2, 60)), 5)
        pitch[rng.random(len(pitch)) < 0.2] = 0
        yield from_pitch(pitch, hop_s)
    yield Contour(np.array([[-3, 1], [0, 0], [130.25, 1]], np.float32), hop_s)
    yield from_pitch(np.zeros(0), hop_s)


def write(contours, folder, groups=None):
    return write_shards(contours, folder, groups, progress=False)


@pytest.fixture
def folder(tmp_path):
    write(melodies(), tmp_path / "songs")
    return tmp_path / "songs"


def draws(bank, count=24):
    source = SongPairs(bank, WindowRange(), Distortions(), "key")
    return [source.draw(count, generator(0, 0, 0, item)) for item in range(4)]


@pytest.mark.parametrize("groups", [None, [number // 2 for number in range(32)]])
def test_pairs_are_the_same_to_the_bit_from_memory_and_from_disk(tmp_path, groups):
    kept, mapped = ContourBank([*melodies()], groups), write(melodies(), tmp_path, groups)
    assert (mapped.hop_s, mapped.tunes) == (kept.hop_s, kept.tunes)
    for name in ("pitch", "offsets", "lengths", "groups"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(kept, name))
    for one, two in zip(draws(kept), draws(mapped), strict=True):
        for a, b in zip(one, two, strict=True):
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()


def test_reading_gives_back_every_frame(tmp_path):
    bank = write(melodies(hop_s=0.05), tmp_path)
    assert bank.hop_s == 0.05
    for number, contour in enumerate(melodies(hop_s=0.05)):
        positions = np.arange(-1, len(contour) + 1)[None] + 0.5
        found = bank.read(np.array([number]), positions)[0]
        np.testing.assert_array_equal(found[1:-1], contour.frames)
        assert not found[[0, -1]].any()


def test_the_files_are_plain_arrays_and_mapped(folder):
    bank = open_shards(folder)
    pitch = np.load(folder / "pitch.npy", allow_pickle=False)
    np.testing.assert_array_equal(pitch, np.concatenate([c.pitch_st for c in melodies()]))
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.npy", "manifest.json", "pitch.npy"
    ]  # fmt: skip
    for held in (bank.pitch, bank.offsets, bank.lengths, bank.groups):
        while not isinstance(held, np.memmap):
            held = held.base
        assert held.mode == "r"


def test_contours_are_taken_one_by_one_and_groups_after_them(tmp_path):
    groups, alive = [], []

    def songs():
        import weakref

        for number, contour in enumerate(melodies()):
            alive.append(weakref.ref(contour))
            groups.append(number // 3)
            yield contour
            del contour
            assert sum(ref() is not None for ref in alive) <= 2

    assert write(songs(), tmp_path, groups).tunes == 11


class TestNothingHalfWritten:
    def test_a_writer_that_fails_leaves_the_old_songs(self, folder):
        def failing():
            yield from melodies(3)
            raise RuntimeError("the corpus is unreadable")

        with pytest.raises(RuntimeError):
            write(failing(), folder)
        assert len(open_shards(folder).lengths) == 32
        assert len([*folder.iterdir()]) == 3

    def test_an_open_bank_outlives_being_written_anew(self, folder):
        bank = open_shards(folder)
        before = draws(bank)
        write([from_pitch(np.full(50, 70))], folder)
        for one, two in zip(before, draws(bank), strict=True):
            np.testing.assert_array_equal(one.positives, two.positives)
        assert len(open_shards(folder).lengths) == 1

    def test_a_first_writer_that_is_stopped_leaves_nothing_to_open(self, tmp_path):
        def stopped():
            yield from melodies(1)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(stopped(), tmp_path)
        with pytest.raises(QbhError, match="does not exist: write the contours again"):
            open_shards(tmp_path)


class TestRefused:
    def test_contours_that_make_no_bank(self, tmp_path):
        for contours in ([], [from_pitch(np.zeros(9))]):
            with pytest.raises(QbhError, match="no melody"):
                write(contours, tmp_path)
        hops = [from_pitch(np.full(9, 60)), from_pitch(np.full(9, 60), hop_s=0.05)]
        with pytest.raises(QbhError, match="same hop"):
            write(hops, tmp_path)
        with pytest.raises(QbhError, match="2 groups for 32 songs"):
            write(melodies(), tmp_path, [0, 1])
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize("name", ["pitch.npy", "index.npy"])
    def test_a_file_that_is_missing_cut_or_changed(self, folder, name):
        whole = (folder / name).read_bytes()
        for damaged in (whole[:-8], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
            (folder / name).write_bytes(damaged)
            with pytest.raises(QbhError, match=rf"{name} is damaged .* write the contours again"):
                open_shards(folder)
        (folder / name).unlink()
        with pytest.raises(QbhError, match=rf"{name} is missing: write the contours again"):
            open_shards(folder)

    def test_a_foreign_file_even_with_its_checksum(self, folder):
        path = folder / "pitch.npy"
        sums = json.loads((folder / "manifest.json").read_text())["sha256"]
        for foreign in (np.zeros(7), np.zeros((2, 3), np.int64), np.array([{"a": 1}]), None):
            if foreign is None:
                path.write_text("text")
            else:
                np.save(path, foreign)
            self.change(folder, sha256=sums | {path.name: sha256_file(path)})
            with pytest.raises(QbhError, match=r"pitch\.npy is damaged"):
                open_shards(folder)

    def change(self, folder, **how):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | how))

    def test_a_manifest_that_is_damaged_foreign_or_newer(self, folder):
        def refuses(match):
            with pytest.raises(QbhError, match=match):
                open_shards(folder)

        self.change(folder, hop_s="slow")
        refuses("manifest.json is damaged: write")
        self.change(folder, hop_s=0.1, sha256=3)
        refuses("manifest.json is damaged: write")
        self.change(folder, format=2)
        refuses("has format 2, not 1")
        (folder / "manifest.json").write_text("[1]")
        refuses("does not hold contours")
        (folder / "manifest.json").write_text('{"format": 1, "shards": []}')  # a catalogue's
        refuses("does not hold contours")
        (folder / "manifest.json").write_text("{")
        refuses("manifest.json is damaged")
