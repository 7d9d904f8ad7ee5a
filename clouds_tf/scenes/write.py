"""Predictions of scenes -> NetCDF (CF-1.8), Cloud-Optimized GeoTIFF, GeoJSON and GeoParquet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from clouds_tf.scenes.georeference import Grid
from clouds_tf.scenes.masks import Object, Prediction, measure

_STEP = 0.004  # of a probability in a byte: 0 to 250
_NONE = 255  # what was not observed
_ROWS_AT_ONCE = 256
_WGS84 = {"semi_major_axis": 6378137.0, "inverse_flattening": 298.257223563}


def packed(probabilities: np.ndarray, observed: Any = True) -> np.ndarray:
    """Probabilities as bytes: 0 to 250 in steps of 0.004, and 255 where not observed."""
    return np.where(observed, np.rint(probabilities * np.float32(250)), _NONE).astype(np.uint8)


def bit_field(masks: np.ndarray) -> np.ndarray:
    """Masks bool [C, h, w] as one array of flags: uint8 to 8 classes, uint16 to 16, else uint32."""
    count = len(masks)
    dtype = np.dtype("uint8" if count <= 8 else "uint16" if count <= 16 else "uint32")
    result = np.zeros(masks.shape[1:], dtype)
    for i, mask in enumerate(masks):
        result += mask * dtype.type(1 << i)
    return result


def write_netcdf(path: str, prediction: Prediction) -> None:
    """Writes NetCDF-4 that follows CF-1.8, on time, lat and lon.

    Variables: `mask`, a bit for each class; `observed`; `probability`, and with a calibration
    `calibrated_probability`, packed into bytes; `brightness`; and for each class the share of the
    observed area, `area_fraction` and `expected_area_fraction`.

    Args:
        path: of the file.
        prediction: what to write. The bytes depend on nothing else.
    """
    import h5netcdf

    grid, names = prediction.grid, prediction.class_names
    # Groups that keep the order of creation keep its time too, in some versions of HDF5.
    with h5netcdf.File(path, "w", track_order=False) as file:
        file.dimensions = {
            "time": 1, "class": len(names), "lat": grid.size[0], "lon": grid.size[1], "bnds": 2
        }
        file.attrs.update(_global_attributes(prediction))
        _write_coordinates(file, prediction)
        _write_planes(file, prediction)
        _write_probabilities(file, prediction)
        areas = measure(prediction, [0] * len(names))
        for name, field in (("area_fraction", "share"), ("expected_area_fraction", None)):
            shares = [getattr(area, field or "expected_share") for area in areas]
            values = file.create_variable(name, ("time", "class"), np.float64)
            values[0] = np.array(shares)
            values.attrs.update(
                long_name=f"{'expected ' if field is None else ''}share of the observed area",
                units="1",
                cell_methods="area: mean",
            )


def _create(file: Any, name: str, dims: tuple[str, ...], dtype: Any, **options: Any) -> Any:
    """A compressed variable on the grid, last two dimensions lat and lon."""
    shape = [file.dimensions[dim].size for dim in dims]
    chunks = (1,) * (len(dims) - 2) + (min(256, shape[-2]), min(512, shape[-1]))
    values = file.create_variable(
        name, dims, dtype, chunks=chunks, compression="gzip", compression_opts=4, shuffle=True,
        **options,
    )
    values.attrs.update(grid_mapping="crs", coordinates="time lat lon")
    return values


def _write_planes(file: Any, prediction: Prediction) -> None:
    dims, names = ("time", "lat", "lon"), prediction.class_names
    mask = bit_field(prediction.masks)
    flags = _create(file, "mask", dims, mask.dtype)
    flags.attrs.update(
        long_name="cloud patterns, one bit for each class",
        flag_masks=np.left_shift(1, np.arange(len(names))).astype(mask.dtype),
        flag_meanings=" ".join(name.replace(" ", "_") for name in names),
        ancillary_variables="observed",
    )
    flags[0] = mask
    observed = _create(file, "observed", dims, np.uint8)
    observed.attrs.update(
        long_name="whether the satellite saw the cell",
        flag_values=np.array([0, 1], np.uint8),
        flag_meanings="not_observed observed",
    )
    observed[0] = prediction.observed.astype(np.uint8)
    brightness = _create(file, "brightness", dims, np.uint8)
    brightness.attrs.update(long_name="mean of red, green and blue of the scene", units="1")
    brightness[0] = np.rint(prediction.image.mean(axis=2, dtype=np.float32)).astype(np.uint8)


def _write_probabilities(file: Any, prediction: Prediction) -> None:
    variables = {"probability": "probability of the class"}
    if prediction.calibration is not None:
        variables["calibrated_probability"] = (
            "calibrated probability of the class; its mean is the expected share of an area"
        )
    for name, long_name in variables.items():
        dims = ("time", "class", "lat", "lon")
        values = _create(file, name, dims, np.uint8, fillvalue=_NONE)
        values.attrs.update(
            long_name=long_name,
            units="1",
            scale_factor=np.float32(_STEP),
            add_offset=np.float32(0),
            ancillary_variables="observed",
        )
        for i in range(len(prediction.class_names)):
            found = prediction.probabilities[i]
            found = found if name == "probability" else prediction.calibrated(i)
            values[0, i] = packed(found, prediction.observed)


def _global_attributes(prediction: Prediction) -> dict[str, Any]:
    return {
        "Conventions": "CF-1.8",
        "title": f"Cloud patterns of {prediction.name}",
        "source": f"clouds_tf, SavedModel {prediction.model}",
        "scene": prediction.name,
        "date": f"{prediction.date:%Y-%m-%d}",
        "platform": prediction.platform or "unknown",
        "model_fingerprint": prediction.model,
        "resolution": prediction.grid.cell[0],
    }


def _write_coordinates(file: Any, prediction: Prediction) -> None:
    import h5py
    import rasterio

    grid = prediction.grid
    seconds = (prediction.date - type(prediction.date)(1970, 1, 1)).total_seconds()
    time = file.create_variable("time", ("time",), np.int64, data=np.array([round(seconds)]))
    time.attrs.update(
        standard_name="time",
        long_name="time of the scene",
        units="seconds since 1970-01-01 00:00:00",
        calendar="standard",
        axis="T",
    )
    axes = (
        ("lat", "latitude", "degrees_north", "Y", grid.latitudes, grid.latitude_edges),
        ("lon", "longitude", "degrees_east", "X", grid.longitudes, grid.longitude_edges),
    )
    for name, standard_name, units, axis, centres, edges in axes:
        values = file.create_variable(name, (name,), np.float64, data=centres)
        values.attrs.update(
            standard_name=standard_name, units=units, axis=axis, bounds=f"{name}_bnds"
        )
        bounds = np.stack([edges[:-1], edges[1:]], axis=1)
        file.create_variable(f"{name}_bnds", (name, "bnds"), np.float64, data=bounds)
    classes = file.create_variable("class", ("class",), h5py.string_dtype())
    classes[:] = np.array(prediction.class_names, object)
    classes.attrs["long_name"] = "cloud pattern"
    crs = file.create_variable("crs", (), np.int32, data=np.int32(4326))
    wkt = rasterio.crs.CRS.from_epsg(4326).to_wkt()
    crs.attrs.update(
        grid_mapping_name="latitude_longitude",
        longitude_of_prime_meridian=0.0,
        crs_wkt=wkt,
        spatial_ref=wkt,
        GeoTransform=" ".join(repr(value) for value in transform(grid).to_gdal()),
        **_WGS84,
    )


def transform(grid: Grid) -> Any:
    """The affine transform of rasterio, from (column, row) to (longitude, latitude)."""
    import rasterio

    return rasterio.transform.Affine(
        grid.cell[1], 0.0, grid.lon_min, 0.0, -grid.cell[0], grid.lat_max
    )


def write_cog(path: str, prediction: Prediction, scratch: str) -> None:
    """Writes a Cloud-Optimized GeoTIFF: a band for the mask of each class, then its probability.

    Its internal mask says what was observed; probabilities are bytes of 1/250.

    Args:
        path: of the file.
        prediction: what to write.
        scratch: of a file that is overwritten on the way.
    """
    import rasterio
    import rasterio.shutil
    from rasterio.enums import ColorInterp

    grid, names = prediction.grid, prediction.class_names
    (height, width), count = grid.size, len(names)
    tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    # GDAL itself writes overviews and the order of the parts when it copies the file.
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        scratch, "w", "GTiff", width, height, 2 * count, "EPSG:4326", transform(grid), np.uint8,
        photometric="minisblack", **tiled,
    ) as file:
        file.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (2 * count - 1)
        for start in range(0, height, _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, height))
            window = rasterio.windows.Window(0, start, width, rows.stop - start)
            observed = prediction.observed[rows]
            for i in range(count):
                file.write(prediction.masks[i, rows].astype(np.uint8), i + 1, window=window)
                found = packed(prediction.probabilities[i, rows])
                file.write(found, count + i + 1, window=window)
            file.write_mask(observed, window=window)
        file.descriptions = [*names, *(f"{name} probability" for name in names)]
        file.scales = [1.0] * count + [_STEP] * count
        file.update_tags(
            TIFFTAG_DATETIME=prediction.date.strftime("%Y:%m:%d %H:%M:%S"),
            scene=prediction.name,
            platform=prediction.platform or "unknown",
            model=prediction.model,
        )
    options = {"compress": "deflate", "overview_resampling": "nearest", "bigtiff": "if_safer"}
    rasterio.shutil.copy(scratch, path, driver="COG", **options)


def polygons(objects: list[Object], labels: np.ndarray, grid: Grid) -> dict[int, list[Any]]:
    """The polygons of objects, as RFC 7946 has them: cut at the date line.

    Args:
        objects: of one class.
        labels: what `find_objects` gave with them.
        grid: the cells.

    Returns:
        For the place of each object in the list, its polygons: lists of rings of [longitude,
        latitude], outer ring first and counter-clockwise.
    """
    import rasterio.features

    of_label = {label: i for i, found in enumerate(objects) for label in found.labels}
    result: dict[int, list[Any]] = {i: [] for i in range(len(objects))}
    width = grid.size[1]
    date_line = min(max(math.ceil((180 - grid.lon_min) / grid.cell[1] - 1e-6), 0), width)
    for first, last in ((0, date_line), (date_line, width)):
        part = np.ascontiguousarray(labels[:, first:last])
        if not part.any():
            continue
        # Parts that touch at a corner only become polygons of their own, which keeps all valid.
        found = rasterio.features.shapes(part, part > 0, connectivity=4)
        for shape, label in found:
            rings = [
                _ring(ring, first, grid, clockwise=i > 0)
                for i, ring in enumerate(shape["coordinates"])
            ]
            result[of_label[int(label)]].append(rings)
    return result


def _ring(ring: list[Any], first: int, grid: Grid, clockwise: bool) -> list[list[float]]:
    """Corners (column, row) as [longitude, latitude], turned the way that RFC 7946 asks for."""
    beyond = grid.lon_min + first * grid.cell[1] >= 180 - 1e-6
    corners = np.asarray(ring) + [first, 0]
    longitude = np.round(grid.lon_min + corners[:, 0] * grid.cell[1] - 360 * beyond, 10)
    latitude = np.round(grid.lat_max - corners[:, 1] * grid.cell[0], 10)
    longitude = np.clip(longitude, -180, 180)
    # Twice the signed area, which is positive counter-clockwise.
    x, y = longitude - longitude[0], latitude - latitude[0]
    if (np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0) == clockwise:
        longitude, latitude = longitude[::-1], latitude[::-1]
    return np.stack([longitude, latitude], axis=1).tolist()


def features(
    prediction: Prediction, found: list[tuple[list[Object], np.ndarray]]
) -> Iterator[dict[str, Any]]:
    """Yields the objects of all classes as GeoJSON features.

    Args:
        prediction: a Prediction.
        found: for each class, what `find_objects` gave.
    """
    for objects, labels in found:
        shapes = polygons(objects, labels, prediction.grid)
        for i, item in enumerate(objects):
            yield {
                "type": "Feature",
                "id": f"{item.class_name}-{i + 1}",
                "bbox": [round(value, 10) for value in item.bounds],
                "geometry": {"type": "MultiPolygon", "coordinates": shapes[i]},
                "properties": {
                    "scene": prediction.name,
                    "date": prediction.date.isoformat(),
                    "class": item.class_name,
                    "area_km2": round(item.area_km2, 3),
                    "mean_probability": round(item.mean_probability, 4),
                    "centroid_lon": round(item.centroid[0], 6),
                    "centroid_lat": round(item.centroid[1], 6),
                },
            }


def write_geojson(path: str, items: Iterator[dict[str, Any]]) -> None:
    """Writes features as a FeatureCollection, one on each line."""
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for i, item in enumerate(items):
            file.write(",\n" if i else "\n")
            file.write(json.dumps(item, ensure_ascii=False))
        file.write("\n]}\n")
