"""Suite input: the pipeline against the usual Keras generator, and against libjpeg-turbo alone."""

import collections
import functools
import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from concurrent import futures

import cli

import cv2
import numpy as np
import simplejpeg
import tensorflow as tf
from absl import flags
from benchmarks import DATA, Ratio, link_data, measure, numpy_decode, print_table, show

from clouds_tf import rle
from clouds_tf.data import annotations, examples, input_pipeline, sample_data, shards
from clouds_tf.data.augmentations import AUGMENTATIONS, find_augmentation
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.data.records import Records, load_example
from clouds_tf.dataset import CLOUDS, TRAIN_CSV, TRAIN_IMAGES
from clouds_tf.keras import keras

flags.DEFINE_string(
    "data_dir", str(DATA / "clouds_native"), "Native images; synthetic ones if it is missing."
)
flags.DEFINE_integer("num_images", 96, "Images in an epoch; fewer files are repeated.")
flags.DEFINE_integer("repeats", 5, "Number of measurements of each reader.", lower_bound=1)
flags.DEFINE_float("seconds", 3, "Seconds of each measurement.", lower_bound=0)
flags.DEFINE_integer("memory_epochs", 15, "Epochs after which memory is printed.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Threads of each reader but the one-worker ones.", lower_bound=1)
cli.DEFINE_size("image_size", (320, 480), "Size of images and masks in a batch.")

BATCH_SIZE = 16
AIMS = {  # by reader, and whether it is beside the Sequence or the limit
    ("ours, native, flips", False): 0.7,
    ("ours, native, flips", True): 4,
    ("ours, reduced, flips", False): 0.5,
    ("ours, reduced, flips", True): 10,
    ("ours, reduced, strong", False): 0.25,
}


class Generator:
    """The usual generator: OpenCV reads and resizes, numpy decodes the RLE at full size, flips."""

    def __init__(self, data_dir, size):
        super().__init__()
        table = annotations.read_csv(os.path.join(data_dir, TRAIN_CSV), CLOUDS)
        self.folder = os.path.join(data_dir, TRAIN_IMAGES)
        self.rows = table.to_dict("records")
        self.size = size

    def __len__(self):
        return -(-len(self.rows) // BATCH_SIZE)

    def __getitem__(self, index):
        pairs = [self.load(row) for row in self.rows[index * BATCH_SIZE :][:BATCH_SIZE]]
        return tuple(np.stack(x) for x in zip(*pairs))

    def load(self, row):
        image = cv2.imread(os.path.join(self.folder, row["filename"]))
        image = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.size[::-1])
        masks = [numpy_decode(row[name]) for name in CLOUDS.class_names]
        masks = [cv2.resize(m, self.size[::-1], interpolation=cv2.INTER_NEAREST) for m in masks]
        mask = np.stack(masks, axis=-1)
        for axis in (0, 1):
            if np.random.random() < 0.5:
                image, mask = np.flip(image, axis), np.flip(mask, axis)
        return image, mask


def keras_reader(data_dir, size, workers):
    """Reads Generator as Model.fit does."""
    sequence = type("Sequence", (Generator, keras.utils.Sequence), {})
    enqueuer = keras.utils.OrderedEnqueuer(sequence(data_dir, size))
    enqueuer.start(workers=workers, max_queue_size=10)
    try:
        for images, _ in enqueuer.get():
            yield len(images)
    finally:
        enqueuer.stop()


def turbo_reader(jpegs, size, threads):
    """Decodes JPEGs at the scale that the pipeline uses, and nothing else."""

    def decode(jpeg):
        simplejpeg.decode_jpeg(jpeg, "RGB", min_height=size[0], min_width=size[1])

    with futures.ThreadPoolExecutor(threads) as pool:
        jpegs = itertools.cycle(jpegs)
        waiting = collections.deque()
        while True:
            while len(waiting) < 4 * threads:
                waiting.append(pool.submit(decode, next(jpegs)))
            waiting.popleft().result()
            yield 1


