"""Encoders "tiny" and "tiny_preactivation" of tests that are not about encoders.

They are ResNets of one block a stage. A network of them is built, traced and saved in a third of
the time. Programs in a process of their own do not know them.
"""

import dataclasses
from unittest import mock

from clouds_tf.models.encoders import ENCODERS, resnet


def _small(encoder):
    def apply(image, width=1.0):
        with mock.patch.object(resnet, "_STAGE_BLOCKS", (1, 1, 1, 1)):
            return encoder.apply(image, width)

    return dataclasses.replace(encoder, apply=apply)


ENCODERS["tiny"] = _small(resnet.RESNET34)
ENCODERS["tiny_preactivation"] = _small(ENCODERS["resnet34_preactivation"])
