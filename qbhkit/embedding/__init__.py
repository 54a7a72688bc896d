"""Contours to vectors: humming distortions, pairs, encoders, losses and training."""
