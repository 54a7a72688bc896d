import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from qbhkit.config import build_config
from qbhkit.contour import normalise
from qbhkit.embedding.embedder import ContourEmbedder, export_encoder
from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError
from qbhkit.storage import asset
from qbhkit.weights import load_weights, save_weights

POOLINGS = ("context", "attention", "gru", "max")
WIDTHS = ((8, 8, 8), (4, 8, 16))  # constant, growing
COMMON = {"convolutions": 2, "heads": 2, "embedding_dim": 12}
CONV = [
    EncoderConfig(widths, block=block, compression=total, linear=linear, pooling=pooling, **COMMON)
    for block, widths, total, linear, pooling in product(
        ("plain", "residual"), WIDTHS, (None, 20), (0, 5), POOLINGS
    )
]
LSTM = [
    EncoderConfig(widths, kind="lstm", linear=linear, pooling=pooling, **COMMON)
    for widths, linear, pooling in product(WIDTHS, (0, 5), POOLINGS)
]


def name_of(config):
    """What tells a variant from the others: lstm-4,8,16-None-5-gru."""
    kind = config.block if config.kind == "conv" else "lstm"
    widths = ",".join(map(str, config.widths))
    return f"{kind}-{widths}-{config.compression}-{config.linear}-{config.pooling}"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks as small as these wait for a second thread longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


every_variant = pytest.mark.parametrize("config", CONV + LSTM, ids=name_of)


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
def test_rows_of_a_batch_do_not_see_each_other(config):
    encoder = encoder_of(config)
    batch = torch.randn(5, 40, 2)
    with torch.inference_mode():
        np.testing.assert_allclose(encoder(batch)[3], encoder(batch[3:4])[0], atol=1e-5)


@every_variant
def test_a_contour_without_a_voice_has_a_vector(config):
    silence = torch.zeros(2, 40, 2)
    for encoder in (ContourEncoder(config), encoder_of(config)):
        vectors = encoder(silence)  # in training and in use
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


@pytest.mark.parametrize("half", [False, True])
@every_variant
def test_export_and_embed_give_back_the_same_vectors(config, half, tmp_path):
    encoder = encoder_of(config)
    export_encoder(
        encoder, tmp_path / "mine.safetensors", reading=Reading(40), how="key", half=half
    )
    embedder = ContourEmbedder(str(tmp_path / "mine.safetensors"))
    frames = np.zeros((3, 40, 2), np.float32)
    frames[:, :30, 0] = np.random.default_rng(0).integers(50, 70, (3, 30))
    frames[:, :30, 1] = 1
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(normalise(frames, "key")))
    vectors = embedder.embed(frames)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-2 if half else 1e-6)
    assert embedder.encoder.config == config
    assert embedder.reading == Reading(40)
    assert embedder.identity.startswith("mine-")
    assert embedder.embed(frames[:0]).shape == (0, 12)


def test_half_precision_halves_the_file_and_nothing_else(tmp_path):
    encoder = encoder_of(EncoderConfig((16, 32), heads=4, embedding_dim=64))
    for name in ("full", "half"):
        export_encoder(
            encoder, tmp_path / f"{name}.safetensors", Reading(40), "key", half=name == "half"
        )
    full, half = (load_weights(str(tmp_path / f"{name}.safetensors")) for name in ("full", "half"))
    assert half.config == full.config
    for key, array in full.arrays.items():
        whole = array.dtype == np.int64
        assert half.arrays[key].dtype == (np.int64 if whole else np.float16)
        np.testing.assert_allclose(half.arrays[key], array, rtol=1e-3, atol=1e-6)
    read = ContourEmbedder(str(tmp_path / "half.safetensors")).encoder.state_dict()
    for key, value in encoder.state_dict().items():
        assert read[key].dtype == value.dtype
        np.testing.assert_array_equal(read[key].numpy().ravel(), half.arrays[key].ravel())


def test_a_weight_too_large_for_half_precision_is_refused(tmp_path):
    encoder = encoder_of(EncoderConfig((8,), heads=2))
    with torch.no_grad():
        encoder.output.bias[3] = 1e5
    with pytest.raises(QbhError, match=r"output\.bias holds values too large for half precision"):
        export_encoder(encoder, tmp_path / "mine.safetensors", Reading(40), "key", half=True)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_variant_are_refused(tmp_path):
    encoder = encoder_of(EncoderConfig((8,), pooling="gru"))
    encoder.config = EncoderConfig((8,), pooling="max")
    export_encoder(encoder, tmp_path / "mine.safetensors", Reading(40), "key")
    with pytest.raises(QbhError, match="do not hold a contour encoder"):
        ContourEmbedder(str(tmp_path / "mine.safetensors"))


@pytest.mark.parametrize(
    ("stages", "compression", "pools"),
    [
        (3, None, (2, 2, 2)),
        (1, None, (2,)),
        (4, 160, (5, 4, 4, 2)),
        (3, 160, (8, 5, 4)),
        (5, 160, (5, 4, 2, 2, 2)),
        (6, 160, (5, 2, 2, 2, 2, 2)),
        (2, 72, (9, 8)),  # not (12, 6), as handing out the largest primes first would have it
        (1, 7, (7,)),
        (4, 16, (2, 2, 2, 2)),
    ],
)
def test_compression_is_spread_evenly_with_the_largest_first(stages, compression, pools):
    config = EncoderConfig((8,) * stages, 1, compression=compression, heads=2, embedding_dim=4)
    assert config.pools == pools
    assert config.total == np.prod(pools)
    found = [part.kernel_size for part in encoder_of(config).stages if "Max" in str(part)]
    assert found == [(1, pool) for pool in pools]


