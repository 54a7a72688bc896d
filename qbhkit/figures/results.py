"""Figures of measured results."""

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any

import numpy as np

from qbhkit.figures.style import FOURTH, HUM, ORANGE, SKY, SONG, THIRD, YELLOW, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METHOD_COLOURS = {
    "full": HUM,
    "vote": FOURTH,
    "vector": SKY,
    "end-to-end": ORANGE,
    "linear-scaling": SONG,
    "dtw": THIRD,
}
_MOST_K = 30
_MOST_LOST = 36.0  # range of the ablation's axes, points of top-1


def topk_figure(
    ranks: Mapping[str, list[int | None]],
    title: str,
    marks: Mapping[str, Sequence[tuple[int, float]]] | None = None,
) -> "Figure":
    """Show top-k accuracy for k up to 30, with 95% bootstrap bands.

    Ranks are given for every query, by method; None is a miss. Marks are published values of other
    systems as (k, share), by name.

    Notebook: notebooks/10_evaluation.py, notebooks/12_paper_figures.py
    """
    k = np.arange(1, _MOST_K + 1)
    lowest = 1.0
    others = cycle(("0.15", ORANGE, SONG, THIRD))
    with canvas(figsize=(7.2, 4.2)) as (figure, axes):
        for method, found in ranks.items():
            hits = np.array([rank or np.inf for rank in found])[:, None] <= k  # (queries, k)
            drawn = np.random.default_rng(0).integers(0, len(hits), (1000, len(hits)))
            low, high = np.percentile(hits[drawn].mean(axis=1), [2.5, 97.5], axis=0)
            lowest = min(lowest, low[0])
            colour = _METHOD_COLOURS.get(method) or next(others)
            axes.fill_between(k, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(k, hits.mean(axis=0), color=colour, label=method, lw=2)
        for (name, points), shape in zip((marks or {}).items(), cycle("XvP^")):
            axes.plot(*zip(*points, strict=True), shape, color="0.25", label=name, ls="none")
            lowest = min(lowest, *(share for _, share in points))
        axes.set(title=title, xlabel="k", ylabel="queries with their song in the first k")
        axes.set(ylim=(max(0, np.floor(10 * lowest - 1) / 10), 1), xlim=(0.5, _MOST_K))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def rank_matrix_figure(
    ranks: Sequence[int | None], songs: Sequence[str], singers: Sequence[str], title: str
) -> "Figure":
    """Show the mean of 1 / rank for each song and singer.

    Ranks, songs and singers are those of every query; a miss has the rank None.

    Notebook: notebooks/12_paper_figures.py
    """
    import pandas as pd
    from matplotlib.colors import LinearSegmentedColormap

    inverse = [1 / rank if rank else 0 for rank in ranks]
    table = pd.DataFrame({"song": songs, "singer": singers, "found": inverse})
    rows, columns = (
        table.groupby(by)["found"].mean().sort_values(ascending=False, kind="stable").index
        for by in ("song", "singer")
    )
    mean = table.pivot_table("found", "song", "singer").loc[rows, columns]
    # Yellow in the middle, because cells without hums are white.
    colours = LinearSegmentedColormap.from_list("found", [SONG, YELLOW, HUM])
    with canvas(figsize=(1.8 + 0.21 * len(columns), 1.5 + 0.19 * len(rows))) as (figure, axes):
        picture = axes.imshow(mean, cmap=colours, vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        axes.set(title=title, xlabel="singers, best found first", ylabel="songs, best found first")
        axes.grid(False)
        figure.colorbar(picture, ax=axes, label="mean of 1 / rank", shrink=0.6)
    return figure


def ablation_figure(lines: Sequence[Mapping[str, Any]]) -> "Figure":
    """Show the gain of each row of an ablation over the first: points of top-1, 95% intervals.

    Rows are those of :func:`qbhkit.evaluation.ablation.table`; one that loses more than 36 points
    is an arrow with its number.

    Notebook: notebooks/07_train_supervised.py, notebooks/12_paper_figures.py
    """
    place = -np.arange(len(lines))
    size = (8.6, 1.2 + 0.3 * len(lines))
    with canvas(1, 2, figsize=size, sharey=True, sharex=True) as (figure, pair):
        for axes, match_from, colour, title in (
            (pair[0], "start", HUM, "searched from the start"),
            (pair[1], "anywhere", SONG, "anywhere"),
        ):
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
            axes.set_title(title)
        pair[0].set_yticks(place, [line["row"] for line in lines])
        figure.supxlabel("points of top-1 over the first row (seed 0)", fontsize=10)
    return figure


def tracker_accuracy(results: Mapping[str, Any]) -> "Figure":
    """Show accuracy against speed (melody_bench.json); voice and accompaniment at 0 dB.

    A tracker measured on fewer clips is an open point; bars are 95% intervals.

    Notebook: notebooks/02_trackers.py, notebooks/12_paper_figures.py
    """
    blocks = results["trackers"]
    scores = {name: block["sets"]["songs 0 dB"] for name, block in blocks.items()}
    most = max(score["clips"] for score in scores.values())
    points: dict[str, tuple[float, float]] = {}
    with canvas(figsize=(7.2, 4.4)) as (figure, axes):
        for name, score in scores.items():
            colour = SONG if name.startswith("crnn") else HUM
            x, y = points[name] = (blocks[name]["real_time_factor"], score["overall_accuracy"])
            axes.plot([x, x], score["overall_accuracy_interval"], color=colour, alpha=0.35, lw=2)
            face = colour if score["clips"] == most else "white"
            axes.plot(x, y, "o", color=colour, markerfacecolor=face)
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
    taken = [line.get_window_extent() for line in axes.get_lines()]
    for name, point in points.items():
        text = axes.annotate(
            name, point, (0, 0), textcoords="offset points", va="center", fontsize=9
        )
        # typographic points beside the point, the best place first
        for rise, side in product((0, 12, -12, 24, -24, 36, -36, 48, -48), (1, -1)):
            text.set_position((side * (6 + abs(rise) / 4), rise))
            text.set_horizontalalignment("left" if side > 0 else "right")
            box = text.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < figure.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def hum_statistics_figure(results: Mapping[str, Any]) -> "Figure":
    """Compare the distributions of distorted contours with real hums' (hum_statistics.json).

    Notebook: notebooks/04_augmentation.py
    """
    statistics = results["statistics"]
    rows = -(-len(statistics) // 4)
    with canvas(rows, 4, figsize=(9.6, 0.4 + 2.1 * rows), squeeze=False) as (figure, grid):
        for axes, (name, block) in zip(grid.flat, statistics.items(), strict=False):
            shown = block["histogram"]
            for side, colour, alpha in (("real", HUM, 0.4), ("distorted", SONG, 1)):
                style = {"color": colour, "lw": 1.5, "fill": side == "real", "alpha": alpha}
                axes.stairs(shown[side], shown["edges"], label=f"{side} hums", **style)
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
    """Show cost and recall of each index against the size of the catalogue (growth.json).

    Notebook: notebooks/08_catalogue_and_index.py, notebooks/12_paper_figures.py
    """
    import pandas as pd

    table = pd.json_normalize(
        [
            {"windows": row["windows"], "kind": kind, "disk_bytes_a_window": np.nan, **part}
            for row in results["sizes"].values()
            for kind, part in row["indexes"].items()
        ]
    )
    kinds = table["kind"].unique()
    panels = (
        ("Building the index", "s", "build_s", ""),
        ("Look-ups of one hum", "ms (dotted: p95)", "lookups_ms.p50", "lookups_ms.p95"),
        ("Query, from wav to answer", "ms (dotted: p95)", "query_ms.p50", "query_ms.p95"),
        ("Most memory of the process", "MB", "memory_mb.peak", ""),
        ("Index on disk", "bytes a window", "disk_bytes_a_window", ""),
        ("Windows found (recall@10)", "share", "recall_at_10", ""),
    )
    with canvas(2, 3, figsize=(9.6, 5.2)) as (figure, grid):
        for axes, (title, unit, value, upper) in zip(grid.flat, panels, strict=True):
            for kind, colour in zip(kinds, cycle((HUM, THIRD, SONG, FOURTH, SKY, "0.4"))):
                rows = table[table["kind"] == kind]
                style: Any = {"color": colour, "marker": "o", "ms": 4}
                axes.plot(rows["windows"], rows[value], label=kind, **style)
                if upper:
                    axes.plot(rows["windows"], rows[upper], ls=":", **style)
            axes.set(title=title, ylabel=unit, xscale="log")
            if unit not in ("share", "MB"):
                axes.set_yscale("log")
        for axes in grid[1]:
            axes.set_xlabel("windows")
        named = grid[0, 0].get_legend_handles_labels()
        figure.legend(*named, loc="outside lower center", ncols=len(kinds))
    return figure
