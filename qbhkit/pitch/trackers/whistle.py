"""Whistles: the highest spectral peak, if most of the energy is near it. Needs no package.

Licence: MIT (own). Range: 200 to 6,000 Hz. Threshold: 0.3 of tonality. A whistle is almost a sine.
Hums and singing have strong upper partials and need another tracker.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import get_window

from qbhkit.contour import F0_HOP_S, Floats
from qbhkit.pitch.trackers import FrameTracker

_FRAME = 1024  # samples: 64 ms, bins of 15.6 Hz
_LOWEST_HZ, _HIGHEST_HZ = 200.0, 6000.0
_NEAR = 2  # bins on either side of a peak: the main lobe of the Hann window
_RUMBLE_HZ = 40.0
_SUBHARMONIC = 0.1  # of the peak's energy; with more, the peak is a partial of a lower tone
_FLOOR = 1e-8  # energy of a frame with peak -80 dB, roughly; a frame below it is silent


class WhistleTracker(FrameTracker):
    """Track the peak of a windowed spectrum, refined by a parabola through three bins.

    The confidence is tonality, the share of energy within two bins of the peak. It is 0 if there is
    energy at a half or a third of the peak's frequency too.
    """

    name = "whistle"
    threshold = 0.3

    def frames(self, samples: Floats) -> tuple[NDArray, NDArray, NDArray]:
        """Track samples at 16 kHz."""
        hop = round(F0_HOP_S * self.rate_hz)
        margin = (_FRAME - hop) // 2  # so that frame k is centred on (k + 0.5) * 10 ms
        samples = np.pad(samples - samples.mean(), (margin, _FRAME))
        frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::hop]  # (T, 1024)
        power = np.abs(np.fft.rfft(frames * get_window("hann", _FRAME))) ** 2  # (T, 513)
        bin_hz = self.rate_hz / _FRAME
        power[:, : round(_RUMBLE_HZ / bin_hz)] = 0
        first, last = round(_LOWEST_HZ / bin_hz), round(_HIGHEST_HZ / bin_hz)
        peak = first + power[:, first : last + 1].argmax(axis=1)  # (T,)
        energy = _energy_near(power, peak)
        below = np.maximum(
            _energy_near(power, np.round(peak / 2)), _energy_near(power, np.round(peak / 3))
        )
        tonality = energy / np.maximum(power.sum(axis=1), _FLOOR * _FRAME)
        tonality[below > _SUBHARMONIC * energy] = 0
        centres_s = (np.arange(len(peak)) + 0.5) * F0_HOP_S
        return centres_s, (peak + _offset(power, peak)) * bin_hz, np.minimum(tonality, 1.0)


def _energy_near(power: NDArray, centre: NDArray) -> NDArray:
    """Return (T,) the energy of (T, F) power within two bins of (T,) centres."""
    bins = np.arange(-_NEAR, _NEAR + 1) + centre.astype(int)[:, None]
    return np.take_along_axis(power, bins, axis=1).sum(axis=1)


def _offset(power: NDArray, peak: NDArray) -> NDArray:
    """Return (T,) bins from the peak to the top of the parabola through its log neighbourhood."""
    bins = np.arange(-1, 2) + peak[:, None]
    left, middle, right = np.log(np.take_along_axis(power, bins, axis=1) + 1e-20).T
    return np.clip((left - right) / (2 * (left - 2 * middle + right) - 1e-12), -0.5, 0.5)
