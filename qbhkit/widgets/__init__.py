"""Widgets for notebooks: :class:`HumRecorder` records a hum and shows the songs that match it."""

from qbhkit.widgets.recorder import HumRecorder

__all__ = ["HumRecorder"]
