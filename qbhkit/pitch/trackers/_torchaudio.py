"""A stand-in for torchaudio during the import of packages that import it.

torchcrepe, torchfcpe and pesto-pitch need torchaudio only to read and resample files, which the kit
does itself. But the wheels of torchaudio are built for CUDA and do not load beside the CPU torch.
"""

import sys
import threading
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

_LOCK = threading.Lock()


def import_beside(package: str) -> ModuleType:
    """Import a package that imports torchaudio; the stand-in is used if the real one fails.

    Raises:
        ImportError: if the package, or another package that it needs, is not installed.
    """
    with _LOCK:
        try:
            import_module("torchaudio.transforms")
            stand_in = {}
        except Exception:  # OSError, ImportError or RuntimeError, depending on the versions
            _forget_torchaudio()  # half-imported submodules
            stand_in = _stand_in()
        sys.modules.update(stand_in)
        try:
            return import_module(package)
        finally:
            if stand_in:
                _forget_torchaudio()


def _forget_torchaudio() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]


def _stand_in() -> dict[str, ModuleType]:
    """Return the modules that those packages import, with names only."""
    torchaudio, transforms = ModuleType("torchaudio"), ModuleType("torchaudio.transforms")
    vars(transforms)["Resample"] = None
    vars(torchaudio).update(transforms=transforms, __path__=[])
    for module in (torchaudio, transforms):  # others may look for them
        module.__spec__ = ModuleSpec(module.__name__, None)
    return {module.__name__: module for module in (torchaudio, transforms)}
