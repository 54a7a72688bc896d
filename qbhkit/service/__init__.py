"""``qbhkit serve``: recordings in, ranked songs out, over HTTP; ``page/`` is the web page."""
