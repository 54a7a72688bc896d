"""The converter against a network in the original's layout, and against hostile files."""

import argparse
import builtins
import collections
import os
import pickle
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qbhkit.cli import main
from qbhkit.contour import normalise
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.import_checkpoint import _pools, _widths, import_checkpoint
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError

TOLERANCE = 1e-5


class HParams:
    """The original's hyper-parameters, small; its class lives in a module ``hparams``."""

    def __init__(self, **changes):
        self.learning_rate = 1e-4
        self.data_dir = "data/flo_pitch/"
        self.input_size = 2
        self.hidden_size = 8
        self.num_layers = 4
        self.kernel_size = 3
        self.embed_size = 12
        self.num_head = 2
        self.summ_type = "rnn"
        self.use_pre_encoder = False
        self.use_res = False
        self.use_gradual_size = False
        self.compression_ratio = 20
        vars(self).update(changes)


HParams.__module__ = "hparams"


class Plain(nn.Module):
    """Parameters ``conv_norm.0`` and ``conv_norm.1``."""

    def __init__(self, inputs, outputs, kernel):
        super().__init__()
        convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.conv_norm = nn.Sequential(convolution, nn.BatchNorm1d(outputs), nn.ReLU())

    def forward(self, x):
        return self.conv_norm(x)


