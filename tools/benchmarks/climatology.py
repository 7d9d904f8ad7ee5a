"""Suite climatology: exact areas of the boxes of a day, against shapely. Needs the extra [geo]."""

import pathlib
import tempfile
import time

import numpy as np
import shapely
from absl import flags
from benchmarks import DATA, Ratio, show, write_boxes

from clouds_tf.climatology import tables
from clouds_tf.climatology.boxes import day_fields
from clouds_tf.dataset import CLOUDS
from clouds_tf.geo.earth import sine
from clouds_tf.geo.grid import Grid

flags.DEFINE_string(
    "boxes",
    str(DATA / "climatology" / "retinanet-world-2017.csv.gz"),
    "Boxes of a year; synthetic ones if the file is missing.",
)
flags.DEFINE_float("cell", 1.0, "Degrees of a grid cell.", lower_bound=0.01)
flags.DEFINE_integer("peer_days", 10, "Days that shapely computes.", lower_bound=1)
FLAGS = flags.FLAGS


def fractions_by_shapely(views, num_classes, grid):
    """Class fractions of a day, with a union and an intersection for each touched cell."""
    result = np.zeros((num_classes, *grid.shape))
    lat, lon = sine(grid.lat_edges), grid.lon_edges
    (view,) = views
    for c in range(num_classes):
        shapes = []
        for west, south, east, north in view.boxes[view.labels == c]:
            for turn in (0, -360):
                shapes.append(shapely.box(west + turn, sine(south), east + turn, sine(north)))
        union = shapely.union_all(shapes)
        shapely.prepare(union)
        corners = np.meshgrid(lon[:-1], lat[:-1])
        opposite = np.meshgrid(lon[1:], lat[1:])
        cells = shapely.box(*corners, *opposite)
        touched = shapely.intersects(union, cells)
        areas = shapely.area(shapely.intersection(union, cells[touched]))
        result[c][touched] = areas / shapely.area(cells[touched])
    return result


def compare_with_shapely(boxes, grid):
    """Seconds per day of ours and of shapely, which agree."""
    table = tables.read(boxes, CLOUDS.class_names)
    days = [day for day, _ in zip(table.by_day(), range(FLAGS.peer_days))]
    ours = peer = 0.0
    for date, views in days:
        start = time.perf_counter()
        found = day_fields(date, views, CLOUDS.num_classes, grid)
        middle = time.perf_counter()
        expected = fractions_by_shapely(views, CLOUDS.num_classes, grid)
        peer += time.perf_counter() - middle
        ours += middle - start
        np.testing.assert_allclose(found.fraction, expected, atol=1e-5)
    return ours / len(days), peer / len(days)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        boxes = FLAGS.boxes
        if not pathlib.Path(boxes).is_file():
            boxes = f"{folder}/boxes.csv"
            write_boxes(boxes, FLAGS.peer_days)
        ours, peer = compare_with_shapely(boxes, Grid(FLAGS.cell))
    task = f"class fractions of a day, {FLAGS.cell:g} degrees"
    show([Ratio(task, "shapely", 1e3 * ours, 1e3 * peer, "ms", 10)])
