"""Embed contours with trained weights; :func:`embed` is ``qbhkit.embed``."""

from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from qbhkit.config import build_config
from qbhkit.contour import Contour, Normalisation, normalise
from qbhkit.embedding.encoders import CONTOUR_CHANNELS, ContourEncoder, EncoderConfig
from qbhkit.embedding.windows import Reading, read_whole
from qbhkit.errors import QbhError
from qbhkit.pitch.frontends import Source, query_loader
from qbhkit.weights import DEFAULT_EMBEDDING, Weights, holding, load_weights, save_weights

_BATCH = 256  # the activations of a batch should fit in the processor's cache


class Embedder(Protocol):
    """What turns windows into vectors."""

    identity: str  # of the weights; a catalogue can be searched only with those that made it
    reading: Reading  # how windows become frames
    embedding_dim: int  # length of a vector
    states_of: str | None  # identity of the network whose states are embedded; None for contours
    calibration: dict[str, float] | None  # of the confidence of answers, if weights hold one

    def embed(self, frames: NDArray) -> NDArray[np.float32]:
        """Embed windows (B, L, C) as (B, embedding_dim) vectors of length 1."""
        ...


def open_embedder(weights: str = DEFAULT_EMBEDDING) -> Embedder:
    """Open weights of either kind, an encoder of contours or one of states, by file or by name.

    Raises:
        QbhError: if the weights are missing, damaged, or hold no encoder.
    """
    from qbhkit.embedding.distillation import DISTILLATION_KIND, StateEmbedder

    states = load_weights(weights).config.get("kind") == DISTILLATION_KIND
    return StateEmbedder(weights) if states else ContourEmbedder(weights)


@lru_cache(maxsize=4)
def _opened(weights: str) -> Embedder:
    return open_embedder(weights)


def embed(
    source: Source, weights: str = DEFAULT_EMBEDDING, tracker: str | None = None
) -> NDArray[np.float32]:
    """Embed a melody as one vector, so that two melodies are compared by one number.

    Args:
        source: a contour, or anything else that :func:`qbhkit.to_contour` takes.
        weights: a ``.safetensors`` file or the name of shipped weights.
        tracker: name of the pitch tracker for recordings; by default the one for hums.

    Returns:
        (512,) float32 (shipped weights) of length 1; the dot product of two is their cosine.

    Raises:
        QbhError: if the source cannot be read, nothing in it is voiced, or there are no weights.

    Source: fixed facts, "Embedding network".
    Notebook: notebooks/05_encoder_and_loss.py
    """
    embedder = _opened(weights)
    if isinstance(source, Contour) and embedder.states_of is None:
        contour = source
    else:
        contour = query_loader(embedder.states_of, tracker)(source)
    if not contour.voiced.any():
        raise QbhError("Nothing voiced was found: hum louder, longer, or closer to the microphone.")
    vector: NDArray[np.float32] = embedder.embed(read_whole(contour, embedder.reading)[None])[0]
    return vector


class ContourEmbedder:
    """Turn windows of contours into vectors with trained weights, a file or a shipped set.

    Raises:
        QbhError: if the weights are missing, damaged, or of another kind.

    Notebook: notebooks/05_encoder_and_loss.py
    """

    def __init__(self, weights: str = DEFAULT_EMBEDDING) -> None:
        stored = load_weights(weights)
        with holding(f"The weights {weights} do not hold a contour encoder."):
            self.encoder, self.reading = load_encoder(stored)
            self.normalisation: Normalisation = stored.config["normalisation"]
            if self.encoder.config.inputs != CONTOUR_CHANNELS:
                raise KeyError
        self.states_of: str | None = None
        self.identity = f"{stored.name}-{stored.sha256[:16]}"
        self.calibration: dict[str, float] | None = stored.config.get("calibration")
        self.embedding_dim = self.encoder.config.embedding_dim

    def embed(self, frames: NDArray) -> NDArray[np.float32]:
        """Embed windows (B, L, 2) in MIDI semitones, read by ``reading``, as unit vectors."""
        batches = [frames[begin : begin + _BATCH] for begin in range(0, len(frames), _BATCH)]
        return run_encoder(self.encoder, (normalise(one, self.normalisation) for one in batches))


def run_encoder(
    encoder: ContourEncoder, batches: Iterable[NDArray], device: "torch.device | str" = "cpu"
) -> NDArray[np.float32]:
    """Embed batches (B, L, C), one after another, as (sum of B, embedding_dim)."""
    parts = [np.zeros((0, encoder.config.embedding_dim), np.float32)]
    with torch.inference_mode():
        parts += [encoder(torch.from_numpy(one).to(device)).cpu().numpy() for one in batches]
    return np.concatenate(parts)


def load_encoder(stored: Weights) -> tuple[ContourEncoder, Reading]:
    """Return the encoder that weights hold, in evaluation mode, and how its windows become frames.

    Call it inside :func:`holding`, which names what is missing.
    """
    config = build_config(EncoderConfig, dict(stored.config["encoder"]), stored.name)
    reading = Reading(int(stored.config["frames"]), stored.config.get("window_s"))
    encoder = ContourEncoder(config).eval()
    encoder.load_state_dict({key: torch.from_numpy(value) for key, value in stored.arrays.items()})
    return encoder, reading


def export_encoder(
    encoder: ContourEncoder, path: Path, reading: Reading, how: Normalisation
) -> None:
    """Write an encoder's weights with the reading and the normalisation of its windows."""
    config = {"encoder": asdict(encoder.config), **asdict(reading), "normalisation": how}
    save_weights(path, encoder_arrays(encoder), config)


def encoder_arrays(encoder: ContourEncoder) -> dict[str, NDArray]:
    """Return an encoder's weights by name."""
    return {key: value.detach().cpu().numpy() for key, value in encoder.state_dict().items()}
