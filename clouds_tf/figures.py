"""Pictures in one style and one palette. The only module that knows matplotlib."""

import math

import numpy as np

from clouds_tf import files
from clouds_tf.schema import CLASS_NAMES

try:
    from matplotlib.figure import Figure

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

# Four of Okabe and Ito's colours, which stay apart for colour-blind eyes and on clouds.
PALETTE = dict(zip(CLASS_NAMES, ("#56B4E9", "#E69F00", "#00C795", "#F06EAA")))


def _figure(width, height):
    """A figure of that many inches."""
    if not AVAILABLE:
        raise ImportError("pictures need matplotlib: pip install clouds_tf[plots]")
    return Figure(figsize=(width, height), layout="constrained", dpi=100)


def save(figure, path):
    """Writes a figure as PNG, whole or not at all."""
    with files.written_whole(path) as temporary:
        figure.savefig(temporary, format="png")


def curves(history):
    """Draws loss and Dice over epochs.

    Args:
        history: a list of dicts, one per epoch, with epoch, loss, val_loss, dice, val_dice and
            val_dice_<class>.

    Returns:
        A matplotlib Figure.
    """
    figure = _figure(11, 4)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]

    def line(axes, key, label, **style):
        axes.plot(epochs, [row[key] for row in history], marker=".", label=label, **style)

    line(left, "loss", "training", color="0.6")
    line(left, "val_loss", "held out", color="black")
    line(right, "dice", "training", color="0.6")
    line(right, "val_dice", "held out", color="black", linewidth=2)
    for name in CLASS_NAMES:
        line(right, f"val_dice_{name}", f"held out, {name}", color=PALETTE[name], linewidth=1)
    for axes, title in ((left, "Loss"), (right, "Competition Dice at probability 1/2")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
    return figure


def overlay(axes, image, masks, title=""):
    """Draws an image with the outline and the name of every mask that is not empty.

    Args:
        axes: matplotlib Axes to draw on.
        image: uint8 [H, W, 3].
        masks: [h, w, 4] of {0, 1}, of any size.
        title: what to write above it.
    """
    height, width = image.shape[:2]
    axes.imshow(image)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    rows = (np.arange(masks.shape[0]) + 0.5) * height / masks.shape[0] - 0.5
    columns = (np.arange(masks.shape[1]) + 0.5) * width / masks.shape[1] - 0.5
    for i, name in enumerate(CLASS_NAMES):
        mask = masks[:, :, i].astype(float)
        if not mask.any():
            continue
        # A border of zeros closes the outline of what touches the edge of the image.
        axes.contour(
            np.pad(columns, 1, mode="edge"),
            np.pad(rows, 1, mode="edge"),
            np.pad(mask, 1),
            levels=[0.5],
            colors=[PALETTE[name]],
            linewidths=2,
        )
        row, column = (np.median(where) for where in np.nonzero(mask))
        axes.text(
            columns[int(column)],
            rows[int(row)],
            name,
            color="black",
            fontsize=9,
            ha="center",
            va="center",
            bbox={"facecolor": PALETTE[name], "edgecolor": "none", "pad": 1.5},
        )


def overlays(images, masks, titles, num_columns=3):
    """Draws a grid of images, each with its masks as `overlay` does.

    Args:
        images: a list of uint8 [H, W, 3].
        masks: as many [h, w, 4] of {0, 1}.
        titles: as many strings.
        num_columns: pictures in a row.

    Returns:
        A matplotlib Figure.
    """
    num_rows = math.ceil(len(images) / num_columns)
    figure = _figure(4 * num_columns, 3 * num_rows)
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, image, mask, title in zip(grid, images, masks, titles):
        overlay(axes, image, mask, title)
    for axes in grid[len(images) :]:
        axes.set_axis_off()
    return figure
