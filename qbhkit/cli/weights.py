"""``qbhkit weights``: convert, import and calibrate trained weights."""

from pathlib import Path
from typing import Annotated

from qbhkit.cli import options as opt
from qbhkit.cli.terminal import say
from qbhkit.errors import QbhError

app = opt.group(
    "weights",
    "Convert, import and calibrate weights.",
    "qbhkit weights convert melodyExtraction/weights/",
)


@opt.add_command(app, "convert", "qbhkit weights convert melodyExtraction/weights/")
def convert(
    source: Annotated[
        Path, opt.argument("SOURCE", "folder of the published files; or the weights (.hdf5, .pt)")
    ],
    mean: Annotated[Path | None, opt.argument("MEAN.npy", "(31, 513) dB, with a file")] = None,
    std: Annotated[Path | None, opt.argument("STD.npy", "(31, 513) dB, with a file")] = None,
    out: Annotated[
        Path | None,
        opt.option("DIR", "for crnn.safetensors (default: where the kit looks for it)"),
    ] = None,
) -> int:
    """Convert the published weights of the melody network, of Keras or PyTorch."""
    from qbhkit.pitch.keras_weights import convert_crnn, published_files
    from qbhkit.weights import crnn_path

    given = (source, mean, std)
    if source.is_dir():
        given = published_files(source)
    weights, level, spread = given
    if level is None or spread is None:
        raise QbhError(f"{source} is not a folder: give the weights, MEAN.npy and STD.npy.")
    found = crnn_path()
    written = convert_crnn(weights, level, spread, out or found.parent)
    print(f"weights: {written}")
    if written.resolve() != found.resolve():
        say(f"qbhkit looks for these weights at {found}: copy them there.")
    return 0


@opt.add_command(
    app,
    "import-checkpoint",
    "qbhkit weights import-checkpoint contour_model/ --out weights/",
    former="convert-original",
)
def import_checkpoint(
    folder: Annotated[Path, opt.argument("FOLDER", "holds hparams.dat and checkpoint_best.pt")],
    out: opt.Out,
) -> int:
    """Import a checkpoint of the published PyTorch code, as original.safetensors."""
    from qbhkit.embedding.import_checkpoint import import_checkpoint

    print(f"weights: {import_checkpoint(folder, out)}")
    return 0


@opt.add_command(app, "calibrate", "qbhkit weights calibrate mine.safetensors result.json")
def calibrate(
    weights: Annotated[str, opt.argument("NAME", "shipped weights or a .safetensors file")],
    result: Annotated[
        Path,
        opt.argument(
            "JSON",
            "result of cross-validate, or of evaluate on hums not used in training",
        ),
    ],
) -> int:
    """Store a confidence calibration with weights."""
    from qbhkit.config import build_config
    from qbhkit.retrieval.confidence import Calibration
    from qbhkit.storage import read_json
    from qbhkit.weights import load_weights, save_weights, weights_path

    cure = "give the JSON of 'qbhkit cross-validate', or of 'qbhkit evaluate' on enough hums"
    values = read_json(result, cure)
    if not isinstance(values, dict) or not isinstance(values.get("calibration"), dict):
        raise QbhError(f"{result} holds no calibration: {cure}.")
    build_config(Calibration, values["calibration"], str(result))
    path, stored = weights_path(weights), load_weights(weights)
    save_weights(path, stored.arrays, stored.config | {"calibration": values["calibration"]})
    print(f"{path}: {values['calibration']}")
    return 0
