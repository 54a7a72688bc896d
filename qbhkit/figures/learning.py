"""Figures of encoders, losses and training runs."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import Floats
from qbhkit.figures.style import HUM, PALETTE, SONG, canvas, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOT_DRAWN = ("epoch", "rate", "pairs_per_s", "parts_per_s", "audio_s_per_s")


def training_figure(curve: Sequence[Mapping[str, float]], title: str) -> "Figure":
    """Show a training run: the losses, and beside them every measure between 0 and 1.

    The curve has a row for each epoch, as :func:`qbhkit.training_loop.fit` logs it.

    Notebook: notebooks/06_train_self_supervised.py, notebooks/12_paper_figures.py
    """
    keys = list(dict.fromkeys(key for line in curve for key in line if key not in _NOT_DRAWN))
    losses = [key for key in keys if "loss" in key]
    sides = losses, [key for key in keys if key not in losses]
    with canvas(1, 2, figsize=(9, 2.8)) as (figure, panels):
        for axes, names in zip(panels, sides, strict=True):
            for key, colour in zip(names, cycle(PALETTE[:4])):
                points = [(line["epoch"] + 1, line[key]) for line in curve if key in line]
                axes.plot(*zip(*points, strict=True), color=colour, marker=".", label=key)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            if names:
                axes.legend(loc="best")
        panels[0].set(title=title, ylabel="loss", ylim=(0, None))
        panels[1].set(ylabel="share", ylim=(0, 1.02))
    return figure


def encoder_figure(tensors: Mapping[str, Floats], title: str) -> "Figure":
    """Show the tensors of an encoder for one contour: a box each, its values in colour.

    A tensor is (C, T), channels by frames, or (C,) after pooling. The sides of a box grow with the
    square roots of C and T; colours are relative to the largest value of each tensor.

    Notebook: notebooks/05_encoder_and_loss.py, notebooks/12_paper_figures.py
    """
    from matplotlib.patches import Rectangle

    boxes = [values.reshape(len(values), -1) for values in tensors.values()]  # (C, T) each
    high, wide = np.sqrt([box.shape for box in boxes]).T
    room = np.maximum(wide, 5.5)  # for the words below
    middle = np.cumsum(room + 1.5) - room / 2
    left, right = middle - wide / 2, middle + wide / 2
    floor = -high.max() / 2
    with canvas(figsize=(9, 3.4)) as (figure, axes):
        for n, (name, box) in enumerate(zip(tensors, boxes, strict=True)):
            axes.imshow(
                box / max(float(np.abs(box).max()), 1e-9), cmap=signed(), vmin=-1, vmax=1,
                extent=(left[n], right[n], -high[n] / 2, high[n] / 2), interpolation="nearest",
            )  # fmt: skip
            axes.add_patch(Rectangle((left[n], -high[n] / 2), wide[n], high[n], fill=False, lw=0.6))
            if n:
                ends = (left[n] - 0.2, 0), (right[n - 1] + 0.2, 0)
                axes.annotate("", *ends, arrowprops={"arrowstyle": "->"})
            shape = " × ".join(map(str, tensors[name].shape))
            axes.text(middle[n], floor - 1, f"{name}\n{shape}", ha="center", va="top")
        axes.set(title=title, aspect="auto", ylim=(floor - 6, 1 - floor))
        axes.set_xlim(0, middle[-1] + room[-1] / 2)
        axes.axis("off")
    return figure


def similarity_figure(
    near: NDArray, chosen: Mapping[str, tuple[Any, Any]], names: Sequence[str], title: str
) -> "Figure":
    """Show similarities of anchors to positives, and the negatives that each mining selects.

    Args:
        near: (B, B) cosine similarity, anchors in rows; each anchor's positive on the diagonal.
        chosen: rows and columns of negatives, by the name of a mining.
        names: (B,) of the tunes.
        title: of the figure.

    Notebook: notebooks/05_encoder_and_loss.py
    """
    own = np.arange(len(near))
    how: Any = {"figsize": (1 + 1.9 * len(chosen), 2.9), "sharey": True, "squeeze": False}
    with canvas(1, len(chosen), **how) as (figure, panels):
        for axes, (name, (rows, columns)) in zip(panels[0], chosen.items(), strict=True):
            picture = axes.imshow(near, cmap="gray_r", vmin=min(0, near.min()), vmax=1)
            axes.scatter(own, own, marker="s", s=60, facecolor="none", edgecolor=HUM, lw=2)
            axes.scatter(columns, rows, s=28, color=SONG, edgecolor="white", lw=0.7)
            axes.set_title(name)
            axes.set_xticks(own, names)
            axes.set_yticks(own, names)
            axes.grid(False)
        panels[0, 0].set_ylabel("anchors")
        figure.supxlabel("positives (squares: a row's own; dots: its negatives)", fontsize=10)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.colorbar(picture, ax=panels, label="cosine", shrink=0.8)
    return figure


def projection_figure(results: Mapping[str, Any]) -> "Figure":
    """Show hums and their songs (projection.json) on two axes, before and after training.

    Notebook: notebooks/12_paper_figures.py
    """
    panels = results["panels"]
    colours = dict(zip(results["songs"], cycle(PALETTE)))
    with canvas(1, len(panels), figsize=(9.6, 3.9)) as (figure, grid):
        for axes, (name, block) in zip(grid, panels.items(), strict=True):
            for kind, shape, size, alpha in (("hums", "o", 22, 0.6), ("melodies", "*", 190, 1.0)):
                style = {"marker": shape, "s": size, "alpha": alpha, "edgecolor": "white"}
                for song, x, y in block[kind]:
                    axes.scatter(x, y, color=colours[song], lw=0.5, **style)
            axes.set(title=f"{name}: {block['nearest']:.0%} nearest to their own")
            axes.set(xlabel="first principal axis", xticks=[], yticks=[])
        grid[0].set_ylabel("second principal axis")
        for song, colour in colours.items():
            grid[-1].scatter([], [], color=colour, label=song)
        grid[-1].scatter([], [], color="0.3", marker="*", s=90, label="a song's beginning")
        figure.legend(loc="outside lower center", ncols=4, title="hums (dots) of the song")
    return figure


def stages_figure(
    first: Sequence[Mapping[str, float]],
    second: Sequence[Mapping[str, float]],
    found: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> "Figure":
    """Show the curves of both training stages, and the accuracy of each on real hums.

    Args:
        first: the curve of stage 1, a row for each epoch.
        second: that of stage 2.
        found: top-1 on real hums with 95% intervals: ``{"stage 1": {"start": {"top1": 0.8,
            "intervals": {"top1": (0.7, 0.9)}}, ...}, "stages 1 and 2": ...}``.

    Notebook: notebooks/12_paper_figures.py
    """
    with canvas(1, 2, figsize=(9.6, 3.2), width_ratios=(2, 1)) as (figure, (curves, bars)):
        done = 0
        for name, curve, colour in (("stage 1", first, SONG), ("stage 2", second, HUM)):
            epochs = [done + line["epoch"] + 1 for line in curve if "validation_mrr" in line]
            shown = [line["validation_mrr"] for line in curve if "validation_mrr" in line]
            curves.plot(epochs, shown, color=colour, marker=".", label=name)
            curves.axvspan(done + 0.5, done + len(curve) + 0.5, color=colour, alpha=0.06, lw=0)
            done += len(curve)
        curves.set(title="Distorted melodies that no stage has seen", xlabel="epoch")
        curves.set(ylabel="MRR of finding their melody", ylim=(None, 1))
        curves.legend(loc="lower right")
        for name, colour, aside in zip(found, (SONG, HUM), (-0.19, 0.19), strict=True):
            values = np.array([scored["top1"] for scored in found[name].values()])
            ends = np.array([scored["intervals"]["top1"] for scored in found[name].values()])
            places = np.arange(len(values))
            drawn = bars.bar(places + aside, values, 0.36, color=colour, label=name)
            bars.bar_label(drawn, fmt="{:.3f}", fontsize=7.5, label_type="center", color="white")
            reach = np.abs(ends.T - values)
            bars.errorbar(places + aside, values, reach, fmt="none", color="0.2", lw=1)
            bars.set_xticks(places, list(found[name]))
        bars.set(title="Real hums", ylabel="top-1", ylim=(0, 1.3), yticks=np.linspace(0, 1, 6))
        bars.legend(loc="upper right")
        bars.set_axisbelow(True)
    return figure
