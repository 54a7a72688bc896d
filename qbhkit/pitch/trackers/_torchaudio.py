"""A stand-in for torchaudio during the import of packages that import it.

torchcrepe, torchfcpe and pesto-pitch need torchaudio only to read and resample files, which the kit
does itself. But the wheels of torchaudio are built for CUDA and do not load beside the CPU torch.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_LOCK = threading.Lock()


def import_beside(package: str) -> ModuleType:
    """Import a package that imports torchaudio; the stand-in is used if the real one fails.

    Raises:
        ImportError: if the package, or another package that it needs, is not installed.
    """
    with _LOCK, torchaudio_or_stand_in():
        return import_module(package)


@contextmanager
def torchaudio_or_stand_in() -> Iterator[None]:
    """Put a stand-in into ``sys.modules`` for the block, unless the real torchaudio loads."""
    before = _torchaudio_modules()
    try:
        import_module("torchaudio.transforms")
    except Exception:  # OSError, ImportError or RuntimeError, depending on the versions
        _restore({})  # half-imported submodules
        sys.modules.update(_stand_in())
        try:
            yield
        finally:
            _restore(before)
    else:
        yield


def _torchaudio_modules() -> dict[str, Any]:
    return {name: sys.modules[name] for name in sys.modules if name.split(".")[0] == "torchaudio"}


def _restore(modules: dict[str, Any]) -> None:
    for name in _torchaudio_modules():
        del sys.modules[name]
    sys.modules.update(modules)


def _stand_in() -> dict[str, ModuleType]:
    """Return the modules that those packages import, with ``load`` and ``Resample``."""
    import soundfile
    import soxr
    import torch

    def load(path: str) -> tuple[torch.Tensor, int]:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T.copy()), rate_hz  # (channels, N)

    class Resample(torch.nn.Module):
        def __init__(self, orig_freq: int, new_freq: int, **_: Any) -> None:
            super().__init__()
            self.rates_hz = (orig_freq, new_freq)

        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            flat = waveform.reshape(-1, waveform.shape[-1]).cpu().numpy()  # (rows, N)
            resampled = torch.from_numpy(soxr.resample(flat.T, *self.rates_hz).T.copy())
            return resampled.reshape(*waveform.shape[:-1], -1).to(waveform.device)

    torchaudio: Any = ModuleType("torchaudio")
    transforms: Any = ModuleType("torchaudio.transforms")
    torchaudio.load, torchaudio.transforms, transforms.Resample = load, transforms, Resample
    for module in (torchaudio, transforms):
        module.__spec__ = ModuleSpec(module.__name__, None)
    torchaudio.__path__ = []
    return {module.__name__: module for module in (torchaudio, transforms)}
