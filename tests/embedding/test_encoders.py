import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from qbhkit import training_loop
from qbhkit.contour import normalise
from qbhkit.embedding import encoders
from qbhkit.embedding.embedder import ContourEmbedder, export_encoder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.weights import load_weights, save_weights

SAME, GROWING = (8, 8, 8), (4, 8, 16)
# Each two of block, widths, compression, linear layer and pooling meet in one of the rows.
CONV = [
    ("plain", SAME, None, 0, "context"),
    ("residual", GROWING, 20, 5, "context"),
    ("plain", GROWING, 20, 0, "attention"),
    ("residual", SAME, None, 5, "attention"),
    ("plain", SAME, 20, 5, "gru"),
    ("residual", GROWING, None, 0, "gru"),
    ("plain", GROWING, None, 5, "max"),
    ("residual", SAME, 20, 0, "max"),
]
LSTM = [(SAME, 0, "gru"), (GROWING, 5, "context"), (SAME, 5, "max"), (GROWING, 0, "attention")]
COMMON = {"convolutions": 2, "heads": 2, "embedding_dim": 12}
VARIANTS = {
    f"{row[0]}-{row[-1]}": EncoderConfig(
        row[1], block=row[0], compression=row[2], linear=row[3], pooling=row[4], **COMMON
    )
    for row in CONV
} | {
    f"lstm-{pooling}": EncoderConfig(widths, kind="lstm", linear=linear, pooling=pooling, **COMMON)
    for widths, linear, pooling in LSTM
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks as small as these wait for a second thread longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def encoder_of(config, seed=0):
    """An encoder for use, whose batch norms have seen something."""
    torch.manual_seed(seed)
    encoder = ContourEncoder(config)
    encoder(torch.randn(8, 2 * config.total, 2))
    return encoder.eval()


@every_variant
def test_every_variant_has_the_shapes_it_says(config):
    encoder = encoder_of(config)
    shapes = {}
    for part in ("stages", "pooling"):
        encoder.get_submodule(part).register_forward_hook(
            lambda _, args, out, part=part: shapes.update({part: (args[0].shape, out.shape)})
        )
    assert config.total == {("conv", None): 8, ("conv", 20): 20}.get(
        (config.kind, config.compression), 1
    )
    for length in (1, 7, 67):
        with torch.inference_mode():
            vectors = encoder(torch.randn(3, length, 2))
        padded, width = max(length, config.total), config.widths[-1]
        left = padded // config.total
        assert shapes["stages"] == ((3, config.linear or 2, 1, padded), (3, width, 1, left))
        assert shapes["pooling"] == ((3, left, width), (3, width))
        assert vectors.shape == (3, 12)
        np.testing.assert_allclose(vectors.norm(dim=1), 1, atol=1e-5)


@every_variant
def test_rows_do_not_see_each_other_and_silence_has_a_vector(config):
    encoder = encoder_of(config)
    batch = torch.randn(5, 40, 2)
    with torch.inference_mode():
        np.testing.assert_allclose(encoder(batch)[3], encoder(batch[3:4])[0], atol=1e-5)
    for one in (ContourEncoder(config), encoder):  # in training and in use
        vectors = one(torch.zeros(2, 40, 2))
        assert torch.isfinite(vectors).all()
        np.testing.assert_allclose(vectors.detach().norm(dim=1), 1, atol=1e-5)


@every_variant
def test_export_and_embed_give_back_the_same_vectors(config, tmp_path):
    encoder = encoder_of(config)
    export_encoder(encoder, tmp_path / "mine.safetensors", Reading(40), "key")
    embedder = ContourEmbedder(str(tmp_path / "mine.safetensors"))
    frames = np.zeros((3, 40, 2), np.float32)
    frames[:, :30, 0] = np.random.default_rng(0).integers(50, 70, (3, 30))
    frames[:, :30, 1] = 1
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(normalise(frames, "key")))
    vectors = embedder.embed(frames)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert embedder.encoder.config == config
    assert embedder.reading == Reading(40)
    assert embedder.identity.startswith("mine-")
    assert embedder.embed(frames[:0]).shape == (0, 12)


