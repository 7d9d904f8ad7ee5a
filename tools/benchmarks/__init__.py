"""Common code of the suites: measurements, tables, headlines, data, and the peer U-Net."""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

from clouds_tf import files
from clouds_tf.data import annotations, sample_data
from clouds_tf.dataset import CLOUDS, TRAIN_CSV, TRAIN_IMAGES

BOXES_A_DAY = 71  # as in 2017
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DATA = REPOSITORY.parent / "shared" / "data"  # real images, if any


def measure(functions, repeats, clock=time.perf_counter):
    """Gives the median seconds of each function, called by turns so that all meet the same noise.

    Args:
        functions: dict of name -> function without arguments.
        repeats: how often each is called, after one call that is not counted.
        clock: gives seconds; time.process_time counts those of this process's own threads.
    """
    seconds = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def take_turns(suite, folder, contenders, repeats, settings):
    """Runs each contender of a suite in a process of its own, by turns.

    Args:
        suite: name of the suite, whose flags --contender and --folder make it print a dict as JSON.
        folder: value of --folder.
        contenders: values of --contender.
        repeats: number of turns.
        settings: more flags, by name.

    Returns:
        contender -> the numbers that it printed, as medians over the turns.
    """
    command = [sys.executable, sys.argv[0], suite, f"--folder={folder}"]
    command += [f"--{name}={value}" for name, value in settings.items()]
    turns = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, found in turns.items():
            one = [*command, f"--contender={name}"]
            ended = subprocess.run(one, capture_output=True, text=True)
            if ended.returncode:
                reason = (ended.stderr.strip().splitlines() or [""])[-1]
                raise ValueError(f"contender {name}: exit status {ended.returncode}: {reason}")
            found.append(json.loads(ended.stdout.splitlines()[-1]))
    return {
        name: {key: statistics.median(turn[key] for turn in found) for key in found[0]}
        for name, found in turns.items()
    }


def peak_megabytes():
    """The peak of this process's memory; ru_maxrss would begin with that of its parent."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def table(rows):
    """Formats rows of strings as a table in Markdown; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ["-" * width for width in widths]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        for row in [rows[0], rule, *rows[1:]]
    ]
    return "\n".join(lines)