def test_pools_may_be_given_one_by_one():
    config = EncoderConfig((8, 8, 8), 1, compression=(6, 1, 5), heads=2, embedding_dim=4)
    assert (config.pools, config.total) == ((6, 1, 5), 30)
    with pytest.raises(QbhError, match="cannot be spread over 3 stages"):
        EncoderConfig((8, 8, 8), compression=(6, 5))
    with pytest.raises(QbhError, match="compression must be at least 1"):
        EncoderConfig((8, 8), compression=(6, 0))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "gru"}, "kind must be conv or lstm, not 'gru'."),
        ({"block": "dense"}, "block must be plain or residual, not 'dense'."),
        ({"pooling": "mean"}, "pooling must be context or attention or gru or max, not 'mean'."),
        ({"convolutions": 0}, "convolutions must be at least 1, not 0."),
        ({"kernel": -1}, "kernel must be at least 1, not -1."),
        ({"kernel": 4}, "kernel must be odd, not 4."),
        ({"heads": 0}, "heads must be at least 1, not 0."),
        ({"heads": 7}, "heads (7) must divide the last width (256)."),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, not 0."),
        ({"compression": 0}, "compression must be at least 1, not 0."),
        ({"compression": -8}, "compression must be at least 1, not -8."),
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
        ({"dropout": -0.1}, "dropout must be at least 0 and less than 1, not -0.1."),
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


def test_heads_matter_to_context_attention_only():
    assert EncoderConfig((9,), heads=2, pooling="max").heads == 2


def test_a_configuration_can_be_written_in_yaml():
    values = {"widths": [4, 8], "compression": 10, "block": "residual", "pooling": "gru"}
    config = EncoderConfig((4, 8), compression=10, block="residual", pooling="gru")
    assert build_config(EncoderConfig, values, "x.yaml") == config
    with pytest.raises(QbhError, match="kind"):
        build_config(EncoderConfig, {"kind": "transformer"}, "x.yaml")


def test_the_published_shape_can_be_written():
    config = EncoderConfig((128, 256, 512), compression=160, pooling="attention")
    with torch.inference_mode():
        assert ContourEncoder(config).eval()(torch.randn(1, 300, 2)).shape == (1, 512)


def test_default_embedding_has_512_dimensions():
    assert ContourEncoder(EncoderConfig())(torch.randn(2, 80, 2)).shape == (2, 512)


@pytest.mark.parametrize("convolutions", [1, 3])
@pytest.mark.parametrize("kernel", [1, 5])
@pytest.mark.parametrize("block", ["plain", "residual"])
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


@pytest.mark.parametrize("length", [1, 2, 19])
def test_short_input_is_padded_in_the_centre(length):
    for config in (
        EncoderConfig((8, 8), 1, compression=20, heads=2, linear=linear) for linear in (0, 3)
    ):
        encoder = encoder_of(config)
        short = torch.randn(1, length, 2)
        left = (20 - length) // 2
        padded = torch.zeros(1, 20, 2)
        padded[:, left : left + length] = short
        with torch.inference_mode():
            np.testing.assert_allclose(encoder(short), encoder(padded), atol=1e-6)
            assert not np.allclose(encoder(short), encoder(padded.roll(1, 1)), atol=1e-4)


@pytest.mark.parametrize("shape", [(80, 2), (1, 80, 3), (1, 0, 2)])
@pytest.mark.parametrize("kind", ["conv", "lstm"])
def test_wrong_shapes_are_refused(shape, kind):
    with pytest.raises(QbhError, match="batch, length, 2"):
        ContourEncoder(EncoderConfig((8,), 1, heads=2, kind=kind))(torch.zeros(shape))


@pytest.mark.parametrize("linear", [0, 5])
@pytest.mark.parametrize("kind", ["conv", "lstm"])
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


def test_an_encoder_of_something_else_is_no_contour_encoder(tmp_path):
    encoder = ContourEncoder(EncoderConfig((8,), inputs=5))
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
def test_shipped_weights_are_small_and_have_a_card(name):
    weights = asset(f"weights/{name}.safetensors")
    assert weights.stat().st_size < 12_000_000
    assert sum(value.size for value in load_weights(name).arrays.values()) < 6_000_000
    card = asset(f"weights/{name}.md").read_text("utf-8")
    for word in ("essenFolksong", "seed", "limits", "licence"):
        assert word.lower() in card.lower()


def test_the_first_vectors_of_a_process_are_like_the_next():
    """Without initialise_vector_maths one process of eight differs; three are asked."""
    script = (
        "import numpy as np\n"
        "from qbhkit.embedding.embedder import ContourEmbedder\n"
        "embedder = ContourEmbedder()\n"
        "frames = np.random.default_rng(0).normal(60, 5, (600, 80, 2)).astype(np.float32)\n"
        "frames[..., 1] = 1\n"
        "first, second = embedder.embed(frames), embedder.embed(frames)\n"
        "assert np.array_equal(first, second), np.abs(first - second).max()\n"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