@pytest.mark.parametrize(
    ("stages", "compression", "pools"),
    [
        (3, None, (2, 2, 2)),
        (4, 160, (5, 4, 4, 2)),
        (6, 160, (5, 2, 2, 2, 2, 2)),
        (2, 72, (9, 8)),  # not (12, 6), as handing out the largest primes first would have it
        (3, (6, 1, 5), (6, 1, 5)),
    ],
)
def test_compression_is_spread_evenly_with_the_largest_first(stages, compression, pools):
    config = EncoderConfig((8,) * stages, 1, compression=compression, heads=2, embedding_dim=4)
    assert config.pools == pools
    assert config.total == np.prod(pools)
    found = [part.kernel_size for part in encoder_of(config).stages if "Max" in str(part)]
    assert found == [(1, pool) for pool in pools]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "gru"}, "kind must be conv or lstm, not 'gru'."),
        ({"pooling": "mean"}, "pooling must be context or attention or gru or max, not 'mean'."),
        ({"convolutions": 0}, "convolutions must be at least 1, not 0."),
        ({"kernel": 4}, "kernel must be odd, not 4."),
        ({"heads": 7}, "heads (7) must divide the last width (256)."),
        ({"compression": (6, 2, 0)}, "compression must be at least 1, not (6, 2, 0)."),
        ({"compression": 26}, "(26) cannot be spread over 3 stages: it must be a product of so"),
        ({"widths": (8, 0, 8)}, "widths must be one or more numbers from 1, not (8, 0, 8)."),
        ({"linear": -1}, "linear must be at least 0, not -1."),
        ({"dropout": float("nan")}, "dropout must be at least 0 and less than 1, not nan."),
        ({"kind": "lstm", "compression": 8}, "The kind lstm has no stages: leave block and"),
        ({"kind": "lstm", "widths": (9,), "pooling": "max"}, "width of an lstm (9) must be even."),
    ],
)
def test_impossible_configurations_are_refused(values, says):
    with pytest.raises(QbhError) as caught:
        EncoderConfig(**values)
    assert says in str(caught.value)


@pytest.mark.parametrize(("length", "linear"), [(2, 3), (19, 0)])
def test_short_input_is_padded_in_the_centre(length, linear):
    encoder = encoder_of(EncoderConfig((8, 8), 1, compression=20, heads=2, linear=linear))
    short = torch.randn(1, length, 2)
    left = (20 - length) // 2
    padded = torch.zeros(1, 20, 2)
    padded[:, left : left + length] = short
    with torch.inference_mode():
        np.testing.assert_allclose(encoder(short), encoder(padded), atol=1e-6)
        assert not np.allclose(encoder(short), encoder(padded.roll(1, 1)), atol=1e-4)


@pytest.mark.parametrize(("shape", "inputs"), [((80, 2), 2), ((1, 80, 2), 7), ((1, 0, 2), 2)])
def test_wrong_shapes_are_refused(shape, inputs):
    with pytest.raises(QbhError, match=f"batch, length, {inputs}\\), not"):
        ContourEncoder(EncoderConfig((8,), 1, heads=2, inputs=inputs))(torch.zeros(shape))


def test_weights_from_before_inputs_could_be_chosen_hold_an_encoder_of_contours(tmp_path):
    stored = load_weights("stage1")
    encoder = {key: value for key, value in stored.config["encoder"].items() if key != "inputs"}
    save_weights(tmp_path / "a.safetensors", stored.arrays, stored.config | {"encoder": encoder})
    assert ContourEmbedder(str(tmp_path / "a.safetensors")).encoder.config.inputs == 2


def test_weights_whose_configuration_is_damaged_are_refused(tmp_path):
    stored, path = load_weights("stage1"), tmp_path / "a.safetensors"
    for damaged in ({"frames": "abc"}, {"encoder": "ab"}, {"encoder": 3}):
        save_weights(path, stored.arrays, stored.config | damaged)
        with pytest.raises(QbhError, match=r"a\.safetensors"):
            ContourEmbedder(str(path))
    save_weights(path, stored.arrays, [])
    with pytest.raises(QbhError, match="not written by this kit"):
        ContourEmbedder(str(path))


def test_an_encoder_of_something_else_or_of_another_variant_is_refused(tmp_path):
    other = ContourEncoder(EncoderConfig((8,), pooling="gru"))
    other.config = EncoderConfig((8,), pooling="max")
    for encoder in (ContourEncoder(EncoderConfig((8,), inputs=5)), other):
        export_encoder(encoder, tmp_path / "a.safetensors", Reading(80), "key")
        with pytest.raises(QbhError, match="do not hold a contour encoder"):
            ContourEmbedder(str(tmp_path / "a.safetensors"))


