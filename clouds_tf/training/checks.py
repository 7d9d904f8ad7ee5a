"""Checks before training: packages, memory, and initial weights that saw held-out images."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Optional

import tensorflow as tf

from clouds_tf import gfile, own
from clouds_tf.data.augmentations import find_augmentation
from clouds_tf.models import losses, weights
from clouds_tf.models.encoders.imagenet import IMAGENET, imagenet_weights
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.recipe import Recipe
from clouds_tf.training.workdir import Run

# Activations of convolutions and batch norm that are kept for the gradient: 180 numbers per pixel
# of the input at width 1 with the smallest encoder, mobilenet_v3_small; 277 with resnet34. The
# actual memory is larger.
_NUMBERS_PER_PIXEL = 180
_CGROUP_LIMIT = "/sys/fs/cgroup/memory.max"


def check_start(run: Run) -> None:
    """Checks augmentation, loss, the user's functions and the initial weights.

    Raises:
        FileNotFoundError: a file of weights does not exist.
        ValueError: the augmentation needs a package that does not work here, or RGB images; the
            loss needs exclusive classes; a function is not found; or the initial weights were
            trained on images of the fold that this run holds out.
    """
    recipe = run.recipe
    find_augmentation(recipe.augmentation, run.dataset.channels)
    if losses.parse(recipe.loss).uses("cce"):
        if not run.dataset.exclusive:
            raise ValueError(
                "loss: cce is for exclusive classes, but those of the records are not exclusive; "
                'write records with a data set that has "exclusive": true, or use bce'
            )
        if recipe.class_weights:
            raise ValueError("class_weights: got the loss cce, which has no separate classes")
    for name, setting in recipe.own_names().items():
        own.find(setting, name)
    if recipe.encoder_weights == IMAGENET:
        imagenet_weights(recipe.encoder)
    for name in ("encoder_weights", "init_weights"):
        path = getattr(recipe, name)
        if path and path != IMAGENET and not gfile.exists(path):
            raise FileNotFoundError(f"{name}: {path}: no such file")
    for name, trained in (
        ("init_checkpoint", _runs_of_checkpoint(recipe.init_checkpoint)),
        ("init_weights", _runs_of_weights(recipe.init_weights)),
    ):
        for records, fold in trained:
            if records == run.records and fold != run.fold and not recipe.allow_seen_images:
                raise ValueError(
                    f"{name}: {getattr(recipe, name)} was trained on these records with fold "
                    f"{fold} held out, so it saw the images of fold {run.fold}, and the held-out "
                    f"scores would be too good; start from a run of fold {run.fold}, or set "
                    "allow_seen_images"
                )


def _runs_of_checkpoint(path: Optional[str]) -> list[tuple[Any, Any]]:
    """Records and folds of the run of a checkpoint, and of the runs that it started from."""
    found: list[tuple[Any, Any]] = []
    seen = set()
    while path and path not in seen:
        seen.add(path)
        # W/checkpoints/best or W/checkpoints/best/ckpt-7, of a workdir W
        parent = os.path.dirname(os.path.dirname(path.rstrip("/")))
        folders = [parent, os.path.dirname(parent)]
        names = [os.path.join(folder, workdirs.SETTINGS_FILE) for folder in folders]
        if not any(map(gfile.exists, names)):
            break
        run = workdirs.Run.open(folders[0] if gfile.exists(names[0]) else folders[1])
        found.append((run.records, run.fold))
        found += _runs_of_weights(run.recipe.init_weights)
        path = run.recipe.init_checkpoint
    return found


def _runs_of_weights(path: Optional[str]) -> list[tuple[Any, Any]]:
    """Records and folds of the runs that a file of weights came from, if it names them."""
    if not path or not gfile.exists(path):
        return []
    metadata, _ = weights.read_model_weights(path)
    training = metadata.get("training", [])
    runs = training if isinstance(training, list) else [training]
    return [(run.get("records"), run.get("fold")) for run in runs if isinstance(run, dict)]


def check_memory(recipe: Recipe, num_workers: int = 1) -> None:
    """Checks that a training step can fit into memory, on machines without a GPU.

    Raises:
        ValueError: it cannot; the message names the minimum that it needs.
    """
    if tf.config.list_physical_devices("GPU"):
        return  # GPUs report missing memory themselves
    height, width = recipe.image_size
    bytes_per_number = 4 if recipe.precision == "float32" else 2
    pixels = height * width * max(1, recipe.batch_size // (num_workers * recipe.accumulate))
    needed = pixels * _NUMBERS_PER_PIXEL * bytes_per_number * min(recipe.width, 1.0)
    available = _memory()
    if needed > available:
        raise ValueError(
            f"image_size: a step on {recipe.batch_size} images of {height}x{width} needs at least "
            f"{needed / 1e9:.0f} GB of memory, and this machine has {available / 1e9:.0f} GB; use "
            "a smaller image_size or batch_size"
        )


def _memory() -> float:
    """Memory of this machine or container in bytes; infinite if unknown."""
    found = [float("inf")]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError), open(_CGROUP_LIMIT) as file:
        found.append(float(file.read()))
    return min(found)
