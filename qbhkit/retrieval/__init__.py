"""From vectors to ranked songs: indexes, alignment, search, confidence and baselines."""
