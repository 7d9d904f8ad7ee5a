"""What all sections are made of, and the words they share."""

import functools
from typing import NamedTuple

import numpy as np

from clouds_tf import figures
from clouds_tf.schema import CLASS_NAMES

NUM_SHOWN = 6  # pictures in a grid


class Picture(NamedTuple):
    """A figure to be drawn twice, what it shows, and what it tells.

    Attributes:
        name: of the PNG.
        draw: a function with the keyword dark that returns a Figure.
        alt: what the picture shows.
        sentence: what it tells, computed.
    """

    name: str
    draw: object
    alt: str
    sentence: str


class Data(NamedTuple):
    """What the sections are made of."""

    table: object  # of annotations.read_csv
    statistics: object
    summary: dict
    load: object  # file name -> image uint8 [h, w, 3] and masks uint8 [h, w, 4]
    mask_size: tuple


def listed(names):
    """ "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def percents(values):
    """ "Fish 50 %, Flower 43 %, ..."."""
    return ", ".join(f"{name} {value:.1%}" for name, value in values.items())


def counted(number, noun):
    """ "3 masks", "1 mask" or "No masks"."""
    return f"{number or 'No'} {noun}{'' if number == 1 else 's'}"


def overlays(data, filenames, titles=None, classes=CLASS_NAMES):
    """A function that draws images with the masks of some classes, two in a row."""
    loaded = [data.load(filename) for filename in filenames]
    keep = np.array([name in classes for name in CLASS_NAMES], np.uint8)
    return functools.partial(
        figures.overlays,
        [image for image, _ in loaded],
        [masks * keep for _, masks in loaded],
        titles or list(filenames),
        num_columns=2,
    )


def per_class(data, column, only_masks=True):
    """Class name -> the numbers of a column, of rows with a mask."""
    masks = data.statistics.rows
    masks = masks[masks["area"] > 0] if only_masks else masks
    return {name: masks[column][masks["class"] == name].to_numpy(float) for name in CLASS_NAMES}


def medians(values, label):
    """ "Fish 3, Flower 4", as a label such as "{:.0f}" writes the medians."""
    return ", ".join(
        f"{name} {label.format(np.median(some))}" for name, some in values.items() if len(some)
    )
