"""Catalogues on disk: build, read, edit and verify the songs, contours and vectors to search in."""
