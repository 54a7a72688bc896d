"""One function for each figure, all in one style that colour-blind readers can read."""

# ruff: noqa: F401
from qbhkit.figures.learning import (
    encoder_figure,
    projection_figure,
    similarity_figure,
    stages_figure,
    training_figure,
)
from qbhkit.figures.melodies import (
    Followed,
    contour_figure,
    distortions_figure,
    f0_figure,
    followed_figure,
    match_figure,
    melody_figure,
    normalised_figure,
    path_figure,
    pipeline_figure,
    windows_figure,
)
from qbhkit.figures.results import (
    ablation_figure,
    growth_figure,
    hum_statistics_figure,
    rank_matrix_figure,
    topk_figure,
    tracker_accuracy,
)
from qbhkit.figures.style import FOURTH, HUM, SONG, THIRD, save_figure
