"""What all figures share: the palette, the style, and how they are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbhkit.storage import atomic_path

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design", 2008.
HUM, SONG, THIRD, FOURTH = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, ORANGE, YELLOW = "#56B4E9", "#E69F00", "#F0E442"
PALETTE = (HUM, SONG, THIRD, FOURTH, SKY, "0.4")
PITCH = "pitch (MIDI semitones)"
_STYLE: Any = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "qbhkit",  # so that a rebuilt figure is the same file
}


@contextmanager
def canvas(*grid: int, **how: Any) -> Iterator[tuple["Figure", Any]]:
    """Yield a figure and its axes in the kit's style; arguments as for ``pyplot.subplots``.

    The figure is closed after the block, so that a notebook shows it once.
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(*grid, **how)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def signed() -> "LinearSegmentedColormap":
    """Return the colour map of values around 0: blue below, white, orange above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", [HUM, "white", SONG])


def save_figure(figure: "Figure", folder: Path, name: str) -> None:
    """Write a figure as ``NAME.svg`` and ``NAME.png`` (150 dpi), atomically.

    Notebook: notebooks/12_paper_figures.py
    """
    import matplotlib.pyplot as plt

    for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
        # the salt of SVG ids is read when the file is written
        with atomic_path(folder / f"{name}{suffix}") as part, plt.rc_context(_STYLE):
            figure.savefig(part, dpi=150, metadata=metadata)
