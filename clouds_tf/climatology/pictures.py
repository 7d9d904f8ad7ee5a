"""Pictures of a climatology: maps, Hovmoeller diagrams, the seasonal cycle, co-occurrence."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from clouds_tf import figures
from clouds_tf.climatology import series
from clouds_tf.climatology.aggregate import Aggregation
from clouds_tf.climatology.days import DayStore
from clouds_tf.figures import climatology as draw
from clouds_tf.geo import netcdf

MAX_MAPS = 60  # more periods are a series; nobody looks at that many maps


def write(
    folder: str,
    product: str,
    store: DayStore,
    form: Aggregation,
    colors: str,
    coastlines: str | None,
) -> None:
    """Writes all pictures as PNG into a folder.

    Args:
        folder: the folder, made if there is none.
        product: the NetCDF file of `write.product`, of layout "cf".
        store: the days that it was made of.
        form: how the file was made; each of its regions gets a seasonal cycle.
        colors: "plain", or "field" for the colours that publications use for the four patterns.
        coastlines: GeoJSON file with lines to draw on the maps, or None.
    """
    grid, names = store.settings.grid, store.settings.class_names
    palette = [draw.FIELD_COLORS.get(name) if colors == "field" else None for name in names]
    lines = draw.read_coastlines(coastlines) if coastlines else []
    labels = [label.decode() for label in netcdf.read_variables(product, ["period"])[0]]

    def save(name: str, figure: Any) -> None:
        figures.save(figure, os.path.join(folder, f"{name}.png"))

    if len(labels) <= MAX_MAPS:
        (fraction,) = netcdf.read_variables(product, ["fraction"])
        # One scale for each class, so that periods can be compared.
        limits = [_upper_limit(fraction[:, c]) for c in range(len(names))]
        for label, shares in zip(labels, fraction):
            title = f"Share of the time and area that each pattern covers: {label}"
            figure = draw.maps(
                grid.lon_edges, grid.lat_edges, shares, names, title, limits, palette, lines
            )
            save(f"map_{label.replace(' ', '_')}", figure)
    extents = {"all": grid.extent, **form.regions}
    found = series.read(store, extents, form.num_resamples, form.seed)
    title = "Longitude over time, mean over latitude"
    save(
        "hovmoeller",
        draw.hovmoeller(grid.lon_edges, found.times, found.by_longitude, names, title, palette),
    )
    if store.settings.has_classless:
        title = "Patterns that share an area"
        save("co_occurrence", draw.co_occurrence(found.shared, names, title))
    for region, cycle in found.cycles.items():
        title = "Seasonal cycle, 95 % intervals" + ("" if region == "all" else f": {region}")
        figure = draw.seasonal_cycle(
            cycle.months, cycle.mean, cycle.lower, cycle.upper, names, title, palette
        )
        save("seasonal_cycle" + ("" if region == "all" else f"_{region}"), figure)


def _upper_limit(shares: np.ndarray) -> float:
    """A round upper end of a scale that one cell in a thousand may pass."""
    present = shares[np.isfinite(shares) & (shares > 0)]
    if not len(present):
        return 1.0
    value = np.quantile(present, 0.995)
    step = 10.0 ** np.floor(np.log10(value)) / 2
    return float(min(np.ceil(value / step) * step, 1.0))
