"""``qbhkit weights``: convert, import and calibrate trained weights."""

import argparse

from qbhkit.cli.terminal import say
from qbhkit.errors import QbhError


def convert(options: argparse.Namespace) -> int:
    """Run ``qbhkit weights convert``."""
    from qbhkit.pitch.keras_weights import convert_crnn
    from qbhkit.weights import crnn_path

    found = crnn_path()
    written = convert_crnn(options.keras, options.mean, options.std, options.out or found.parent)
    print(f"weights: {written}")
    if written.resolve() != found.resolve():
        say(f"qbhkit looks for these weights at {found}: copy them there.")
    return 0


def import_checkpoint(options: argparse.Namespace) -> int:
    """Run ``qbhkit weights import-checkpoint``."""
    from qbhkit.embedding.import_checkpoint import import_checkpoint

    print(f"weights: {import_checkpoint(options.folder, options.out)}")
    return 0


def calibrate_weights(options: argparse.Namespace) -> int:
    """Run ``qbhkit weights calibrate``."""
    from qbhkit.config import build_config
    from qbhkit.retrieval.confidence import Calibration
    from qbhkit.storage import read_json
    from qbhkit.weights import load_weights, save_weights, weights_path

    cure = "give the JSON of 'qbhkit cross-validate', or of 'qbhkit evaluate' on enough hums"
    values = read_json(options.result, cure)
    if not isinstance(values, dict) or not isinstance(values.get("calibration"), dict):
        raise QbhError(f"{options.result} holds no calibration: {cure}.")
    build_config(Calibration, values["calibration"], str(options.result))
    path, stored = weights_path(options.weights), load_weights(options.weights)
    save_weights(path, stored.arrays, stored.config | {"calibration": values["calibration"]})
    print(f"{path}: {values['calibration']}")
    return 0
