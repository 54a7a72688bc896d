"""Query by humming: a hum in, ranked songs with the matched seconds out.

    import qbhkit

    f0 = qbhkit.track("song.mp3")            # F0Track: 10 ms, Hz, voicing
    contour = qbhkit.to_contour(f0)          # Contour: 100 ms, semitones
    vector = qbhkit.embed(contour)           # (512,) float32
    qbhkit.build_catalogue("my_songs/", out="catalogue")
    answers = qbhkit.search("hum.wav", "catalogue", k=5)

Each name below is imported from its module when it is first used. A recording may be given as a
path (str or Path) or as (samples, rate_hz). Where a function needs the contour of a recording, an
F0Track or a Contour may be given instead.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qbhkit.errors import QbhError

if TYPE_CHECKING:
    from qbhkit.audio import Audio
    from qbhkit.catalogue.build import build_catalogue
    from qbhkit.catalogue.read import open_catalogue
    from qbhkit.contour import Contour, F0Track
    from qbhkit.embedding.embedder import embed
    from qbhkit.evaluation.evaluate import evaluate
    from qbhkit.pitch.frontends import to_contour
    from qbhkit.pitch.trackers import track
    from qbhkit.retrieval.searcher import open_searcher, search
    from qbhkit.widgets.recorder import HumRecorder

__version__ = "2.0.0"
_ROOMS = {
    "Audio": "qbhkit.audio",
    "Contour": "qbhkit.contour",
    "F0Track": "qbhkit.contour",
    "track": "qbhkit.pitch.trackers",
    "to_contour": "qbhkit.pitch.frontends",
    "embed": "qbhkit.embedding.embedder",
    "build_catalogue": "qbhkit.catalogue.build",
    "open_catalogue": "qbhkit.catalogue.read",
    "open_searcher": "qbhkit.retrieval.searcher",
    "search": "qbhkit.retrieval.searcher",
    "evaluate": "qbhkit.evaluation.evaluate",
    "HumRecorder": "qbhkit.widgets.recorder",
}
__all__ = [
    "Audio",
    "Contour",
    "F0Track",
    "HumRecorder",
    "QbhError",
    "__version__",
    "build_catalogue",
    "embed",
    "evaluate",
    "open_catalogue",
    "open_searcher",
    "search",
    "to_contour",
    "track",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'qbhkit' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_ROOMS[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
