"""Suite all: the headlines of the suites on one page, in twenty minutes on two quiet cores.

Each suite is a process of its own with small arguments. One that fails is named below the table,
and the rows that it had are kept. Needs the extras [geo, openvino, parity, serve]. The suites fuzz
and likeness are left out, since they do not measure speed or memory.
"""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time

from absl import flags
from benchmarks import HEAD, RATIOS_FILE, REPOSITORY, Ratio, table

from clouds_tf import files
from clouds_tf.messages import counted

flags.DEFINE_string("output", None, "Markdown file to write, anew after each suite.")
flags.DEFINE_list("suites", [], "Suites to run; all by default.")
flags.DEFINE_string(
    "weights", str(REPOSITORY / "models" / "clouds_unet.safetensors"), "Model of start and predict."
)
flags.DEFINE_string(
    "postprocessing", str(REPOSITORY / "models" / "postprocessing.json"), "Rules of that model."
)
flags.DEFINE_integer("minutes", 8, "A suite that takes longer is ended.", lower_bound=1)
FLAGS = flags.FLAGS

EXPORTED = "--saved_model=E/1"
SERVE = "--parts=throughput,memory,hostile,drain --num_small=2000 --num_hostile=200 "
SERVE += "--contenders=bfloat16,openvino,keras,segmentation_models "
SERVE += "--clients=8 --seconds=8 --num_latencies=30"
RUNS = (
    ("start", EXPORTED),
    ("rle", "--repeats=11"),
    ("explore", "--max_images=300"),
    ("input", "--repeats=3 --seconds=1.5 --num_images=48 --memory_epochs=3"),
    ("model", "--batch_sizes=4 --repeats=3"),
    ("scaling", "--batch_sizes=8 --num_images=64 --image_size=192,288"),
    ("predict", "--num_images=80 --num_requests=50 --repeats=1"),
    ("predict", f"{EXPORTED} --num_images=16 --batch_size=16 --repeats=2"),
    ("serve", SERVE),
    ("scenes", "--belt=3000,8400 --repeats=1"),
    ("climatology", ""),
    ("growth", "--images=100,1000,4000 --days=30,150,600"),
)


def run(command, folder):
    """Runs a program in a folder, and writes its headlines there; returns the error, or "".

    All processes that the program started are ended with it.
    """
    environment = {**os.environ, RATIOS_FILE: f"{folder}/ratios"}
    with open(f"{folder}/log", "w+") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            status = process.wait(60 * FLAGS.minutes)
        except subprocess.TimeoutExpired:
            return f"it took more than {FLAGS.minutes} minutes"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        last = (log.read().strip().splitlines() or [""])[-1]
    return f"exit status {status}: {last}" if status else ""


def export(folder):
    """Exports the weights to E/1; returns the error, or ""."""
    command = [str(REPOSITORY / "tools" / "export.py"), f"--export_dir={folder}/E"]
    command += [
        f"--{name}={os.path.abspath(FLAGS[name].value)}" for name in ("weights", "postprocessing")
    ]
    return run([*command, "--test_time_augmentation=flips", "--check_images=2"], folder)


def machine():
    """Processor, cores and versions."""
    import tensorflow as tf

    cpu = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0))
    return f"{cpu}, {cores} cores, TensorFlow {tf.__version__}, Python {platform.python_version()}"


def page(rows, faults, times):
    """The page, Markdown.

    Args:
        rows: (suite, Ratio) of each headline.
        faults: a sentence for each suite that failed.
        times: (command, minutes) of each suite.
    """
    cells = [(suite, *ratio.cells()) for suite, ratio in rows]
    total = sum(minutes for _, minutes in times)
    parts = [
        "# Speed and memory",
        f"{datetime.date.today():%d %B %Y}, {machine()}: `python tools/benchmark.py all` took "
        f"{counted(round(total), 'minute')}. The contenders in a row took turns in one run.",
        table([("suite", *HEAD), *cells]),
        *(f"- {fault}" for fault in faults),
        "`python tools/benchmark.py SUITE` runs a suite alone, with more and longer measurements. "
        "This page is from:",
        table([("suite", "minutes"), *((f"`{c}`", f"{m:.1f}") for c, m in times)]),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    known = dict(RUNS)
    if unknown := [suite for suite in FLAGS.suites if suite not in known]:
        raise ValueError(f"suites: got {', '.join(unknown)}, expected some of {', '.join(known)}")
    if FLAGS.output:
        files.check_output(FLAGS.output)
    rows, faults, times = [], [], []
    for suite, arguments in RUNS:
        if FLAGS.suites and suite not in FLAGS.suites:
            continue
        start, program = time.time(), os.path.abspath(sys.argv[0])
        with tempfile.TemporaryDirectory() as folder:
            fault = export(folder) if EXPORTED in arguments else ""
            fault = fault or run([program, suite, *arguments.split()], folder)
            path = pathlib.Path(folder, "ratios")
            lines = path.read_text().splitlines() if path.exists() else []
        rows += [(suite, Ratio(**json.loads(line))) for line in lines]
        if fault or not lines:
            faults.append(f"{suite} {arguments}: {fault or 'it gave no row'}")
        times.append((f"{suite} {arguments}".strip(), (time.time() - start) / 60))
        print(f"{suite}: {len(lines)} rows in {times[-1][1]:.1f} min {fault}", flush=True)
        if FLAGS.output:
            files.write_text(FLAGS.output, page(rows, faults, times))
    print(page(rows, faults, times))
    if faults:
        sys.exit("; ".join(faults))
