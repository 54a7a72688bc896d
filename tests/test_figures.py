import numpy as np
import pytest

from qbhkit.contour import from_pitch
from qbhkit.figures import (
    contour_figure,
    match_figure,
    normalised_figure,
    save_figure,
    topk_figure,
)

SONG = from_pitch(np.repeat([60, 64, 67, 0, 72, 71], 10))


def lines(figure):
    return figure.axes[0].get_lines()


def test_a_contour_is_drawn_in_semitones_with_open_pauses():
    (line,) = lines(contour_figure(SONG, "a song"))
    np.testing.assert_allclose(line.get_xdata(), (np.arange(60) + 0.5) / 10)
    assert np.isnan(line.get_ydata()[30:40]).all()
    np.testing.assert_allclose(line.get_ydata()[40:50], 72)


def test_a_hum_is_laid_over_its_match_in_time_and_key():
    hum = from_pitch(np.repeat([53, 57, 60], 5))  # twice as fast, a fifth lower
    figure = match_figure(hum, SONG, 0.0, 3.0, "match")
    song, moved = lines(figure)
    assert song.get_xdata().max() == pytest.approx(2.95)
    assert moved.get_xdata().max() == pytest.approx(2.9)
    np.testing.assert_allclose(moved.get_ydata()[[0, 5, 10]], [60, 64, 67], atol=1e-4)
    assert "+7.0 semitones" in moved.get_label()


def test_topk_curves_count_misses():
    (line,) = lines(topk_figure({"vector": [1, 2, None, 40]}, "title", most=5))
    np.testing.assert_allclose(line.get_ydata(), [0.25, 0.5, 0.5, 0.5, 0.5])


def test_normalised_contours_have_a_line_each():
    frames = SONG.frames.copy()
    assert len(lines(normalised_figure({"a": frames, "b": frames}, "t", "y"))) == 2


def test_a_saved_figure_is_the_same_file_every_time(tmp_path):
    for name in ("one", "two"):
        save_figure(topk_figure({"vector": [1, 2, 3], "dtw": [2, 9, 1]}, "t"), tmp_path, name)
    for suffix in (".svg", ".png"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
