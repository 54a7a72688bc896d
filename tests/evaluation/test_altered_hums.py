import numpy as np

from qbhkit.contour import from_pitch
from qbhkit.evaluation.benchmarks.bench_altered_hums import BAR, JUMP, LEAD_IN, PAUSE, altered


def test_each_version_leaves_the_song_at_one_frame_and_comes_back():
    pitch = 60 + np.arange(100) / 10  # which says where a frame is from
    pitch[7] = 0
    other = from_pitch(np.full(50, 30.0))
    found = altered(from_pitch(pitch), other, np.random.default_rng(0))
    rows = {name: version.pitch_st for name, version in found.items()}
    assert rows["as hummed"].tolist() == np.float32(pitch).tolist()
    paused = rows["pauses for 3 s"]
    at = 8 + int(np.flatnonzero(paused[8:] == 0)[0])
    assert 33 <= at < 66
    assert len(paused) == 100 + PAUSE
    assert not paused[at : at + PAUSE].any()
    np.testing.assert_allclose(rows["goes back 3 s"][at:], pitch[at - JUMP :], atol=1e-4)
    np.testing.assert_allclose(rows["leaves out 3 s"][at:], pitch[at + JUMP :], atol=1e-4)
    middle = np.median(pitch[pitch > 0])
    wrong = rows["2 s of another tune"]
    np.testing.assert_allclose(wrong[at : at + BAR], middle, atol=0.1)
    np.testing.assert_allclose(wrong[at + BAR :], pitch[at + BAR :], atol=1e-4)
    late = rows["begins with 3 s of another tune"]
    np.testing.assert_allclose(late[:LEAD_IN], middle, atol=0.1)
    np.testing.assert_allclose(late[LEAD_IN:], pitch, atol=1e-4)
    assert len(rows["no rests"]) == 99
    assert found["no rests"].voiced.all()
