"""Draws the stages of the network, their sizes and the skips.

python tools/draw_network.py --output=docs/network.png
"""

import dataclasses

import cli

from absl import flags

from clouds_tf import figures
from clouds_tf.models.encoders import ENCODERS
from clouds_tf.models.unet import outline, unet

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "The picture to write, a PNG.", required=True)
flags.DEFINE_enum("encoder", "resnet34", sorted(ENCODERS), "The encoder of the network.")
cli.DEFINE_size("image_size", (320, 480), "Size of the image.")


def main():
    down, up = outline(unet(encoder=FLAGS.encoder), FLAGS.image_size)
    boxes = [[dataclasses.asdict(stage) for stage in stages] for stages in (down, up)]
    figures.save(figures.network(*boxes, f"U-Net with the encoder {FLAGS.encoder}"), FLAGS.output)
    print(f"Drew {len(down) + len(up)} stages to {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
