"""Measurements: evaluation of methods, cross-validation of recipes, ablation, benchmarks."""

_BASELINES = ("linear-scaling", "dtw", "dtw-folded", "alignment")
METHODS = ("full", "vote", "vector", "end-to-end", *_BASELINES)
