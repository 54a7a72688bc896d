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
from qbhkit.storage import asset
from qbhkit.weights import load_weights, save_weights

POOLINGS = ("context", "attention", "gru", "max")
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
def test_what_happens_anywhere_can_change_the_vector(config):
    encoder = encoder_of(config)
    contour = torch.randn(1, 2 * config.total, 2)
    others = contour.repeat(4 * config.total, 1, 1)
    others.view(len(others), -1).diagonal().fill_(9.0)  # one value of each row is another
    with torch.inference_mode():
        change = (encoder(others) - encoder(contour)).abs().amax(dim=1)
    # A change need not survive rectifiers and maxima, but most do, in both channels.
    moved = change.view(-1, 2) > 1e-6  # (2 total, 2)
    assert moved.float().mean() > 0.5
    assert moved.any(dim=0).all()


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
def test_the_gradient_reaches_every_parameter(config):
    torch.manual_seed(0)
    encoder = ContourEncoder(config)
    vectors = encoder(torch.randn(6, 3 * config.total + 2, 2))
    (vectors * torch.randn_like(vectors)).sum().backward()
    still = [
        name
        for name, value in encoder.named_parameters()
        if value.grad is None or not value.grad.abs().max() > 0
    ]
    assert still == []


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
        (1, 7, (7,)),
    ],
)
def test_compression_is_spread_evenly_with_the_largest_first(stages, compression, pools):
    config = EncoderConfig((8,) * stages, 1, compression=compression, heads=2, embedding_dim=4)
    assert config.pools == pools
    assert config.total == np.prod(pools)
    found = [part.kernel_size for part in encoder_of(config).stages if "Max" in str(part)]
    assert found == [(1, pool) for pool in pools]


def test_pools_may_be_given_one_by_one():
    config = EncoderConfig((9, 9, 9), 1, compression=(6, 1, 5), pooling="max")  # 8 heads: no matter
    assert (config.pools, config.total) == ((6, 1, 5), 30)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "gru"}, "kind must be conv or lstm, not 'gru'."),
        ({"block": "dense"}, "block must be plain or residual, not 'dense'."),
        ({"pooling": "mean"}, "pooling must be context or attention or gru or max, not 'mean'."),
        ({"convolutions": 0}, "convolutions must be at least 1, not 0."),
        ({"inputs": 0}, "inputs must be at least 1, not 0."),
        ({"kernel": -1}, "kernel must be at least 1, not -1."),
        ({"kernel": 4}, "kernel must be odd, not 4."),
        ({"heads": 0}, "heads must be at least 1, not 0."),
        ({"heads": 7}, "heads (7) must divide the last width (256)."),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, not 0."),
        ({"compression": 0}, "compression must be at least 1, not 0."),
        ({"compression": (6, 2, 0)}, "compression must be at least 1, not (6, 2, 0)."),
        ({"compression": (6, 5)}, "compression ((6, 5)) cannot be spread over 3 stages"),
        (
            {"compression": 26},
            "compression (26) cannot be spread over 3 stages: it must be a product of so many "
            "whole numbers over 1.",
        ),
        ({"compression": 1, "widths": (8,)}, "compression (1) cannot be spread over 1 stages"),
        ({"widths": ()}, "widths must be one or more numbers from 1, not ()."),
        ({"widths": (8, 0, 8)}, "widths must be one or more numbers from 1, not (8, 0, 8)."),
        ({"linear": -1}, "linear must be at least 0, not -1."),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, not 1.0."),
        ({"dropout": float("nan")}, "dropout must be at least 0 and less than 1, not nan."),
        ({"kind": "lstm", "compression": 8}, "The kind lstm has no stages: leave block and"),
        ({"kind": "lstm", "block": "residual"}, "The kind lstm has no stages: leave block and"),
        ({"kind": "lstm", "widths": (9,), "pooling": "max"}, "width of an lstm (9) must be even."),
    ],
)
def test_impossible_configurations_are_refused(values, says):
    with pytest.raises(QbhError) as caught:
        EncoderConfig(**values)
    assert says in str(caught.value)


def test_the_published_shape_and_the_default_have_512_dimensions():
    published = EncoderConfig((128, 256, 512), compression=160, pooling="attention")
    for config, frames in ((published, 300), (EncoderConfig(), 80)):
        with torch.inference_mode():
            assert ContourEncoder(config).eval()(torch.randn(1, frames, 2)).shape == (1, 512)


@pytest.mark.parametrize(
    ("convolutions", "kernel", "block"), [(1, 5, "plain"), (3, 1, "plain"), (3, 5, "residual")]
)
def test_a_stage_has_the_convolutions_it_is_told(convolutions, kernel, block):
    encoder = encoder_of(EncoderConfig((4, 8, 8), convolutions, kernel, heads=2, block=block))
    found = sorted(
        (part.in_channels, part.out_channels, *part.kernel_size)
        for part in encoder.stages.modules()
        if isinstance(part, nn.Conv1d)
    )
    wanted = [(2, 4, kernel), (4, 8, kernel), (8, 8, kernel)]
    wanted += (convolutions - 1) * [(4, 4, kernel), (8, 8, kernel), (8, 8, kernel)]
    if block == "residual":
        wanted += [(2, 4, kernel), (4, 8, kernel)]  # shortcuts, where the width changes
    assert found == sorted(wanted)
    assert encoder(torch.randn(1, 9, 2)).shape == (1, 512)


