import numpy as np
import pytest

from qbhkit.contour import F0Track, from_f0
from qbhkit.errors import QbhError
from qbhkit.f0_csv import read_f0_csv, write_f0_csv

HEADER = "time_s,frequency_hz,voicing\n"


def test_csv_round_trip(tmp_path):
    hop_s = 0.005805
    rng = np.random.default_rng(4)
    frequency = np.where(rng.random(500) < 0.7, rng.uniform(80, 900, 500), 0)
    written = F0Track(frequency, rng.random(500), hop_s)
    write_f0_csv(written, tmp_path / "new" / "a.f0.csv")
    read = read_f0_csv(tmp_path / "new" / "a.f0.csv")
    np.testing.assert_allclose(read.frequency_hz, written.frequency_hz, atol=6e-4)
    np.testing.assert_allclose(read.voicing, written.voicing, atol=6e-4)
    assert read.hop_s == pytest.approx(hop_s, rel=1e-6)
    assert (tmp_path / "new" / "a.f0.csv").read_text().startswith(HEADER + "0,")


def test_csv_round_trip_of_a_long_recording(tmp_path):
    frames = round(1100 / 0.0505)  # past 1000 s, where six digits no longer tell frames apart
    write_f0_csv(F0Track(np.full(frames, 200.0), np.ones(frames), 0.0505), tmp_path / "a.f0.csv")
    read = read_f0_csv(tmp_path / "a.f0.csv")
    assert len(read.frequency_hz) == frames
    assert read.hop_s == pytest.approx(0.0505, rel=1e-6)
    (tmp_path / "a.f0.csv").write_text(HEADER + "0,100,1\n7200,100,1\n14400,100,1\n")
    assert read_f0_csv(tmp_path / "a.f0.csv").hop_s == 7200  # the longest steps


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("time,frequency,voicing\n0,100,1\n0.01,100,1\n", "must begin with the header"),
        (HEADER + "0,100,1\n", "at least two rows"),
        (HEADER + "0,100,1\n0.01,100\n", "not three numbers"),
        (HEADER + "0,high,1\n0.01,100,1\n", "not three numbers"),
        (HEADER + "0,nan,1\n0.01,100,1\n", "NaN or infinite"),
        (HEADER + "0,100,1\n0,100,1\n", "rise in equal steps"),
        (HEADER + "0,100,1\n0.01,100,1\n0.05,100,1\n", "rise in equal steps"),
        (HEADER + "0,100,1\n1e9,100,1\n", "must be in seconds"),
        (HEADER + "0,100,1\n1e-9,100,1\n", "must be in seconds"),
        (HEADER + "0,100,1\n7201,100,1\n14402,100,1\n", "must be in seconds"),
        (HEADER + "4000,100,1\n4000.1,100,1\n", "within an hour"),
    ],
)
def test_malformed_csv_is_refused(tmp_path, content, says):
    path = tmp_path / "bad.f0.csv"
    path.write_text(content, "utf-8")
    with pytest.raises(QbhError, match=says) as caught:
        read_f0_csv(path)
    assert "bad.f0.csv" in str(caught.value)


def test_unreadable_csv_is_refused(tmp_path):
    with pytest.raises(QbhError, match=r"absent\.f0\.csv does not exist"):
        read_f0_csv(tmp_path / "absent.f0.csv")
    (tmp_path / "binary.f0.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(QbhError, match="not a readable CSV"):
        read_f0_csv(tmp_path / "binary.f0.csv")
    with pytest.raises(QbhError, match="not a readable CSV"):
        read_f0_csv(tmp_path)


def test_csv_of_a_spreadsheet_is_read(tmp_path):
    text = "\ufeff" + HEADER + "0,100,1\n0.02,0,0\n\n0.04,200,0.5\n"
    (tmp_path / "a.f0.csv").write_bytes(text.replace("\n", "\r\n").encode())
    track = read_f0_csv(tmp_path / "a.f0.csv")
    assert track.frequency_hz.tolist() == [100, 0, 200]
    assert track.voiced.tolist() == [True, False, True]
    assert track.hop_s == pytest.approx(0.02)


def test_csv_that_begins_late_keeps_its_times(tmp_path):
    (tmp_path / "a.f0.csv").write_text(HEADER + "0.5,100,1\n0.6,100,1\n0.7,100,1\n")
    track = read_f0_csv(tmp_path / "a.f0.csv")
    assert track.frequency_hz.tolist() == [0] * 5 + [100] * 3
    assert from_f0(track).voiced.tolist() == [False] * 5 + [True] * 3
