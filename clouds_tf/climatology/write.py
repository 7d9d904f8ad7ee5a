"""Writes the product: CF NetCDF, or the names and layout of C3ONTEXT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from clouds_tf.climatology.aggregate import Period, PeriodMeans, means
from clouds_tf.climatology.days import (
    COVERAGE,
    FRACTION,
    SHARED,
    UNCLASSIFIED,
    DayStore,
    Progress,
)
from clouds_tf.geo import netcdf
from clouds_tf.geo.extent import Extent

LAYOUTS = ("cf", "c3ontext")
# Order and spelling of C3ONTEXT (Schulz, "C3ONTEXT: a Common Consensus on Convective OrgaNizaTion
# during the EUREC4A experimenT", Earth System Science Data 14, 2022).
_C3ONTEXT_NAMES = {"Sugar": "Sugar", "Flower": "Flowers", "Fish": "Fish", "Gravel": "Gravel"}
_METHOD = "95 % interval by a bootstrap of {} draws of blocks of block_days days (years where 365)"


def product(
    path: str,
    store: DayStore,
    groups: Sequence[Period],
    across_years: bool = False,
    regions: Mapping[str, Extent] | None = None,
    layout: str = "cf",
    num_resamples: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Writes the means of periods, one period after the other, whole or not at all.

    Args:
        path: the NetCDF file.
        store: the days.
        groups: as `aggregate.periods` gives them.
        across_years: whether they are the same months or seasons of several years.
        regions: name -> extent of regional means; all of the grid always comes first.
        layout: "cf": `fraction(time, class, lat, lon)` with intervals, coverage, co-occurrence and
            regional means; "c3ontext": `freq(date, longitude, latitude, pattern)` alone.
        num_resamples: draws of days for the intervals; 0 for none.
        seed: of the draws.
        progress: called with (done, total) days.

    Raises:
        ValueError: there are no days, or the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if not groups:
        raise ValueError(f"{store.folder}: has no days to aggregate")
    extents = {"all": store.settings.grid.extent, **(regions or {})}
    if layout == "c3ontext" or max(len(group.dates) for group in groups) < 2:
        num_resamples = 0
    found = _means(store, groups, extents, num_resamples, seed, progress)
    first, last = (min(g.dates[0] for g in groups), max(g.dates[-1] for g in groups))
    about = {
        "source": store.settings.source,
        "measure": store.settings.measure,
        "model_fingerprint": store.settings.model_fingerprint,
        "num_days": np.int32(sum(len(group.dates) for group in groups)),
        "first_day": first,
        "last_day": last,
    }
    with netcdf.new_file(path, "Frequencies of cloud patterns", **about) as file:
        if layout == "cf":
            _write_cf(file, store, groups, across_years, extents, num_resamples, found)
        else:
            _write_c3ontext(file, store, groups, found)


def _means(
    store: DayStore,
    groups: Sequence[Period],
    extents: Mapping[str, Extent],
    num_resamples: int,
    seed: int,
    progress: Progress | None,
) -> Iterator[PeriodMeans]:
    total, done = sum(len(group.dates) for group in groups), 0

    def on_day() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    for group in groups:
        yield means(store, group, extents, num_resamples, seed, on_day)


def _write_cf(
    file: Any,
    store: DayStore,
    groups: Sequence[Period],
    across_years: bool,
    extents: Mapping[str, Extent],
    num_resamples: int,
    found: Iterator[PeriodMeans],
) -> None:
    grid, names = store.settings.grid, store.settings.class_names
    netcdf.write_axes(file, grid, names)
    file.dimensions["other_class"] = len(names)
    netcdf.write_strings(file, "other_class", ("other_class",), names, "cloud pattern")
    bounds = np.array([group.bounds for group in groups])
    middles = np.array([group.middle for group in groups], float)
    netcdf.write_times(file, middles, bounds, across_years)
    file.dimensions["region"] = len(extents)
    netcdf.write_strings(file, "region", ("region",), list(extents), "region of the means")
    labels = [group.label for group in groups]
    netcdf.write_strings(file, "period", ("time",), labels, "name of the period")
    methods = "area: mean time: mean"
    if across_years:  # beside means over years, CF has no place for that over an area
        methods = "time: mean within years time: mean over years"
    variables = _variables(store.settings.has_classless, num_resamples)
    for name, (dimensions, long_name) in variables.items():
        attributes: dict[str, Any] = {"coordinates": "period", "units": "1"}
        kind: Any = np.int32
        if name == "block_days":
            attributes["units"] = "days"
        elif name != "num_days":
            kind = np.float32 if "lat" in dimensions else np.float64
            attributes["cell_methods"] = methods
        netcdf.new_variable(file, name, dimensions, kind, long_name, **attributes)
    for i, fields in enumerate(found):
        for name in variables:
            file[name][i] = getattr(fields, name)


def _variables(has_classless: bool, num_resamples: int) -> dict[str, tuple[tuple[str, ...], str]]:
    """Dimensions and long names of the variables, whose names are those of PeriodMeans."""
    shares = {
        "fraction": (("time", "class", "lat", "lon"), FRACTION),
        "region_fraction": (
            ("time", "region", "class"),
            f"{FRACTION}, mean over the region by area and coverage",
        ),
    }
    found = {
        **shares,
        "coverage": (("time", "lat", "lon"), COVERAGE),
        "region_coverage": (("time", "region"), COVERAGE),
        "num_days": (("time", "lat", "lon"), "days with an observation"),
    }
    if has_classless:
        found["unclassified"] = (("time", "lat", "lon"), UNCLASSIFIED)
        found["co_occurrence"] = (("time", "class", "other_class"), SHARED)
    if num_resamples:
        found["block_days"] = (("time",), "length of the blocks of the intervals, 0 without")
        for name, (dimensions, long_name) in shares.items():
            for end in ("lower", "upper"):
                method = f"{end} end of the {_METHOD.format(num_resamples)}"
                found[f"{name}_{end}"] = (dimensions, f"{method}: {long_name}")
    return found


def _write_c3ontext(
    file: Any, store: DayStore, groups: Sequence[Period], found: Iterator[PeriodMeans]
) -> None:
    grid, names = store.settings.grid, list(store.settings.class_names)
    known = [name for name in _C3ONTEXT_NAMES if name in names]
    order = known + [name for name in names if name not in known]
    patterns = [_C3ONTEXT_NAMES.get(name, name) for name in order]
    patterns += ["Unclassified"] * store.settings.has_classless
    axes = {
        "date": np.array([float(group.bounds[0]) for group in groups]),
        "longitude": grid.lon,
        "latitude": grid.lat,
    }
    for name, values in axes.items():
        file.dimensions[name] = len(values)
        file.create_variable(name, (name,), data=values).attrs.update(_AXIS_ATTRIBUTES[name])
    file.dimensions["pattern"] = len(patterns)
    netcdf.write_strings(file, "pattern", ("pattern",), patterns, "cloud pattern")
    dimensions = ("date", "longitude", "latitude", "pattern")
    netcdf.new_variable(
        file, "freq", dimensions, np.float32, FRACTION, units="1",
        cell_methods="area: mean date: mean",
    )
    for i, fields in enumerate(found):
        maps = [fields.fraction[names.index(name)] for name in order]
        maps += [fields.unclassified] * store.settings.has_classless
        file["freq"][i] = np.stack(maps, axis=-1).swapaxes(0, 1)


_AXIS_ATTRIBUTES = {
    "date": {
        "standard_name": "time",
        "units": "days since 1970-01-01",
        "calendar": "standard",
        "units_metadata": "leap_seconds: none",
        "long_name": "first day of the period",
    },
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
}