@pytest.mark.parametrize(("length", "linear"), [(1, 0), (2, 3), (19, 0)])
def test_short_input_is_padded_in_the_centre(length, linear):
    encoder = encoder_of(EncoderConfig((8, 8), 1, compression=20, heads=2, linear=linear))
    short = torch.randn(1, length, 2)
    left = (20 - length) // 2
    padded = torch.zeros(1, 20, 2)
    padded[:, left : left + length] = short
    with torch.inference_mode():
        np.testing.assert_allclose(encoder(short), encoder(padded), atol=1e-6)
        assert not np.allclose(encoder(short), encoder(padded.roll(1, 1)), atol=1e-4)


@pytest.mark.parametrize("shape", [(80, 2), (1, 80, 3), (1, 0, 2)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(QbhError, match="batch, length, 2"):
        ContourEncoder(EncoderConfig((8,), 1, heads=2))(torch.zeros(shape))


@pytest.mark.parametrize(("kind", "linear"), [("conv", 5), ("lstm", 0)])
def test_frames_may_have_as_many_channels_as_the_configuration_says(kind, linear):
    config = EncoderConfig(
        (8, 16), 1, heads=2, embedding_dim=32, kind=kind, inputs=7, linear=linear
    )
    encoder = ContourEncoder(config).eval()
    frames = torch.randn(3, 20, 7, generator=torch.Generator().manual_seed(0))
    vectors = encoder(frames)
    assert vectors.shape == (3, 32)
    for channel in range(7):  # every one of them counts
        assert not torch.allclose(encoder(frames * (torch.arange(7) != channel)), vectors)
    with pytest.raises(QbhError, match=r"batch, length, 7\), not \(3, 20, 2\)"):
        encoder(frames[..., :2])


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


def test_a_residual_block_is_its_convolutions_and_what_went_in():
    """With its last norm at zero, a block passes on what went in, rectified."""
    encoder = encoder_of(EncoderConfig((6, 6), block="residual", heads=2))
    block = encoder.stages[2]
    x = torch.randn(2, 6, 1, 10)
    with torch.inference_mode():
        assert not torch.allclose(block(x), x.relu())
        block.body[-1].weight.zero_()
        block.body[-1].bias.zero_()
        torch.testing.assert_close(block(x), x.relu())


def test_dropout_drops_in_training_only():
    contours = torch.randn(4, 20, 2)
    encoder = encoder_of(EncoderConfig((8,), 1, heads=2, dropout=0.5))
    with torch.inference_mode():
        assert torch.equal(encoder(contours), encoder(contours))
        encoder.train()
        assert not torch.allclose(encoder(contours), encoder(contours))


def test_poolings_are_what_they_are_called():
    """Each of them by hand, frame after frame."""
    frames = torch.randn(2, 7, 8)
    for pooling in POOLINGS:
        part = encoder_of(EncoderConfig((8,), heads=2, pooling=pooling)).pooling
        with torch.inference_mode():
            torch.testing.assert_close(part(frames), by_hand(part, pooling, frames))


def by_hand(part, pooling, frames):
    """The slow way from (B, T, C) to (B, C)."""
    rows = []
    for row in frames:  # (T, C)
        if pooling == "max":
            rows.append(torch.stack([max(channel) for channel in row.T]))
        elif pooling == "gru":
            state = torch.zeros(1, 8)
            cell = nn.GRUCell(8, 8)
            cell.load_state_dict(
                {k.removesuffix("_l0"): v for k, v in part.gru.state_dict().items()}
            )
            for frame in row:
                state = cell(frame[None], state)
            rows.append(state[0])
        elif pooling == "attention":
            scores = torch.stack([part.score.weight @ frame for frame in row]).exp()  # (T, C)
            rows.append((scores * row).sum(0) / scores.sum(0))
        else:
            heads = []
            for head in range(2):
                mine = slice(4 * head, 4 * head + 4)
                keys = [torch.tanh(part.project(frame))[mine] for frame in row]
                scores = torch.stack([key @ part.context[head] for key in keys]).exp()
                heads.append((scores[:, None] * row[:, mine]).sum(0) / scores.sum())
            rows.append(torch.cat(heads))
    return torch.stack(rows)


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


def test_shipped_weights_ignore_the_key_of_a_melody():
    embedder = ContourEmbedder()
    rng = np.random.default_rng(0)
    frames = np.ones((4, 80, 2), np.float32)
    frames[..., 0] = np.repeat(rng.integers(55, 70, (4, 10)), 8, axis=1)
    higher = frames + np.array([7, 0], np.float32)
    np.testing.assert_allclose(embedder.embed(frames), embedder.embed(higher), atol=1e-4)
    similarity = embedder.embed(frames) @ embedder.embed(frames).T
    assert similarity[np.triu_indices(4, 1)].max() < 0.8


@pytest.mark.parametrize("name", ["stage1", "best"])
def test_shipped_weights_have_a_card(name):
    card = asset(f"weights/{name}.md").read_text("utf-8").lower()
    assert all(word in card for word in ("essenfolksong", "seed", "limits", "licence"))


def test_the_module_initialises_vector_maths_when_it_is_imported(monkeypatch):
    """Otherwise the first vectors of one process in eight differ from the next."""
    calls = []
    monkeypatch.setattr(training_loop, "initialise_vector_maths", lambda: calls.append(1))
    spec = importlib.util.spec_from_file_location("anew", encoders.__file__)
    anew = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "anew", anew)
    spec.loader.exec_module(anew)
    assert calls == [1]
