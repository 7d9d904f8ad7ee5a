"""Suite model: the U-Net beside that of segmentation_models. Needs the extra [parity]."""

import os

os.environ["SM_FRAMEWORK"] = "tf.keras"

import numpy as np  # noqa: E402
import segmentation_models  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import flags  # noqa: E402
from benchmarks import measure, print_table  # noqa: E402

from clouds_tf.models import losses  # noqa: E402
from clouds_tf.models.folding import fold_batch_norm, fold_upsampling  # noqa: E402
from clouds_tf.models.metrics import Scores  # noqa: E402
from clouds_tf.models.unet import unet  # noqa: E402
from clouds_tf.training import distribution  # noqa: E402
from clouds_tf.training.optimizers import Nadam  # noqa: E402
from clouds_tf.training.trainer import Trainer  # noqa: E402

flags.DEFINE_list("batch_sizes", ["1", "4", "16"], "Images in a batch.")
flags.DEFINE_integer("repeats", 7, "How often each function is measured.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Threads of each library.", lower_bound=1)
flags.DEFINE_list("modes", ["forward", "training"], "What to measure.")
FLAGS = flags.FLAGS

SIZE = (320, 480)
# Multiplications and additions of the convolutions of one image, as the U-Net is written down.
FLOPS = 2 * 18.4e9
AIMS = {
    ("forward", "float32"): 1.1,
    ("forward", "bfloat16"): 1.8,
    ("training", "float32"): 1.2,
    ("training", "bfloat16"): 2,
}


def forward(model):
    """A compiled function of a batch that waits for the result."""
    call = tf.function(lambda image: model(image, training=False))
    return lambda image, mask: call(image).numpy()


def training(trainer):
    """A function of a batch that takes a step and waits for the loss."""
    return lambda image, mask: trainer.step(image, mask, tf.constant(0.0))[0].numpy()


def main():
    tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
    peer = segmentation_models.Unet(
        "resnet34", encoder_weights=None, classes=4, activation="linear"
    )
    # Ours and theirs: Nadam on BCE + Dice, with the same scores.
    loss = losses.parse("bce_dice")
    peer.compile(Nadam(2e-4), loss, [Scores()])
    measured = {
        ("forward", "peer"): forward(peer),
        ("training", "peer"): peer.train_on_batch,
    }
    for precision in ("float32", "bfloat16"):
        distribution.set_precision(precision)
        model = unet()
        measured["training", precision] = training(Trainer(model, loss, num_steps=1))
        folded = fold_upsampling(fold_batch_norm(model))
        measured["forward", precision] = forward(folded)
        matrix = tf.cast(tf.random.normal([4096, 4096]), precision)
        product = tf.function(lambda a: tf.reduce_sum(tf.cast(tf.matmul(a, a), tf.float32)))
        seconds = measure({"": lambda p=product, m=matrix: p(m).numpy()}, 5)[""]
        measured["peak", precision] = 2 * 4096**3 / seconds
    distribution.set_precision("float32")

    rows = [("mode", "batch", "precision", "ours, ms", "segmentation_models, ms", "ratio", "aim")]
    rows[0] += ("share of matmul peak",)
    rng = np.random.default_rng(0)
    for mode in FLAGS.modes:
        for batch_size in map(int, FLAGS.batch_sizes):
            shape = [batch_size, *SIZE, 3]
            image = tf.constant(rng.uniform(0, 255, shape).astype(np.float32))
            mask = tf.constant(rng.integers(0, 2, [*shape[:3], 4]).astype(np.float32))
            functions = {
                name: lambda f=measured[mode, name]: f(image, mask)
                for name in ("float32", "bfloat16", "peer")
            }
            seconds = measure(functions, FLAGS.repeats)
            # A step is three forward passes: the loss, by the maps, and by the weights.
            work = FLOPS * batch_size * (3 if mode == "training" else 1)
            for precision in ("float32", "bfloat16"):
                share = work / seconds[precision] / measured["peak", precision]
                rows.append(
                    (
                        mode,
                        str(batch_size),
                        precision,
                        f"{seconds[precision] * 1e3:.0f}",
                        f"{seconds['peer'] * 1e3:.0f}",
                        f"{seconds['peer'] / seconds[precision]:.2f}",
                        f"{AIMS[mode, precision]:g}",
                        f"{share:.0%}",
                    )
                )
    for precision in ("float32", "bfloat16"):
        print(f"matmul peak in {precision}: {measured['peak', precision] / 1e9:.0f} GFLOP/s")
    print_table(rows)
