"""Reprojects rasters in any coordinate reference system to longitude and latitude."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform

from clouds_tf.geo import earth
from clouds_tf.geo.extent import Extent

_WGS84 = CRS.from_epsg(4326)
_STEPS = 200  # samples along a side of a raster
_FINEST = 0.05  # quantile of the sides of pixels that counts as the resolution


def reprojected(source: Any) -> tuple[Any, Extent]:
    """A view of a projected or rotated raster on longitude and latitude, and its extent.

    By default, GDAL turns a raster across 180 degrees into a belt round the globe. So extent and
    resolution are computed from the positions of samples, and longitudes are relative to the middle
    of the raster.

    Args:
        source: an open raster with a coordinate reference system, or with ground control points.

    Returns:
        An open WarpedVRT of the same bands, north up, with about the resolution of the finest
        pixels of the source; and the outer edges of its pixels.
    """
    options: dict[str, Any] = {"resampling": Resampling.bilinear}
    if source.colorinterp[0] == ColorInterp.palette:
        options["resampling"] = Resampling.nearest
    if source.nodata is not None:
        options["src_nodata"] = source.nodata
    elif ColorInterp.alpha not in source.colorinterp:
        options["add_alpha"] = True
    points, crs = source.gcps
    if source.transform.is_identity and points:
        return _by_points(source, points, crs, options)
    crs, placement = _centred(source)
    vectors = _places(crs, placement, source.shape)
    lon, lat = _degrees(vectors)
    if not np.isfinite(lon).any():
        raise ValueError(f"lies outside the area of its coordinate reference system {crs}")
    west, east = _longitudes(lon[np.isfinite(lon)])
    south, north = float(np.nanmin(lat)), float(np.nanmax(lat))
    for pole in (-90, 90):
        if _has_pole(crs, placement, source.shape, pole):
            west, east = -180.0, 180.0
            south, north = min(south, pole), max(north, pole)
    side = _pixel_side(vectors, source.shape)
    height, width = (max(1, math.ceil(x / side)) for x in (north - south, east - west))
    middle = (west + east) / 2
    reach = (east - west) / 2
    vrt = WarpedVRT(
        source,
        src_crs=crs,
        src_transform=placement,
        crs=CRS.from_string(f"+proj=longlat +datum=WGS84 +pm={middle:.10f} +no_defs"),
        transform=rasterio.transform.from_bounds(-reach, south, reach, north, width, height),
        height=height,
        width=width,
        **options,
    )
    return vrt, Extent(west, south, east, north)


def _by_points(source: Any, points: Any, crs: Any, options: dict[str, Any]) -> tuple[Any, Extent]:
    lon, _ = transform(crs, _WGS84, [p.x for p in points], [p.y for p in points])
    if np.ptp(lon) > 180:
        raise ValueError(
            "has ground control points on both sides of 180 degrees; warp it with gdalwarp -t_srs "
            "'+proj=longlat +pm=180' first"
        )
    vrt = WarpedVRT(source, src_crs=crs, crs=_WGS84, **options)
    west, south, east, north = vrt.bounds
    return vrt, Extent(west, max(south, -90.0), east, min(north, 90.0))


def _centred(source: Any) -> tuple[CRS, Affine]:
    """Reference system and transform of a raster; centred, for a cylindrical projection.

    A Mercator raster may extend beyond 180 degrees, where PROJ has no positions.
    """
    crs, placement = source.crs, source.transform
    text = crs.to_proj4() if crs.is_projected else ""
    if not re.search(r"\+proj=(merc|eqc|cea|mill)\b", text):
        return crs, placement
    found = re.search(r"\+lon_0=(\S+)", text)
    origin = float(found.group(1)) if found else 0.0
    (start, quarter), _ = transform(_WGS84, crs, [origin, origin + 90], [0, 0])
    x, _ = placement @ (source.width / 2, source.height / 2)
    middle = origin + 90 * (x - start) / (quarter - start)
    text = re.sub(r"\s*\+lon_0=\S+", "", text) + f" +lon_0={middle:.12f}"
    return CRS.from_string(text), Affine.translation(start - x, 0) @ placement


def _places(crs: CRS, placement: Affine, shape: tuple[int, int]) -> np.ndarray:
    """Unit vectors from the Earth's centre to samples of a raster, NaN off the Earth.

    Samples include the edges: float32 [3, _STEPS + 1, _STEPS + 1]. A raster of the vectors on
    longitude and latitude is warped, because rasterio.warp.transform fails for all points if one
    is off the Earth.
    """
    lon, lat = np.radians(np.meshgrid(np.arange(-190, 190.1, 0.5), np.arange(90, -90.1, -0.5)))
    globe = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    found = np.full((3, _STEPS + 1, _STEPS + 1), np.nan, np.float32)
    steps = (shape[1] / _STEPS, shape[0] / _STEPS)
    samples = placement @ Affine.scale(*steps) @ Affine.translation(-0.5, -0.5)
    reproject(
        globe.astype(np.float32),
        found,
        src_transform=rasterio.transform.from_origin(-190.25, 90.25, 0.5, 0.5),
        src_crs=_WGS84,
        dst_transform=samples,
        dst_crs=crs,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
        tolerance=0,
    )
    found /= np.linalg.norm(found, axis=0)
    # Beyond the edge of a sinusoidal map, PROJ returns positions of the other side.
    lon, lat = _degrees(found)
    here = np.isfinite(lon)
    rows, columns = np.nonzero(here)
    x, y = transform(_WGS84, crs, lon[here], lat[here])
    off = ~samples @ (np.array(x), np.array(y))
    far = np.hypot(off[0] - columns - 0.5, off[1] - rows - 0.5) > 0.5
    found[:, rows[far], columns[far]] = np.nan
    return found


def _degrees(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = vectors.astype(np.float64)
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arcsin(np.clip(z, -1, 1)))


def _longitudes(lon: np.ndarray) -> tuple[float, float]:
    """Western and eastern end of longitudes on the circle: the edges of the widest gap."""
    lon = np.unique(lon)
    gaps = np.diff(lon, append=lon[0] + 360)
    widest = int(gaps.argmax())
    if gaps[widest] < 2:  # degrees: all round the globe
        return -180.0, 180.0
    west = float(lon[(widest + 1) % len(lon)])
    return west, float(lon[widest]) + 360 * (lon[widest] < west)


def _has_pole(crs: CRS, placement: Affine, shape: tuple[int, int], pole: int) -> bool:
    try:
        x, y = transform(_WGS84, crs, [0], [pole])
    except RasterioError:
        return False
    column, row = ~placement @ (x[0], y[0])
    back = crs.is_projected and 0 <= column <= shape[1] and 0 <= row <= shape[0]
    if not back:
        return False
    # If a projection shows the pole as a line, the neighbourhood is not a ring around it.
    others, _ = transform(_WGS84, crs, [0, 90, 180], [pole] * 3)
    return float(np.ptp(others)) < abs(placement.a) + abs(placement.b)


def _pixel_side(vectors: np.ndarray, shape: tuple[int, int]) -> float:
    """Side of the finest pixels of a raster, in degrees of latitude."""
    down = np.linalg.norm(np.diff(vectors, axis=1), axis=0)[:, :-1] * _STEPS / shape[0]
    across = np.linalg.norm(np.diff(vectors, axis=2), axis=0)[:-1] * _STEPS / shape[1]
    sides = np.sqrt(down * across)
    sides = sides[np.isfinite(sides) & (sides > 0)]
    if not sides.size:
        raise ValueError("has no two neighbouring pixels on the Earth")
    return float(np.quantile(sides, _FINEST)) * earth.RADIUS / earth.KM_PER_DEGREE
