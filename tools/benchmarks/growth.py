"""Suite growth: CPU time of a piece of work, and peak memory, for growing numbers of pieces.

Images and scenes are tiny, so that names, tables and manifests count as much as the work itself.
Each number of pieces of each kind of work runs in a separate process. The CPU time of a piece is
the difference from the next smaller number of pieces, so imports and traces do not count. It needs
the extra [geo].
"""

import dataclasses
import itertools
import json
import os
import resource
import tempfile
import time

import numpy as np
import rasterio
from absl import flags
from benchmarks import (
    Ratio,
    link_data,
    peak_megabytes,
    print_table,
    show,
    take_turns,
    write_boxes,
)
from benchmarks._unets import write_small_model

from clouds_tf import evaluation, figures, serving
from clouds_tf.climatology import product
from clouds_tf.data import input_pipeline, sample_data, shards
from clouds_tf.dataset import CLOUDS
from clouds_tf.exploration import report
from clouds_tf.figures.style import COLORS, new_figure, styled
from clouds_tf.geo.grid import Grid
from clouds_tf.models.weights import save_model_weights
from clouds_tf.scenes.jobs import Options
from clouds_tf.scenes.predict import predict_scenes

flags.DEFINE_list("images", ["100", "1000", "10000"], "Numbers of images, at least three.")
flags.DEFINE_list("days", ["30", "300", "3000"], "Numbers of scenes, one a day.")
flags.DEFINE_list("parts", [], "Kinds of work, each after those whose files it reads; or all.")
flags.DEFINE_string("picture", None, "PNG to write of the table.")
flags.DEFINE_string("contender", None, "Of a child process: kind of work, and number of pieces.")
flags.DEFINE_string("folder", None, "Of a child process: where everything is.")
FLAGS = flags.FLAGS

TINY = dataclasses.replace(CLOUDS, mask_size=(35, 52), submission_size=(35, 52))
SIZE = (32, 48)  # of the networks' input
LIMIT = 1.2


def write_records(folder, count):
    shards.write_records(f"{folder}/data{count}", f"{folder}/records{count}", TINY, num_folds=2)


def explore(folder, count):
    report.write_report(f"{folder}/data{count}", f"{folder}/report{count}", TINY)


def read_epoch(folder, count):
    for _ in input_pipeline.training_batches(f"{folder}/records{count}", [0, 1], SIZE, 16, 1):
        pass


def evaluate(folder, count):
    weights = [f"{folder}/model.safetensors"]
    evaluation.evaluate(f"{folder}/records{count}", output=f"{folder}/p.json", weights=weights)


def predict(folder, count):
    images_dir = f"{folder}/data{count}/{TINY.train_images}"
    serving.predict(f"{folder}/small/1", images_dir, f"{folder}/{count}.csv")


def scenes(folder, count):
    options = Options(formats=("netcdf",))
    predict_scenes(f"{folder}/small/1", f"{folder}/days{count}", f"{folder}/S{count}", options)


def of_scenes(folder, count):
    product.make(f"{folder}/{count}.nc", scenes_dir=f"{folder}/S{count}", grid=Grid(5))


def of_boxes(folder, count):
    boxes = f"{folder}/boxes{count}.csv"
    product.make(f"{boxes}.nc", boxes=boxes, class_names=CLOUDS.class_names, grid=Grid(5))


PARTS = {
    "records": write_records,
    "exploration": explore,
    "training input": read_epoch,
    "evaluation": evaluate,
    "prediction": predict,
    "scenes": scenes,
    "climatology of scenes": of_scenes,
    "climatology of boxes": of_boxes,
}
OF_DAYS = [part for part in PARTS if part.startswith(("scenes", "climatology"))]


def run_child(part, count, folder):
    """Does one kind of work once, and prints its CPU seconds and megabytes as JSON."""
    start = time.process_time()
    PARTS[part](folder, count)
    seconds = time.process_time() - start
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds += children.ru_utime + children.ru_stime
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes()}))


