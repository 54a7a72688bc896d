"""What the tests of both recorders share."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import correlate


@pytest.fixture
def share_heard() -> Callable[[np.ndarray, np.ndarray, int], float]:
    """Return what tells how much of three seconds of a recording stands in the file as it was.

    Each quarter of a second has to follow the one before it. On a busy machine the browser itself
    skips a moment, before anything of ours hears it: that breaks the piece in which it falls.
    """

    def share(heard: np.ndarray, original: np.ndarray, rate_hz: int) -> float:
        size, slack = rate_hz // 4, rate_hz // 10
        pieces = heard[rate_hz : 4 * rate_hz].reshape(-1, size)
        at = int(np.argmax(correlate(original, pieces.ravel(), "valid")))
        whole = 0
        for piece in pieces:
            low = max(0, at - slack)
            place = original[low : at + size + slack]
            energy = correlate(place**2, np.ones(size), "valid").clip(1e-9)
            fit = correlate(place, piece, "valid") / np.sqrt(energy * np.sum(piece**2) + 1e-12)
            best = int(np.argmax(fit))
            whole += fit[best] > 0.99
            at = low + best + size
        return whole / len(pieces)

    return share
