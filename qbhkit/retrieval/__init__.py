"""Vectors to ranked songs: catalogue, indexes, alignment, search, baselines and evaluation."""
