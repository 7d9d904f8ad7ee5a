"""The encoder "tiny" of tests that are not about encoders: a ResNet of one block a stage.

A network of it is built, traced and saved in a third of the time. Programs in a process of their
own do not know it.
"""

import dataclasses
from unittest import mock

from clouds_tf.models.encoders import ENCODERS, resnet


def _apply(image, width=1.0):
    with mock.patch.object(resnet, "STAGE_BLOCKS", (1, 1, 1, 1)):
        return resnet.resnet34(image, width)


ENCODERS["tiny"] = dataclasses.replace(resnet.RESNET34, apply=_apply)
