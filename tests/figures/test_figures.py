import numpy as np
import pytest

from qbhkit import figures
from qbhkit.contour import F0Track, from_pitch

SONG = from_pitch(np.repeat([60, 64, 67, 0, 72, 71], 10))


def lines(figure):
    return figure.axes[0].get_lines()


def test_a_contour_is_drawn_in_semitones_with_gaps_at_rests():
    (line,) = lines(figures.contour_figure(SONG, "a song"))
    np.testing.assert_allclose(line.get_xdata(), (np.arange(60) + 0.5) / 10)
    assert np.isnan(line.get_ydata()[30:40]).all()
    np.testing.assert_allclose(line.get_ydata()[40:50], 72)


def test_a_hum_is_drawn_over_its_match_in_time_and_key():
    hum = from_pitch(np.repeat([53, 57, 60], 5))  # twice as fast, a fifth lower
    figure = figures.match_figure(hum, SONG, 0.0, 3.0, "match")
    song, moved = lines(figure)
    assert song.get_xdata().max() == pytest.approx(2.95)
    assert moved.get_xdata().max() == pytest.approx(2.9)
    np.testing.assert_allclose(moved.get_ydata()[[0, 5, 10]], [60, 64, 67], atol=1e-4)
    assert "+7.0 semitones" in moved.get_label()


def test_a_hum_lies_on_its_path_in_the_song_s_key():
    hum = from_pitch(np.array([0, 0, 67, 0, 65, 65]))  # silence, then a breath within the notes
    figure = figures.path_figure(hum, SONG, np.array([20, 21, 23, 24]), 5.0, "path")
    _, dots = lines(figure)
    np.testing.assert_allclose(dots.get_xdata(), [2.05, 2.35, 2.45])
    np.testing.assert_allclose(dots.get_ydata(), [62, 60, 60])
    assert "-5.0 semitones" in dots.get_label()


def test_query_windows_are_drawn_below_their_hum():
    figure = figures.windows_figure(SONG, [(0, 1), (0.5, 0.5)], "windows")
    bars = figure.axes[1].patches
    np.testing.assert_allclose([(bar.get_x(), bar.get_width()) for bar in bars], [(0, 6), (3, 3)])


def test_rows_of_an_ablation_lie_at_what_they_gain():
    rows = [("whole", [0, 0, 0]), ("part", [-0.05, -0.08, 0.01]), ("far", [-0.7, -0.8, -0.6])]
    figure = figures.ablation_figure(
        [
            {"row": name, "start top1": 0.8, "anywhere top1": 0.7,
             "start top1 against first": gain, "anywhere top1 against first": gain}
            for name, gain in rows
        ]
    )  # fmt: skip
    for axes in figure.axes:
        gains = next(line for line in axes.lines if line.get_marker() == "o")
        np.testing.assert_allclose(gains.get_xdata(), [0, -5])
        (bars,) = axes.collections
        np.testing.assert_allclose(bars.get_segments()[1][:, 0], [-8, 1])
        assert [text.get_text() for text in axes.texts] == ["-70"]  # too far off to be a dot
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["whole", "part", "far"]


def test_a_saved_figure_is_the_same_file_every_time(tmp_path):
    for name in ("one", "two"):
        placed = figures.tracker_accuracy(bench_result({"a": (0.01, 0.5), "b": (0.011, 0.52)}))
        figures.save_figure(placed, tmp_path, name)
    for first in tmp_path.glob("one.*"):
        assert first.read_bytes() == (tmp_path / first.name.replace("one", "two")).read_bytes()


def test_found_pitch_is_drawn_over_what_was_sung_with_gaps_at_rests():
    sung = F0Track(np.repeat([440.0, 0, 880], 10), np.repeat([1.0, 0, 1], 10))
    found = F0Track(np.full(30, 440.0), np.repeat([1.0, 1, 0.2], 10))
    below, above = lines(figures.f0_figure(sung, {"a tracker": found}, "title"))
    np.testing.assert_allclose(below.get_ydata()[[0, 29]], [69, 81])
    assert np.isnan(below.get_ydata()[10:20]).all()
    assert np.isnan(above.get_ydata()[20:]).all()


def bench_result(places):
    """What the figure reads of melody_bench.json, for (real-time factor, accuracy) pairs."""
    blocks = {}
    for name, (factor, accuracy) in places.items():
        score = {"overall_accuracy": accuracy, "clips": 41 if name != "few" else 14}
        score["overall_accuracy_interval"] = [accuracy - 0.03, accuracy + 0.03]
        blocks[name] = {"real_time_factor": factor, "sets": {"songs 0 dB": score}}
    return {"trackers": blocks}


