"""Small data for all tests: a synthetic folder, its records, a workdir that was not trained."""

import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis  # noqa: E402
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


# An example may take longer than hypothesis allows: it may trace a graph, or the machine is busy.
hypothesis.settings.register_profile(
    "no_clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no_clock")

# That of programs which a test starts.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}


# Tests that are marked slow, whole files of them or FILE::TEST: programs, trainings, exports, many
# processes. They take nine tenths of the time.
SLOW = {
    "test_benchmark.py",
    "test_climatology_pictures.py::test_a_run_writes_all_pictures",
    "test_docs.py::test_the_site_builds_without_warnings",
    "test_end_to_end.py",
    "test_every_encoder.py",
    "test_export.py",
    "test_exporting.py",
    "test_fit.py",
    "test_fusing.py",
    "test_held_out.py",
    "test_input_pipeline.py",
    "test_keras.py",
    "test_lanes.py",
    "test_masks.py::test_all_real_rows_come_back_byte_for_byte",
    "test_mix.py",
    "test_modes.py",
    "test_parity.py",
    "test_pictures.py",
    "test_pipeline.py",
    "test_predict.py",
    "test_prediction.py",
    "test_product.py",
    "test_quickstart.py",
    "test_replicas.py",
    "test_report.py",
    "test_resume.py",
    "test_series.py",
    "test_snippets.py::test_a_page_runs_from_top_to_bottom",
    "test_server.py",
    "test_shards.py",
    "test_train.py",
    "test_trainer.py",
    "test_unet.py::test_a_saved_model_comes_back_the_same",
    "test_workers.py",
}


def pytest_collection_modifyitems(items):
    """Marks the tests that tools/test.sh --fast leaves out."""
    for item in items:
        file = item.path.name
        if SLOW & {file, f"{file}::{getattr(item, 'originalname', '')}"}:
            item.add_marker(pytest.mark.slow)


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

    def make(fold=0, image_size=IMAGE_SIZE, seed=0, encoder="resnet34"):
        keras.utils.set_random_seed(seed)
        folder = str(tmp_path_factory.mktemp("workdir"))
        recipe = Recipe(width=0.125, image_size=image_size, encoder=encoder)
        workdirs.start(
            workdirs.Run(folder, recipe, CLOUDS, fold, shards.fingerprint(records_dir))
        )
        Checkpoints(folder, unet(**recipe.model_arguments())).save_best()
        return folder

    return make
