"""Images with their masks; scenes with coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from clouds_tf.figures.style import (
    NEUTRAL,
    WIDTH,
    Axes,
    Figure,
    class_colors,
    latitude,
    longitude,
    new_figure,
    rgba,
    styled,
)

_MAX_SIDE = 1600  # maximum number of drawn cells along a side
_STEPS = (0.5, 1, 2, 5, 10, 15, 30, 60)  # degrees between ticks
_LONGEST_OUTLINE = 8  # in heights plus widths of the image; longer outlines are those of specks


def overlay(
    axes: Axes, image: np.ndarray, masks: np.ndarray, class_names: Sequence[str], title: str = ""
) -> None:
    """Draws an image, and every non-empty mask as a tint with an outline and a name.

    A mask of many specks, as from untrained networks, is drawn without outlines, which would hide
    the image.

    Args:
        axes: matplotlib Axes to draw on.
        image: uint8 [H, W, channels]; the first three of more channels are red, green and blue.
        masks: [h, w, C] of {0, 1}, of any size.
        title: title of the axes.
    """
    height, width = image.shape[:2]
    axes.imshow(_visible(image))
    axes.set_title(title, fontsize=9, weight="normal", pad=3, loc="center", parse_math=False)
    axes.set_axis_off()
    rows = (np.arange(masks.shape[0]) + 0.5) * height / masks.shape[0] - 0.5
    columns = (np.arange(masks.shape[1]) + 0.5) * width / masks.shape[1] - 0.5
    named: list[tuple[float, float]] = []
    for i, (name, color) in enumerate(zip(class_names, class_colors(class_names))):
        mask = masks[:, :, i].astype(float)
        if not mask.any():
            continue
        tint = masks[:, :, i, np.newaxis] * np.round(np.multiply(rgba(color, 0.2), 255))
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        axes.imshow(tint.astype(np.uint8), extent=extent, interpolation="nearest")
        length = sum(np.abs(np.diff(mask, axis=axis)).sum() for axis in (0, 1))
        if length <= _LONGEST_OUTLINE * sum(mask.shape):
            _outline(axes, columns, rows, mask, color, 1.2)
        x, y = _place_name(columns, rows, mask, named)
        named.append((x, y))
        axes.text(
            x,
            y,
            name,
            color="black",
            fontsize=9,
            ha="center",
            va="center",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
        )


def _outline(
    axes: Axes, x: np.ndarray, y: np.ndarray, mask: np.ndarray, color: str, width: float
) -> None:
    """Draws the outline of a mask; zero padding closes it at the border of the image."""
    places = (np.pad(axis, 1, mode="edge") for axis in (x, y))
    axes.contour(*places, np.pad(mask, 1), levels=[0.5], colors=[color], linewidths=width)


def _visible(image: np.ndarray) -> np.ndarray:
    """Converts an image with any number of channels to RGB; grey for one or two."""
    return image[..., :3] if image.shape[2] > 2 else np.repeat(image[..., :1], 3, axis=2)


def _place_name(
    columns: np.ndarray, rows: np.ndarray, mask: np.ndarray, named: list[tuple[float, float]]
) -> tuple[float, float]:
    """Finds the position (x, y) in the mask nearest to its middle that is clear of other names."""
    where = np.argwhere(mask)
    y, x = rows[where[:, 0]], columns[where[:, 1]]
    height, width = rows[-1] + rows[0] + 1, columns[-1] + columns[0] + 1
    distance = np.hypot(x - np.median(x), y - np.median(y))
    for a, b in named:
        distance[(abs(x - a) < 0.25 * width) & (abs(y - b) < 0.13 * height)] += height + width
    nearest = distance.argmin()
    return x[nearest], y[nearest]


@styled
def overlays(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    titles: Sequence[str],
    class_names: Sequence[str],
    num_columns: int = 3,
) -> Figure:
    """Draws a grid of images with the outlines and names of their masks.

    Args:
        images: N images, uint8 [H, W, channels], see `overlay`.
        masks: N masks [h, w, C] of {0, 1}.
        titles: N titles.
        num_columns: number of images in a row.
    """
    num_rows = math.ceil(len(images) / num_columns)
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    side = WIDTH / min(num_columns, 2)
    figure = new_figure(side * num_columns, (side * height / width + 0.3) * num_rows)
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, image, mask, title in zip(grid, images, masks, titles):
        overlay(axes, image, mask, class_names, title)
    for axes in grid[len(images) :]:
        axes.set_axis_off()
    return figure


@styled
def scene_maps(scenes: Sequence[dict[str, Any]], num_columns: int = 1) -> Figure:
    """Draws scenes with masks, unobserved areas, and coordinates on the axes.

    Args:
        scenes: a dict for each: "title"; "image", uint8 [h, w, 3]; "masks", bool [C, h, w];
            "observed", bool [h, w]; "extent", (lon_min, lat_min, lon_max, lat_max); "class_names".
        num_columns: number of maps in a row.
    """
    num_rows = math.ceil(len(scenes) / num_columns)
    west, south, east, north = scenes[0]["extent"]
    ratio = min(max((north - south) / (east - west), 0.1), 2.0)
    width = WIDTH * 1.3 / min(num_columns, 1.6)
    figure = new_figure(width * num_columns, (width * ratio + 0.6) * num_rows + 0.3)
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, scene in zip(grid, scenes):
        _draw(axes, **scene)
    for axes in grid[len(scenes) :]:
        axes.set_axis_off()
    names = scenes[0]["class_names"]
    handles = [
        figure.axes[0].plot([], [], color=color, linewidth=4)[0]
        for color in (*class_colors(names), NEUTRAL)
    ]
    figure.legend(
        handles, [*names, "not observed"], loc="outside lower center", ncols=len(names) + 1
    )
    return figure


def _draw(
    axes: Axes,
    title: str,
    image: np.ndarray,
    masks: np.ndarray,
    observed: np.ndarray,
    extent: tuple[float, float, float, float],
    class_names: Sequence[str],
) -> None:
    west, south, east, north = extent
    step = math.ceil(max(image.shape[:2]) / _MAX_SIDE)
    shown = image[::step, ::step].copy()
    shown[~observed[::step, ::step]] = [int(NEUTRAL[i : i + 2], 16) for i in (1, 3, 5)]
    axes.imshow(shown, extent=(west, east, south, north), aspect="equal", interpolation="none")
    rows, columns = (np.arange(length)[::step] + 0.5 for length in masks.shape[1:])
    latitudes = north - rows * (north - south) / masks.shape[1]
    longitudes = west + columns * (east - west) / masks.shape[2]
    for color, mask in zip(class_colors(class_names), masks):
        small = mask[::step, ::step]
        if small.any() and min(small.shape) > 1:
            _outline(axes, longitudes, latitudes, small.astype(float), color, 1.8)
    axes.set_title(title, fontsize=9, weight="normal", pad=4, parse_math=False)
    for name, low, high in (("x", west, east), ("y", south, north)):
        side = next((s for s in _STEPS if (high - low) / s <= 6), 90)
        ticks = np.arange(math.ceil(low / side), math.floor(high / side) + 1) * side
        label = longitude if name == "x" else latitude
        getattr(axes, f"set_{name}ticks")(ticks, [label(tick) for tick in ticks], fontsize=8)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
