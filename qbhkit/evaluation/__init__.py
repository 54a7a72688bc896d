"""Measurements: evaluation of methods, cross-validation of recipes, ablation, benchmarks."""

METHODS = ("full", "vote", "vector", "end-to-end", "linear-scaling", "dtw")
