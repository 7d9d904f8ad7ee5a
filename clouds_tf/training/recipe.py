"""The settings of a training run, each defined once."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Optional

from clouds_tf.data.augmentation import AUGMENTATIONS, MIXES, check_augmentation
from clouds_tf.data.cache import CACHES, check_cache
from clouds_tf.models import losses
from clouds_tf.models.encoders import ENCODERS, find_encoder
from clouds_tf.models.unet import MAX_WIDTH
from clouds_tf.settings import CheckedSettings, setting
from clouds_tf.training.distribution import PRECISIONS, STRATEGIES
from clouds_tf.training.optimizers import OPTIMIZERS, SCHEDULES, check_optimizer

# Name -> a column of the history and its sign, +1 where higher is better.
_MONITORS = {"dice": ("val_dice", 1), "loss": ("val_loss", -1), "tuned_dice": ("val_tuned_dice", 1)}


@dataclasses.dataclass(frozen=True, repr=False)
class Recipe(CheckedSettings):
    """Everything that decides what a training run learns.

    Two runs with equal recipes on the same records and fold give equal models. A new setting is one
    field here and the place that uses it: flags, validation and settings.json follow from it.

    Raises:
        ValueError: a value has the wrong type, is out of bounds or is not among the choices.

    >>> Recipe(epochs=10, loss="0.75*bce+0.25*dice")
    Recipe(epochs=10, loss='0.75*bce+0.25*dice')
    """

    epochs: int = setting(25, "Number of passes over the training images.", min=1)
    batch_size: int = setting(32, "Images per global batch, over all devices.", min=1)
    image_size: tuple[int, int] = setting(
        (320, 480), "Size of the network's input, in pixels: height,width."
    )
    loss: str = setting(
        "bce_dice",
        "Loss: a weighted sum such as 0.75*bce+0.25*dice of " + ", ".join(losses.LOSSES) + ".",
    )
    optimizer: str = setting(
        "nadam",
        f"Optimizer: {', '.join(OPTIMIZERS)}, or addons:NAME for one of tensorflow-addons, such as "
        "addons:NovoGrad (Python 3.9 to 3.11, as are lamb, lookahead and radam).",
    )
    learning_rate: float = setting(2e-4, "Peak learning rate.", min=0)
    schedule: str = setting(
        "constant", "Learning-rate schedule over the run.", choices=tuple(sorted(SCHEDULES))
    )
    warmup_epochs: float = setting(
        0.0, "Epochs over which the learning rate rises linearly from 0.", min=0
    )
    weight_decay: float = setting(
        0.01,
        "Weight decay of adamw, lamb and addons:NAME; biases and batch norm are exempt.",
        min=0,
    )
    clip_norm: Optional[float] = setting(
        None, "Maximum global norm of the gradients; by default they are not clipped.", min=0
    )
    ema: Optional[float] = setting(
        None,
        "Decay of an exponential moving average of the weights, which is then validated and kept; "
        "by default there is none.",
        min=0,
        max=1,
    )
    monitor: str = setting(
        "dice",
        "Held-out value that decides which epoch is kept: dice at a threshold of 0.5; loss; or "
        "tuned_dice, with thresholds and minimum areas found on the other half of the images.",
        choices=tuple(_MONITORS),
    )
    average_last: int = setting(
        0, "Also evaluate the mean of the weights of the last N epochs; 0 does not.", min=0
    )
    width: float = setting(
        1.0, "Factor on the number of channels of every layer.", min=0.05, max=MAX_WIDTH
    )
    encoder: str = setting("resnet34", "Encoder of the U-Net.", choices=tuple(sorted(ENCODERS)))
    encoder_weights: Optional[str] = setting(
        None, "File of published encoder weights to start from, .safetensors or .h5."
    )
    init_checkpoint: Optional[str] = setting(
        None, "Checkpoint of a whole model to start from, such as W/checkpoints/best of a run."
    )
    init_weights: Optional[str] = setting(
        None, "File of a whole model's weights to start from, .safetensors."
    )
    allow_seen_images: bool = setting(
        False,
        "Start from a model that was trained on images of the held-out fold; the held-out scores "
        "are then too good.",
    )
    freeze_encoder: bool = setting(False, "Keep the encoder's weights and statistics fixed.")
    encoder_learning_rate_factor: float = setting(
        1.0, "Factor on the learning rate of the encoder.", min=0
    )
    classification_head: bool = setting(
        False, "Also predict which classes are present in the image."
    )
    xla: bool = setting(False, "Compile the training step with XLA; one device only.")
    augmentation: str = setting(
        "flips",
        f"Augmentation of each image: {', '.join(sorted(AUGMENTATIONS))}, keras_cv, or layers of "
        "keras-cv such as keras_cv:rand_augment,grid_mask.",
    )
    mix: str = setting(
        "none", "Augmentation that mixes the images of a batch.", choices=tuple(sorted(MIXES))
    )
    precision: str = setting(
        "float32", "Numeric precision of the computation.", choices=tuple(PRECISIONS)
    )
    seed: int = setting(0, "Seed of the weights, the order and the augmentation.", min=0)

    def __post_init__(self) -> None:
        find_encoder(self.encoder)  # which says more of one that was removed
        super().__post_init__()
        losses.parse(self.loss)
        check_augmentation(self.augmentation)
        check_optimizer(self.optimizer)
        sources = [n for n in ("init_checkpoint", "init_weights") if getattr(self, n)]
        if len(sources) > 1:
            raise ValueError(
                "init_weights: got init_checkpoint beside it, expected at most one of them"
            )

    def score(self, row: Mapping[str, float]) -> float:
        """The monitored value of an epoch's row of the history; higher is better."""
        column, sign = _MONITORS[self.monitor]
        return sign * row[column]

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
        fields = {"monitor": "dice", **fields}  # whatever the default becomes
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in names})


@dataclasses.dataclass(frozen=True, repr=False)
class Execution(CheckedSettings):
    """How a run is executed: devices, caches and tracing. A resumed run may change all of it.

    Raises:
        ValueError: a value has the wrong type, is out of bounds or is not among the choices.
    """

    distribute: str = setting(
        "none",
        "Devices: none for one; mirrored for all GPUs of this machine; multi_worker for those of "
        "all machines in the environment variable TF_CONFIG.",
        choices=STRATEGIES,
    )
    num_devices: Optional[int] = setting(
        None, "Number of devices for --distribute=mirrored; by default all.", min=1
    )
    deterministic: bool = setting(
        False, "Compute the same bits in every run; some operations become slower."
    )
    cache: str = setting("none", "Where decoded images are kept between epochs.", choices=CACHES)
    cache_dir: Optional[str] = setting(None, "Folder for --cache=disk.")
    data_service: Optional[str] = setting(
        None, "Address of tools/data_service.py that decodes and augments: grpc://host:port."
    )
    profile: bool = setting(
        False, "Write a trace of a few steps of the first epoch for TensorBoard."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cache(self.cache, self.cache_dir)