def our_reader(records_dir, size, threads, **arguments):
    """Reads training batches."""
    dataset = input_pipeline.training_batches(
        records_dir, [0, 1], size, BATCH_SIZE, epochs=10**9, **arguments
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    for images, _ in dataset.with_options(options):
        yield len(images)


def measure_turn(reader, seconds):
    """Lets a reader run: (images a second, CPU seconds an image) after it has found its pace.

    Args:
        reader: a generator of numbers of images.
        seconds: how long it is measured. For half as long it has run before, so that neither the
            start nor what it reads ahead counts.
    """
    start = time.perf_counter()
    while time.perf_counter() < start + seconds / 2:
        next(reader)
    start, processor, images = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < start + seconds:
        images += next(reader)
    wall, processor = time.perf_counter() - start, time.process_time() - processor
    reader.close()
    return images / wall, processor / images


def read_jpegs(records_dir):
    """The JPEGs of a folder of records."""
    info = Records.open(records_dir).info
    paths = [os.path.join(records_dir, shard.file) for shard in info.shards]
    return [examples.parse_example(r)["encoded"].numpy() for r in tf.data.TFRecordDataset(paths)]


def resident_megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def print_memory(records_dir, size, num_images, epochs):
    """Reads several epochs, and prints the memory of this process after each."""
    steps = Records.open(records_dir).steps_per_epoch([0, 1], BATCH_SIZE)
    dataset = input_pipeline.training_batches(records_dir, [0, 1], size, BATCH_SIZE, epochs)
    resident = []
    for step, _ in enumerate(dataset):
        if (step + 1) % steps == 0:
            resident.append(f"{resident_megabytes():.0f}")
    print(f"MB resident after each epoch of {num_images} images: {', '.join(resident)}\n")


def print_parts(records_dir, size):
    """Prints the CPU time of each part of the work on one image, each by itself."""
    shard = Records.open(records_dir).info.shards[0]
    path = os.path.join(records_dir, shard.file)
    serialized = next(iter(tf.data.TFRecordDataset(path)))
    record = examples.parse_example(serialized)
    runs = tf.cast(record["runs"], tf.int32)
    example = load_example(record, size, size, CLOUDS)
    seeds = [tf.constant([i, 0]) for i in range(8)]  # half of them warp
    augmented = [name for name in AUGMENTATIONS if name != "none"]
    if importlib.util.find_spec("keras_cv"):
        augmented.append("keras_cv")
    parts = {
        "parse_example": (tf.function(examples.parse_example), [(serialized,)]),
        "decode_image": (
            tf.function(lambda encoded: decode_image(encoded, size)),
            [(record["encoded"],)],
        ),
        "rle.draw": (
            tf.function(lambda *runs: rle.draw(*runs, size)),
            [(runs, CLOUDS.num_classes, record["mask_size"])],
        ),
        "load_example (both, and classes last)": (
            tf.function(lambda record: load_example(record, size, size, CLOUDS)),
            [(record,)],
        ),
        **{
            name: (tf.function(find_augmentation(name)), [(example, seed) for seed in seeds])
            for name in augmented
        },
    }
    functions = {
        name: lambda function=function, calls=calls: [function(*call) for call in calls]
        for name, (function, calls) in parts.items()
    }
    seconds = measure(functions, 21, time.process_time)
    rows = [("part, native image", "CPU ms")]
    rows += [(name, f"{seconds[name] / len(parts[name][1]) * 1e3:.2f}") for name in parts]
    print_table(rows)
    print()


def main() -> None:
    cv2.setNumThreads(1)
    num_images, size = flags.FLAGS.num_images, flags.FLAGS.image_size
    threads = flags.FLAGS.threads
    with tempfile.TemporaryDirectory() as folder:
        source = flags.FLAGS.data_dir
        if not os.path.exists(os.path.join(source, TRAIN_CSV)):
            print(f"{source} is absent: sample images of 1400x2100")
            source = os.path.join(folder, "sample")
            sample_data.write_sample_data(source, num_train=min(num_images, 8), num_test=1)
        data, native, reduced = (os.path.join(folder, x) for x in ("data", "native", "reduced"))
        link_data(os.path.abspath(source), data, num_images, CLOUDS)
        for records_dir, image_size in ((native, None), (reduced, size)):
            shards.write_records(
                data,
                records_dir,
                CLOUDS,
                num_shards=4,
                num_folds=2,
                image_size=image_size,
                num_workers=1,
            )
        print_memory(native, size, num_images, flags.FLAGS.memory_epochs)
        print_parts(native, size)

        one_worker, limit = "Keras Sequence, 1 worker", f"simplejpeg, {threads} threads"
        readers: dict = {
            one_worker: lambda: keras_reader(data, size, 1),
            "Keras Sequence, 2 workers": lambda: keras_reader(data, size, 2),
            f"{limit}, native": lambda: turbo_reader(read_jpegs(native), size, threads),
            f"{limit}, reduced": lambda: turbo_reader(read_jpegs(reduced), size, threads),
            "ours, native, flips": lambda: our_reader(native, size, threads),
            **{
                f"ours, reduced, {name}": functools.partial(
                    our_reader, reduced, size, threads, augmentation=name
                )
                for name in AUGMENTATIONS
            },
        }
        turns: dict = {name: [] for name in readers}
        for _ in range(flags.FLAGS.repeats):  # by turns, so that all meet the same noise
            for name, reader in readers.items():
                turns[name].append(measure_turn(reader(), flags.FLAGS.seconds))
    # What other programs do on the same machine hardly changes the CPU time of this one.
    speed, cost = (
        {name: statistics.median(turn[i] for turn in turns[name]) for name in readers}
        for i in range(2)
    )
    rows = [("reader", "images/s", "CPU ms/image", "limit / CPU")]
    ratios = []
    for name in readers:
        the_limit = f"{limit}, {'reduced' if 'reduced' in name else 'native'}"
        share = f"{cost[the_limit] / cost[name]:.2f}"
        rows.append((name, f"{speed[name]:.1f}", f"{cost[name] * 1e3:.2f}", share))
        for peer in (the_limit, one_worker) if name.startswith("ours") else ():
            aim = AIMS.get((name, peer == one_worker))
            ratios.append(Ratio(name, peer, speed[name], speed[peer], "images/s", aim, "rate"))
    print_table(rows)
    show(ratios)
    print(f"{size[0]}x{size[1]}, medians of {flags.FLAGS.repeats} turns of {flags.FLAGS.seconds} s")
