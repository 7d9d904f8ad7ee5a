"""Section "Images": brightness, the black gap and sun glint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf import figures
from clouds_tf.exploration import findings
from clouds_tf.exploration.page import Card, Picture, Section
from clouds_tf.exploration.sections.parts import Explored, counted, medians, percents
from clouds_tf.exploration.statistics import GRID

_BRIGHTNESS_BINS = np.linspace(0, 255, 52)
_BRIGHTNESS = "mean outside the gap, 0 to 255"


def images(data: Explored) -> Section:
    """Shows brightness, black gap and sun glint of the images."""
    found = findings.per_image(data.statistics.rows)
    cards: list[Card] = [_brightness(data, found), _brightness_by_class(data)]
    if data.dataset.gap_brightness is not None:
        cards.append(_black_gap(data, found))
    cards.append(_sun_glint(data, found))
    if data.dataset.gap_brightness is not None:
        cards.append(_masks_at_the_gap(data))
    return Section("Images", cards, "Measured on images of a reduced size.")


def _brightness(data: Explored, found: pd.DataFrame) -> Picture:
    bright = data.summary["images"]["brightness"]
    values = found["brightness"].to_numpy()
    return Picture(
        "brightness",
        functools.partial(
            figures.histogram, values, _BRIGHTNESS_BINS, "Brightness of the images", _BRIGHTNESS
        ),
        f"A histogram of image brightness, from {bright['min']:.0f} to {bright['max']:.0f}.",
        f"Half of the images have a mean brightness between {bright['q25']:.0f} and "
        f"{bright['q75']:.0f} of 255; the darkest has {bright['min']:.0f}, the brightest "
        f"{bright['max']:.0f}.",
    )


def _brightness_by_class(data: Explored) -> Picture:
    values = data.per_class("brightness")
    return Picture(
        "brightness_by_class",
        functools.partial(
            figures.distributions,
            values,
            _BRIGHTNESS_BINS,
            "Brightness of the images with each class",
            _BRIGHTNESS,
        ),
        f"Histograms of image brightness for each class. Medians: {medians(values, '{:.0f}')}.",
        f"Medians: {medians(values, '{:.0f}')}.",
    )


def _black_gap(data: Explored, found: pd.DataFrame) -> Picture:
    gap = data.summary["images"]["gap"]
    without = int((found["gap"] < 0.005).sum())
    verb = "has" if without == 1 else "have"
    return Picture(
        "black_gap",
        _share_histogram(found["gap"], "Share of the black gap between two orbits"),
        f"A histogram of the share of black pixels, with a median of {gap['median']:.1%}.",
        f"The gap takes {gap['median']:.1%} of the median image and {gap['max']:.1%} of the "
        f"worst; {counted(without, 'image').lower()} {verb} less than 0.5%.",
    )


def _sun_glint(data: Explored, found: pd.DataFrame) -> Picture:
    glint = data.summary["images"]["glint"]
    return Picture(
        "sun_glint",
        _share_histogram(found["glint"], "Share of sun glint"),
        f"A histogram of the share of sun glint, with a median of {glint['median']:.1%}.",
        f"{counted(int((found['glint'] > 0.1).sum()), 'image')} with glint on more than a tenth. "
        "This is an estimate: places where even the darkest spot between the clouds is grey and "
        "bright; haze and land can look the same.",
    )


def _masks_at_the_gap(data: Explored) -> Picture:
    masks, summary = data.masks, data.summary
    touching = summary["touches_gap"] / max(summary["num_masks"], 1)
    names = data.dataset.class_names
    on_black = masks["on_black"] >= findings.ON_BLACK
    of_class = {name: masks["class"] == name for name in names}
    by_touch = {name: _share(masks["touches_gap"][of_class[name]]) for name in names}
    by_black = {name: _share(on_black[of_class[name]]) for name in names}
    threshold = f"{findings.ON_BLACK:.0%}"
    return Picture(
        "masks_at_the_gap",
        functools.partial(
            figures.shares,
            by_touch,
            by_black,
            ("Masks that touch the gap", f"{threshold} or more in it"),
        ),
        f"Two rows of bars. Masks that touch the gap: {percents(by_touch)}. "
        f"With {threshold} or more in it: {percents(by_black)}.",
        f"{touching:.1%} of the masks touch the gap, to the precision of one of {GRID[0]} x "
        f"{GRID[1]} cells; {counted(len(summary['on_black']), 'mask').lower()} have at least "
        f"{threshold} of their area in it.",
    )


def _share(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else 0.0


def _share_histogram(shares: pd.Series, title: str) -> Callable[..., Any]:
    """A function that draws the distribution of a share of the image, 0 to 1.

    The last bin also holds the highest 1 %, which would otherwise stretch the axis.
    """
    most = max(shares.quantile(0.99), 0.01)
    return functools.partial(
        figures.histogram,
        shares.clip(upper=most).to_numpy(),
        np.linspace(0, most, 41),
        title,
        "share of the image" + (f"; last bar: {most:.1%} or more" if shares.max() > most else ""),
        percent=True,
    )
