"""How many images and rows there are, and what is wrong with them."""

import functools

from clouds_tf import figures
from clouds_tf.exploration import page
from clouds_tf.exploration.sections.parts import Picture, counted
from clouds_tf.schema import LABEL_COLUMN, RLE_COLUMN


def folder(data):
    """How many images and rows there are, and of what size."""
    summary = data.summary
    num_empty = summary["num_rows"] - summary["num_masks"]
    heights, widths = zip(*(map(int, size.split(" x ")) for size in summary["image_sizes"]))
    numbers = {
        "training images": f"{summary['num_train_images']:,}",
        "test images": f"{summary['num_test_images']:,}",
        "images measured": f"{summary['num_images']:,}",
        "rows measured": f"{summary['num_rows']:,}",
        "masks (rows that are not empty)": f"{summary['num_masks']:,}",
        "image height, least to most": _span(heights),
        "image width, least to most": _span(widths),
        "problems": str(len(summary["problems"])),
    }
    head = [
        (f"{filename}_{name}", f"{rle_[:24]}…" if len(rle_) > 24 else rle_ or "(empty)")
        for filename, row in data.table.head(2).iterrows()
        for name, rle_ in row.items()
    ]
    cards = [
        page.table("The first rows", (LABEL_COLUMN, RLE_COLUMN), head),
        Picture(
            "rows",
            functools.partial(
                figures.bars,
                {"with a mask": summary["num_masks"], "empty": num_empty},
                "Rows with and without a mask",
                "rows",
            ),
            f"Bars: {summary['num_masks']} rows with a mask, {num_empty} empty.",
            f"{num_empty / summary['num_rows']:.1%} of the rows are empty: that is the score of a "
            "submission without any mask.",
        ),
    ]
    return page.tiles(numbers), cards


def _span(values):
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def problems(data):
    """What could not be used, or does not fit together."""
    found = data.summary["problems"]
    if not found:
        return (
            page.paragraph("None: every image of the CSV is there, readable, and of one size."),
            [],
        )
    above = page.paragraph(f"{counted(len(found), 'problem')}:")
    return above, [page.table("Problems", ("what",), [[problem] for problem in found])]
