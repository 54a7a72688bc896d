"""The sixth room: parts for notebooks that answer to the mouse and the keyboard.

:class:`qbhkit.widgets.HumRecorder` records a hum in the browser and shows the songs that it fits.
"""

from qbhkit.widgets.recorder import HumRecorder

__all__ = ["HumRecorder"]
