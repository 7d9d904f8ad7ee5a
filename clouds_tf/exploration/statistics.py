"""Numbers of every image and mask, counted on runs and reduced images in tf.data.

No mask is drawn at its full size: areas, boxes and components are counted on runs, and where a mask
lies in its image is asked on a grid of GRID cells.
"""

import os
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.schema import CLASS_NAMES, IMAGE_SIZE, NUM_CLASSES

GRID = (70, 105)  # cells in which masks and gap are laid over each other
THUMBNAIL = (14, 21)  # grey pictures by which images are compared
_DECODED = (140, 210)  # images are looked at in this size, twice GRID

# The gap is black but for JPEG noise, up to 8 when reduced. Cells on its rim are partly sea and
# count from about half on; other cells as dark as these are sea.
_BLACK, _RIM = 8, 20
# Sun glint: where even the darkest cell nearby is grey and as bright as no clear sea is. Brighter
# than that are thick clouds.
_GLINT_RANGE = (50, 140)
_GLINT_GREY = 12  # most by which red may differ from blue and from green
_GLINT_WINDOW = 7  # cells; wider than the gaps between small clouds

_BATCH_SIZE = 16
_BOX_COLUMNS = ["top", "left", "bottom", "right"]


class Statistics(NamedTuple):
    """What `measure` finds in N readable images.

    Attributes:
        rows: a DataFrame, a row per image and class in the order of the CSV; see `measure`.
        components: a DataFrame with filename, class and area (pixels of the mask's geometry), a row
            per connected component (8 neighbours).
        average_masks: float32 [4, *GRID], the share of images in which a cell is covered.
        thumbnails: uint8 [N, *THUMBNAIL], grey, the gap filled with the mean.
        problems: a list of sentences, each naming a file that could not be used.
    """

    rows: pd.DataFrame
    components: pd.DataFrame
    average_masks: np.ndarray
    thumbnails: np.ndarray
    problems: list


