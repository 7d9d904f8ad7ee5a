"""The report on a data folder: report.html, figures/, statistics.json and rows.csv."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from clouds_tf import files, gfile, rle
from clouds_tf.data.examples import to_column_major
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.data.sources import Source, read_annotations
from clouds_tf.dataset import Dataset
from clouds_tf.exploration import charts, examples
from clouds_tf.exploration.statistics import measure
from clouds_tf.exploration.summary import summarize
from clouds_tf.figures import page
from clouds_tf.messages import counted, native_lines, raise_faults
from clouds_tf.progress import Progress, shown


class Summary(dict[str, Any]):
    """The content of statistics.json, which prints as one line."""

    def __repr__(self) -> str:
        nouns = {"num_images": "image", "num_masks": "mask"}
        counts = [counted(self[key], noun) for key, noun in nouns.items()]
        return f"Summary({', '.join(counts)}, {counted(len(self['problems']), 'problem')})"


def write_report(
    data_dir: str,
    output_dir: str,
    dataset: Dataset,
    *,
    source: Source = Source(),
    max_images: int | None = None,
    seed: int = 0,
    progress: Progress | bool = True,
) -> Summary:
    """Explores a data folder.

    Args:
        data_dir: folder with train.csv, train_images/ and optionally test_images/, or the names in
            the data set.
        output_dir: folder for rows.csv, statistics.json, figures/*.png and, last, report.html.
        dataset: the Dataset of the folder.
        source: location of the annotations; masks of other sizes are measured at the mask_size.
        max_images: number of randomly chosen training images to measure; None takes all.
        seed: seed of the random choice of images and examples.
        progress: called with (done, total) images; True shows a bar in a terminal or notebook.

    Raises:
        FileNotFoundError: the annotations or the folder of the training images are missing.
        ValueError: matplotlib is not installed, output_dir cannot be written, the annotations are
            faulty, or no image can be read.
    """
    files.require("matplotlib", "plots", "explore")
    images_dir = os.path.join(data_dir, dataset.train_images)
    found = read_annotations(data_dir, dataset, source)
    raise_faults(found.faults)
    table = found.at_mask_size(dataset)
    if not gfile.isdir(images_dir):
        raise FileNotFoundError(f"{images_dir}: no such folder")
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images: got {max_images}, expected at least 1")
    files.check_output(os.path.join(output_dir, "report.html"))
    num_listed, filenames = len(table), table["filename"]
    rng = np.random.default_rng(seed)
    if max_images and max_images < num_listed:
        chosen = np.sort(rng.choice(num_listed, max_images, replace=False))
        table = table.iloc[chosen].reset_index(drop=True)
    statistics = measure(table, images_dir, dataset, shown(progress, "image"))
    summary = Summary(
        num_train_images=num_listed,
        num_test_images=len(files.visible_names(os.path.join(data_dir, dataset.test_images))),
        **summarize(statistics, dataset.class_names),
    )
    problems = _find_problems(images_dir, filenames, found.origin, summary["image_sizes"])
    summary["problems"] = problems + statistics.problems
    by_name = table.set_index("filename")
    load = functools.partial(_load, images_dir, by_name, dataset)
    data = charts.Explored(dataset, by_name, statistics, summary, load)
    files.write_frame(os.path.join(output_dir, "rows.csv"), statistics.rows)
    text = json.dumps(summary, indent=1) + "\n"
    files.write_text(os.path.join(output_dir, "statistics.json"), text)
    name = os.path.basename(os.path.abspath(data_dir))
    html = page.render(
        f"{name}, before training",
        f"{summary['num_images']:,} of {num_listed:,} training images of {name}, with "
        f"{counted(summary['num_masks'], 'mask')}. All numbers and sentences are computed "
        "from them.",
        [
            charts.folder(data),
            charts.labels(data),
            examples.examples(data, rng),
            charts.masks(data),
            charts.images(data),
            examples.suspects(data),
            _problems(summary["problems"]),
        ],
        os.path.join(output_dir, "figures"),
    )
    files.write_text(os.path.join(output_dir, "report.html"), html)
    return summary


def _find_problems(
    images_dir: str, filenames: pd.Series, origin: str, sizes: dict[str, int]
) -> list[str]:
    """Names files without annotations, and images of several sizes."""
    problems = []
    unlisted = sorted(set(files.visible_names(images_dir)) - set(filenames))
    if unlisted:
        without = f"{counted(len(unlisted), 'file')} without annotations in {origin}"
        problems.append(f"{images_dir}: {without}, such as {unlisted[0]}")
    if len(sizes) > 1:
        found = ", ".join(f"{count} of {size}" for size, count in sizes.items())
        problems.append(f"{images_dir}: images of {len(sizes)} sizes: {found}")
    return problems


def _load(
    images_dir: str, table: pd.DataFrame, dataset: Dataset, filename: str
) -> tuple[np.ndarray, np.ndarray]:
    """Loads an image and its masks at the submission size."""
    size = dataset.submission_size
    encoded = tf.io.read_file(os.path.join(images_dir, filename))
    strings = to_column_major(table.loc[filename, list(dataset.class_names)].tolist(), dataset)
    masks = rle.decode(strings, dataset.mask_size, size)
    with native_lines():  # libjpeg's messages are listed among the problems
        image = decode_image(encoded, size, dataset.channels).numpy()
    return image, tf.transpose(masks, [1, 2, 0]).numpy()


def _problems(found: Sequence[str]) -> page.Section:
    """Lists files that could not be used or do not match."""
    table = pd.DataFrame({"problem": found})
    if not found:
        text = "None: every annotated image exists, is readable, and has the same size."
        return page.Section("Problems", text, [])
    card = page.Card(f"{counted(len(found), 'problem')}.", table=table)
    return page.Section("Problems", "Files that could not be used or do not fit together.", [card])