def write_days(sample, folder, count):
    """Writes a folder of scenes of one window each, one a day."""
    os.makedirs(folder)
    for day in range(count):
        date = np.datetime64("1998-01-01") + day
        os.symlink(sample, f"{folder}/s_{date.item():%Y%m%d}.tif")


def write_inputs(folder, images, days):
    """Writes images, scenes and models."""
    from clouds_tf.models.unet import unet

    sample_data.write_sample_data(f"{folder}/sample", 48, 1, dataset=TINY, progress=False)
    for count in images:
        link_data(f"{folder}/sample", f"{folder}/data{count}", count, TINY)
    pixels = np.random.default_rng(0).integers(20, 255, (3, *TINY.mask_size)).astype(np.uint8)
    height, width = TINY.mask_size
    (lat, lon), path = TINY.degrees, f"{folder}/scene.tif"
    where = rasterio.transform.from_bounds(-60, 0, -60 + lon, lat, width, height)
    with rasterio.open(path, "w", "GTiff", width, height, 3, "EPSG:4326", where, np.uint8) as file:
        file.write(pixels)
    for count in days:
        write_days(path, f"{folder}/days{count}", count)
        write_boxes(f"{folder}/boxes{count}.csv", count)
    write_small_model(f"{folder}/small", SIZE, TINY)
    model = unet(width=0.05)
    save_model_weights(model, f"{folder}/model.safetensors", dataset=TINY, image_size=SIZE)


def measure(folder, part, counts):
    """Gives (pieces, CPU seconds, CPU ms of each further piece, peak MB) of each size."""
    found = []
    for count in counts:
        (one,) = take_turns("growth", folder, [f"{part} {count}"], 1, {}).values()
        seconds, each = one["seconds"], float("nan")
        if found:
            each = 1e3 * (seconds - found[-1][1]) / (count - found[-1][0])
        found.append((count, seconds, each, one["megabytes"]))
    return found


def draw(found):
    """A picture of `measure` for each kind of work."""
    figure = new_figure(9, 3.6)
    titles = "CPU ms for each further piece", "peak memory, MB"
    times, memory = figure.subplots(1, 2)
    for axes, column, title in zip((times, memory), (2, 3), titles):
        for color, (part, rows) in zip(itertools.cycle(COLORS), found.items()):
            axes.plot([row[0] for row in rows], [row[column] for row in rows], ".-", color=color)
        axes.set(title=title, xlabel="pieces", xscale="log")
        axes.grid()
    times.set_yscale("log")
    memory.set_ylim(0)
    figure.legend(list(found), loc="outside right center")
    return figure


def main() -> None:
    if FLAGS.contender:
        part, count = FLAGS.contender.rsplit(" ", 1)
        run_child(part, int(count), FLAGS.folder)
        return
    images, days = (sorted(set(map(int, numbers))) for numbers in (FLAGS.images, FLAGS.days))
    if min(len(images), len(days)) < 3:
        raise ValueError(f"images, days: got {images} and {days}, expected three numbers or more")
    if unknown := set(FLAGS.parts) - set(PARTS):
        raise ValueError(f"parts: got {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    rows = [("work", "pieces", "CPU s", "CPU ms for each further piece", "peak MB")]
    found, ratios = {}, []
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(folder, images, days)
        try:
            for part in FLAGS.parts or PARTS:
                found[part] = measure(folder, part, days if part in OF_DAYS else images)
                for count, seconds, each, megabytes in found[part]:
                    further = "" if np.isnan(each) else f"{each:.2f}"
                    rows.append((part, f"{count:,}", f"{seconds:.1f}", further, f"{megabytes:.0f}"))
                first, second, *_, last = found[part]
                task = f"{part}, {last[0]:,}"
                ratios += [
                    Ratio(task, f"{second[0]:,}", last[2], second[2], "CPU ms each", LIMIT, "cost"),
                    Ratio(task, f"{first[0]:,}", last[3], first[3], "MB", LIMIT, "cost"),
                ]
        finally:  # rows measured before a failure are printed, too
            print_table(rows)
            show(ratios)
    if FLAGS.picture:
        figures.save(styled(draw)(found), FLAGS.picture)
