"""Suite start: seconds from a command to its result, for --help and for a first image."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time

from absl import flags
from benchmarks import DATA, REPOSITORY, Ratio, image_paths, show

flags.DEFINE_string("saved_model", None, "SavedModel of the first image, such as E/1.")
flags.DEFINE_string(
    "images_dir", str(DATA / "clouds_native" / "train_images"), "Images; drawn ones if absent."
)
flags.DEFINE_integer("repeats", 3, "Turns of each; the fastest one counts.", lower_bound=1)
FLAGS = flags.FLAGS

TOOLS = REPOSITORY / "tools"


def fastest(commands):
    """The fastest of several turns of each command, in seconds, after one that is not counted."""
    found = {name: [] for name in commands}
    for _ in range(FLAGS.repeats + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            ended = subprocess.run([sys.executable, *command], capture_output=True, text=True)
            found[name].append(time.perf_counter() - start)
            if ended.returncode and "--help" not in command:  # absl's --help exits with 1
                raise ValueError(f"{' '.join(command)}: {ended.stderr.strip()}")
    return {name: min(seconds[1:]) for name, seconds in found.items()}


def slowest_help():
    """The --help of the slowest tool."""
    paths = [path for path in sorted(TOOLS.glob("*.py")) if "cli.run(main)" in path.read_text()]
    seconds = fastest({path.stem: [str(path), "--help"] for path in paths})
    slowest = max(seconds, key=lambda name: seconds[name])
    task = f"--help of {slowest}, the slowest tool"
    return Ratio(task, "limit", seconds[slowest], 0.5, "s", 1, "cost")


def first_images(folder):
    """One image from the command to the submission, with each engine."""
    engines = ["tensorflow"] + ["openvino"] * bool(importlib.util.find_spec("openvino"))
    os.makedirs(f"{folder}/images")
    image = image_paths(FLAGS.images_dir, folder)[0]
    os.symlink(image, f"{folder}/images/{image.name}")
    command = [str(TOOLS / "predict.py"), f"--saved_model={FLAGS.saved_model}"]
    command += [f"--images_dir={folder}/images", f"--output={folder}/s.csv"]
    commands = {engine: [*command, f"--engine={engine}"] for engine in engines}
    seconds = fastest({"import": ["-c", "import tensorflow"], **commands})
    peers = ("import tensorflow", "import", 1.5), ("the engine tensorflow", "tensorflow", 1)
    for engine, (title, peer, aim) in zip(engines, peers):
        task = f"predict, the first image, {engine}"
        yield Ratio(task, title, seconds[engine], seconds[peer], "s", aim, "cost")


def main() -> None:
    ratios = [slowest_help()]
    if FLAGS.saved_model:
        with tempfile.TemporaryDirectory() as folder:
            ratios += first_images(folder)
    show(ratios)
