"""Trained weights turn contours into vectors: :func:`embed` is the front door's ``qbhkit.embed``."""

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
from qbhkit.weights import DEFAULT_EMBEDDING, load_weights, save_weights

_BATCH = 256  # what a batch becomes in the network should stay in the cache


class Embedder(Protocol):
    """What turns windows into vectors.

    Attributes:
        identity: names the weights; a catalogue can be searched only with those that made it.
        reading: how windows become frames.
        embedding_dim: length of a vector.
        states_of: identity of the network whose states are embedded; None for contours.
        calibration: stored with the weights, or None: see
            :class:`qbhkit.retrieval.confidence.Calibration`.
    """

    identity: str
    reading: Reading
    embedding_dim: int
    states_of: str | None
    calibration: dict[str, float] | None

    def embed(self, frames: NDArray) -> NDArray[np.float32]:
        """Embed (B, L, 2) MIDI frames as (B, embedding_dim) vectors of length 1."""
        ...


def open_embedder(weights: str = DEFAULT_EMBEDDING) -> Embedder:
    """Open weights of either kind: what embeds contours, or what embeds states.

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
    """Embed a melody as one vector, the single-vector way of comparing two of them.

    Args:
        source: a contour, or anything that :func:`qbhkit.to_contour` takes.
        weights: shipped weights or a ``.safetensors`` file.
        tracker: name of the pitch tracker for recordings; by default the one for hums.

    Returns:
        (512,) float32 of length 1 with the shipped weights; the dot product of two vectors is
        their cosine similarity, -1 to 1.

    Raises:
        QbhError: if the source cannot be read, nothing in it is voiced, or there are no such
            weights.

    Source: fixed facts, "Embedding network".
    Notebook: notebooks/05_encoder_and_loss.py
    """
    embedder = _opened(weights)
    contour: Contour = query_loader(embedder.states_of, tracker)(source)
    if not contour.voiced.any():
        raise QbhError("Nothing voiced was found: hum louder, longer, or closer to the microphone.")
    vector: NDArray[np.float32] = embedder.embed(read_whole(contour, embedder.reading)[None])[0]
    return vector


class ContourEmbedder:
    """Turn windows of contours into vectors with trained weights.

    Args:
        weights: a ``.safetensors`` file or the name of a set that ships with the kit.

    Raises:
        QbhError: if the weights are missing, damaged, or of another kind.

    Notebook: notebooks/05_encoder_and_loss.py
    """

    def __init__(self, weights: str = DEFAULT_EMBEDDING) -> None:
        stored = load_weights(weights)
        try:
            config = build_config(EncoderConfig, dict(stored.config["encoder"]), stored.name)
            self.reading = Reading(int(stored.config["frames"]), stored.config.get("window_s"))
            self.normalisation: Normalisation = stored.config["normalisation"]
            if config.inputs != CONTOUR_CHANNELS:
                raise KeyError
            self.encoder = ContourEncoder(config).eval()
            self.encoder.load_state_dict(
                {key: torch.from_numpy(value) for key, value in stored.arrays.items()}
            )
        except QbhError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise QbhError(f"The weights {weights} do not hold a contour encoder.") from None
        self.states_of: str | None = None  # it reads contours
        self.identity = f"{stored.name}-{stored.sha256[:16]}"
        self.calibration: dict[str, float] | None = stored.config.get("calibration")
        self.embedding_dim = config.embedding_dim

    def embed(self, frames: NDArray) -> NDArray[np.float32]:
        """Embed windows.

        Args:
            frames: (B, L, 2) MIDI semitones (0 where unvoiced) and voiced, read by ``reading``.

        Returns:
            (B, embedding_dim) float32, each of length 1.
        """
        if not len(frames):
            return np.zeros((0, self.embedding_dim), np.float32)
        parts = []
        with torch.inference_mode():
            for begin in range(0, len(frames), _BATCH):
                batch = normalise(frames[begin : begin + _BATCH], self.normalisation)
                parts.append(self.encoder(torch.from_numpy(batch)).numpy())
        return np.concatenate(parts)


def export_encoder(
    encoder: ContourEncoder, path: Path, reading: Reading, how: Normalisation, half: bool = False
) -> None:
    """Write an encoder's weights with what is needed to use them.

    Args:
        encoder: of any kind.
        path: the ``.safetensors`` file to write.
        reading: how its windows became frames in training.
        how: normalisation it was trained with.
        half: write float16, half the size and about 3 digits; reading makes it float32 again.

    Raises:
        QbhError: if a weight is too large for float16.
    """
    arrays = {key: value.detach().cpu().numpy() for key, value in encoder.state_dict().items()}
    config = {"encoder": asdict(encoder.config), **asdict(reading), "normalisation": how}
    save_weights(path, arrays, config, half)
