"""Suite model: the U-Net beside that of segmentation_models. Needs the extra [parity].

With tf2onnx, onnxruntime and openvino installed, their forward passes of our network are measured
as well. Give them an environment of their own: tf2onnx wants another protobuf than other extras.
"""

import importlib.util
import os

os.environ["SM_FRAMEWORK"] = "tf.keras"

import numpy as np  # noqa: E402
import segmentation_models  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import flags  # noqa: E402
from benchmarks import measure, print_table  # noqa: E402

from clouds_tf.dataset import CLOUDS  # noqa: E402
from clouds_tf.inference.fusing import fuse  # noqa: E402
from clouds_tf.models import losses  # noqa: E402
from clouds_tf.models.metrics import Scores  # noqa: E402
from clouds_tf.models.unet import unet  # noqa: E402
from clouds_tf.models.upsampling import UpsampleConv  # noqa: E402
from clouds_tf.training import distribution  # noqa: E402
from clouds_tf.training.optimizers import Nadam  # noqa: E402
from clouds_tf.training.recipe import Recipe  # noqa: E402
from clouds_tf.training.trainer import Trainer  # noqa: E402

flags.DEFINE_list("batch_sizes", ["1", "4", "16"], "Images in a batch.")
flags.DEFINE_integer("repeats", 7, "How often each function is measured.", lower_bound=1)
flags.DEFINE_integer("threads", 2, "Threads of each library.", lower_bound=1)
flags.DEFINE_list("modes", ["forward", "training"], "What to measure.")
FLAGS = flags.FLAGS

SIZE = (320, 480)
PEER = ("segmentation_models", "float32")
AIMS = {
    ("forward", "float32"): 1.1,
    ("forward", "bfloat16"): 1.8,
    ("training", "float32"): 1.2,
    ("training", "bfloat16"): 2,
}


def operations(model):
    """Multiplications and additions of each convolution for one image, as they are carried out."""
    convs = [x for x in model.layers if isinstance(x, (tf.keras.layers.Conv2D, UpsampleConv))]
    outputs = tf.keras.Model(model.input, [conv.output for conv in convs])(np.zeros([1, *SIZE, 3]))
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
    """A compiled function of a batch that waits for the result."""
    call = tf.function(lambda image: model(image, training=False))
    return lambda image, mask: call(image).numpy()


def to_onnx(model):
    """The bytes of a model in ONNX; None where a package for it is missing."""
    missing = [
        name
        for name in ("tf2onnx", "onnxruntime", "openvino")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        print(f"ONNX Runtime and OpenVINO are left out: no {', '.join(missing)}")
        return None
    import tf2onnx

    signature = [tf.TensorSpec([None, *SIZE, 3], tf.float32, name="image")]
    call = tf.function(lambda image: model(image, training=False), input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(call, input_signature=signature, opset=17)
    return proto.SerializeToString()


def runtimes(onnx, image):
    """Functions without arguments by (library, precision), for this very batch."""
    import onnxruntime
    import openvino

    image = image.numpy()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = FLAGS.threads
    session = onnxruntime.InferenceSession(onnx, options, ["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    functions = {("ONNX Runtime", "float32"): lambda: session.run(None, feed)}
    core = openvino.Core()
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        network = core.read_model(onnx)
        network.reshape(image.shape)
        settings = {"INFERENCE_NUM_THREADS": FLAGS.threads, "INFERENCE_PRECISION_HINT": hint}
        request = core.compile_model(network, "CPU", settings).create_infer_request()
        functions["OpenVINO", precision] = lambda request=request: request.infer([image])
    return functions


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
    peer.compile(Nadam(2e-4), loss, [Scores(CLOUDS.class_names)])
    steps = {"forward": {PEER: forward(peer)}, "training": {PEER: peer.train_on_batch}}
    peak = {}
    for precision in ("float32", "bfloat16"):
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
            onnx = to_onnx(fused) if "forward" in FLAGS.modes else None
            counts = {"ours": operations(fused), PEER[0]: operations(peer)}
    distribution.set_precision("float32")

    rows = [("mode", "batch", "library", "precision", "ms", f"{PEER[0]} / this", "aim")]
    rows[0] += ("of matmul peak",)
    rng = np.random.default_rng(0)
    for mode in FLAGS.modes:
        for batch_size in map(int, FLAGS.batch_sizes):
            shape = [batch_size, *SIZE, 3]
            image = tf.constant(rng.uniform(0, 255, shape).astype(np.float32))
            mask = tf.constant(rng.integers(0, 2, [*shape[:3], 4]).astype(np.float32))
            functions = {
                key: lambda step=step: step(image, mask) for key, step in steps[mode].items()
            }
            if mode == "forward" and onnx:
                functions |= runtimes(onnx, image)
            measured = measure(functions, FLAGS.repeats)
            for (library, precision), seconds in measured.items():
                count = counts.get(library, counts["ours"])
                work = sum(count)
                if mode == "training":  # and gradients by maps and by weights
                    work = 3 * work
                    if library == "ours":  # but not by the image, as theirs has weights before it
                        work -= count[0]
                share = work * batch_size / seconds / peak[precision]
                aim = f"{AIMS[mode, precision]:g}" if library == "ours" else ""
                rows.append(
                    (
                        mode,
                        str(batch_size),
                        library,
                        precision,
                        f"{seconds * 1e3:.0f}",
                        f"{measured[PEER] / seconds:.2f}",
                        aim,
                        f"{share:.0%}",
                    )
                )
    print_table(rows)
