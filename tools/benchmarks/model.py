"""Suite model: speed of the U-Net compared with segmentation_models, or of all encoders.

The comparison with segmentation_models needs the extra [parity]; --encoders does not. With the
extra [openvino], our network is also measured with --engine=openvino.
"""

import importlib.util
import os
import tempfile

import cli

import numpy as np
import tensorflow as tf
from absl import flags
from benchmarks import Ratio, measure, peer_unet, print_table, show

from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models import losses
from clouds_tf.models.encoders import ENCODERS
from clouds_tf.prediction import engine
from clouds_tf.training import distribution
from clouds_tf.training.recipe import Recipe

flags.DEFINE_list("batch_sizes", ["1", "4", "16"], "Images in a batch.")
flags.DEFINE_integer("repeats", 7, "Number of measurements of each function.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Threads of each library.", lower_bound=1)
flags.DEFINE_list("modes", ["forward", "training"], "Modes to measure.")
flags.DEFINE_list(
    "encoders", [], "Encoders of our U-Net to compare, instead of the peers; all for all encoders."
)
cli.DEFINE_size("image_size", (320, 480), "Size of the images, in pixels: height,width.")
FLAGS = flags.FLAGS

PRECISIONS = ("float32", "bfloat16")
PEER = ("segmentation_models", "float32")
AIMS = {
    ("forward", "float32"): 1.1,
    ("forward", "bfloat16"): 1.8,
    ("training", "float32"): 1.2,
    ("training", "bfloat16"): 2,
}


def operations(model):
    """Multiplications and additions of each convolution for one image, as they are carried out."""
    from clouds_tf.models.upsampling import UpsampleConv

    convs = [x for x in model.layers if isinstance(x, (keras.layers.Conv2D, UpsampleConv))]
    maps = keras.Model(model.input, [conv.output for conv in convs])
    outputs = maps(np.zeros([1, *FLAGS.image_size, 3]))
    counts = []
    for conv, output in zip(convs, outputs):
        products = sum(int(np.prod(w.shape)) for w in conv.weights if len(w.shape) == 4)
        if isinstance(conv, UpsampleConv):  # at stride 2, a quarter of a kernel meets each pixel
            products -= 3 * int(np.prod(conv.up_kernel.shape)) // 4
        counts.append(2 * products * output.shape[1] * output.shape[2])
    return counts


def matmul_peak(precision):
    """Operations per second of a product of 4096x4096 matrices."""
    matrix = tf.cast(tf.random.normal([4096, 4096]), precision)
    product = tf.function(lambda a: tf.reduce_sum(tf.cast(tf.matmul(a, a), tf.float32)))
    return 2 * 4096**3 / measure({"": lambda: product(matrix).numpy()}, 5)[""]


def forward(model):
    """A compiled function of a batch that waits for the logits, of our networks and the peer's."""
    call = tf.function(lambda image: tf.nest.flatten(model(image, training=False))[0])
    return lambda image, mask: call(image).numpy()


def on_openvino(model):
    """Our network on the engine OpenVINO; None where the package is missing or fails."""
    if importlib.util.find_spec("openvino") is None:
        print("Our network on OpenVINO is left out: no openvino")
        return None
    network = engine.as_network(model, FLAGS.image_size)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.xml")
        try:
            return engine.convert(network, FLAGS.image_size, CLOUDS, path)
        except engine.UnusableError as error:
            print(f"Our network on OpenVINO is left out: it {error}")
            return None


def training(trainer):
    """A function of a batch that takes a step and waits for the loss."""
    return lambda image, mask: trainer.step(image, mask, tf.constant(0.0))[0].numpy()


def random_batch(batch_size):
    """Images in 0..255 and masks of {0, 1}, float32."""
    rng = np.random.default_rng(0)
    shape = [batch_size, *FLAGS.image_size, 3]
    image = tf.constant(rng.uniform(0, 255, shape).astype(np.float32))
    return image, tf.constant(rng.integers(0, 2, [*shape[:3], 4]).astype(np.float32))


