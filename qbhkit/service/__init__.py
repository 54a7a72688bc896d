"""``qbhkit serve``: recordings in, ranked songs out, over HTTP.

:mod:`qbhkit.service.app` holds the routes and their limits, :mod:`qbhkit.service.server` runs
them, and ``page/`` is the web page.
"""
