"""The door to Keras gives Keras 2, whatever the environment or other imports say."""

import subprocess
import sys

import pytest
from shared_fixtures import ENVIRONMENT, LANE_ONE

pytestmark = [pytest.mark.slow, pytest.mark.lanes]

# What the training step needs and Keras 3 lacks.
PROGRAM = """
{before}
from clouds_tf.keras import keras
from clouds_tf.models.unet import unet

model = unet(width=0.125)
assert isinstance(model, keras.Model)
optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam())
optimizer.get_scaled_loss(keras.backend.constant(1.0))
pairs = [(variable * 0, variable) for variable in model.trainable_variables]
optimizer.apply_gradients(pairs, experimental_aggregate_gradients=False)
"""


def _run(before, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
    )


def test_the_environment_variable_does_not_matter():
    found = _run("", TF_USE_LEGACY_KERAS="1" if LANE_ONE else "0")  # the misleading one
    assert found.returncode == 0, found.stderr


@pytest.mark.skipif(LANE_ONE, reason="lane one has no Keras 3")
def test_keras_3_may_have_been_imported_before():
    lines = "import keras", "assert keras.__version__.startswith('3.')"
    found = _run("\n".join([*lines, "from tensorflow import keras", lines[1]]))
    assert found.returncode == 0, found.stderr
