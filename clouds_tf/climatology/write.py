"""Writes the product: CF NetCDF, or the names and layout of C3ONTEXT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clouds_tf.climatology.aggregate import (
    Aggregation,
    Period,
    PeriodMeans,
    folded_over,
    means,
    periods,
)
from clouds_tf.climatology.days import (
    COVERAGE,
    FRACTION,
    SHARED,
    UNCLASSIFIED,
    DayFields,
    DayStore,
)
from clouds_tf.geo import netcdf
from clouds_tf.progress import Progress, shown

# Order and spelling of C3ONTEXT (Schulz, "C3ONTEXT: a Common Consensus on Convective OrgaNizaTion
# during the EUREC4A experimenT", Earth System Science Data 14, 2022).
C3ONTEXT_NAMES = {"Sugar": "Sugar", "Flower": "Flowers", "Fish": "Fish", "Gravel": "Gravel"}
_METHOD = "95 % interval by a bootstrap of {} draws of blocks of block_days days (years where 365)"


def product(
    path: str, store: DayStore, form: Aggregation, progress: Progress | bool = False
) -> int:
    """Writes the means of periods, one period after the other, whole or not at all.

    All of the grid comes before the regions. Returns the number of periods.

    Raises:
        ValueError: there are no days, or the folder holds hours and the periods are of days.
    """
    dates = store.dates()
    if store.settings.step != form.step:
        raise ValueError(
            f"{store.folder}: holds files of each {store.settings.step}, expected of each "
            f"{form.step} for by={form.by!r}; choose another --days_dir"
        )
    groups = periods(dates, form.by, form.across_years)
    if not groups:
        raise ValueError(f"{store.folder}: has no days to aggregate")
    extents = {"all": store.settings.grid.extent, **form.regions}
    num_resamples = form.num_resamples
    if form.layout == "c3ontext" or max(len(group.dates) for group in groups) < 2:
        num_resamples = 0
    done, tell = 0, shown(progress, "day")

    def on_day(day: DayFields) -> None:
        nonlocal done
        done += 1
        tell(done, len(dates))

    found = (means(store, group, extents, num_resamples, form.seed, on_day) for group in groups)
    about = {
        "source": store.settings.source,
        "measure": store.settings.measure,
        "model_fingerprint": store.settings.model_fingerprint,
        "num_days": np.int32(len(dates)),
        "first_day": dates[0],
        "last_day": dates[-1],
    }
    if store.settings.platforms:
        about["platforms"] = ", ".join(store.settings.platforms)
    with netcdf.new_file(path, "Frequencies of cloud patterns", **about) as file:
        if form.layout == "cf":
            _write_cf(file, store, groups, form, list(extents), num_resamples, found)
        else:
            _write_c3ontext(file, store, groups, found)
    return len(groups)


def _write_cf(
    file: Any,
    store: DayStore,
    groups: Sequence[Period],
    form: Aggregation,
    regions: list[str],
    num_resamples: int,
    found: Iterator[PeriodMeans],
) -> None:
    grid, names = store.settings.grid, store.settings.class_names
    netcdf.write_axes(file, grid, names)
    file.dimensions["other_class"] = len(names)
    netcdf.write_strings(file, "other_class", ("other_class",), names, "cloud pattern")
    bounds = np.array([group.bounds for group in groups])
    middles = np.array([group.middle for group in groups], float)
    over = folded_over(form.by, form.across_years)
    netcdf.write_times(file, middles, bounds, over != "")
    file.dimensions["region"] = len(regions)
    netcdf.write_strings(file, "region", ("region",), regions, "region of the means")
    labels = [group.label for group in groups]
    netcdf.write_strings(file, "period", ("time",), labels, "name of the period")
    methods = "area: mean time: mean"
    if over:  # beside means over years, CF has no place for that over an area
        methods = f"time: mean within {over} time: mean over {over}"
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
    known = [name for name in C3ONTEXT_NAMES if name in names]
    order = known + [name for name in names if name not in known]
    patterns = [C3ONTEXT_NAMES.get(name, name) for name in order]
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
        file,
        "freq",
        dimensions,
        np.float32,
        FRACTION,
        units="1",
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
