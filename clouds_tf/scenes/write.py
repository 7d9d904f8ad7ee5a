"""Writes predictions of scenes as CF NetCDF, Cloud-Optimized GeoTIFF, GeoJSON and GeoParquet."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from clouds_tf.geo import netcdf
from clouds_tf.geo.grid import Grid
from clouds_tf.geo.objects import Object
from clouds_tf.prediction.likeness import known
from clouds_tf.scenes.exclude import transform
from clouds_tf.scenes.masks import Prediction, measure

_STEP = 0.004  # of a probability, which fits in a byte as 0 to 250
_FINE_STEP = 1 / 32000  # of averaged probabilities, so that rare classes are not rounded to 0
_NONE = np.int16(-1)  # unobserved
_ROWS_AT_ONCE = 256
_BLOCK = 512  # pixels along a side of a tile of a GeoTIFF
_POLYGON, _MULTIPOLYGON = 3, 6  # of well-known binary
_WGS84 = {"semi_major_axis": 6378137.0, "inverse_flattening": 298.257223563}


def _packed(probabilities: np.ndarray, step: float) -> np.ndarray:
    """Probabilities in units of a step, int16."""
    return np.rint(probabilities * np.float32(1 / step)).astype(np.int16)


def bit_field(masks: np.ndarray) -> np.ndarray:
    """Masks bool [C, h, w] as bit flags: uint8 up to 8 classes, uint16 up to 16, else uint32."""
    count = len(masks)
    dtype = np.dtype("uint8" if count <= 8 else "uint16" if count <= 16 else "uint32")
    result = np.zeros(masks.shape[1:], dtype)
    for i, mask in enumerate(masks):
        result += mask * dtype.type(1 << i)
    return result


def write_netcdf(path: str, prediction: Prediction) -> None:
    """Writes CF NetCDF-4 on time, lat and lon.

    Its variables are `mask`, with a bit for each class; `observed`; `probability` and, with a
    calibration, `calibrated_probability`, packed into 16 bits; `brightness`; `area_fraction` and
    `expected_area_fraction`, shares of the observed area for each class; and `likeness`. The bytes
    depend only on the prediction.
    """
    about = {
        "source": f"clouds_tf, SavedModel {prediction.model}",
        "scene": prediction.name,
        "date": f"{prediction.date:%Y-%m-%d}",
        "platform": prediction.platform or "unknown",
        "model_fingerprint": prediction.model,
        "resolution": prediction.grid.cell[0],
        **prediction.preparation,
    }
    title = f"Cloud patterns of {prediction.name}"
    with netcdf.new_file(path, title, **about) as file:
        netcdf.write_axes(file, prediction.grid, prediction.class_names)
        _write_time_and_place(file, prediction)
        _write_planes(file, prediction)
        _write_probabilities(file, prediction)
        areas = measure(prediction, [0] * len(prediction.class_names))
        for name, field in (("area_fraction", "share"), ("expected_area_fraction", "")):
            shares = [getattr(area, field or "expected_share") for area in areas]
            long_name = f"{'' if field else 'expected '}share of the observed area"
            attributes: dict[str, Any] = {"units": "1", "cell_methods": "area: mean"}
            values = netcdf.new_variable(
                file, name, ("time", "class"), np.float64, long_name, **attributes
            )
            values[0] = np.array(shares)
        long_name = "share of training images that are less typical"
        values = netcdf.new_variable(file, "likeness", ("time",), np.float64, long_name, units="1")
        values[0] = prediction.likeness


def _write_planes(file: Any, prediction: Prediction) -> None:
    mask, names = bit_field(prediction.masks), prediction.class_names
    observed = prediction.observed.astype(np.uint8)
    brightness = np.rint(prediction.image.mean(axis=2, dtype=np.float32)).astype(np.uint8)
    flags = {
        "flag_masks": np.left_shift(1, np.arange(len(names))).astype(mask.dtype),
        "flag_meanings": " ".join(name.replace(" ", "_") for name in names),
        "ancillary_variables": "observed",
    }
    seen = {"flag_values": np.array([0, 1], np.uint8), "flag_meanings": "not_observed observed"}
    for name, plane, long_name, attributes in (
        ("mask", mask, "cloud patterns, one bit for each class", flags),
        ("observed", observed, "whether the cell was observed and counts", seen),
        ("brightness", brightness, "mean of red, green and blue, stretched", {"units": "1"}),
    ):
        dims = ("time", "lat", "lon")
        values = netcdf.new_variable(
            file, name, dims, plane.dtype, long_name, grid_mapping="crs", **attributes
        )
        values[0] = plane


def _write_probabilities(file: Any, prediction: Prediction) -> None:
    variables = {"probability": "probability of the class"}
    if prediction.calibration is not None:
        variables["calibrated_probability"] = (
            "calibrated probability of the class; its mean is the expected share of an area"
        )
    for name, long_name in variables.items():
        step = _STEP if name == "probability" else _FINE_STEP
        values = netcdf.new_variable(
            file,
            name,
            ("time", "class", "lat", "lon"),
            np.int16,
            long_name,
            _NONE,
            grid_mapping="crs",
            units="1",
            scale_factor=np.float32(step),
            add_offset=np.float32(0),
            ancillary_variables="observed",
        )
        for i in range(len(prediction.class_names)):
            found = prediction.calibrated(i) if step == _FINE_STEP else prediction.probabilities[i]
            values[0, i] = np.where(prediction.observed, _packed(found, step), _NONE)


def _write_time_and_place(file: Any, prediction: Prediction) -> None:
    import rasterio

    seconds = (prediction.date - type(prediction.date)(1970, 1, 1)).total_seconds()
    file.dimensions["time"] = 1
    time = file.create_variable("time", ("time",), np.int64, data=np.array([round(seconds)]))
    time.attrs.update(
        standard_name="time",
        long_name="time of the scene",
        units="seconds since 1970-01-01 00:00:00",
        calendar="standard",
        units_metadata="leap_seconds: none",
        axis="T",
    )
    crs = file.create_variable("crs", (), np.int32, data=np.int32(4326))
    wkt = rasterio.crs.CRS.from_epsg(4326).to_wkt()
    crs.attrs.update(
        grid_mapping_name="latitude_longitude",
        longitude_of_prime_meridian=0.0,
        crs_wkt=wkt,
        spatial_ref=wkt,
        GeoTransform=" ".join(repr(value) for value in transform(prediction.grid).to_gdal()),
        **_WGS84,
    )


def write_cog(path: str, prediction: Prediction, scratch: str) -> None:
    """Writes a Cloud-Optimized GeoTIFF: a band for the mask of each class, then its probability.

    Its internal mask marks observed cells; probabilities are bytes in units of 1/250. `scratch` is
    the path of a temporary file.
    """
    import rasterio
    import rasterio.shutil
    from rasterio.enums import ColorInterp, Resampling

    grid, names = prediction.grid, prediction.class_names
    (height, width), count = grid.shape, len(names)
    tiled = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK}
    # GDAL compresses and sorts the parts when it copies the file.
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        scratch,
        "w",
        "GTiff",
        width,
        height,
        2 * count,
        "EPSG:4326",
        transform(grid),
        np.uint8,
        photometric="minisblack",
        **tiled,
    ) as file:
        file.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (2 * count - 1)
        for start in range(0, height, _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, height))
            window = rasterio.windows.Window(0, start, width, rows.stop - start)
            observed = prediction.observed[rows]
            for i in range(count):
                file.write(prediction.masks[i, rows].astype(np.uint8), i + 1, window=window)
                found = _packed(prediction.probabilities[i, rows], _STEP).astype(np.uint8)
                file.write(found, count + i + 1, window=window)
            file.write_mask(observed, window=window)
        file.descriptions = [*names, *(f"{name} probability" for name in names)]
        file.scales = [1.0] * count + [_STEP] * count
        factors = [2**i for i in range(1, 32) if max(grid.shape) > _BLOCK * 2 ** (i - 1)]
        file.build_overviews(factors, Resampling.nearest)
        file.update_tags(
            TIFFTAG_DATETIME=prediction.date.strftime("%Y:%m:%d %H:%M:%S"),
            scene=prediction.name,
            platform=prediction.platform or "unknown",
            model=prediction.model,
            **prediction.preparation,
        )
    # Differences of neighbours at level 1 take half the time of level 6 without, and two thirds of
    # its space.
    options = {"compress": "deflate", "level": 1, "predictor": "yes", "bigtiff": "if_safer"}
    rasterio.shutil.copy(scratch, path, driver="COG", **options)


def polygons(labels: np.ndarray, grid: Grid) -> dict[int, list[Any]]:
    """The polygons of objects by RFC 7946, cut at 180 degrees.

    Args:
        labels: numbers of objects, int32 [rows, columns], 0 outside.
        grid: the cells.

    Returns:
        For each number, its polygons: lists of rings of [longitude, latitude], outer ring first and
        counter-clockwise.
    """
    import rasterio.features

    result: dict[int, list[Any]] = {}
    west, side, width = grid.extent.lon_min, grid.cell[1], grid.shape[1]
    for turn in (0,) if grid.periodic else (0, 360):
        # Columns between -180 and 180, including columns that cross either.
        first = math.floor((turn - 180 - west) / side + 1e-6)
        last = math.ceil((turn + 180 - west) / side - 1e-6)
        if not grid.periodic:
            first, last = max(first, 0), min(last, width)
        if last <= first:
            continue
        part = labels[:, np.arange(first, last) % width]
        # Parts that touch only at a corner become separate polygons, so that all are valid.
        for shape, label in rasterio.features.shapes(part, part > 0, connectivity=4):
            rings = [
                _ring(np.asarray(ring) + [first, 0], turn, grid, clockwise=i > 0)
                for i, ring in enumerate(shape["coordinates"])
            ]
            result.setdefault(int(label), []).append(rings)
    return result


def _ring(corners: np.ndarray, turn: int, grid: Grid, clockwise: bool) -> list[list[float]]:
    """Converts corners (column, row) to [longitude, latitude], in the direction of RFC 7946."""
    longitude = np.round(grid.extent.lon_min + corners[:, 0] * grid.cell[1] - turn, 10)
    latitude = np.round(grid.extent.lat_max - corners[:, 1] * grid.cell[0], 10)
    longitude = np.clip(longitude, -180, 180)
    # Twice the signed area, which is positive counter-clockwise.
    x, y = longitude - longitude[0], latitude - latitude[0]
    if (np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0) == clockwise:
        longitude, latitude = longitude[::-1], latitude[::-1]
    return np.stack([longitude, latitude], axis=1).tolist()


def features(
    prediction: Prediction, found: list[tuple[list[Object], np.ndarray]]
) -> Iterator[dict[str, Any]]:
    """Yields the objects of all classes, found by `masks.objects_of`, as GeoJSON features."""
    for class_name, (objects, labels) in zip(prediction.class_names, found):
        shapes = polygons(labels, prediction.grid)
        for number, item in enumerate(objects, start=1):
            yield {
                "type": "Feature",
                "id": f"{class_name}-{number}",
                "bbox": [round(value, 10) for value in item.bounds],
                "geometry": {"type": "MultiPolygon", "coordinates": shapes[number]},
                "properties": {
                    "scene": prediction.name,
                    "date": prediction.date.isoformat(),
                    "platform": prediction.platform,
                    "model": prediction.model,
                    "likeness": known(prediction.likeness),
                    "class": class_name,
                    "area_km2": round(item.area_km2, 3),
                    "mean_probability": round(item.mean_probability, 4),
                    "centroid_lon": round(item.centroid[0], 6),
                    "centroid_lat": round(item.centroid[1], 6),
                },
            }


def write_geojson(path: str, items: Iterator[dict[str, Any]]) -> None:
    """Writes features as a FeatureCollection, one per line."""
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for i, item in enumerate(items):
            file.write(",\n" if i else "\n")
            file.write(json.dumps(item, ensure_ascii=False))
        file.write("\n]}\n")


def write_geoparquet(path: str, items: Iterator[dict[str, Any]]) -> None:
    """Writes features as GeoParquet 1.0: their properties, bounds, and geometry in WKB."""
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.float64()
    fields = dict.fromkeys(("scene", "date", "platform", "model", "class"), text)
    fields["area_km2"] = number
    fields.update(
        likeness=number, mean_probability=number, centroid_lon=number, centroid_lat=number
    )
    bounds = dict.fromkeys(("west", "south", "east", "north"), number)
    rows = [
        {**item["properties"], **dict(zip(bounds, item["bbox"])), "geometry": _wkb(item)}
        for item in items
    ]
    column = {"encoding": "WKB", "geometry_types": ["MultiPolygon"], "edges": "planar"}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}
    schema = pyarrow.schema(
        {**fields, **bounds, "geometry": pyarrow.binary()}, metadata={"geo": json.dumps(geo)}
    )
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)


def _wkb(item: dict[str, Any]) -> bytes:
    """The MultiPolygon of a feature as little-endian well-known binary."""
    polygons = item["geometry"]["coordinates"]
    parts = [struct.pack("<BII", 1, _MULTIPOLYGON, len(polygons))]
    for rings in polygons:
        parts.append(struct.pack("<BII", 1, _POLYGON, len(rings)))
        for ring in rings:
            parts.append(struct.pack("<I", len(ring)))
            parts += [struct.pack("<dd", *corner) for corner in ring]
    return b"".join(parts)
