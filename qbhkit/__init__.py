"""Query by humming: a hum in, ranked songs with the matched seconds out.

The data flows through four rooms: ``melody`` (audio to f0), ``contour`` (f0 to 100 ms contours),
``embedding`` (contours to vectors) and ``retrieval`` (vectors to ranked songs). Nothing heavy is
imported here; import what you use, for example ``from qbhkit.retrieval.search import Searcher``.
"""

from qbhkit.errors import QbhError

__version__ = "1.0.0"
__all__ = ["QbhError", "__version__"]
