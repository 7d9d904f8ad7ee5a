"""Shared by the suites: measurements, tables, and the peer U-Net."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

from clouds_tf import files
from clouds_tf.data import sample_data
from clouds_tf.dataset import CLOUDS, TRAIN_IMAGES

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"  # real images, if any


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
            output = subprocess.check_output([*command, f"--contender={name}"])
            found.append(json.loads(output.splitlines()[-1]))
    return {
        name: {key: statistics.median(turn[key] for turn in found) for key in found[0]}
        for name, found in turns.items()
    }


def peak_megabytes():
    """The peak of this process's memory; ru_maxrss would begin with that of its parent."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def print_table(rows):
    """Prints rows of strings as a table in Markdown; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ["-" * width for width in widths]
    for row in [rows[0], rule, *rows[1:]]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")


def compare(tasks, repeats):
    """Measures each task's functions and prints one line per peer.

    Args:
        tasks: list of (title, functions, targets): functions maps "ours" and each peer to a
            function without arguments; targets maps a peer to the speed-up that is aimed at.
        repeats: how often each function is called.
    """
    rows = [("task", "peer", "ours, ms", "peer, ms", "peer / ours", "aim")]
    for title, functions, targets in tasks:
        seconds = measure(functions, repeats)
        for peer in list(functions)[1:]:
            rows.append(
                (
                    title,
                    peer,
                    f"{seconds['ours'] * 1e3:.2f}",
                    f"{seconds[peer] * 1e3:.2f}",
                    f"{seconds[peer] / seconds['ours']:.2f}",
                    f"{targets[peer]:g}" if peer in targets else "",
                )
            )
    print_table(rows)


def image_paths(source, folder):
    """Paths of the images in a folder, sorted; where it is absent, of images drawn at 1400x2100."""
    if not os.path.isdir(source):
        print(f"{source} is absent: drawn images of 1400x2100")
        sample_data.write_sample_data(f"{folder}/sample", num_train=8, num_test=1)
        source = f"{folder}/sample/{TRAIN_IMAGES}"
    return sorted(pathlib.Path(source).resolve().iterdir())


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
