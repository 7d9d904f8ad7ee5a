"""`Predictor`, a SavedModel on one device."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from clouds_tf import files, gfile
from clouds_tf.lazy import uncollected
from clouds_tf.manifest import checksum
from clouds_tf.messages import about_the_data
from clouds_tf.prediction import engine as engines
from clouds_tf.prediction.engine import DifferentError, OpenVINONetwork, UnusableError
from clouds_tf.prediction.metadata import METADATA_FILE, Metadata, read_metadata
from clouds_tf.prediction.signatures import Signatures

# Functions by the name of a signature, as `write_version` describes them.
Functions = Mapping[str, Callable[..., "dict[str, tf.Tensor]"]]

_GRAPH, _WEIGHTS = "saved_model.pb", "variables"
_CHECKSUMS = "checksums.json"  # of a converted network
_REFUSED = "refused.txt"  # why a network cannot be converted


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """A SavedModel of `serving.export`, which is loaded when it is first called.

    A pickled Predictor is opened again where it is unpickled, once per process; ValueError if the
    SavedModel differs there.

    Attributes:
        path: folder of the version, such as E/1.
        metadata: data set, sizes, rules, calibration and test-time augmentation.
        identity: a string that differs between predictors whose answers may differ, because of
            weights, graph, precision, rules, calibration, test-time augmentation, or engine.
        load: returns the functions.
        load_stages: returns `Signatures`, whose stages can be called one by one.
        engine: the requested engine, "tensorflow" or "openvino".
        device: name of the device for weights and computation; None lets TensorFlow choose.
        warning: the reason why TensorFlow replaces OpenVINO, or "".
    """

    path: str
    metadata: Metadata
    identity: str
    load: Callable[[], Functions] = dataclasses.field(repr=False)
    load_stages: Callable[[], Signatures] = dataclasses.field(repr=False)
    engine: str = "tensorflow"
    device: str | None = None
    warning: str = ""

    @classmethod
    def open(cls, path: str, engine: str = "tensorflow", device: str | None = None) -> Predictor:
        """Opens a SavedModel that `serving.export` wrote.

        With OpenVINO, the networks are converted and cached in the folder PATH.openvino, if it is
        writable.

        Args:
            path: folder of a version, such as E/1.
            engine: "tensorflow", or "openvino" on the CPU if it works there.
            device: name of a device, for TensorFlow.

        Raises:
            FileNotFoundError: there is no SavedModel.
            ValueError: it is damaged or not one of `export`, OpenVINO is not installed, or the
                SavedModel is too old for OpenVINO.
        """
        engines.require(engine)
        metadata, identity = read_metadata(path), _identity(path)
        load = functools.partial(_load_functions, path, device, identity)
        stages = functools.partial(_load_stages, path, device, identity, metadata)
        if engine == "tensorflow":
            return cls(path, metadata, identity, load, stages, engine, device)
        try:
            networks = _openvino_networks(path, device, metadata, identity)
        except UnusableError as error:
            warning = f"OpenVINO {error}; using TensorFlow instead"
            return cls(path, metadata, identity, load, stages, engine, device, warning)
        graph = Signatures(networks, metadata)
        functions = {
            "serving_default": graph.serve,
            "probabilities": graph.serve_probabilities,
            "from_pixels": graph.serve_pixels,
            "probabilities_of_pixels": graph.predict_pixels,
        }
        precisions = "-".join(sorted({network.precision for network in networks}))
        identity = f"{identity}/openvino-{precisions}"
        return cls(path, metadata, identity, lambda: functions, lambda: graph, engine, device)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (self.path, self.engine, self.device, self.identity)

    @functools.cached_property
    def functions(self) -> Functions:
        """The functions, loaded once; ValueError if the SavedModel is damaged."""
        return self.load()

    def __call__(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps image_bytes, string [N], to a dict with encoded_pixels, string [N, C], and more."""
        return self.run("serving_default", image_bytes=image_bytes)

    def run(self, signature: str, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Calls a function by name.

        The names are those of the signatures, "serving_default", "probabilities" and "from_pixels";
        and "probabilities_of_pixels", which takes images as "from_pixels" does, and returns only
        probabilities and, if the SavedModel has it, likeness.
        """
        with tf.device(self.device):
            return self.functions[signature](**inputs)


@functools.lru_cache(maxsize=1)
def _open_again(path: str, engine: str, device: str | None, identity: str) -> Predictor:
    predictor = Predictor.open(path, engine, device)
    if predictor.identity != identity:
        raise ValueError(f"{path}: got identity {predictor.identity}, expected {identity}")
    return predictor


def _identity(path: str) -> str:
    """Checksum of everything in a SavedModel that influences its answers."""
    names = files.list_names(os.path.join(path, _WEIGHTS))
    kept = [METADATA_FILE, _GRAPH, *(os.path.join(_WEIGHTS, name) for name in names)]
    return checksum([[name, files.sha256(os.path.join(path, name))] for name in kept])


def _load_module(path: str, device: str | None) -> Any:
    try:
        with tf.device(device), uncollected():
            module = tf.saved_model.load(path)
        outputs = module.signatures["serving_default"].structured_outputs
    except Exception as error:  # damaged bytes may raise any error
        reason = about_the_data(str(error)) or type(error).__name__
        raise ValueError(
            f"{path}: cannot be loaded ({reason}); if it is damaged, export it again"
        ) from None
    if "encoded_pixels" not in outputs:
        raise ValueError(f"{path}: not a SavedModel of export: no output encoded_pixels")
    return module


@functools.lru_cache(maxsize=1)  # for a second call of predict_scenes
def _load(path: str, device: str | None, identity: str) -> Any:
    return _load_module(path, device)


@functools.lru_cache(maxsize=1)
def _load_functions(path: str, device: str | None, identity: str) -> Functions:
    module = _load(path, device, identity)
    functions = dict(module.signatures)
    if "from_pixels" in functions:
        functions["probabilities_of_pixels"] = _without_masks(functions["from_pixels"])
    # The functions hold the variables only weakly; these hold the module too.
    call = functools.partial(_call, module, _has_networks_apart(module))
    return {name: functools.partial(call, function) for name, function in functions.items()}


def _call(module: tf.Module, apart: bool, function: Any, **inputs: tf.Tensor) -> Any:
    with _only_networks_optimized() if apart else contextlib.nullcontext():
        return function(**inputs)


def _without_masks(signature: Any) -> Any:
    """The signature from_pixels, of which only probabilities and likeness are computed."""
    (images,) = signature.structured_input_signature[1].values()

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = signature(images=images)
        return {name: answer[name] for name in ("probabilities", "likeness") if name in answer}

    return tf.function(predict, input_signature=[images], autograph=False)


def _has_networks_apart(module: tf.Module) -> bool:
    """Whether the networks are separate functions at run time; older exports inline them."""
    networks: list[Any] = list(getattr(module, "networks", []))
    functions = [function for network in networks for function in network.concrete_functions]
    return bool(functions) and all("_noinline" in f.function_def.attr for f in functions)


@contextlib.contextmanager
def _only_networks_optimized() -> Iterator[None]:
    """Context in which no graphs but the networks, which configure it themselves, are optimized.

    The graph around the networks has thousands of small operations: optimizing them takes a second
    and does not make them faster. The context affects only this thread; tf.config.optimizer would
    affect the whole process.
    """
    from tensorflow.python.eager import context

    current = context.context()
    options = current.function_call_options
    config = tf.compat.v1.ConfigProto.FromString(options.config_proto_serialized)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    current.function_call_options = context.FunctionCallOptions(options.executor_type, config)
    try:
        yield
    finally:
        current.function_call_options = options


def _load_stages(path: str, device: str | None, identity: str, metadata: Metadata) -> Signatures:
    module = _load(path, device, identity)
    _require_networks(path, module, "tools/serve.py")
    networks = [functools.partial(_call_network, module, i) for i in range(len(module.networks))]
    return Signatures(networks, metadata, compiled=True)


def _call_network(module: tf.Module, index: int, images: tf.Tensor) -> dict[str, tf.Tensor]:
    return module.networks[index](images)


def _require_networks(path: str, module: tf.Module, purpose: str) -> None:
    if not hasattr(module, "networks"):
        raise ValueError(
            f"{path}: too old for {purpose}, its networks are not separate; export it again"
        )


def devices(num_devices: int | None = None) -> list[str]:
    """Names of all or the first GPUs of this machine, or of the CPU if there is no GPU.

    Raises:
        ValueError: fewer than `num_devices` are available.
    """
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    if num_devices is not None and not 1 <= num_devices <= len(names):
        raise ValueError(f"num_devices: got {num_devices}, expected 1 to {len(names)} ({kind}s)")
    return names[:num_devices]


def _openvino_networks(
    path: str, device: str | None, metadata: Metadata, identity: str
) -> list[OpenVINONetwork]:
    """The converted networks of a SavedModel, from the cache of this kind of CPU if possible."""
    import openvino

    cpu = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    key = "\n".join([identity, openvino.get_version(), cpu])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    kept = os.path.join(f"{path.rstrip('/')}.openvino", digest)
    names = [f"{i}.xml" for i in range(len(metadata.image_sizes))]
    if _is_whole(kept):
        return [OpenVINONetwork(os.path.join(kept, name)) for name in names]
    refused = os.path.join(kept, _REFUSED)
    if gfile.exists(refused):
        raise UnusableError(files.read_text(refused))
    module = _load_module(path, device)
    _require_networks(path, module, "OpenVINO")
    with tempfile.TemporaryDirectory() as folder:
        try:
            networks = [
                engines.convert(network, size, metadata.dataset, os.path.join(folder, name))
                for network, size, name in zip(module.networks, metadata.image_sizes, names)
            ]
        except DifferentError as error:
            with contextlib.suppress(OSError):
                files.write_text(refused, str(error))
            raise
        # If the folder is not writable, every process converts the networks again.
        with contextlib.suppress(OSError):
            _keep(folder, kept)
    return networks


def _keep(folder: str, kept: str) -> None:
    """Copies a folder of converted networks, with checksums."""
    if gfile.exists(kept):  # damaged
        gfile.rmtree(kept)
    names = sorted(os.listdir(folder))
    checksums = {name: files.sha256(os.path.join(folder, name)) for name in names}
    with files.written_whole(kept) as temporary:
        gfile.makedirs(temporary)
        for name in names:
            gfile.copy(os.path.join(folder, name), os.path.join(temporary, name))
        files.write_text(os.path.join(temporary, _CHECKSUMS), json.dumps(checksums))


def _is_whole(kept: str) -> bool:
    """Whether a folder has undamaged converted networks."""
    try:
        checksums = json.loads(files.read_text(os.path.join(kept, _CHECKSUMS)))
        return all(files.sha256(os.path.join(kept, name)) == checksums[name] for name in checksums)
    except (OSError, ValueError, AttributeError, TypeError):
        return False
