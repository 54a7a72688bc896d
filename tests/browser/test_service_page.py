"""The page of ``qbhkit serve`` in a real Chromium, which hears a file as its microphone."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from playwright.sync_api import Page, expect

from qbhkit.audio import Audio, write_wav

TRUTH = "00004"
TOKEN = "correct-horse-battery-staple"
PATIENCE_MS = 60_000


@contextmanager
def serving(*arguments) -> Iterator[str]:
    command = [sys.executable, "-m", "qbhkit.cli", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert " answers at http://" in line, line
        yield line.split(" answers at ")[1].split()[0]
        process.terminate()


@pytest.fixture(scope="module")
def service(catalogue) -> Iterator[str]:
    with serving(catalogue) as url:
        yield url


@pytest.fixture(scope="module")
def hum(sung, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("microphone") / "hum.wav"
    write_wav(sung, path)
    return path


@pytest.fixture
def browse(launch) -> Iterator[Callable[..., Page]]:
    """Open an address in a page that must not report an error to its console."""
    wrong = []

    def note(kind: str, text: str, allowed: str) -> None:
        if kind == "error" and allowed not in text:
            wrong.append(text)

    def browse(url: str, *arguments: str, allowed: str = "\n", **options) -> Page:
        page = launch(*arguments, **options)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: note(said.type, said.text, allowed))
        page.goto(url)
        return page

    yield browse
    assert wrong == []


def status(page: Page):
    return expect(page.get_by_role("status"))


def choose(page: Page, path: Path) -> None:
    page.get_by_label("Choose a file instead").set_input_files(path)


def sees_the_song(page: Page) -> None:
    first = page.get_by_role("listitem").first
    expect(first).to_contain_text(TRUTH, timeout=PATIENCE_MS)
    expect(first).to_contain_text("0:0")  # the matched seconds
    status(page).to_have_text(f"It fits {TRUTH} best.")


def test_a_hum_into_the_microphone_finds_its_song(browse, service, hum, share_heard):
    """On the narrow screen of a phone; the upload is compared with the file, piece by piece."""
    page = browse(service, hears=hum, viewport={"width": 390, "height": 844}, color_scheme="dark")
    record = page.get_by_role("button", name="Record")
    record.focus()
    page.keyboard.press("Enter")
    status(page).to_contain_text("Listening")
    stop = page.get_by_role("button", name="Stop")
    expect(page.get_by_text("0:22 left")).to_be_visible(timeout=PATIENCE_MS)
    file = page.get_by_label("Choose a file instead")
    expect(file).to_have_attribute("aria-disabled", "true")
    expect(stop).to_be_focused()
    page.evaluate(
        "() => { const ask = fetch; "
        "window.fetch = (what, how) => { window.sent = how.body; return ask(what, how); } }"
    )
    page.keyboard.press("Space")
    sees_the_song(page)
    expect(record).to_have_attribute("aria-disabled", "false")
    expect(record).to_be_focused()
    heard_s = page.locator("audio").evaluate("sound => sound.duration")
    assert 7.5 < heard_s < 12
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    sent = page.evaluate("async () => Array.from(new Uint8Array(await window.sent.arrayBuffer()))")
    samples, rate_hz = soundfile.read(io.BytesIO(bytes(sent)))
    assert samples.ndim == 1
    original, original_hz = soundfile.read(hum)
    assert share_heard(samples, soxr.resample(original, original_hz, rate_hz), rate_hz) > 0.8


def test_a_file_will_do_and_what_is_wrong_with_it_is_said(browse, service, hum, tmp_path):
    page = browse(service, allowed="Failed to load resource")
    (tmp_path / "words.wav").write_text("this is no recording\n" * 50)
    choose(page, tmp_path / "words.wav")
    status(page).to_contain_text("words.wav is damaged or is not audio")
    expect(page.get_by_role("list")).to_be_hidden()
    (tmp_path / "long.wav").write_bytes(bytes(20_000_001))
    choose(page, tmp_path / "long.wav")
    status(page).to_contain_text("long.wav is larger than 20 MB")
    for route, words in (
        (lambda route: route.abort(), "cannot be reached"),
        (lambda route: route.fulfill(status=503, body="no JSON"), "The service is busy"),
    ):
        page.route("**/search*", route, times=1)
        choose(page, hum)
        status(page).to_contain_text(words)
    page.get_by_role("button", name="Search again").click()
    sees_the_song(page)
    expect(page.locator("audio")).to_be_visible()
    page.get_by_label("I hum the beginning of the song").check()
    with page.expect_request("**/search*anchor=start"):
        page.get_by_role("button", name="Search again").click()
    sees_the_song(page)


def test_silence_is_too_quiet_and_a_moment_too_short(browse, service, tmp_path):
    write_wav(Audio(np.zeros(160000, np.float32), 16000), tmp_path / "silence.wav")
    page = browse(service, hears=tmp_path / "silence.wav")
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop").click()
    status(page).to_contain_text("too short")
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_text("0:26 left")).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Stop").click()
    status(page).to_contain_text("too quiet")
    expect(page.get_by_role("button", name="Record")).to_be_enabled()


def test_without_https(browse, service, hum):
    """Except on its own machine, a page over HTTP has no microphone, but takes files."""
    port = service.rsplit(":", 1)[1]
    mapped = "--host-resolver-rules=MAP lab.example 127.0.0.1"
    page = browse(f"http://lab.example:{port}", mapped)
    status(page).to_contain_text("over HTTPS")
    page.get_by_role("button", name="Record").click()
    status(page).to_contain_text("over HTTPS")
    choose(page, hum)
    sees_the_song(page)


def test_a_credential_is_asked_for(browse, catalogue, hum, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with serving(catalogue, "--token-file", tmp_path / "token") as url:
        page = browse(url, allowed="401")
        field = page.get_by_label("This service asks for a credential")
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(field).to_be_hidden()
        choose(page, hum)
        status(page).to_contain_text("The credential is missing or wrong")
        field.fill(TOKEN)
        page.get_by_role("button", name="Use it").click()
        sees_the_song(page)
        page.reload()
        status(page).to_contain_text("Press the button")
        expect(field).to_be_hidden()
