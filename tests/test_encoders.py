import numpy as np
import pytest
import torch

from qbhkit.contour import normalise
from qbhkit.embedding.encoders import ContourEmbedder, ConvEncoder, EncoderConfig, export_encoder
from qbhkit.errors import QbhError
from qbhkit.storage import asset


@pytest.mark.parametrize("widths", [(16,), (16, 32), (8, 16, 32, 32)])
@pytest.mark.parametrize("convolutions", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [512, 64])
def test_any_shape_of_encoder_gives_unit_vectors(widths, convolutions, kernel, size):
    encoder = ConvEncoder(EncoderConfig(widths, convolutions, kernel, heads=4, size=size)).eval()
    for length in (1, 7, 80, 300):
        with torch.inference_mode():
            vectors = encoder(torch.randn(3, length, 2))
        assert vectors.shape == (3, size)
        np.testing.assert_allclose(vectors.norm(dim=1), 1, atol=1e-5)


def test_default_embedding_has_512_dimensions():
    assert ConvEncoder(EncoderConfig())(torch.randn(2, 80, 2)).shape == (2, 512)


def test_short_input_is_padded_in_the_centre():
    encoder = ConvEncoder(EncoderConfig((8, 8, 8), 1, heads=2)).eval()
    short = torch.randn(1, 2, 2)
    padded = torch.nn.functional.pad(short, (0, 0, 3, 3))
    with torch.inference_mode():
        np.testing.assert_allclose(encoder(short), encoder(padded), atol=1e-6)


@pytest.mark.parametrize("shape", [(80, 2), (1, 80, 3), (1, 0, 2)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(QbhError, match="batch, length, 2"):
        ConvEncoder(EncoderConfig((8,), 1, heads=2))(torch.zeros(shape))


@pytest.mark.parametrize(
    "bad", [{"widths": ()}, {"convolutions": 0}, {"kernel": 4}, {"heads": 0}, {"heads": 7}]
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(QbhError):
        EncoderConfig(**bad)


def test_rows_of_a_batch_do_not_see_each_other():
    encoder = ConvEncoder(EncoderConfig((8, 16), 1, heads=2)).eval()
    batch = torch.randn(5, 40, 2)
    with torch.inference_mode():
        np.testing.assert_allclose(encoder(batch)[3], encoder(batch[3:4])[0], atol=1e-5)


def test_export_and_embed_give_back_the_same_vectors(tmp_path):
    torch.manual_seed(0)
    encoder = ConvEncoder(EncoderConfig((8, 16), 1, heads=2, size=32)).eval()
    export_encoder(encoder, tmp_path / "mine.safetensors", steps=40, how="key")
    embedder = ContourEmbedder(str(tmp_path / "mine.safetensors"))
    frames = np.zeros((3, 40, 2), np.float32)
    frames[:, :30, 0] = np.random.default_rng(0).integers(50, 70, (3, 30))
    frames[:, :30, 1] = 1
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(normalise(frames, "key")))
    np.testing.assert_allclose(embedder.embed(frames), expected, atol=1e-6)
    assert embedder.steps == 40
    assert embedder.identity.startswith("mine-")
    assert embedder.embed(frames[:0]).shape == (0, 32)


def test_shipped_weights_ignore_the_key_of_a_melody():
    embedder = ContourEmbedder()
    rng = np.random.default_rng(0)
    frames = np.ones((4, 80, 2), np.float32)
    frames[..., 0] = np.repeat(rng.integers(55, 70, (4, 10)), 8, axis=1)
    higher = frames + np.array([7, 0], np.float32)
    np.testing.assert_allclose(embedder.embed(frames), embedder.embed(higher), atol=1e-4)
    likeness = embedder.embed(frames) @ embedder.embed(frames).T
    assert likeness[np.triu_indices(4, 1)].max() < 0.8


def test_shipped_weights_are_small_and_have_a_card():
    weights = asset("weights/first.safetensors")
    assert weights.stat().st_size < 12_000_000
    card = asset("weights/first.md").read_text("utf-8")
    for word in ("essenFolksong", "seed", "limits", "licence"):
        assert word.lower() in card.lower()
