"""Suite climatology: box tables of few and of many days, beside shapely; time and peak memory.

Needs the extra [geo]. Each run has a process of its own, whose memory is measured.
"""

import json
import os
import pathlib
import tempfile
import time

import numpy as np
import shapely
from absl import flags
from benchmarks import DATA, peak_megabytes, print_table, take_turns

from clouds_tf.climatology import product, tables
from clouds_tf.climatology.boxes import day_fields
from clouds_tf.data.runners import Runner
from clouds_tf.dataset import CLOUDS
from clouds_tf.geo.earth import sine
from clouds_tf.geo.grid import Grid

flags.DEFINE_string(
    "boxes",
    str(DATA / "climatology" / "retinanet-world-2017.csv.gz"),
    "Boxes of a year; drawn ones if absent.",
)
flags.DEFINE_multi_integer("num_days", [1000, 10000], "Synthetic days of a run.", lower_bound=1)
flags.DEFINE_float("cell", 1.0, "Degrees of a grid cell.", lower_bound=0.01)
flags.DEFINE_integer("num_workers", 1, "Processes that compute days.", lower_bound=1)
flags.DEFINE_integer("peer_days", 10, "Days that shapely computes.", lower_bound=1)
flags.DEFINE_string("contender", None, "Of a child process: its table of boxes.")
flags.DEFINE_string("folder", None, "Of a child process: where everything is.")
FLAGS = flags.FLAGS

_BOXES_A_DAY = 71  # as in 2017


def write_boxes(path, num_days):
    """A table of boxes of the size of those of 2017, day after day."""
    rng = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write("date,label,lon1,lon2,lat1,lat2\n")
        for day in range(num_days):
            date = np.datetime64("1998-01-01") + day
            west, south = rng.uniform(-180, 180, _BOXES_A_DAY), rng.uniform(-60, 55, _BOXES_A_DAY)
            east = west + rng.gamma(6, 1.4, _BOXES_A_DAY)
            north = south + rng.gamma(9, 0.8, _BOXES_A_DAY)
            labels = rng.choice(CLOUDS.class_names, _BOXES_A_DAY)
            east = np.where(east > 180, east - 360, east)
            for row in zip(labels, west, east, south, np.minimum(north, 90)):
                file.write(f"{date}," + ",".join(map(str, row)) + "\n")


def make(boxes, folder):
    return product.make(
        os.path.join(folder, f"{os.path.basename(boxes)}.nc"),
        boxes=boxes,
        class_names=CLOUDS.class_names,
        grid=Grid(FLAGS.cell),
        form=product.Aggregation(by="season"),
        runner=Runner(num_workers=FLAGS.num_workers),
    )


def run_child(boxes, folder):
    """Makes a climatology; prints days, seconds, and the growth of the peak of memory as JSON."""
    write_boxes(f"{folder}/first.csv", 2)
    make(f"{folder}/first.csv", folder)  # imports all that is needed
    before, start = peak_megabytes(), time.perf_counter()
    made = make(boxes, folder)
    seconds = time.perf_counter() - start
    found = {"days": made.num_days, "seconds": seconds, "megabytes": peak_megabytes() - before}
    print(json.dumps(found))


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
    if FLAGS.contender:
        run_child(FLAGS.contender, FLAGS.folder)
        return
    grid = Grid(FLAGS.cell)
    rows = [("boxes", "days", "seconds", "days / s", "peak memory above imports, MB")]
    with tempfile.TemporaryDirectory() as folder:
        runs = [(f"{folder}/{number}.csv", number) for number in FLAGS.num_days]
        for path, number in runs:
            write_boxes(path, number)
        real = pathlib.Path(FLAGS.boxes)
        paths = [("2017", str(real))] if real.is_file() else []
        paths += [("drawn", path) for path, _ in runs]
        settings = {"cell": FLAGS.cell, "num_workers": FLAGS.num_workers}
        found = take_turns("climatology", folder, [path for _, path in paths], 1, settings)
        for name, path in paths:
            days, seconds, memory = found[path].values()
            rate = days / seconds
            rows.append((name, f"{days}", f"{seconds:.1f}", f"{rate:.1f}", f"{memory:.0f}"))
        ours, peer = compare_with_shapely(paths[0][1], grid)
    print_table(rows)
    print_table(
        [
            ("task", "peer", "ours, ms", "peer, ms", "peer / ours", "aim"),
            (
                f"fractions of a day, {FLAGS.cell:g} degrees",
                "shapely",
                f"{ours * 1e3:.1f}",
                f"{peer * 1e3:.1f}",
                f"{peer / ours:.1f}",
                "",
            ),
        ]
    )
