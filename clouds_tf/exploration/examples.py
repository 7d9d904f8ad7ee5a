"""Sections of the report that show images: examples, and findings worth a look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from clouds_tf import figures
from clouds_tf.data.augmentations import AUGMENTATIONS
from clouds_tf.exploration import summary
from clouds_tf.exploration.charts import Explored
from clouds_tf.figures.page import Card, Section
from clouds_tf.messages import counted

_NUM_SHOWN = 6  # images in a grid
_NUM_FLIPPED = 3


def _overlays(
    data: Explored, filenames: Iterable[str], titles: Sequence[str], outlines: bool = True
) -> Callable[..., Any]:
    """Draws images, optionally with the outlines of their masks, two in a row."""
    images, masks = zip(*(data.load(filename) for filename in filenames))
    names, num_columns = data.dataset.class_names, min(2, len(images))
    shown = [mask * np.uint8(outlines) for mask in masks]
    return partial(figures.overlays, images, shown, titles, names, num_columns=num_columns)


def examples(data: Explored, rng: np.random.Generator) -> Section:
    """Shows images, masks and augmentations; `rng` draws the images."""
    rows = data.masks.groupby("filename")["class"]
    images = summary.per_image(data.statistics.rows)["filename"]
    labels = rows.agg(list).reindex(images).map(lambda x: x if isinstance(x, list) else [])
    counts = labels.str.len()
    some = images[np.sort(rng.permutation(len(images))[:_NUM_SHOWN])].tolist()
    titles = [", ".join(labels[name]) or "none" for name in some]
    shared = np.mean([(data.load(name)[1].sum(axis=2) > 1).mean() for name in some])
    richest = counts.idxmax()
    cards = [
        Card(
            f"{counted(len(some), 'image')} drawn at random, titled with the labels, "
            f"{counts[some].mean():.1f} on average.",
            "images",
            _overlays(data, some, titles, outlines=False),
        ),
        Card(
            f"The same images with their masks. {shared:.1%} of their pixels belong to more than "
            "one class.",
            "image_with_masks",
            _overlays(data, some, some),
        ),
        _one_image(data, "one_mask", counts.where(counts > 0, counts.max() + 1).idxmin()),
        _one_image(data, "all_masks", richest),
        _by_class(data, sorted(some, key=lambda name: -counts[name])[:2]),
        _augmented(data, richest),
    ]
    return Section("Examples", "Drawn at random; a seed always draws the same.", cards)


def _one_image(data: Explored, name: str, filename: str) -> Card:
    masks = data.masks[data.masks["filename"] == filename]
    shares = ", ".join(f"{c} {share:.1%}" for c, share in zip(masks["class"], masks["fraction"]))
    text = f"{filename}: {shares or 'no masks'}{' of the image' if shares else ''}."
    return Card(text, name, _overlays(data, [filename], [filename]))


def _by_class(data: Explored, filenames: Sequence[str]) -> Card:
    loaded, names = [data.load(filename) for filename in filenames], data.dataset.class_names
    images, masks, titles = [], [], []
    for i, name in enumerate(names):
        for image, mask in loaded:
            images.append(image)
            masks.append(mask * (np.arange(len(names)) == i))
            titles.append(name if mask[..., i].any() else f"{name}: absent")
    return Card(
        f"A row for each class, a column for each image: {sum(t in names for t in titles)} of "
        f"{len(titles)} masks are present; a model must leave the others empty.",
        "images_by_class",
        partial(figures.overlays, images, masks, titles, names, num_columns=len(filenames)),
    )


def _augmented(data: Explored, filename: str) -> Card:
    image, masks = data.load(filename)
    example = {"image": image, "mask": masks}
    flipped = [AUGMENTATIONS["flips"](example, [seed, 0]) for seed in range(_NUM_FLIPPED)]
    images, flipped_masks = ([np.asarray(x[key]) for x in flipped] for key in example)
    changed = sum(not np.array_equal(flip, image) for flip in images)
    titles = ["original", *(f"flips, seed {seed}" for seed in range(_NUM_FLIPPED))]
    return Card(
        f"Flips as in training: {changed} of {_NUM_FLIPPED} seeds changed the image, and the "
        "masks move with it.",
        "augmentation",
        partial(
            figures.overlays,
            [image, *images],
            [masks, *flipped_masks],
            titles,
            data.dataset.class_names,
            num_columns=2,
        ),
    )


def suspects(data: Explored) -> Section:
    """Shows near-duplicates, images unlike the others, tiny masks and masks in the black gap."""
    found = data.summary
    cards = _closest_pairs(data) + [
        _suspects(
            data,
            "unlike_others",
            f"Unusual images, at least {summary.UNUSUAL:g} spreads from the median in one of "
            f"{', '.join(found['images'])}",
            [f"{x['measure']} {x['value']:.3g}" for x in found["unlike_others"]],
        ),
        _suspects(
            data,
            "tiny",
            f"Masks of less than {summary.TINY:.0%} of the image",
            [f"{x['class']} {x['fraction']:.2%}" for x in found["tiny"]],
        ),
    ]
    if data.dataset.gap_brightness is not None:
        black = _suspects(
            data,
            "on_black",
            f"Masks with {summary.ON_BLACK:.0%} or more of the area in the black gap",
            [f"{x['class']} {x['on_black']:.1%}" for x in found["on_black"]],
        )
        cards.append(black)
    text = "All findings are listed in statistics.json; the first are shown."
    return Section("Worth a look", text, cards)


def _closest_pairs(data: Explored) -> list[Card]:
    pairs = data.summary["closest_pairs"]
    if not pairs:
        return []
    titles: dict[str, str] = {}
    for pair in pairs:  # shows each image once, as three similar images are three pairs
        if len(titles) < _NUM_SHOWN and not titles.keys() & set(pair["filenames"]):
            titles |= {n: f"{n} ({pair['correlation']:.2f})" for n in pair["filenames"]}
    near = sum(pair["correlation"] >= summary.NEAR_DUPLICATE for pair in pairs)
    text = (
        "Pairs of images, with the correlation of their thumbnails: "
        f"{counted(near, 'near-duplicate')} ({summary.NEAR_DUPLICATE} or more); the closest pair "
        f"has {pairs[0]['correlation']:.2f}."
    )
    return [Card(text, "closest_pairs", _overlays(data, titles, list(titles.values())))]


def _suspects(data: Explored, key: str, heading: str, notes: Sequence[str]) -> Card:
    """Shows the first findings of a list in statistics.json, each titled with its note."""
    names = [finding["filename"] for finding in data.summary[key]][:_NUM_SHOWN]
    text = f"{heading}: {len(notes) or 'none'}."
    if not names:
        return Card(text)
    titles = [f"{name}: {note}" for name, note in zip(names, notes)]
    return Card(text, key, _overlays(data, names, titles))