def compare_encoders(names):
    """Prints the parameters and the speed of our U-Net with each encoder."""
    from clouds_tf.models.unet import unet
    from clouds_tf.prediction.fusing import fuse
    from clouds_tf.training.trainer import Trainer

    rows = [("encoder", "parameters", "batch", "mode", *(f"{p}, images/s" for p in PRECISIONS))]
    for name in names:
        steps = {}
        for precision in PRECISIONS:
            with distribution.precision(precision):
                model = unet(encoder=name)
            trainer = Trainer(model, Recipe(epochs=1), 1, CLOUDS.class_names)
            steps["forward", precision] = forward(fuse(model))
            steps["training", precision] = training(trainer)
        for batch_size in map(int, FLAGS.batch_sizes):
            batch = random_batch(batch_size)
            for mode in FLAGS.modes:
                functions = {p: lambda p=p: steps[mode, p](*batch) for p in PRECISIONS}
                seconds = measure(functions, FLAGS.repeats)
                speeds = [f"{batch_size / seconds[p]:.1f}" for p in PRECISIONS]
                count = f"{model.count_params():,}"
                rows.append((name, count, str(batch_size), mode, *speeds))
    print_table(rows)


def compare_peers():
    """Prints the time of our network, of that of segmentation_models and of OpenVINO."""
    from clouds_tf.models.metrics import Scores
    from clouds_tf.models.unet import unet
    from clouds_tf.prediction.fusing import fuse
    from clouds_tf.training.optimizers import Nadam
    from clouds_tf.training.trainer import Trainer

    peer = peer_unet("linear")
    # Ours and theirs: Nadam on BCE + Dice, with the same scores.
    loss = losses.parse("bce_dice")
    peer.compile(Nadam(2e-4), loss, [Scores(CLOUDS.class_names)])
    steps = {"forward": {PEER: forward(peer)}, "training": {PEER: peer.train_on_batch}}
    peak = {}
    for precision in PRECISIONS:
        peak[precision] = matmul_peak(precision)
        print(f"matmul peak in {precision}: {peak[precision] / 1e9:.0f} GFLOP/s")
        distribution.set_precision(precision)
        model = unet()
        steps["training"]["ours", precision] = training(
            Trainer(model, Recipe(epochs=1), 1, CLOUDS.class_names)
        )
        fused = fuse(model)
        steps["forward"]["ours", precision] = forward(fused)
        if precision == "float32":
            converted = on_openvino(fused) if "forward" in FLAGS.modes else None
            counts = {"ours": operations(fused), PEER[0]: operations(peer)}
    distribution.set_precision("float32")

    rows = [("mode", "batch", "library", "precision", "ms", "of matmul peak")]
    ratios = []
    for mode in FLAGS.modes:
        for batch_size in map(int, FLAGS.batch_sizes):
            image, mask = random_batch(batch_size)
            functions = {
                key: lambda step=step: step(image, mask) for key, step in steps[mode].items()
            }
            if mode == "forward" and converted:
                pixels = tf.cast(image, tf.uint8)
                functions["ours, OpenVINO", converted.precision] = lambda: converted(pixels)
            measured = measure(functions, FLAGS.repeats)
            for (library, precision), seconds in measured.items():
                count = counts.get(library, counts["ours"])
                work = sum(count)
                if mode == "training":  # and gradients by maps and by weights
                    work = 3 * work
                    if library == "ours":  # but not by the image, as theirs has weights before it
                        work -= count[0]
                share = work * batch_size / seconds / peak[precision]
                cells = mode, str(batch_size), library, precision
                rows.append((*cells, f"{seconds * 1e3:.0f}", f"{share:.0%}"))
                if library != PEER[0]:
                    task = f"{mode}, batch {batch_size}, {library}, {precision}"
                    times = seconds * 1e3, measured[PEER] * 1e3
                    ratios.append(Ratio(task, PEER[0], *times, "ms", AIMS[mode, precision]))
    print_table(rows)
    show(ratios)


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
    if FLAGS.encoders:
        compare_encoders(ENCODERS if FLAGS.encoders == ["all"] else FLAGS.encoders)
    else:
        compare_peers()
