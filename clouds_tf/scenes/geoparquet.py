"""Objects of scenes as GeoParquet 1.0 (extra `parquet`)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

_POLYGON, _MULTIPOLYGON = 3, 6  # of well-known binary


def write_geoparquet(path: str, items: Iterator[dict[str, Any]]) -> None:
    """Writes GeoJSON features as a table: their properties, bounds, and geometry in WKB.

    Args:
        path: of the file.
        items: what `write.features` yields.
    """
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.float64()
    fields = dict.fromkeys(("scene", "date", "platform", "model", "class"), text)
    fields["area_km2"] = number
    fields.update(mean_probability=number, centroid_lon=number, centroid_lat=number)
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
