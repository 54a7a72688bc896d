import pytest

from qbhkit.corpora.hum_csv import Pair, read_pairs, write_pairs
from qbhkit.errors import QbhError


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
