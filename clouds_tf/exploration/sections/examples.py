"""Section "Examples": images with their masks, original and augmented."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from clouds_tf import figures
from clouds_tf.data import augmentation
from clouds_tf.exploration import findings
from clouds_tf.exploration.page import Picture, Section
from clouds_tf.exploration.sections.parts import NUM_SHOWN, Explored, listed, overlays

_NUM_FLIPPED = 3


def examples(data: Explored, rng: np.random.Generator) -> Section:
    """Shows images, masks and augmentations.

    Args:
        data: the explored folder.
        rng: draws the images.
    """
    labels = _labels(data)
    filenames = np.array(list(labels))
    some = filenames[np.sort(rng.permutation(len(filenames))[:NUM_SHOWN])].tolist()
    counts = np.array([len(names) for names in labels.values()])
    fewest = filenames[np.argmin(np.where(counts > 0, counts, counts.max() + 1))]
    richest = filenames[np.argmax(counts)]
    cards = [
        _without_masks(data, some, labels),
        _with_masks(data, some, labels),
        _one_image(data, "one_mask", fewest, labels),
        _one_image(data, "all_masks", richest, labels),
        _by_class(data, sorted(some, key=lambda name: -len(labels[name]))[:2]),
        _augmented(data, richest),
    ]
    return Section("Examples", cards, "Drawn at random; a seed always draws the same.")


def _labels(data: Explored) -> dict[str, list[str]]:
    """File name -> names of the classes of the image."""
    images = findings.per_image(data.statistics.rows)["filename"]
    present = data.masks.groupby("filename")["class"].agg(list).to_dict()
    return {filename: present.get(filename, []) for filename in images}


def _titles(filenames: list[str], labels: dict[str, list[str]]) -> list[str]:
    return [", ".join(labels[filename]) or "none" for filename in filenames]


def _without_masks(data: Explored, some: list[str], labels: dict[str, list[str]]) -> Picture:
    titles = _titles(some, labels)
    mean = np.mean([len(labels[filename]) for filename in some])
    return Picture(
        "images",
        overlays(data, some, titles, outlines=False),
        f"Images without outlines, titled with their labels: {'; '.join(titles)}.",
        f"{len(some)} images drawn at random, titled with their labels. They have {mean:.1f} "
        "labels on average.",
    )


def _with_masks(data: Explored, some: list[str], labels: dict[str, list[str]]) -> Picture:
    shared = np.mean([(data.load(filename)[1].sum(axis=2) > 1).mean() for filename in some])
    return Picture(
        "image_with_masks",
        overlays(data, some),
        f"The same images with outlines: {'; '.join(_titles(some, labels))}.",
        f"The same images with their masks. {shared:.1%} of their pixels belong to more than one "
        "class.",
    )


def _one_image(data: Explored, name: str, filename: str, labels: dict[str, list[str]]) -> Picture:
    masks = data.masks[data.masks["filename"] == filename]
    shares = [f"{row['class']} {row['fraction']:.1%}" for _, row in masks.iterrows()]
    covered = f"{listed(shares)} of the image" if shares else "no masks"
    return Picture(
        name,
        functools.partial(overlays(data, [filename]), num_columns=1),
        f"{filename} with the outline of {listed(labels[filename] or ['nothing'])}.",
        f"{filename}: {covered}.",
    )


def _by_class(data: Explored, filenames: list[str]) -> Picture:
    loaded = [data.load(filename) for filename in filenames]
    names = data.dataset.class_names
    images, masks, titles = [], [], []
    for i, name in enumerate(names):
        for image, mask in loaded:
            only = np.zeros_like(mask)
            only[..., i] = mask[..., i]
            images.append(image)
            masks.append(only)
            titles.append(name if only.any() else f"{name}: absent")
    num_present = sum(bool(mask.any()) for mask in masks)
    return Picture(
        "images_by_class",
        functools.partial(
            figures.overlays, images, masks, titles, names, num_columns=len(filenames)
        ),
        f"A grid: a row for each class, a column for each of {listed(filenames)}.",
        f"A row for each class, a column for each image: {num_present} of {len(titles)} masks are "
        "present; a model must leave the others empty.",
    )


def _augmented(data: Explored, filename: str) -> Picture:
    image, masks = data.load(filename)
    example = {"image": tf.constant(image), "mask": tf.constant(masks)}
    flipped = [augmentation.flips(example, [seed, 0]) for seed in range(_NUM_FLIPPED)]
    num_changed = sum(not np.array_equal(x["image"], image) for x in flipped)
    shown = [example, *flipped]
    return Picture(
        "augmentation",
        functools.partial(
            figures.overlays,
            [x["image"].numpy() for x in shown],
            [x["mask"].numpy() for x in shown],
            ["original", *(f"flips, seed {seed}" for seed in range(_NUM_FLIPPED))],
            data.dataset.class_names,
            num_columns=2,
        ),
        f"{filename} and the same image after {_NUM_FLIPPED} random flips, masks included.",
        f"Flips as in training: {num_changed} of {_NUM_FLIPPED} seeds changed the image, and the "
        "masks move with it.",
    )
