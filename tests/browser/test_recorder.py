"""The recorder widget in a real Chromium: JupyterLab, Notebook 7 and Voila, one server for all."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Locator, Page, expect

from qbhkit.audio import Audio, load, write_wav
from qbhkit.storage import asset, write_json

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "11_hum_it_yourself.ipynb"
TRUTH = "KILLARNEY"  # what demo_1 is a hum of
PATIENCE_MS = 300_000  # the machine may be busy
CELLS = {
    "one": 'HumRecorder("catalogue")',
    "two": (
        "import qbhkit, ipywidgets\nsearcher = qbhkit.open_searcher('catalogue')\n"
        "ipywidgets.VBox([HumRecorder(searcher), HumRecorder(searcher, longest_s=3)])"
    ),
    "alone": "HumRecorder()",  # nothing is searched
}


@pytest.fixture(scope="module")
def folder(hummed_catalogue, tmp_path_factory) -> Path:
    """Notebooks, and a catalogue of tunes, of which one is hummed in ``demo_1.flac``."""
    folder = tmp_path_factory.mktemp("notebooks")
    shutil.copytree(hummed_catalogue, folder / "catalogue")
    for name, code in CELLS.items():
        cells = [nbformat.v4.new_code_cell(f"from qbhkit import HumRecorder\n{code}")]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory) -> Iterator[str]:
    """JupyterLab, which serves Notebook 7 and Voila too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = tmp_path_factory.mktemp("jupyter")
    options = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
        "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True",
    ]  # fmt: skip
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    write_json(own / "config" / "labconfig" / "default_setting_overrides.json", quiet)
    rooms = ("config", "data", "runtime")
    env = os.environ | {f"JUPYTER_{room.upper()}_DIR": str(own / room) for room in rooms}
    url = f"http://127.0.0.1:{port}"
    with (own / "log.txt").open("w") as told:
        command = [sys.executable, "-m", "jupyterlab", *options]
        with subprocess.Popen(command, env=env, stdout=told, stderr=told) as process:
            while True:
                assert process.poll() is None, (own / "log.txt").read_text()[-3000:]
                with suppress(OSError):
                    urllib.request.urlopen(f"{url}/api/status", timeout=5).close()
                    break
                time.sleep(0.3)
            yield url
            process.terminate()


@pytest.fixture(scope="module")
def hum(tmp_path_factory) -> Path:
    """A bundled hum as the wav file that Chromium wants."""
    path = tmp_path_factory.mktemp("microphone") / "hum.wav"
    write_wav(load(asset("hums/demo_1.flac"), 48000), path)
    return path


@pytest.fixture
def browse(launch) -> Iterator[Callable[..., Page]]:
    """Open a page in which no script of the widget may fail.

    Those scripts are the only ones with a blob: address; errors of the editors are theirs.
    """
    wrong = []

    def note(error) -> None:
        if "blob:" in (error.stack or ""):
            wrong.append(error.stack)

    def browse(*arguments: str, **context) -> Page:
        page = launch(*arguments, **{"viewport": {"width": 1280, "height": 1150}} | context)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", note)
        return page

    yield browse
    assert wrong == []


def recorders(page: Page) -> Locator:
    return page.get_by_role("group", name="Hum recorder")


def run_notebook(page: Page, url: str) -> Locator:
    """Open a notebook, run it, and return its first recorder."""
    page.goto(url)
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
    page.evaluate(
        "async () => { const open = jupyterapp.shell.currentWidget; "
        "await open.context.ready; await open.sessionContext.ready; "
        "await jupyterapp.commands.execute('notebook:run-all-cells') }"
    )
    recorder = recorders(page).first
    expect(recorder).to_be_visible(timeout=PATIENCE_MS)
    return recorder


def says(recorder: Locator, words: str) -> None:
    expect(recorder.get_by_role("status")).to_contain_text(words, timeout=PATIENCE_MS)


def finds_the_song(recorder: Locator) -> None:
    says(recorder, f"It fits {TRUTH} best.")
    expect(recorder.get_by_role("listitem").first).to_contain_text(TRUTH)


def waits_for(recorder: Locator, words: str | re.Pattern) -> None:
    expect(recorder.get_by_text(words)).to_be_visible(timeout=PATIENCE_MS)


def press(recorder: Locator, name: str) -> None:
    recorder.get_by_role("button", name=name, exact=True).click()


def choose(recorder: Locator, *path: Path) -> None:
    recorder.get_by_label("Choose or drop a file").set_input_files(*path)


