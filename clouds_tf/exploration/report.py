"""The report on a folder of data: report.html, figures/, statistics.json and rows.csv."""

import functools
import json
import os

import numpy as np
import tensorflow as tf

from clouds_tf import figures, files, rle
from clouds_tf.data import annotations
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.dataset import CLOUDS
from clouds_tf.exploration import page, sections
from clouds_tf.exploration.statistics import measure
from clouds_tf.exploration.summary import summarize
from clouds_tf.schema import (
    CLASS_NAMES,
    IMAGE_SIZE,
    SUBMISSION_SIZE,
    TEST_IMAGES,
    TRAIN_CSV,
    TRAIN_IMAGES,
)


def write_report(
    data_dir, output_dir, max_images=None, mask_size=IMAGE_SIZE, seed=0, progress=None
):
    """Explores a folder in the layout of the competition.

    Args:
        data_dir: a folder with train.csv and train_images/, and perhaps test_images/.
        output_dir: gets rows.csv, statistics.json, figures/*.png and, last, report.html.
        max_images: how many training images to look at, drawn at random; None takes all.
        mask_size: (height, width) of the masks that the RLE encodes.
        seed: of that draw and of the examples that are shown.
        progress: wraps the iterable of batches and is told their number, such as tqdm.

    Returns:
        The content of statistics.json.

    Raises:
        FileNotFoundError: the CSV or the folder of the training images is not there.
        ValueError: the CSV is faulty, or no image can be read.
    """
    images_dir = os.path.join(data_dir, TRAIN_IMAGES)
    table = annotations.read_csv(os.path.join(data_dir, TRAIN_CSV), CLOUDS, mask_size)
    if not tf.io.gfile.isdir(images_dir):
        raise FileNotFoundError(f"{images_dir}: no such folder")
    num_listed = len(table)
    problems = _find_unlisted(images_dir, table["filename"])
    rng = np.random.default_rng(seed)
    if max_images and max_images < num_listed:
        chosen = np.sort(rng.choice(num_listed, max_images, replace=False))
        table = table.iloc[chosen].reset_index(drop=True)
    statistics = measure(
        table, images_dir, mask_size, **({"progress": progress} if progress else {})
    )
    summary = {
        "num_train_images": num_listed,
        "num_test_images": _count_files(os.path.join(data_dir, TEST_IMAGES)),
        **summarize(statistics),
    }
    sizes = summary["image_sizes"]
    if len(sizes) > 1:
        found = ", ".join(f"{count} of {size}" for size, count in sizes.items())
        problems.append(f"{images_dir}: images of {len(sizes)} sizes: {found}")
    summary["problems"] = problems + statistics.problems

    data = sections.Data(
        table=table.set_index("filename"),
        statistics=statistics,
        summary=summary,
        load=functools.partial(_load, images_dir, table.set_index("filename"), mask_size),
        mask_size=mask_size,
    )
    with files.written_whole(os.path.join(output_dir, "rows.csv")) as temporary:
        statistics.rows.to_csv(temporary, index=False, float_format="%.6g")
    text = json.dumps(summary, indent=1) + "\n"
    files.write_text(os.path.join(output_dir, "statistics.json"), text)
    html = _write_page(data, rng, data_dir, os.path.join(output_dir, "figures"))
    files.write_text(os.path.join(output_dir, "report.html"), html)
    return summary


def _find_unlisted(images_dir, filenames):
    unlisted = sorted(set(_list_files(images_dir)) - set(filenames))
    if not unlisted:
        return []
    return [f"{images_dir}: {len(unlisted)} images without rows in the CSV, such as {unlisted[0]}"]


def _list_files(folder):
    return [name for name in tf.io.gfile.listdir(folder) if not name.startswith(".")]


def _count_files(folder):
    return len(_list_files(folder)) if tf.io.gfile.isdir(folder) else 0


def _load(images_dir, table, mask_size, filename):
    """An image and its masks at SUBMISSION_SIZE."""
    encoded = tf.io.read_file(os.path.join(images_dir, filename))
    strings = table.loc[filename, list(CLASS_NAMES)].tolist()
    masks = rle.decode(strings, mask_size, SUBMISSION_SIZE)
    return decode_image(encoded, SUBMISSION_SIZE).numpy(), tf.transpose(masks, [1, 2, 0]).numpy()


def _write_page(data, rng, data_dir, figures_dir):
    summary = data.summary
    contents = {
        "The folder": sections.folder(data),
        "Labels": sections.labels(data),
        "Examples": sections.examples(data, rng),
        "Masks": sections.masks(data),
        "Images": sections.images(data),
        "Worth a look": sections.worth_a_look(data),
        "Problems": sections.problems(data),
    }
    drawn = {
        name: (above, [_draw(card, figures_dir) for card in cards])
        for name, (above, cards) in contents.items()
    }
    lead = page.paragraph(
        f"{summary['num_images']:,} of {summary['num_train_images']:,} training images of "
        f"{os.path.basename(os.path.abspath(data_dir))}, with {summary['num_masks']:,} masks. "
        "Every number and sentence below was computed from them.",
        "soft",
    )
    return page.page("Clouds, before training", lead, drawn)


def _draw(card, figures_dir):
    """A card as HTML; a picture also goes to figures/."""
    if isinstance(card, str):
        return card
    light = card.draw()
    figures.save(light, os.path.join(figures_dir, f"{card.name}.png"))
    shown = figures.encode(light), figures.encode(card.draw(dark=True))
    return page.figure(*shown, card.alt, card.sentence)