def test_trackers_are_points_and_their_names_lie_apart():
    crowd = {f"tracker-{number}": (0.02 + 0.002 * number, 0.5) for number in range(7)}
    places = crowd | {"crnn-lite": (0.03, 0.8), "few": (3.0, 0.5)}
    figure = figures.tracker_accuracy(bench_result(places))
    axes = figure.axes[0]
    points = [line for line in lines(figure) if line.get_marker() == "o"]
    assert [tuple(point.get_xydata()[0]) for point in points] == list(places.values())
    assert [point.get_markerfacecolor() for point in points].count("white") == 1
    names = [text for text in axes.texts if text.get_text() in places]
    boxes = [text.get_window_extent() for text in names]
    assert len(boxes) == len(places)
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert axes.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1


def test_a_training_run_is_drawn_with_all_it_logged():
    curve = [
        {"epoch": 0, "loss": 1.5, "spread": 0.6, "rate": 0.1, "validation_mrr": 0.5},
        {"epoch": 1, "loss": 0.5, "spread": 0.5, "rate": 0.1, "validation_mrr": 0.7,
         "fine_tuned_validation_mrr": 0.8},
    ]  # fmt: skip
    losses, shares = figures.training_figure(curve, "a run").axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in losses.lines + shares.lines}
    assert drawn["loss"] == [[1, 1.5], [2, 0.5]]
    assert drawn["fine_tuned_validation_mrr"] == [[2, 0.8]]
    assert set(drawn) == {"loss", "spread", "validation_mrr", "fine_tuned_validation_mrr"}


def test_each_version_has_its_axes_over_the_melody():
    versions = {f"{step} up": SONG.transposed(step) for step in (1, 2, 3, 4, 5)}
    figure = figures.distortions_figure(SONG, versions, "title", columns=3)
    drawn = [axes for axes in figure.axes if axes.patches]
    assert [axes.get_title(loc="left") for axes in drawn] == list(versions)
    for step, axes in enumerate(drawn, 1):
        below, above = (steps.get_data().values for steps in axes.patches)
        np.testing.assert_allclose(below[:30], SONG.pitch_st[:30])
        np.testing.assert_allclose(above[:30], SONG.pitch_st[:30] + step)
        assert np.isnan(above[30:40]).all()


def test_real_and_distorted_hums_are_drawn_on_one_scale():
    side = {"n": 2, "quantiles": {"50": 0.5}}
    block = {
        "unit": "semitones", "ks": 0.25, "real": side, "distorted": side,
        "histogram": {"edges": [0, 1, 2], "real": [0.25, 0.75], "distorted": [0.5, 0.5]},
    }  # fmt: skip
    names = ["drift", "tempo", "gap_rate", "gap_length", "note_spread"]
    figure = figures.hum_statistics_figure({"statistics": dict.fromkeys(names, block)})
    drawn = [axes for axes in figure.axes if axes.patches]
    assert [axes.get_title(loc="left") for axes in drawn][2] == "gap rate (KS 0.25)"
    assert len(drawn) == len(names)
    real, made = drawn[0].patches
    assert real.get_data().values.tolist() == [0.25, 0.75]
    assert made.get_data().values.tolist() == [0.5, 0.5]


def test_an_encoder_is_a_box_for_each_tensor_with_its_shape():
    rng = np.random.default_rng(0)
    shapes = {"contour": (2, 80), "stage 1": (64, 40), "vector": (512,)}
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    axes = figures.encoder_figure(tensors | {"dead": np.zeros((4, 5))}, "title").axes[0]
    words = [text.get_text() for text in axes.texts if text.get_text()]
    assert words == ["contour\n2 × 80", "stage 1\n64 × 40", "vector\n512", "dead\n4 × 5"]
    boxes = [picture.get_extent() for picture in axes.get_images()]
    for (left, right, low, high), tensor in zip(boxes, tensors.values(), strict=False):
        assert right - left == pytest.approx((tensor.size / len(tensor)) ** 0.5)
        assert high - low == pytest.approx(len(tensor) ** 0.5)
    drawn = axes.get_images()[1].get_array()
    np.testing.assert_allclose(drawn * np.abs(tensors["stage 1"]).max(), tensors["stage 1"])


def test_similarities_are_marked_with_the_negatives_of_each_mining():
    near = np.array([[0.9, 0.1, -0.3], [0.2, 0.8, 0.6], [0.0, 0.5, 0.7]])
    chosen = {"hardest": ([0, 1, 2], [1, 2, 1]), "semi-hard": ([1], [2])}
    figure = figures.similarity_figure(near, chosen, ["a", "b", "c"], "title")
    for axes, (name, (rows, columns)) in zip(figure.axes, chosen.items(), strict=False):
        assert axes.get_title(loc="left") == name
        np.testing.assert_allclose(axes.get_images()[0].get_array(), near)
        own, negatives = (marks.get_offsets() for marks in axes.collections)
        np.testing.assert_allclose(own, [[0, 0], [1, 1], [2, 2]])
        np.testing.assert_allclose(negatives, np.transpose([columns, rows]))  # x, y


