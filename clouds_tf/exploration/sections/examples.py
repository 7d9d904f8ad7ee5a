"""Images with their masks, as they are and augmented."""

import functools

import numpy as np
import tensorflow as tf

from clouds_tf import figures
from clouds_tf.data import augmentation
from clouds_tf.exploration import findings, page
from clouds_tf.exploration.sections.parts import NUM_SHOWN, Picture, listed, overlays
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES


def examples(data, rng):
    """Images, masks and augmentations."""
    rows = data.statistics.rows
    images = findings.per_image(rows)["filename"].to_numpy()
    present = (rows["area"] > 0).to_numpy().reshape(-1, NUM_CLASSES)
    some = images[np.sort(rng.permutation(len(images))[:NUM_SHOWN])]
    labels = dict(zip(images, present))

    def names(filename):
        return [name for name, there in zip(CLASS_NAMES, labels[filename]) if there]

    titled = [", ".join(names(filename)) or "none" for filename in some]
    counts = present.sum(axis=1)
    fewest = images[np.argmin(np.where(counts > 0, counts, NUM_CLASSES + 1))]
    richest = images[np.argmax(counts)]
    cards = [
        Picture(
            "images",
            overlays(data, some, titled, classes=()),
            "Images without outlines, titled with their labels: " + "; ".join(titled) + ".",
            f"{len(some)} images drawn at random, titled with their labels. They "
            f"have {np.mean([labels[f].sum() for f in some]):.1f} labels on average.",
        ),
        Picture(
            "image_with_masks",
            overlays(data, some),
            "The same images with outlines: " + "; ".join(titled) + ".",
            "The same images with their masks. "
            f"{np.mean([(data.load(f)[1].sum(axis=2) > 1).mean() for f in some]):.1%} of their "
            "pixels belong to more than one class.",
        ),
        Picture(
            "one_mask",
            functools.partial(overlays(data, [fewest]), num_columns=1),
            f"{fewest} with the outline of {listed(names(fewest) or ['nothing'])}.",
            f"{fewest}: {_covered(rows, fewest)}.",
        ),
        Picture(
            "all_masks",
            functools.partial(overlays(data, [richest]), num_columns=1),
            f"{richest} with the outlines of {listed(names(richest) or ['nothing'])}.",
            f"{richest}: {_covered(rows, richest)}.",
        ),
        _by_class(data, sorted(some, key=lambda f: -labels[f].sum())[:2]),
        _augmented(data, richest),
    ]
    return page.paragraph("Drawn at random, always the same for one seed."), cards


def _covered(rows, filename):
    of_image = rows[(rows["filename"] == filename) & (rows["area"] > 0)]
    shares = [f"{row['class']} {row['fraction']:.1%}" for _, row in of_image.iterrows()]
    return f"{listed(shares)} of the image" if shares else "no masks"


def _by_class(data, filenames):
    loaded = [data.load(filename) for filename in filenames]
    images, masks, titles = [], [], []
    for i, name in enumerate(CLASS_NAMES):
        for image, mask in loaded:
            only = np.zeros_like(mask)
            only[..., i] = mask[..., i]
            images.append(image)
            masks.append(only)
            titles.append(name if only.any() else f"{name}: absent")
    num_absent = sum(title.endswith("absent") for title in titles)
    return Picture(
        "images_by_class",
        functools.partial(figures.overlays, images, masks, titles, num_columns=len(filenames)),
        f"A grid: a row for each class, a column for each of {listed(filenames)}.",
        f"A row for each class, a column for each image: {len(titles) - num_absent} of "
        f"{len(titles)} masks are there, and the rest is what a model must leave empty.",
    )


def _augmented(data, filename):
    image, masks = data.load(filename)
    example = {"image": tf.constant(image), "mask": tf.constant(masks)}
    made = [example] + [augmentation.flips(example, [seed, 0]) for seed in range(3)]
    num_changed = sum(not np.array_equal(x["image"], image) for x in made)
    return Picture(
        "augmentation",
        functools.partial(
            figures.overlays,
            [x["image"].numpy() for x in made],
            [x["mask"].numpy() for x in made],
            ["as it is", *(f"flips, seed {seed}" for seed in range(3))],
            num_columns=2,
        ),
        f"{filename} as it is and after three random flips, masks with it.",
        f"Flips as training makes them: {num_changed} of three seeds changed the image, and the "
        "masks move with it.",
    )