def test_an_lstm_is_as_deep_and_wide_as_the_widths_say():
    lstm = ContourEncoder(EncoderConfig((4, 4, 16), kind="lstm")).stages.lstm
    assert (lstm.num_layers, lstm.hidden_size, lstm.bidirectional) == (3, 8, True)


def test_dropout_drops_in_training_only():
    contours = torch.randn(4, 20, 2)
    encoder = encoder_of(EncoderConfig((8,), 1, heads=2, dropout=0.5))
    with torch.inference_mode():
        assert torch.equal(encoder(contours), encoder(contours))
        encoder.train()
        assert not torch.allclose(encoder(contours), encoder(contours))


class Plain(nn.Module):
    """The network of the shipped weights, written down once more and never to be changed."""

    def __init__(self, widths, convolutions, kernel):
        super().__init__()
        layers = []
        inputs = [2, *widths]
        for stage, width in enumerate(widths):
            for at in range(convolutions):
                before = inputs[stage] if at == 0 else width
                layers.append(nn.Conv1d(before, width, kernel, padding=kernel // 2, bias=False))
                layers += [nn.BatchNorm1d(width), nn.ReLU()]
            layers.append(nn.MaxPool1d(2))
        self.stages = nn.Sequential(*layers)
        self.pooling = nn.Module()
        self.pooling.project = nn.Linear(width, width)
        self.pooling.context = nn.Parameter(torch.randn(8, width // 8) * (width // 8) ** -0.5)
        self.output = nn.Linear(width, 512)

    def forward(self, contours):
        x = self.stages(contours.transpose(1, 2)).transpose(1, 2)
        values = x.unflatten(2, (8, -1))
        keys = torch.tanh(self.pooling.project(x)).unflatten(2, (8, -1))
        scores = (keys * self.pooling.context).sum(3, keepdim=True)
        x = (torch.softmax(scores, 1) * values).sum(1).flatten(1)
        return functional.normalize(self.output(x), dim=1)


def test_shipped_weights_embed_as_the_plain_network_does():
    stored = load_weights("best")
    plain = Plain((96, 192, 384, 512), 1, 5).eval()
    plain.load_state_dict({key: torch.from_numpy(value) for key, value in stored.arrays.items()})
    rng = np.random.default_rng(0)
    frames = np.ones((4, 80, 2), np.float32)
    frames[..., 0] = np.repeat(rng.integers(55, 70, (4, 10)), 8, axis=1)
    frames[:, 50:56] = 0
    with torch.inference_mode():
        expected = plain(torch.from_numpy(normalise(frames, "key")))
    np.testing.assert_allclose(ContourEmbedder("best").embed(frames), expected, atol=1e-6)


def test_a_seed_starts_the_default_encoder_from_the_weights_it_always_did():
    torch.manual_seed(0)
    plain = Plain((64, 128, 256), 2, 3).state_dict()
    torch.manual_seed(0)
    encoder = ContourEncoder(EncoderConfig()).state_dict()
    assert list(encoder) == list(plain)
    assert all(torch.equal(encoder[key], plain[key]) for key in plain)


def test_the_module_initialises_vector_maths_when_it_is_imported(monkeypatch):
    """Otherwise the first vectors of one process in eight differ from the next."""
    calls = []
    monkeypatch.setattr(training_loop, "initialise_vector_maths", lambda: calls.append(1))
    spec = importlib.util.spec_from_file_location("anew", encoders.__file__)
    anew = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "anew", anew)
    spec.loader.exec_module(anew)
    assert calls == [1]


@every_variant
def test_the_gradient_reaches_every_parameter(config):
    torch.manual_seed(0)
    encoder = ContourEncoder(config)
    vectors = encoder(torch.randn(6, 3 * config.total + 2, 2))
    (vectors * torch.randn_like(vectors)).sum().backward()
    for name, value in encoder.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().max() > 0, name


def test_shipped_weights_ignore_the_key_of_a_melody():
    embedder = ContourEmbedder()
    rng = np.random.default_rng(0)
    frames = np.ones((4, 80, 2), np.float32)
    frames[..., 0] = np.repeat(rng.integers(55, 70, (4, 10)), 8, axis=1)
    higher = frames + np.array([7, 0], np.float32)
    np.testing.assert_allclose(embedder.embed(frames), embedder.embed(higher), atol=1e-4)
    similarity = embedder.embed(frames) @ embedder.embed(frames).T
    assert similarity[np.triu_indices(4, 1)].max() < 0.8
