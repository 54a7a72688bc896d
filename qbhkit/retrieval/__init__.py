"""Vectors to ranked songs: catalogue, exact search, baselines and evaluation."""
