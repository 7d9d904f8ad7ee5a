"""Draws a network: its stages, their sizes, and the skip connections.

python tools/draw_network.py --output=docs/network.png
"""

import cli

from absl import flags

from clouds_tf import figures, files
from clouds_tf.models.encoders import ENCODERS

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "PNG file to write.", required=True)
flags.DEFINE_enum("encoder", "resnet34", sorted(ENCODERS), "Encoder of the network.")
cli.DEFINE_size("image_size", (320, 480), "Height and width of the input, in pixels.")


def main() -> None:
    files.require("matplotlib", "plots", "draw_network")
    files.check_output(FLAGS.output)
    from clouds_tf.models.unet import outline, unet  # which needs Keras

    down, up = outline(unet(encoder=FLAGS.encoder), FLAGS.image_size)
    title = f"U-Net with the encoder {FLAGS.encoder}"
    figures.save(figures.network(down, up, title), FLAGS.output)
    print(f"Drew {len(down) + len(up)} stages to {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