def test_a_hum_into_the_microphone_finds_its_song(browse, server, hum, share_heard):
    """By the keyboard alone, as far as the sounds."""
    page = browse(hears=hum)
    recorder = run_notebook(page, f"{server}/notebooks/one.ipynb")  # in Notebook 7
    cells = page.locator(".jp-Cell").count()

    def tabs_to(control: Locator) -> None:
        page.keyboard.press("Tab")
        expect(control).to_be_focused()

    recorder.get_by_role("button", name="Record").focus()
    page.keyboard.press("Enter")
    says(recorder, "Listening")
    expect(recorder.get_by_role("button", name="Stop")).to_be_focused()
    waits_for(recorder, re.compile("0:2[0-3] left"))
    line = recorder.get_by_role("img", name="Pitch of the hum").locator("path")
    expect(line).to_have_attribute("d", re.compile("L.*L"), timeout=PATIENCE_MS)
    level = recorder.get_by_role("meter", name="Level")
    expect(level).to_have_attribute("aria-valuenow", re.compile(r"^[45]\d$"), timeout=PATIENCE_MS)
    page.keyboard.press("Space")
    finds_the_song(recorder)
    expect(recorder.get_by_role("img", name=f"The hum over {TRUTH}")).to_be_visible()
    expect(recorder.get_by_role("button", name="Record")).to_be_focused()
    tabs_to(recorder.get_by_label("Choose or drop a file"))
    tabs_to(recorder.get_by_label("Start of the hum"))
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    waits_for(recorder, "0.5 s")
    page.wait_for_timeout(1000)
    says(recorder, "best.")
    tabs_to(recorder.get_by_label("End of the hum"))
    tabs_to(recorder.get_by_role("button", name="Play the hum"))
    tabs_to(recorder.get_by_role("button", name="Save as wav"))
    first, second = recorder.get_by_role("listitem").all()[:2]
    for button in [*first.get_by_role("button").all(), second.get_by_role("button").first]:
        tabs_to(button)
    page.keyboard.press("Enter")
    expect(second.get_by_role("button").first).to_have_attribute("aria-pressed", "true")
    assert page.locator(".jp-Cell").count() == cells  # the editor's shortcuts kept out
    for kind in ("Play song: KILLARNEY", "Play hum beside KILLARNEY", "Play the hum"):
        recorder.get_by_role("button", name=kind).click()
        waits_for(recorder, "■")
        recorder.get_by_role("button", name=kind.replace("Play", "Stop")).click()
        expect(recorder.get_by_text("■")).to_be_hidden()
    with page.expect_download() as saved:
        press(recorder, "Save as wav")
    samples, rate_hz = soundfile.read(saved.value.path())
    original = load(hum, rate_hz).samples
    assert share_heard(samples, original, rate_hz) > 0.8


def test_a_file_will_do(browse, server, hum, tmp_path):
    page = browse(viewport={"width": 760, "height": 900})
    recorder = run_notebook(page, f"{server}/lab/workspaces/one/tree/one.ipynb")
    (tmp_path / "words.wav").write_text("this is no recording\n" * 50)
    choose(recorder, tmp_path / "words.wav")
    says(recorder, "words.wav is damaged or is not audio")
    (tmp_path / "long.wav").write_bytes(bytes(20_000_001))
    choose(recorder, tmp_path / "long.wav")
    says(recorder, "long.wav is larger than 20 MB")
    choose(recorder, asset("hums/demo_1.flac"))
    finds_the_song(recorder)
    write_wav(Audio(np.zeros(48000, np.float32), 16000), tmp_path / "silence.wav")
    dropped = page.evaluate_handle(
        "bytes => { const held = new DataTransfer(); "
        "held.items.add(new File([new Uint8Array(bytes)], 'dropped.wav')); return held }",
        list((tmp_path / "silence.wav").read_bytes()),
    )
    recorder.dispatch_event("drop", {"dataTransfer": dropped})
    says(recorder, "too quiet")
    page.evaluate("() => { Blob.prototype.arrayBuffer = () => Promise.reject(new Error()) }")
    recorder.dispatch_event("drop", {"dataTransfer": dropped})  # as of a folder
    says(recorder, "dropped.wav cannot be read: choose a file, not a folder.")


def test_without_a_microphone(browse, server):
    page = browse("--use-fake-device-for-media-stream", "--deny-permission-prompts")
    recorder = run_notebook(page, f"{server}/lab/workspaces/alone/tree/alone.ipynb")
    none = "async () => { throw new DOMException('none', 'NotFoundError') }"
    for script, words in (
        ("0", "does not let this page use the microphone"),
        (f"navigator.mediaDevices.getUserMedia = {none}", "No microphone was found"),
        ("document.featurePolicy.allowsFeature = () => false", "This editor gives its pages no"),
        ("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})", "over HTTPS"),
    ):
        page.evaluate(f"() => {{ {script} }}")
        press(recorder, "Record")
        says(recorder, words)
    press(recorder, "Record on the kernel's machine (10 s at most)")
    says(recorder, "kernel's machine" if find_spec("sounddevice") else "pip install sounddevice")
    choose(recorder, asset("hums/demo_1.flac"))
    says(recorder, "Pitch tracked.")


def test_two_recorders_keep_apart(browse, server, hum):
    page = browse(hears=hum)
    run_notebook(page, f"{server}/lab/workspaces/two/tree/two.ipynb")
    first, second = recorders(page).all()
    choose(second, asset("hums/demo_1.flac"))
    finds_the_song(second)
    says(first, "Press the button and hum.")
    press(first, "Record")
    says(first, "Listening")
    press(first, "Stop")
    says(first, "too short")
    finds_the_song(second)
    press(second, "Record")
    says(second, "Listening")
    press(second, "Record")  # is there again when the time is up


def test_voila_shows_the_notebook_without_its_code(browse, server, folder):
    for path in (NOTEBOOK, NOTEBOOK.with_name("recorder.png")):
        shutil.copy(path, folder)
    page = browse(viewport={"width": 1000, "height": 1400})
    page.goto(f"{server}/voila/render/{NOTEBOOK.name}")
    recorder = recorders(page).first
    expect(recorder).to_be_visible(timeout=2 * PATIENCE_MS)
    expect(page.get_by_text("qbhkit.open_searcher(folder)")).to_have_count(0)
    expect(page.get_by_text("There was an error")).to_have_count(0)
    choose(recorder, asset("hums/demo_1.flac"))
    finds_the_song(recorder)
