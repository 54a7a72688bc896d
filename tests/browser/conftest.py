"""A real Chromium for the tests of pages and widgets; it may hear a file as its microphone."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = ["--no-sandbox"] if os.geteuid() == 0 else []
FAKE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture
def launch() -> Iterator[Callable[..., Page]]:
    """Open an empty page in a Chromium of its own."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with sync_playwright() as running:

        def launch(*arguments: str, hears: Path | None = None, **context) -> Page:
            if hears:
                arguments += (*FAKE, f"--use-file-for-fake-audio-capture={hears}%noloop")
            options = [*ROOT, "--disable-gpu", *arguments]
            browser = running.chromium.launch(executable_path=CHROMIUM, args=options)
            return browser.new_context(**context).new_page()

        yield launch