def print_table(rows):
    """Prints rows of strings as a table."""
    print(table(rows))


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A headline: our value compared with that of a peer, or with a limit.

    Attributes:
        task: what was measured.
        peer: name of the peer or limit.
        ours: our value.
        theirs: the value of the peer or limit.
        unit: unit of both values.
        aim: lowest acceptable ratio, or the highest one for the kind "cost"; None if there is none.
        kind: "rate" for ours / theirs; "time" for theirs / ours, the speed-up; "cost" for
            ours / theirs, where lower is better.
    """

    task: str
    peer: str
    ours: float
    theirs: float
    unit: str
    aim: "float | None" = None
    kind: str = "time"

    def cells(self):
        """The cells of its row under HEAD."""
        ratio = self.theirs / self.ours if self.kind == "time" else self.ours / self.theirs
        aim = ""
        if self.aim is not None:
            missed = ratio > self.aim if self.kind == "cost" else ratio < self.aim
            aim = f"{'at most' if self.kind == 'cost' else 'at least'} {self.aim:g}"
            aim += ", missed" * missed
        values = (f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in (self.ours, self.theirs))
        return self.task, self.peer, *values, self.unit, f"{ratio:.2f}", aim


HEAD = ("task", "peer or limit", "ours", "theirs", "unit", "ratio", "aim")
RATIOS_FILE = "CLOUDS_TF_RATIOS"  # variable with the file in which the suite `all` reads them


def show(ratios):
    """Prints headlines as a table, and hands those with an aim to the suite `all`."""
    print()
    print_table([HEAD, *(ratio.cells() for ratio in ratios)])
    if path := os.environ.get(RATIOS_FILE):
        with open(path, "a", encoding="utf-8") as file:
            for ratio in ratios:
                if ratio.aim is not None:
                    file.write(json.dumps(dataclasses.asdict(ratio)) + "\n")


def compare(tasks, repeats):
    """Measures each task's functions and prints one line per peer.

    Args:
        tasks: list of (title, functions, targets): functions maps "ours" and each peer to a
            function without arguments; targets maps a peer to the speed-up that is aimed at.
        repeats: how often each function is called.
    """
    ratios = []
    for title, functions, targets in tasks:
        ours, *others = measure(functions, repeats).items()
        for name, seconds in others:
            times = 1e3 * ours[1], 1e3 * seconds
            ratios.append(Ratio(title, name, *times, "ms", targets.get(name)))
    show(ratios)


def image_paths(source, folder):
    """Paths of the images in a folder, sorted; where it is absent, of images drawn at 1400x2100."""
    if not os.path.isdir(source):
        print(f"{source} is absent: drawn images of 1400x2100")
        sample_data.write_sample_data(f"{folder}/sample", num_train=8, num_test=1)
        source = f"{folder}/sample/{TRAIN_IMAGES}"
    return sorted(pathlib.Path(source).resolve().iterdir())


def link_data(source, folder, num_images, dataset):
    """Writes a data folder whose num_images images are links to those of a smaller one."""
    table = annotations.read_csv(os.path.join(source, TRAIN_CSV), dataset)
    rows = table.to_dict("records")
    rows = [rows[i % len(rows)] for i in range(num_images)]
    names = [f"{i:06d}_{row['filename']}" for i, row in enumerate(rows)]
    os.makedirs(os.path.join(folder, TRAIN_IMAGES))
    for name, row in zip(names, rows):
        os.symlink(
            os.path.join(source, TRAIN_IMAGES, row["filename"]),
            os.path.join(folder, TRAIN_IMAGES, name),
        )
    rles = [[row[c] for c in dataset.class_names] for row in rows]
    annotations.write_csv(os.path.join(folder, TRAIN_CSV), names, rles, dataset)


def write_boxes(path, num_days):
    """Writes a table of random boxes, as large and as many per day as those of 2017."""
    rng = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write("date,label,lon1,lon2,lat1,lat2\n")
        for day in range(num_days):
            date = np.datetime64("1998-01-01") + day
            west, south = rng.uniform(-180, 180, BOXES_A_DAY), rng.uniform(-60, 55, BOXES_A_DAY)
            east = west + rng.gamma(6, 1.4, BOXES_A_DAY)
            north = south + rng.gamma(9, 0.8, BOXES_A_DAY)
            labels = rng.choice(CLOUDS.class_names, BOXES_A_DAY)
            east = np.where(east > 180, east - 360, east)
            for row in zip(labels, west, east, south, np.minimum(north, 90)):
                file.write(f"{date}," + ",".join(map(str, row)) + "\n")


def numpy_decode(string):
    """Decodes RLE as notebooks of the competition do, at full size: uint8 {0, 1}."""
    mask = np.zeros(CLOUDS.mask_size[0] * CLOUDS.mask_size[1], np.uint8)
    numbers = np.asarray(string.split(), dtype=int)
    for start, length in zip(numbers[::2] - 1, numbers[1::2]):
        mask[start : start + length] = 1
    return mask.reshape(CLOUDS.mask_size, order="F")


def numpy_encode(mask):
    """Encodes a mask as they do."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(number) for number in runs)


def peer_unet(activation):
    """The U-Net of segmentation_models with random weights; ValueError without the extra parity."""
    files.require("segmentation_models", "parity", "the comparison with segmentation_models")
    os.environ["SM_FRAMEWORK"] = "tf.keras"
    import segmentation_models

    return segmentation_models.Unet(
        "resnet34", encoder_weights=None, classes=CLOUDS.num_classes, activation=activation
    )