class Residual(nn.Module):
    """Parameters ``conv_1``, ``bn_1``, ``conv_2``, ``bn_2``, and a third of both if need be."""

    def __init__(self, inputs, outputs, kernel):
        super().__init__()
        for number, width in ((1, inputs), (2, outputs), (3, inputs)):
            if number < 3 or inputs != outputs:
                convolution = nn.Conv1d(width, outputs, kernel, padding=kernel // 2)
                self.add_module(f"conv_{number}", convolution)
                self.add_module(f"bn_{number}", nn.BatchNorm1d(outputs))

    def forward(self, x):
        y = self.bn_2(self.conv_2(self.bn_1(self.conv_1(x)).relu()))
        return (y + (self.bn_3(self.conv_3(x)) if hasattr(self, "conv_3") else x)).relu()


class Attention(nn.Module):
    """Parameters ``attention_net``, and ``context_vector`` if there are heads."""

    def __init__(self, width, heads=None):
        super().__init__()
        self.attention_net = nn.Linear(width, width)
        self.heads = heads
        if heads:
            self.context_vector = nn.Parameter(torch.rand(heads, width // heads, 1) * 2 - 1)

    def forward(self, x):
        """(B, T, C) to (B, C)."""
        scores = self.attention_net(x)
        if not self.heads:
            return (scores.softmax(1) * x).sum(1)
        parts = zip(
            scores.tanh().chunk(self.heads, 2), x.chunk(self.heads, 2), self.context_vector,
            strict=True,
        )  # fmt: skip
        return torch.cat([((keys @ v).softmax(1) * values).sum(1) for keys, values, v in parts], 1)


class CnnEncoder(nn.Module):
    """The original's encoder: its names of parameters, and a vector of any length."""

    def __init__(self, hparams):
        super().__init__()
        width, hidden = 2, hparams.hidden_size
        if hparams.use_pre_encoder:
            self.pre_encoder = nn.Linear(2, hidden)
            width = hidden
        block = Residual if hparams.use_res else Plain
        self.encoder = nn.Sequential()
        for number, pool in enumerate((3, 3, 2, None)):  # 20 is spread over 4 layers so
            growth = (0.5, 1, 2, 2)[number] if hparams.use_gradual_size else 1
            outputs = int(hidden * growth)
            self.encoder.add_module(f"conv_{number}", block(width, outputs, hparams.kernel_size))
            if pool:
                self.encoder.add_module(f"pool_{number}", nn.MaxPool1d(pool))
            width = outputs
        self.fc = nn.Linear(width, hparams.embed_size)
        if hparams.summ_type == "context_attention":
            self.final_attention = Attention(width, hparams.num_head)
        elif hparams.summ_type == "simple_attention":
            self.final_attention = Attention(width)
        elif hparams.summ_type == "rnn":
            self.final_rnn = nn.GRU(width, width, batch_first=True)

    def forward(self, contours):
        """(B, L, 2) to (B, embed_size)."""
        x = self.pre_encoder(contours) if hasattr(self, "pre_encoder") else contours
        x = self.encoder(x.transpose(1, 2)).transpose(1, 2)
        if hasattr(self, "final_attention"):
            return self.fc(self.final_attention(x))
        return self.fc(self.final_rnn(x)[1][0] if hasattr(self, "final_rnn") else x.amax(1))


def trained(hparams):
    """A network after a few steps of training, with biases and norms that matter."""
    torch.manual_seed(3)
    network = CnnEncoder(hparams)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 0.7
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim == 1:
                value += torch.randn_like(value) * 0.3
            elif name == "fc.weight" or "final_attention" in name:
                value *= 8
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(3):
        loss = network(torch.randn(16, 40, 2)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval(), optimizer


def write_hparams(path, value, protocol=3):
    """Pickle as the original does, where its module ``hparams`` can be imported."""
    sys.modules["hparams"] = types.SimpleNamespace(HParams=HParams)
    try:
        path.write_bytes(pickle.dumps(value, protocol))
    finally:
        del sys.modules["hparams"]


def write_checkpoint(path, state, optimizer=None, **how):
    training = {"optimizer": optimizer.state_dict()} if optimizer else {}
    torch.save(
        {"iteration": 5001, "state_dict": state, "learning_rate": 1e-4, **training}, path, **how
    )


def write_original(folder, **changes):
    """Write both files as the original does; return the network."""
    hparams = HParams(**changes)
    network, optimizer = trained(hparams)
    write_hparams(folder / "hparams.dat", hparams)
    write_checkpoint(folder / "checkpoint_best.pt", network.state_dict(), optimizer)
    return network


def melodies():
    """(5, 200, 2): notes of a second each, some of them silent."""
    rng = np.random.default_rng(0)
    frames = np.ones((5, 200, 2), np.float32)
    frames[..., 0] = np.repeat(rng.integers(48, 75, (5, 20)), 10, axis=1)
    frames[:, 40:60] = 0
    return frames


def assert_same(network, converted):
    """The kit's embeddings are the original's, brought to length 1, and tell melodies apart."""
    embedder = ContourEmbedder(str(converted))
    found = embedder.embed(melodies())
    with torch.inference_mode():
        wanted = network(torch.from_numpy(normalise(melodies(), "published")))
    wanted = nn.functional.normalize(wanted, dim=1).numpy()
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    assert np.abs(wanted[:, None] - wanted[None]).max(2)[np.triu_indices(5, 1)].min() > 1e-2
    assert (embedder.reading, embedder.normalisation) == (Reading(200, 20.0), "published")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small network, and the folder of both its files."""
    folder = tmp_path_factory.mktemp("original")
    return write_original(folder), folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy of both files, which a test may damage."""
    return shutil.copytree(original[1], tmp_path, dirs_exist_ok=True)


class TestEquality:
    @pytest.mark.parametrize(
        ("summary", "residual", "growing", "linear"),
        [
            ("context_attention", False, True, False),
            ("context_attention", True, False, True),
            ("simple_attention", True, True, False),
            ("simple_attention", False, False, True),
            ("rnn", True, True, True),
            ("max", False, False, False),
        ],
    )
    def test_embeddings_are_those_of_the_original(
        self, tmp_path, summary, residual, growing, linear
    ):
        network = write_original(
            tmp_path, summ_type=summary, use_res=residual, use_gradual_size=growing,
            use_pre_encoder=linear, kernel_size=5 if residual else 3,
        )  # fmt: skip
        assert_same(network, import_checkpoint(tmp_path, tmp_path / "out"))

    def test_hyper_parameters_may_be_an_object_a_namespace_or_a_dict(self, original, folder):
        plain = vars(HParams(betas=(0.9, 0.999), genres=[4, 12], ids=None, nested={"a": {"b": 1}}))
        kinds = (HParams(), argparse.Namespace(**plain), plain, collections.OrderedDict(plain))
        for value, protocol in zip(kinds, (2, 3, 4, 5), strict=True):
            write_hparams(folder / "hparams.dat", value, protocol)
            assert_same(original[0], import_checkpoint(folder, folder / "out"))

    def test_older_and_wrapped_checkpoints(self, original, folder):
        network = original[0]
        path, state = folder / "checkpoint_best.pt", network.state_dict()
        parallel = {f"module.{key}": value for key, value in state.items()}
        whole = {f"module.contour_encoder.{key}": value for key, value in state.items()}
        whole["module.audio_encoder.fc.weight"] = torch.randn(3, 3)
        doubled = {key: value.double() if value.ndim else value for key, value in state.items()}
        for other in (state, parallel, whole, doubled):
            write_checkpoint(path, other, _use_new_zipfile_serialization=False)
            assert_same(network, import_checkpoint(folder, folder / "out"))

    def test_compression_is_spread_and_widths_grow_as_in_the_original(self):
        assert _pools(4, 160) == (6, 5, 5, 1)
        assert _pools(4, 125) == (5, 5, 4, 1)  # its third root is 4.999... in floats
        assert _pools(6, 160) == (3, 3, 3, 2, 2, 1)
        assert _widths(6, 8, True) == (4, 4, 8, 8, 16, 16)
        assert _widths(2, 8, True) == (8, 16)


class Attack:
    """Unpickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def refused(folder, says):
    """Conversion fails in one sentence, and leaves nothing behind."""
    with pytest.raises(QbhError, match=says) as caught:
        import_checkpoint(folder, folder / "out")
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert not (folder / "out").exists()
    return text


class TestAttacks:
    @pytest.mark.parametrize(
        ("attack", "name"),
        [
            (lambda mark: Attack(os.system, f"touch {mark}"), "posix.system"),
            (lambda mark: Attack(eval, f"open({str(mark)!r}, 'w')"), "eval"),
            (lambda mark: Attack(exec, f"open({str(mark)!r}, 'w')"), "exec"),
            (lambda mark: Attack(open, str(mark), "w"), "io.open"),
            (lambda mark: Attack(subprocess.Popen, ["touch", str(mark)]), "subprocess.Popen"),
            (lambda mark: Attack(builtins.getattr, "", "join"), "getattr"),
            (lambda mark: Attack(builtins.__import__, "os"), "__import__"),
            (lambda mark: torch.zeros(3), "torch._utils._rebuild_tensor_v2"),
            (lambda mark: np.float64(1), "numpy"),
            (lambda mark: 1j, "complex"),
        ],
    )  # fmt: skip
    def test_whatever_could_run_is_named_and_refused(self, folder, attack, name):
        found = attack(folder / "mark")
        inside = {"hidden_size": 8, "nested": [{"deep": found}]}
        for value, protocol in ((found, 0), (inside, 2), ([found], 3), (inside, 4), (found, 5)):
            (folder / "hparams.dat").write_bytes(pickle.dumps(value, protocol))
            text = refused(
                folder, r"hparams\.dat holds '.*', which is not a plain value and could run"
            )
            # older protocols rebuild an object by way of another class or function
            assert name in text or protocol < 3
            assert not (folder / "mark").exists()

    @pytest.mark.parametrize(
        "content",
        [
            b"(S'touch MARK'\nios\nsystem\n.",  # INST
            b"(cos\nsystem\nS'touch MARK'\no.",  # OBJ
            b"cos\nsystem\n(S'touch MARK'\ntR.",  # REDUCE
            b"\x80\x02cos\nsystem\nX\x0a\x00\x00\x00touch MARK\x85\x81.",  # NEWOBJ
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch MARK\x85R.",  # STACK_GLOBAL
            b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
            b"\x80\x04\x8c\x07hparams\x8c\x10HParams.__init__\x93.",
            b"\x80\x04\x8c\x07hparams\x8c\x0c__builtins__\x93.",
        ],
    )  # fmt: skip
    def test_every_way_to_name_a_function(self, folder, monkeypatch, content):
        monkeypatch.chdir(folder)
        (folder / "hparams.dat").write_bytes(content.replace(b"MARK", b"mark"))
        refused(folder, r"hparams\.dat holds '")
        assert not (folder / "mark").exists()

    def test_no_module_is_imported(self, folder, monkeypatch):
        """Not even the one that the original's own class stands in."""
        (folder / "hparams.py").write_text("raise SystemExit('imported')")
        monkeypatch.syspath_prepend(folder)
        import_checkpoint(folder, folder / "out")
        assert "hparams" not in sys.modules

    @pytest.mark.parametrize(
        "content",
        [
            b"Phparams\n.",  # a persistent id, as text and as a value
            b"\x80\x02K\x01Q.",
            b"\x80\x02\x82\x01.",  # an extension code
            b"\x80\x02chparams\nHParams\nK\x01\x85R.",  # a stand-in called with an argument
            b"\x80\x02chparams\nHParams\nN}X\x01\x00\x00\x00aK\x01s\x86b.",  # a change of its class
            b"\x80\x02ccollections\nOrderedDict\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
            b"\x80\x02}]K\x01s.",  # a key that cannot be one
        ],
    )
    def test_other_codes_of_a_pickle_do_nothing(self, folder, content):
        (folder / "hparams.dat").write_bytes(content)
        refused(folder, r"hparams\.dat is damaged or no pickle")
        assert not hasattr(types.SimpleNamespace, "a")
        assert not hasattr(dict, "a")

    def test_a_stand_in_runs_nothing_that_is_put_into_it(self, folder):
        plain = import_checkpoint(folder, folder / "plain")
        hparams = HParams(
            __setstate__="x", __class__="y", __reduce__="z", __dict__={"hidden_size": 9}
        )
        write_hparams(folder / "hparams.dat", hparams)
        assert import_checkpoint(folder, folder / "out").read_bytes() == plain.read_bytes()

    @pytest.mark.parametrize(
        "content",
        [
            b"\x80\x02Nr\xff\xff\xff\x7f.",  # a far slot of the memo
            b"p2147483647\n.",
            b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b".",  # tuples of twice the same
            b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",  # hashed: 2 ** 60 steps
            b"\x80\x02}" + b")" + b"\x85" * 15000 + b"K\x01s.",  # hashed: deep
            b"\x80\x02" + b"]" * 15000 + b"a" * 14999 + b".",
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0fabc.",  # texts that claim a length
            b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",  # a number that does
            b"I" + b"9" * 15000 + b"\n.",
            b"\x80\x02]" + b"N" * (1 << 20),
            pickle.dumps(vars(HParams(note="x" * (16 << 10)))),  # plain, but large
        ],
    )
    def test_bombs(self, folder, content):
        (folder / "hparams.dat").write_bytes(content)
        refused(folder, r"hparams\.dat (is|must hold|has no)")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_checkpoint_runs_nothing_either(self, folder, zipped):
        path, mark = folder / "checkpoint_best.pt", folder / "mark"
        for value, name in (
            (Attack(os.system, f"touch {mark}"), "posix.system"),
            (Attack(eval, f"open({str(mark)!r}, 'w')"), "eval"),
            (np.float64(1), "numpy"),
            (argparse.Namespace(a=1), "argparse.Namespace"),
        ):
            write_checkpoint(path, {"a": value}, _use_new_zipfile_serialization=zipped)
            text = refused(folder, r"checkpoint_best\.pt holds '.*', which is not a plain value")
            assert name in text
            assert "weights_only" not in text
            assert not mark.exists()


class TestWrongFiles:
    @pytest.mark.parametrize("name", ["hparams.dat", "checkpoint_best.pt"])
    def test_missing_damaged_and_foreign_files(self, folder, name, recwarn):
        path = folder / name
        whole = path.read_bytes()
        foreign = [b"", b"\x80", b"no such thing", b"PK\3\4" * 9, b"\x89HDF\r\n", b"\0" * 99]
        if name == "checkpoint_best.pt":
            foreign += [b"\x80\x04N.", pickle.dumps([1.5, "a"], 4)]
        for content in (*foreign, whole[:-1], whole[: len(whole) // 2], whole[:20]):
            path.write_bytes(content)
            refused(folder, rf"{name} (is damaged or no|has no state_dict)")
        path.unlink()
        refused(folder, rf"{name} does not exist")
        path.mkdir()
        refused(folder, rf"{name} does not exist")
        assert not recwarn.list

    def test_other_values_than_hyper_parameters(self, folder):
        for value in (None, 3, "text", [1], {1}, (1, 2)):
            write_hparams(folder / "hparams.dat", value, 4)
            kind = type(value).__name__
            refused(folder, rf"hparams\.dat must hold hyper-parameters, not {kind}")
        values = vars(HParams())
        del values["compression_ratio"]
        write_hparams(folder / "hparams.dat", values)
        refused(folder, r"hparams\.dat has no compression_ratio")

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"hidden_size": 8.0}, "hidden_size must be a whole number from 1 to 4096"),
            ({"hidden_size": 4097}, "hidden_size must be a whole number"),
            ({"embed_size": 0}, "embed_size must be a whole number"),
            ({"num_layers": 1}, "num_layers at least 2"),
            ({"input_size": 512}, "input_size must be 2"),
            ({"kernel_size": 4}, "kernel must be odd, not 4"),
            ({"use_res": "yes"}, "use_res must be a bool"),
            ({"summ_type": ["rnn"]}, "summ_type must be a str"),
        ],
    )
    def test_hyper_parameters_of_no_network(self, folder, changes, says):
        write_hparams(folder / "hparams.dat", HParams(**changes))
        refused(folder, rf"hparams\.dat: .*{says}")

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"use_res": True}, r"has no encoder\.conv_0\.conv_1\.weight"),
            ({"summ_type": "max"}, r"layer final_rnn\.weight_ih_l0: .* no such one"),
            ({"embed_size": 13}, r"layer fc\.weight: .*\(13, 8\), not float32 \(12, 8\)"),
        ],
    )
    def test_the_first_layer_that_does_not_fit_is_named(self, folder, changes, says):
        write_hparams(folder / "hparams.dat", HParams(**changes))
        refused(folder, rf"checkpoint_best\.pt.*{says}")

    @pytest.mark.parametrize(
        ("name", "change", "says"),
        [
            ("fc.weight", lambda x: x * np.nan, "holds NaN"),
            ("fc.bias", lambda x: x.double() * 1e300, "holds NaN or infinite"),
            ("encoder.conv_2.conv_norm.1.running_var", lambda x: -x, "holds a negative variance"),
            ("fc.weight", lambda x: x.int(), r"float32 \(12, 8\), not int32"),
            ("fc.weight", lambda x: x.T, "not float32 .8, 12.|must be a plain tensor"),
            ("fc.weight", lambda x: x.to_sparse(), "must be a plain tensor"),
            ("fc.weight", lambda x: x[:1, :1].expand(12, 8), "must be a plain tensor"),
            ("fc.weight", lambda x: x.to("meta"), "must be a plain tensor"),
            ("fc.weight", lambda x: 0.5, "must be a plain tensor"),
        ],
    )
    def test_weights_that_cannot_be_used(self, folder, name, change, says):
        path = folder / "checkpoint_best.pt"
        state = dict(torch.load(path, weights_only=True)["state_dict"])
        state[name] = change(state[name])
        write_checkpoint(path, state)
        refused(folder, rf"checkpoint_best\.pt, layer {name}: .*({says})")

    def test_a_layer_too_many_is_named(self, folder):
        path = folder / "checkpoint_best.pt"
        state = torch.load(path, weights_only=True)["state_dict"]
        write_checkpoint(path, {**state, "head.weight": torch.zeros(3)})
        refused(folder, r"checkpoint_best\.pt, layer head\.weight: the network of its hparams\.dat")
        for other in ([1], {1: torch.zeros(1)}, None):
            write_checkpoint(path, other)
            refused(folder, r"checkpoint_best\.pt has no state_dict")
        torch.save(state, path)
        refused(folder, r"checkpoint_best\.pt has no state_dict")


def test_what_the_command_writes_can_be_used(folder, capsys):
    assert main(["weights", "import-checkpoint", str(folder), "--out", str(folder / "out")]) == 0
    written = folder / "out" / "original.safetensors"
    assert capsys.readouterr() == (f"weights: {written}\n", "")
    assert ContourEmbedder(str(written)).embedding_dim == 12
