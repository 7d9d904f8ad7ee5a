"""Sections "The folder" and "Problems": the number of images and rows, and their faults."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from clouds_tf import figures
from clouds_tf.exploration.page import Picture, Section, Table
from clouds_tf.exploration.sections.parts import Explored, counted


def folder(data: Explored) -> Section:
    """Shows the number of images and rows, their sizes, and the first rows."""
    summary = data.summary
    num_empty = summary["num_rows"] - summary["num_masks"]
    sizes = [tuple(map(int, size.split(" x "))) for size in summary["image_sizes"]]
    numbers = {
        "training images": f"{summary['num_train_images']:,}",
        "test images": f"{summary['num_test_images']:,}",
        "images measured": f"{summary['num_images']:,}",
        "rows measured": f"{summary['num_rows']:,}",
        "masks (rows that are not empty)": f"{summary['num_masks']:,}",
        "image height, smallest to largest": _span([height for height, _ in sizes]),
        "image width, smallest to largest": _span([width for _, width in sizes]),
        "problems": str(len(summary["problems"])),
    }
    rows = Picture(
        "rows",
        functools.partial(
            figures.bars,
            {"with a mask": summary["num_masks"], "empty": num_empty},
            "Rows with and without a mask",
            "rows",
        ),
        f"Bars: {summary['num_masks']} rows with a mask, {num_empty} empty.",
        f"{num_empty / summary['num_rows']:.1%} of the rows are empty: this is the score of a "
        "submission without any mask.",
    )
    return Section("The folder", [_first_rows(data), rows], numbers=numbers)


def _first_rows(data: Explored) -> Table:
    """The rows of the first two images, spelled as in the CSV."""
    cells = []
    for filename, row in data.table.head(2).iterrows():
        for name, rle in row.items():
            in_one = len(data.dataset.label_columns) == 1
            label = [f"{filename}_{name}"] if in_one else [str(filename), str(name)]
            cells.append([*label, f"{rle[:24]}…" if len(rle) > 24 else rle or "(empty)"])
    return Table("The first rows", data.dataset.columns, cells)


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def problems(data: Explored) -> Section:
    """Lists files that could not be used or do not fit together."""
    found = data.summary["problems"]
    if not found:
        text = "None: every image of the CSV exists, is readable, and has the same size."
        return Section("Problems", [], text)
    table = Table("Problems", ("problem",), [[problem] for problem in found])
    return Section("Problems", [table], f"{counted(len(found), 'problem')}:")
