"""Geography: extents, grids, extents and dates in file names, objects, and CF NetCDF."""

from clouds_tf.geo.extent import GLOBE, Extent, parse_extent, parse_regions
from clouds_tf.geo.grid import Grid, cover
from clouds_tf.geo.names import named_date, named_extent, parse_date, parse_platforms

__all__ = [
    "GLOBE",
    "Extent",
    "Grid",
    "cover",
    "named_date",
    "named_extent",
    "parse_date",
    "parse_extent",
    "parse_platforms",
    "parse_regions",
]
