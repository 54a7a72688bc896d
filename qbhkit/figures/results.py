"""Figures of measured results."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from qbhkit.figures.style import FOURTH, HUM, METHOD_COLOURS, SONG, THIRD, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LOST = 36.0  # range of the ablation's axes, points of top-1
# Places of a label beside its point, in typographic points, the best first.
_PLACES = tuple(
    (side * (6 + abs(rise) / 4), rise)
    for rise in (0, 12, -12, 24, -24, 36, -36, 48, -48)
    for side in (1, -1)
)


def topk_figure(
    ranks: Mapping[str, list[int | None]],
    title: str,
    most: int = 30,
    marks: Mapping[str, Sequence[tuple[int, float]]] | None = None,
) -> "Figure":
    """Show top-k accuracy against k, with 95% bootstrap bands.

    Args:
        ranks: of every query, by method; None is a miss.
        title: of the figure.
        most: the largest k.
        marks: published values of other systems as (k, share), by name.

    Notebook: notebooks/10_evaluation.py, notebooks/12_paper_figures.py
    """
    k = np.arange(1, most + 1)
    with canvas(figsize=(7.2, 4.2)) as (figure, axes):
        lowest = 1.0
        others = cycle(("0.15", "#E69F00", SONG, THIRD))
        for method, found in ranks.items():
            place = np.array([rank or np.inf for rank in found])
            hits = place[:, None] <= k  # (queries, most)
            drawn = np.random.default_rng(0).integers(0, len(hits), (1000, len(hits)))
            low, high = np.percentile(hits[drawn].mean(axis=1), [2.5, 97.5], axis=0)
            lowest = min(lowest, low[0])
            colour = METHOD_COLOURS.get(method) or next(others)
            axes.fill_between(k, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(k, hits.mean(axis=0), color=colour, label=method, lw=2)
        for (name, points), shape in zip((marks or {}).items(), cycle("XvP^")):
            axes.plot(*zip(*points, strict=True), shape, color="0.25", label=name, ls="none")
            lowest = min(lowest, *(share for _, share in points))
        axes.set(
            title=title, xlabel="k", ylabel="queries with their song in the first k",
            ylim=(max(0, np.floor(10 * lowest - 1) / 10), 1), xlim=(0.5, most),
        )  # fmt: skip
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def rank_matrix_figure(
    ranks: Sequence[int | None], songs: Sequence[str], singers: Sequence[str], title: str
) -> "Figure":
    """Show the mean of 1 / rank for each song and singer.

    Args:
        ranks: of every query; None is a miss.
        songs: of every query.
        singers: of every query.
        title: of the figure.

    Notebook: notebooks/12_paper_figures.py
    """
    from matplotlib.colors import LinearSegmentedColormap

    rows, row = np.unique(songs, return_inverse=True)
    columns, column = np.unique(singers, return_inverse=True)
    total, count = np.zeros((2, len(rows), len(columns)))
    np.add.at(total, (row, column), [1 / rank if rank else 0 for rank in ranks])
    np.add.at(count, (row, column), 1)
    with np.errstate(invalid="ignore"):
        mean = total / count  # NaN where a singer did not hum the song
    by_song = np.argsort(-total.sum(axis=1) / count.sum(axis=1), kind="stable")
    by_singer = np.argsort(-total.sum(axis=0) / count.sum(axis=0), kind="stable")
    # Okabe and Ito's yellow in the middle, because cells without hums are white.
    colours = LinearSegmentedColormap.from_list("found", [SONG, "#F0E442", HUM])
    with canvas(figsize=(1.8 + 0.21 * len(columns), 1.5 + 0.19 * len(rows))) as (figure, axes):
        picture = axes.imshow(
            mean[np.ix_(by_song, by_singer)], cmap=colours, vmin=0, vmax=1, aspect="auto"
        )
        axes.set_xticks(range(len(columns)), columns[by_singer], rotation=90, fontsize=7)
        axes.set_yticks(range(len(rows)), rows[by_song], fontsize=7)
        axes.set(title=title, xlabel="singers, best found first", ylabel="songs, best found first")
        axes.grid(False)
        figure.colorbar(picture, ax=axes, label="mean of 1 / rank", shrink=0.6)
    return figure


def ablation_figure(lines: Sequence[Mapping[str, Any]]) -> "Figure":
    """Show the gain of each row of an ablation over the first: points of top-1, 95% intervals.

    Args:
        lines: rows of :func:`qbhkit.evaluation.ablation.table`. A row that loses more than
            :data:`_MOST_LOST` is drawn as an arrow with its number.

    Notebook: notebooks/07_train_supervised.py, notebooks/12_paper_figures.py
    """
    names, place = [line["row"] for line in lines], -np.arange(len(lines))
    with canvas(1, 2, figsize=(8.6, 1.2 + 0.3 * len(lines)), sharey=True, sharex=True) as (
        figure,
        pair,
    ):
        for axes, match_from, colour in zip(pair, ("start", "anywhere"), (HUM, SONG), strict=True):
            gains = 100 * np.array([line[f"{match_from} top1 against first"] for line in lines])
            axes.axvline(0, color="0.6", lw=1)
            near = gains[:, 0] > -_MOST_LOST
            axes.hlines(place[near], gains[near, 1], gains[near, 2], color=colour, alpha=0.4, lw=3)
            axes.plot(gains[near, 0], place[near], "o", color=colour)
            for gain, y in zip(gains[~near, 0], place[~near], strict=True):
                axes.annotate(
                    f"{gain:.0f}", (-_MOST_LOST, y), (-0.8 * _MOST_LOST, y), color=colour,
                    va="center", arrowprops={"arrowstyle": "->", "color": colour},
                )  # fmt: skip
            axes.set_xlim(-_MOST_LOST, 0.2 * _MOST_LOST)
            title = "searched from the start" if match_from == "start" else "anywhere"
            axes.set_title(title)
        pair[0].set_yticks(place, names)
        figure.supxlabel("points of top-1 over the first row (seed 0)", fontsize=10)
    return figure


def tracker_accuracy(results: Mapping[str, Any]) -> "Figure":
    """Show accuracy against speed, a point for each tracker; voice and accompaniment at 0 dB.

    Args:
        results: data/results/melody_bench.json. A tracker measured on fewer clips is an open point;
            bars are 95% intervals.

    Notebook: notebooks/02_trackers.py, notebooks/12_paper_figures.py
    """
    blocks = results["trackers"]
    scores = {name: block["sets"]["songs 0 dB"] for name, block in blocks.items()}
    most = max(score["clips"] for score in scores.values())
    points: dict[str, tuple[float, float]] = {}
    with canvas(figsize=(7.2, 4.4)) as (figure, axes):
        for name, score in scores.items():
            low, high = score["overall_accuracy_interval"]
            colour = SONG if name.startswith("crnn") else HUM
            x, y = blocks[name]["real_time_factor"], score["overall_accuracy"]
            axes.plot([x, x], [low, high], color=colour, alpha=0.35, lw=2)
            face = colour if score["clips"] == most else "white"
            axes.plot(x, y, "o", color=colour, markerfacecolor=face)
            points[name] = (x, y)
        axes.set(
            xscale="log", ylim=(0, 1), title="A sung melody with accompaniment of the same level",
            xlabel="seconds of computing per second of sound, two cores",
            ylabel="overall accuracy",
        )  # fmt: skip
        axes.margins(x=0.16)
        _label_points(figure, axes, points)
    return figure


def _label_points(
    figure: "Figure", axes: "Axes", points: Mapping[str, tuple[float, float]]
) -> None:
    """Write each point's name where it covers no line and no other name."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # nothing moves from here on
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = [line.get_window_extent(renderer) for line in axes.get_lines()]
    for name, point in points.items():
        text = axes.annotate(
            name, point, (0, 0), textcoords="offset points", va="center", fontsize=9
        )
        for dx, dy in _PLACES:
            text.set_position((dx, dy))
            text.set_horizontalalignment("left" if dx > 0 else "right")
            box = text.get_window_extent(renderer)
            inside = axes.bbox.x0 < box.x0 and box.x1 < figure.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def hum_statistics_figure(results: Mapping[str, Any]) -> "Figure":
    """Compare the distributions of distorted contours with those of real hums.

    Args:
        results: data/results/hum_statistics.json; the outermost bins hold all values beyond them.

    Notebook: notebooks/04_augmentation.py
    """
    statistics = results["statistics"]
    rows = -(-len(statistics) // 4)
    with canvas(rows, 4, figsize=(9.6, 0.4 + 2.1 * rows), squeeze=False) as (figure, grid):
        for axes, (name, block) in zip(grid.flat, statistics.items(), strict=False):
            shown = block["histogram"]
            for side, colour in (("real", HUM), ("distorted", SONG)):
                axes.stairs(
                    shown[side], shown["edges"], color=colour, lw=1.5, label=f"{side} hums",
                    fill=side == "real", alpha=0.4 if side == "real" else 1,
                )  # fmt: skip
                axes.axvline(block[side]["quantiles"]["50"], color=colour, lw=1, ls=":")
            axes.set_title(f"{name.replace('_', ' ')} (KS {block['ks']:.2f})", fontsize=10)
            axes.set(xlabel=block["unit"], yticks=[])
            axes.locator_params(axis="x", nbins=4)
        for axes in grid.flat[len(statistics) :]:
            axes.set_axis_off()
        named = grid[0, 0].get_legend_handles_labels()
        figure.legend(*named, loc="outside upper right", ncols=2)
        figure.supylabel("share", fontsize=10)
    return figure


def growth_figure(results: Mapping[str, Any]) -> "Figure":
    """Show cost and recall of each index against the size of the catalogue.

    Args:
        results: data/results/growth.json.

    Notebook: notebooks/08_catalogue_and_index.py, notebooks/12_paper_figures.py
    """
    rows = list(results["sizes"].values())
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["indexes"]))
    colours = dict(zip(kinds, cycle((HUM, THIRD, SONG, FOURTH, "#56B4E9", "0.4"))))
    panels: list[tuple[str, str, Callable[[Any], float], Callable[[Any], float] | None]] = [
        ("Building the index", "s", lambda part: part["build_s"], None),
        (
            "Look-ups of one hum", "ms (dotted: p95)",
            lambda part: part["lookups_ms"]["p50"], lambda part: part["lookups_ms"]["p95"],
        ),
        (
            "Query, from wav to answer", "ms (dotted: p95)",
            lambda part: part["query_ms"]["p50"], lambda part: part["query_ms"]["p95"],
        ),
        ("Most memory of the process", "MB", lambda part: part["memory_mb"]["peak"], None),
        (
            "Index on disk", "bytes a window",
            lambda part: part.get("disk_bytes_a_window", np.nan), None,
        ),
        ("Windows found (recall@10)", "share", lambda part: part["recall_at_10"], None),
    ]  # fmt: skip
    with canvas(2, 3, figsize=(9.6, 5.2)) as (figure, grid):
        for axes, (title, unit, value, upper) in zip(grid.flat, panels, strict=True):
            for kind in kinds:
                known = [(row["windows"], row["indexes"].get(kind)) for row in rows]
                sizes = [size for size, part in known if part]
                parts = [part for _, part in known if part]
                style: Any = {"color": colours[kind], "marker": "o", "ms": 4}
                axes.plot(sizes, [value(part) for part in parts], label=kind, **style)
                if upper:
                    axes.plot(sizes, [upper(part) for part in parts], ls=":", **style)
            axes.set(title=title, ylabel=unit, xscale="log")
            if unit not in ("share", "MB"):
                axes.set_yscale("log")
        for axes in grid[1]:
            axes.set_xlabel("windows")
        named = grid[0, 0].get_legend_handles_labels()
        figure.legend(*named, loc="outside lower center", ncols=len(kinds))
    return figure
