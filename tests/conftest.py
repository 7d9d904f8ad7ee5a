"""Small data for all tests: a synthetic folder, its records, a workdir that was not trained."""

import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from clouds_tf.data import sample_data, shards  # noqa: E402
from clouds_tf.dataset import CLOUDS  # noqa: E402
from clouds_tf.keras import keras  # noqa: E402
from clouds_tf.models.unet import unet  # noqa: E402
from clouds_tf.training import Recipe  # noqa: E402
from clouds_tf.training import workdir as workdirs  # noqa: E402
from clouds_tf.training.checkpoints import Checkpoints  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
IMAGE_SIZE = (48, 72)
NUM_DEVICES = 4

# The replicas of the tests; must be said before TensorFlow is first used.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES,
)


# That of programs which a test starts.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}


def run_tool(tool, *arguments):
    """Runs a program of tools/ from another folder; gives its subprocess.CompletedProcess."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / f"{tool}.py"), *arguments],
        cwd=REPOSITORY.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


def real_data(folder):
    """A folder of real data beside the repository; the test is skipped where there is none."""
    path = REPOSITORY.parent / "shared" / "data" / folder
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """12 training and 3 test images of 140x210, in the layout of the competition."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    sample_data.write_sample_data(
        str(folder), num_train=12, num_test=3, image_size=(140, 210), seed=1
    )
    return folder


@pytest.fixture(scope="session")
def records_dir(data_dir, tmp_path_factory):
    """The training images in 4 shards and 3 folds."""
    folder = str(tmp_path_factory.mktemp("records"))
    shards.write_records(str(data_dir), folder, CLOUDS, num_shards=4, num_folds=3, num_workers=1)
    return folder


@pytest.fixture(scope="session")
def make_workdir(records_dir, tmp_path_factory):
    """A function that makes the workdir of a narrow model with random weights."""

    def make(fold=0, image_size=IMAGE_SIZE, seed=0):
        keras.utils.set_random_seed(seed)
        folder = str(tmp_path_factory.mktemp("workdir"))
        recipe = Recipe(width=0.125, image_size=image_size)
        workdirs.start(
            workdirs.Run(folder, recipe, CLOUDS, fold, shards.fingerprint(records_dir))
        )
        Checkpoints(folder, unet(width=0.125)).save_best()
        return folder

    return make
