"""Writes the weights of a workdir's best model to one .safetensors file, for sharing.

python tools/pack_weights.py --workdir=W --output=clouds_unet.safetensors
"""

import cli

from absl import flags

from clouds_tf import files
from clouds_tf.models import packing
from clouds_tf.training import workdir

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Workdir of train.", required=True)
flags.DEFINE_string("output", None, "File to write, NAME.safetensors.", required=True)
flags.DEFINE_enum(
    "kernels",
    "float16",
    packing.KERNELS,
    "Type of the kernels in the file; int8 halves the size of float16, with a small error.",
)


def main() -> None:
    cli.check_inputs("workdir")
    files.check_output(FLAGS.output)
    workdir.pack_weights(FLAGS.workdir, FLAGS.output, FLAGS.kernels)
    print(f"Wrote the weights of {FLAGS.workdir} to {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
