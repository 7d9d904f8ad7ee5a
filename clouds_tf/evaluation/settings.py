"""Settings of an evaluation."""

from __future__ import annotations

import dataclasses

from clouds_tf.prediction import ensemble
from clouds_tf.prediction.engine import ENGINES
from clouds_tf.settings import CheckedSettings, setting
from clouds_tf.training.distribution import PRECISIONS


@dataclasses.dataclass(frozen=True, repr=False)
class Settings(CheckedSettings):
    """Settings of `evaluate`; its fields are flags of the tool."""

    batch_size: int = setting(16, "Images in a batch.", min=1)
    test_time_augmentation: str = setting(
        "none",
        "Test-time augmentation to average over: flips; rotations: flips and turns by 90 degrees "
        "(square inputs); scales: 0.75, 1 and 1.25 times the input size.",
        choices=ensemble.AUGMENTATIONS,
    )
    precision: str = setting(
        "float32",
        "Numeric precision of the computation.",
        choices=tuple(PRECISIONS),
    )
    engine: str = setting(
        "tensorflow",
        "Library that runs the networks; openvino runs on the CPU and chooses the precision.",
        choices=ENGINES,
    )
    seed: int = setting(0, "Seed of the random halves for cross-fitting with a single fold.", min=0)