def boxes(runs, height):
    """Finds the bounding boxes of masks.

    Args:
        runs: int64 RaggedTensor [N, R, 2], as `rle.parse` gives it.
        height: of the masks, int or int tensor.

    Returns:
        int64 [N, 4]: top, left, bottom, right; the last two are behind the box. Zeros where a mask
        is empty.
    """
    count, row, height = runs.nrows(), runs.value_rowids(), tf.cast(height, tf.int64)
    first, last = runs.values[:, 0], runs.values[:, 0] + runs.values[:, 1] - 1
    # A run that goes on in the next column touches both the bottom and the top.
    crosses = first // height != last // height
    top = tf.where(crosses, tf.zeros_like(first), first % height)
    bottom = tf.where(crosses, height - 1, last % height)
    least = tf.math.unsorted_segment_min(tf.stack([top, first // height], 1), row, count)
    most = tf.math.unsorted_segment_max(tf.stack([bottom, last // height], 1), row, count)
    is_empty = runs.row_lengths()[:, tf.newaxis] == 0
    return tf.where(is_empty, tf.zeros_like(least[:, :1]), tf.concat([least, most + 1], 1))


# Traced once, also where `measure` is called several times.
@tf.function
def describe_image(encoded):
    """Measures one image, decoded at a reduced scale.

    Args:
        encoded: the bytes of a JPEG, string [].

    Returns:
        A dict: size int32 [2]; brightness and contrast (mean and standard deviation, 0 to 255) and
        blueness (mean blue less red) of what is not gap; gap and glint, shares of the image, 0 to
        1, all float32 []; black bool [*GRID], the cells wholly in the gap; thumbnail uint8
        [*THUMBNAIL].

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not a whole JPEG.
    """
    image = tf.cast(decode_image(encoded, _DECODED), tf.float32)
    brightest = tf.reduce_max(image, axis=2, keepdims=True)
    near = -tf.nn.max_pool2d(-brightest[tf.newaxis], 3, 1, "SAME")[0]
    is_gap = tf.reduce_all((near <= _BLACK) & (brightest <= _RIM), axis=2)
    seen = tf.cast(~is_gap, tf.float32)
    num_seen = tf.maximum(tf.reduce_sum(seen), 1)
    grey = tf.reduce_mean(image, axis=2)
    brightness = tf.reduce_sum(grey * seen) / num_seen
    variance = tf.reduce_sum(tf.square(grey - brightness) * seen) / num_seen
    filled = tf.where(is_gap, brightness, grey)[..., tf.newaxis]
    thumbnail = tf.image.resize(filled, THUMBNAIL, method="area")[..., 0]
    return {
        "size": tf.io.extract_jpeg_shape(encoded)[:2],
        "brightness": brightness,
        "contrast": tf.sqrt(variance),
        "blueness": tf.reduce_sum((image[..., 2] - image[..., 0]) * seen) / num_seen,
        "gap": 1 - tf.reduce_mean(seen),
        "glint": _glint(image, seen),
        "black": -tf.nn.max_pool2d(seen[tf.newaxis, ..., tf.newaxis], 2, 2, "VALID")[0, ..., 0]
        > -1,
        "thumbnail": tf.cast(tf.round(thumbnail), tf.uint8),
    }


def _glint(image, seen):
    """The share of an image that is sun glint: the sea between the clouds is bright and grey."""
    seen = seen[..., tf.newaxis]
    # Beside the gap a cell is half black; it must not pass for dark sea.
    inside = -tf.nn.max_pool2d(-seen[tf.newaxis], 3, 1, "SAME")
    cells = tf.where(inside > 0, image[tf.newaxis], 255.0)
    cells = -tf.nn.max_pool2d(-cells, 2, 2, "VALID")
    darkest = -tf.nn.max_pool2d(-cells, _GLINT_WINDOW, 1, "SAME")
    # Opening: back to the width that it had before the darkest cell spread.
    sea = tf.nn.max_pool2d(darkest, _GLINT_WINDOW, 1, "SAME")[0]
    red = sea[..., :1]
    low, high = _GLINT_RANGE
    is_glint = (red >= low) & (red < high) & (tf.abs(sea - red) <= _GLINT_GREY)
    return tf.reduce_mean(tf.cast(tf.reduce_all(is_glint, axis=2), tf.float32))


@tf.function
def describe_masks(encoded, size, black):
    """Measures the masks of images on their runs.

    Args:
        encoded: string [B, 4], run-length encodings.
        size: (height, width) of the masks, ints.
        black: bool [B, *GRID], the cells in the gap, as `describe_image` gives them.

    Returns:
        A dict: component_areas int64 RaggedTensor [B, 4, C]; runs, characters int [B, 4]; box
        int64 [B, 4, 4] as `boxes` gives it; on_black float32 [B, 4], the share of the mask on black
        cells; touches_gap bool [B, 4], whether it reaches a black cell or one beside it; covered
        float32 [4, *GRID], the sum of the coverage of the masks.

    Raises:
        tf.errors.InvalidArgumentError: as `rle.parse` does.
    """
    runs = rle.parse(tf.reshape(encoded, [-1]), size)
    cover = rle.coverage(encoded, size, GRID)
    black = tf.cast(black, tf.float32)[:, tf.newaxis]
    near = tf.nn.max_pool2d(tf.transpose(black, [0, 2, 3, 1]), 3, 1, "SAME")
    near = tf.transpose(near, [0, 3, 1, 2])
    total = tf.reduce_sum(cover, axis=[2, 3])
    return {
        "component_areas": rle.component_areas(encoded, size),
        "runs": tf.reshape(runs.row_lengths(), tf.shape(encoded)),
        "characters": tf.strings.length(encoded),
        "box": tf.reshape(boxes(runs, size[0]), [-1, NUM_CLASSES, 4]),
        "on_black": tf.math.divide_no_nan(tf.reduce_sum(cover * black, axis=[2, 3]), total),
        "touches_gap": tf.reduce_any(cover * near > 0, axis=[2, 3]),
        "covered": tf.reduce_sum(cover, axis=0),
    }


def _load(index, path):
    return {"index": index, **describe_image(tf.io.read_file(path))}


def _find_problem(path):
    """Says why an image could not be measured."""
    try:
        _load(0, path)
    except tf.errors.NotFoundError:
        return f"{path}: no such image, but the CSV has rows for it"
    except tf.errors.InvalidArgumentError:
        return f"{path}: not a whole, readable JPEG"
    return f"{path}: could not be read at the first try"


def measure(table, images_dir, mask_size=IMAGE_SIZE, progress=lambda batches, total: batches):
    """Measures images and masks.

    Images that are missing or not readable are left out and named in the problems.

    Args:
        table: a DataFrame of `annotations.read_csv`, a row per image.
        images_dir: the folder of the images.
        mask_size: (height, width) of the masks that the RLE encodes.
        progress: wraps the iterable of batches, and is told their number, such as tqdm.

    Returns:
        Statistics of the N readable images. The columns of rows are filename and class; of the
        mask: area (pixels), fraction (of the mask's geometry), runs, characters, components,
        smallest_component and largest_component (pixels), top, left, bottom, right, on_black,
        touches_gap; of the image: height, width, brightness, contrast, blueness, gap, glint.

    Raises:
        ValueError: none of the images can be read.
        tf.errors.InvalidArgumentError: as `rle.parse` does.
    """
    paths = [os.path.join(images_dir, filename) for filename in table["filename"]]
    encoded = tf.constant(table[list(CLASS_NAMES)].to_numpy(dtype=object).tolist(), tf.string)

    def add_masks(images):
        rles = tf.gather(encoded, images["index"])
        return {**images, **describe_masks(rles, mask_size, images["black"])}

    images = tf.data.Dataset.from_tensor_slices((np.arange(len(paths)), paths))
    images = images.map(_load, tf.data.AUTOTUNE).ignore_errors()
    batches = images.batch(_BATCH_SIZE).map(add_masks, tf.data.AUTOTUNE).prefetch(1)
    batches = list(_without_pixels(progress(batches, total=-(-len(paths) // _BATCH_SIZE))))
    if not batches:
        raise ValueError(f"none of {len(paths)} images can be read; {_find_problem(paths[0])}")

    found = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    unread = np.setdiff1d(np.arange(len(paths)), found["index"])
    per_mask = pd.MultiIndex.from_product(
        [table["filename"].to_numpy()[found["index"]], CLASS_NAMES], names=["filename", "class"]
    )
    components = pd.DataFrame(
        {"area": found["component_areas"]}, per_mask.repeat(found["components"])
    ).reset_index()
    return Statistics(
        rows=_make_rows(found, per_mask, mask_size),
        components=components,
        average_masks=found["covered"].reshape(-1, NUM_CLASSES, *GRID).sum(0) / len(found["index"]),
        thumbnails=found["thumbnail"],
        problems=[_find_problem(paths[i]) for i in unread],
    )


def _without_pixels(batches):
    """Batches as dicts of arrays, one row per image or, flat, per mask or component."""
    for batch in batches:
        areas = batch.pop("component_areas")
        del batch["black"]
        batch = {key: value.numpy() for key, value in batch.items()}
        batch["components"] = areas.values.row_lengths().numpy()
        yield {**batch, "component_areas": areas.flat_values.numpy()}


def _make_rows(found, per_mask, mask_size):
    count = found["components"]
    first = np.cumsum(count) - count
    present = count > 0
    starts = first[present]
    areas = found["component_areas"]

    def per_component(reduce):
        values = np.zeros(len(count), np.int64)
        values[present] = reduce.reduceat(areas, starts) if len(starts) else 0
        return values

    area = per_component(np.add)
    rows = pd.DataFrame(
        {
            "area": area,
            "fraction": area / np.prod(mask_size),
            **{key: found[key].ravel() for key in ("runs", "characters")},
            "components": count,
            "smallest_component": per_component(np.minimum),
            "largest_component": per_component(np.maximum),
        },
        per_mask,
    )
    box = found["box"].reshape(-1, 4)
    for i, column in enumerate(_BOX_COLUMNS):
        rows[column] = pd.Series(box[:, i], per_mask).where(present).astype("Int64")
    for key in ("on_black", "touches_gap"):
        rows[key] = found[key].ravel()
    rows["height"], rows["width"] = found["size"].repeat(NUM_CLASSES, axis=0).T
    for key in ("brightness", "contrast", "blueness", "gap", "glint"):
        rows[key] = found[key].repeat(NUM_CLASSES)
    return rows.reset_index()
