"""The fifth room: ``qbhkit serve``, recordings in and ranked songs out over HTTP.

:mod:`qbhkit.service.app` holds the routes and what they refuse, :mod:`qbhkit.service.server` runs
them, ``page/`` is what a browser gets.
"""
