"""The settings of a training run, each defined once."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, Mapping, Optional

from clouds_tf.data.augmentation import AUGMENTATIONS, MIXES, check_augmentation
from clouds_tf.models import losses
from clouds_tf.models.encoders import ENCODERS
from clouds_tf.models.unet import MAX_WIDTH
from clouds_tf.training.distribution import PRECISIONS, STRATEGIES
from clouds_tf.training.optimizers import OPTIMIZERS
from clouds_tf.training.schedules import SCHEDULES


def _setting(default: Any, help: str, **bounds: Any) -> Any:
    """A field with its help text, and with "min", "max" or "choices" as they apply."""
    return dataclasses.field(default=default, metadata={"help": help, **bounds})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run learns.

    Two runs with equal recipes on the same records and fold give equal models. A new setting is one
    field here and the place that uses it: flags, validation and settings.json follow from it.

    Raises:
        ValueError: a value has the wrong type, is out of bounds or is not among the choices.

    >>> Recipe(epochs=10, loss="0.75*bce+0.25*dice")
    Recipe(epochs=10, loss='0.75*bce+0.25*dice')
    >>> Recipe(epochs=0)
    Traceback (most recent call last):
    ValueError: epochs: got 0, expected at least 1
    """

    epochs: int = _setting(25, "Number of passes over the training images.", min=1)
    batch_size: int = _setting(32, "Images per global batch, over all devices.", min=1)
    image_size: tuple[int, int] = _setting(
        (320, 480), "Size of the network's input, in pixels: height,width."
    )
    loss: str = _setting(
        "bce_dice",
        "Loss: a weighted sum such as 0.75*bce+0.25*dice of " + ", ".join(losses.LOSSES) + ".",
    )
    optimizer: str = _setting("nadam", "Optimizer.", choices=tuple(sorted(OPTIMIZERS)))
    learning_rate: float = _setting(2e-4, "Peak learning rate.", min=0)
    schedule: str = _setting(
        "constant", "Learning-rate schedule over the run.", choices=tuple(sorted(SCHEDULES))
    )
    warmup_epochs: float = _setting(
        0.0, "Epochs over which the learning rate rises linearly from 0.", min=0
    )
    weight_decay: float = _setting(
        0.01, "Weight decay of adamw and lamb; biases and batch norm are exempt.", min=0
    )
    clip_norm: Optional[float] = _setting(
        None, "Maximum global norm of the gradients; by default they are not clipped.", min=0
    )
    ema: Optional[float] = _setting(
        None,
        "Decay of an exponential moving average of the weights, which is then validated and kept; "
        "by default there is none.",
        min=0,
        max=1,
    )
    average_last: int = _setting(
        0, "Also evaluate the mean of the weights of the last N epochs; 0 does not.", min=0
    )
    width: float = _setting(
        1.0, "Factor on the number of channels of every layer.", min=0.05, max=MAX_WIDTH
    )
    encoder: str = _setting(
        "resnet34", "Encoder of the U-Net.", choices=tuple(sorted(ENCODERS))
    )
    encoder_weights: Optional[str] = _setting(
        None, "File of published encoder weights to start from, .safetensors or .h5."
    )
    init_checkpoint: Optional[str] = _setting(
        None, "Checkpoint of a whole model to start from, such as W/checkpoints/best of a run."
    )
    init_weights: Optional[str] = _setting(
        None, "File of a whole model's weights to start from, .safetensors."
    )
    allow_seen_images: bool = _setting(
        False,
        "Start from a model that was trained on images of the held-out fold; the held-out scores "
        "are then too good.",
    )
    freeze_encoder: bool = _setting(False, "Keep the encoder's weights and statistics fixed.")
    encoder_learning_rate_factor: float = _setting(
        1.0, "Factor on the learning rate of the encoder.", min=0
    )
    classification_head: bool = _setting(
        False, "Also predict which classes are present in the image."
    )
    xla: bool = _setting(False, "Compile the training step with XLA; one device only.")
    augmentation: str = _setting(
        "flips",
        f"Augmentation of each image: {', '.join(sorted(AUGMENTATIONS))}, keras_cv, or layers of "
        "keras-cv such as keras_cv:rand_augment,grid_mask.",
    )
    mix: str = _setting(
        "none", "Augmentation that mixes the images of a batch.", choices=tuple(sorted(MIXES))
    )
    precision: str = _setting(
        "float32", "Numeric precision of the computation.", choices=tuple(PRECISIONS)
    )
    seed: int = _setting(0, "Seed of the weights, the order and the augmentation.", min=0)

    def __post_init__(self) -> None:
        _validate(self)
        losses.parse(self.loss)
        check_augmentation(self.augmentation)
        sources = [n for n in ("init_checkpoint", "init_weights") if getattr(self, n)]
        if len(sources) > 1:
            raise ValueError(
                "init_weights: got init_checkpoint beside it, expected at most one of them"
            )

    def __repr__(self) -> str:
        return _repr(self)

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of `unet` other than the number of classes."""
        names = ("width", "encoder", "classification_head")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `from_json` reads."""
        return {**dataclasses.asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Recipe:
        """Reads what `to_json` wrote, now or in an earlier version.

        Settings that are missing had no choice at that time, so they get their defaults; keys that
        are no settings are left alone.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in names})


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a run is executed: devices, caches and tracing. A resumed run may change all of it.

    Raises:
        ValueError: a value has the wrong type, is out of bounds or is not among the choices.
    """

    distribute: str = _setting(
        "none",
        "Devices: none for one; mirrored for all GPUs of this machine; multi_worker for those of "
        "all machines in the environment variable TF_CONFIG.",
        choices=STRATEGIES,
    )
    num_devices: Optional[int] = _setting(
        None, "Number of devices for --distribute=mirrored; by default all.", min=1
    )
    deterministic: bool = _setting(
        False, "Compute the same bits in every run; some operations become slower."
    )
    cache: str = _setting(
        "none", "Where decoded images are kept between epochs.", choices=("none", "memory", "disk")
    )
    cache_dir: Optional[str] = _setting(None, "Folder for --cache=disk.")
    data_service: Optional[str] = _setting(
        None, "Address of tools/data_service.py that decodes and augments: grpc://host:port."
    )
    profile: bool = _setting(
        False, "Write a trace of a few steps of the first epoch for TensorBoard."
    )

    def __post_init__(self) -> None:
        _validate(self)

    def __repr__(self) -> str:
        return _repr(self)


def _repr(settings: Any) -> str:
    """The call that makes an instance of a dataclass, without the arguments at their defaults."""
    changed = [
        f"{field.name}={getattr(settings, field.name)!r}"
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    ]
    return f"{type(settings).__name__}({', '.join(changed)})"


def _validate(settings: Any) -> None:
    """Checks every field against its type and metadata; lists become tuples, 1 becomes 1.0."""
    types = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        kind, value = types[field.name], getattr(settings, field.name)
        if typing.get_origin(kind) is typing.Union:  # Optional
            if value is None:
                continue
            kind = typing.get_args(kind)[0]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
            value = tuple(value)
        object.__setattr__(settings, field.name, value)
        fault = _fault(kind, value, field.metadata)
        if fault:
            raise ValueError(f"{field.name}: got {value!r}, expected {fault}")


def _fault(kind: Any, value: Any, metadata: Mapping[str, Any]) -> str | None:
    """What a value was expected to be, or None where it is that."""
    if typing.get_origin(kind) is tuple:
        is_size = isinstance(value, tuple) and len(value) == 2
        if is_size and all(type(side) is int and side > 0 for side in value):
            return None
        return "height and width in pixels, such as (320, 480)"
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        words = {int: "a whole number", float: "a finite number", str: "text"}
        return words.get(kind, "True or False")
    if "choices" in metadata and value not in metadata["choices"]:
        return f"one of {', '.join(metadata['choices'])}"
    lower, upper = metadata.get("min"), metadata.get("max")
    if (lower is not None and value < lower) or (upper is not None and value > upper):
        return f"at least {lower}" if upper is None else f"{lower} to {upper}"
    return None
