import numpy as np
import pytest

from qbhkit.contour import Contour, from_pitch
from qbhkit.corpora.hum_csv import Pair, read_pairs, write_pairs
from qbhkit.embedding.hum_pairs import align_contours
from qbhkit.embedding.windows import stretch
from qbhkit.errors import QbhError


def tune(count=30, seed=0, frames=6):
    return from_pitch(np.repeat(np.random.default_rng(seed).integers(55, 72, count), frames))


def reading(song, first, last, count, key_st=0.0):
    positions = first + (np.arange(count) + 0.5) / count * (last - first)
    return Contour(stretch(song.frames, positions)).transposed(key_st)


class TestFile:
    def test_what_was_written_is_read_back(self, tmp_path):
        pairs = [Pair(tmp_path / "a.wav", "00001", 0.0, 7.25), Pair(tmp_path / "b.wav", "x", 3, 9)]
        write_pairs(pairs, tmp_path / "pairs.csv")
        assert read_pairs(tmp_path / "pairs.csv") == pairs

    def test_hums_lie_beside_the_file_and_other_columns_do_no_harm(self, tmp_path):
        (tmp_path / "p.csv").write_text("singer,hum_path,song_id,start_s,end_s\nme,h/1.wav,7,1,2\n")
        assert read_pairs(tmp_path / "p.csv") == [Pair(tmp_path / "h/1.wav", "7", 1.0, 2.0)]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("hum,song\n", "must begin with the header hum_path,song_id,start_s,end_s"),
            ("hum_path,song_id,start_s,end_s\n", "holds no pairs"),
            ("hum_path,song_id,start_s,end_s\na.wav,1,two,3\n", "line 2"),
            ("hum_path,song_id,start_s,end_s\na.wav,1,3,3\n", "line 2: .*end_s greater"),
            ("hum_path,song_id,start_s,end_s\na.wav,1,-1,3\n", "at least 0"),
            ("hum_path,song_id,start_s,end_s\na.wav,1,0,inf\n", "line 2"),
            ("hum_path,song_id,start_s,end_s\na.wav,1,nan,3\n", "line 2"),
            ("hum_path,song_id,start_s,end_s\na.wav,1\n", "line 2"),
        ],
    )
    def test_a_wrong_file_gets_a_sentence(self, tmp_path, text, message):
        (tmp_path / "p.csv").write_text(text)
        with pytest.raises(QbhError, match=message):
            read_pairs(tmp_path / "p.csv")

    def test_a_missing_or_binary_file_is_named(self, tmp_path):
        with pytest.raises(QbhError, match=r"none\.csv does not exist"):
            read_pairs(tmp_path / "none.csv")
        (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x80")
        with pytest.raises(QbhError, match=r"b\.csv"):
            read_pairs(tmp_path / "b.csv")


class TestAlignment:
    @pytest.mark.parametrize("tempo", [0.6, 1.0, 1.7])
    @pytest.mark.parametrize("key_st", [-7.0, 0.0, 4.0])
    def test_the_end_and_the_key_are_found(self, tempo, key_st):
        song = tune()
        hum = reading(song, 0, 90, round(90 / tempo), key_st)
        found = align_contours(hum, song)
        assert found.song_s[-1] == pytest.approx(9.0, abs=0.7)  # within a note
        assert found.key_st == key_st
        assert found.distance_st < 0.3

    def test_a_hum_may_begin_later_in_the_song(self):
        song = tune()
        hum = reading(song, 60, 120, 60)
        found = align_contours(hum, song, start_s=6.0)
        assert (found.song_s[0], found.song_s[-1]) == pytest.approx((6.05, 11.95), abs=0.7)
        assert align_contours(hum, song).distance_st > 3 * found.distance_st + 0.5

    def test_silence_before_hum_and_song_is_counted(self):
        song = tune()
        late = Contour(np.concatenate([np.zeros((12, 2)), song.frames]))
        hum = Contour(np.concatenate([np.zeros((5, 2)), song.frames[:60]]))
        found = align_contours(hum, late)
        assert (found.hum_s[0], found.song_s[0]) == pytest.approx((0.55, 1.25))
        assert found.distance_st == pytest.approx(0)

    def test_the_path_rises_and_keeps_to_half_and_double(self):
        song = tune(seed=3)
        found = align_contours(reading(song, 0, 100, 80), song)
        hum_steps, song_steps = np.diff(found.hum_s), np.diff(found.song_s)
        assert min(hum_steps.min(), song_steps.min()) > 0
        ratio = song_steps / hum_steps
        assert 0.49 < ratio.min() <= ratio.max() < 2.01

    def test_another_tune_is_farther(self):
        hum = reading(tune(), 0, 80, 80)
        assert (
            align_contours(hum, tune(seed=1)).distance_st
            > align_contours(hum, tune()).distance_st + 0.5
        )

    def test_nothing_voiced_is_refused(self):
        silent = Contour(np.zeros((20, 2)))
        for hum, song in ((silent, tune()), (tune(), silent)):
            with pytest.raises(QbhError, match="nothing voiced"):
                align_contours(hum, song)

    def test_a_song_that_is_much_too_short_is_refused(self):
        with pytest.raises(QbhError, match="half as long"):
            align_contours(tune(), from_pitch(np.full(10, 60.0)))