def test_every_index_is_drawn_as_far_as_it_was_measured():
    def part(ms):
        return {
            "build_s": 2.0, "lookups_ms": {"p50": ms, "p95": 2 * ms}, "recall_at_10": 0.99,
            "query_ms": {"p50": ms + 50, "p95": ms + 90}, "memory_mb": {"own": 1.0, "peak": 300.0},
        }  # fmt: skip

    sizes = {
        "100": {"windows": 120, "indexes": {"exact": part(3.0), "other": part(1.0)}},
        "1000": {"windows": 1100, "indexes": {"exact": part(30.0)}},
    }
    figure = figures.growth_figure({"sizes": sizes})
    lookups = figure.axes[1].get_lines()
    labels = [line.get_label() for line in lookups]
    assert [label for label in labels if not label.startswith("_")] == ["exact", "other"]
    np.testing.assert_allclose(lookups[0].get_xdata(), [120, 1100])
    np.testing.assert_allclose(lookups[0].get_ydata(), [3, 30])
    np.testing.assert_allclose(lookups[1].get_ydata(), [6, 60])
    np.testing.assert_allclose(lookups[2].get_xdata(), [120])


def test_published_values_are_marked_beside_the_curves_and_their_bands():
    figure = figures.topk_figure({"full": [1, 2, None, 1]}, "t", marks={"others": [(3, 0.6)]})
    curve, mark = lines(figure)
    np.testing.assert_allclose(curve.get_ydata(), [0.5, *[0.75] * 29])
    assert (mark.get_xdata()[0], mark.get_ydata()[0], mark.get_label()) == (3, 0.6, "others")
    (band,) = figure.axes[0].collections
    at_one = [y for x, y in band.get_paths()[0].vertices if x == 1]
    assert (min(at_one), max(at_one)) == (0, 1)


def test_the_rank_matrix_sorts_songs_and_singers_by_what_was_found():
    ranks, songs = [1, 4, None, 2, 1], ["a", "b", "b", "a", "a"]
    figure = figures.rank_matrix_figure(ranks, songs, ["x", "x", "y", "y", "x"], "t")
    axes = figure.axes[0]
    matrix = axes.get_images()[0].get_array()
    np.testing.assert_allclose(matrix, [[1, 0.5], [0.25, 0]])
    figure = figures.rank_matrix_figure([1, 1], ["a", "b"], ["x", "y"], "t")  # two cells empty
    matrix = np.ma.filled(figure.axes[0].get_images()[0].get_array(), np.nan)
    np.testing.assert_array_equal(np.isnan(matrix), [[False, True], [True, False]])


def test_hums_and_melodies_of_a_song_have_one_colour():
    block = {"nearest": 0.5, "hums": [["a", 0, 1], ["b", 1, 0]], "melodies": [["b", 1, 1]]}
    figure = figures.projection_figure(
        {"songs": ["a", "b"], "panels": {"before": block, "after": block}}
    )
    first, second, star = figure.axes[0].collections
    assert first.get_facecolor()[0, :3].tolist() != second.get_facecolor()[0, :3].tolist()
    assert star.get_facecolor()[0, :3].tolist() == second.get_facecolor()[0, :3].tolist()


def test_the_stages_follow_one_another():
    curve = [{"epoch": 0, "validation_mrr": 0.4}, {"epoch": 1, "validation_mrr": 0.5}]
    found = {
        name: {
            match_from: {"top1": top1, "intervals": {"top1": (top1 - 0.1, top1 + 0.05)}}
            for match_from, top1 in (("start", start), ("anywhere", start - 0.1))
        }
        for name, start in (("one", 0.8), ("both", 0.9))
    }
    figure = figures.stages_figure(curve, curve[:1], found)
    first, second = lines(figure)
    assert first.get_xdata().tolist() == [1, 2]
    assert second.get_xdata().tolist() == [3]
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(heights, [0.8, 0.7, 0.9, 0.8])
    ends = figure.axes[1].collections[0].get_segments()
    np.testing.assert_allclose([end[:, 1] for end in ends], [[0.7, 0.85], [0.6, 0.75]])


def test_the_pipeline_shows_what_each_step_gives():
    envelope = np.tile([-0.5, 0.5], (100, 1))
    track = F0Track(np.full(100, 440.0), np.ones(100), 0.01)
    answers = [("a title that is far too long to be shown", 0.9), ("b", 0.5)]
    figure = figures.pipeline_figure(envelope, track, SONG, np.arange(10) / 10, answers)
    sound, pitch, _, embedded, ranked = figure.axes
    outline = sound.collections[0].get_paths()[0].vertices
    assert (outline[:, 0].max(), outline[:, 1].min()) == pytest.approx((0.995, -0.5))
    np.testing.assert_allclose(pitch.get_lines()[0].get_ydata(), 69)
    shown = np.ma.filled(embedded.get_images()[0].get_array(), np.nan).ravel()
    np.testing.assert_allclose(shown[:10], np.arange(10) / 10)
    assert np.isnan(shown[10:]).all()
    assert [bar.get_width() for bar in ranked.patches] == [0.9, 0.5]
