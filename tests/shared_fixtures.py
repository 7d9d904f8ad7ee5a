"""What conftest.py gives to all tests: a sample folder, its records, runs, an export, and hooks.

Those that are written once are for both workers of pytest-xdist, and for reading only; a test that
changes one takes a copy: `shutil.copytree(trained, tmp_path / "W")`.
"""

import gc
import os
import pathlib
import shutil

import filelock
import hypothesis
import pytest
import tensorflow as tf
import tiny  # noqa: F401
from programs import ENVIRONMENT, REPOSITORY, run_tool, stop_server  # noqa: F401

from clouds_tf import evaluation, serving
from clouds_tf.data import sample_data, shards
from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models.encoders import resnet
from clouds_tf.models.unet import unet
from clouds_tf.training import Recipe, train
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.checkpoints import Checkpoints

IMAGE_SIZE = (48, 72)
NUM_DEVICES = 4
LANE_ONE = tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16)  # TensorFlow 2.15

# The replicas of the tests; must be said before TensorFlow is first used.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES,
)
# Optimizing a graph takes longer than running it a few times; programs in a process of their own
# do optimize theirs, and so does tf.data.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


# An example may take longer than hypothesis allows: it may trace a graph, or the machine is busy.
hypothesis.settings.register_profile(
    "no_clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no_clock")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    """Runs the examples in docstrings in both lanes: what they print is what numpy writes."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("lanes")


def pytest_collection_finish():
    """Spares the garbage collector what was imported, which takes 5 % of the tests of trainings."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """Ends what the tests of this worker shared."""
    stop_server()
    gc.freeze()  # pytest and Python would look for garbage in all that is left, seven times


def real_data(folder):
    """A folder of real data beside the repository; the test is skipped where there is none."""
    path = REPOSITORY.parent / "shared" / "data" / folder
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A function once(name, make) that gives the folder `name`, filled by the first worker to ask.

    `make(folder)` is called with the path of a folder that does not exist; it may fill it or write
    a file there.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def give(name, make):
        path, finished = root / name, root / f"{name}.finished"
        with filelock.FileLock(root / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(path, ignore_errors=True)  # of a worker that failed
                make(str(path))
                finished.touch()
        return str(path)

    return give


@pytest.fixture(scope="session")
def data_dir(once):
    """12 training and 3 test images of 140x210, in the layout of the competition."""
    size = {"num_train": 12, "num_test": 3, "image_size": (140, 210)}

    def write(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sample_data, "_RENDER_SIZE", (700, 1050))  # as bright as those of users
            sample_data.write_sample_data(folder, **size, seed=1)

    return pathlib.Path(once("sample", write))


@pytest.fixture(scope="session")
def records_dir(data_dir, once):
    """The training images in 4 shards and 3 folds."""

    def write(folder):
        sizes = {"num_shards": 4, "num_folds": 3}
        shards.write_records(str(data_dir), folder, CLOUDS, num_workers=1, **sizes)

    return once("records", write)


@pytest.fixture(scope="session")
def make_workdir(records_dir, once):
    """A function that gives the workdir of a narrow model with random weights."""

    def make(fold=0, image_size=IMAGE_SIZE, seed=0, encoder="tiny"):
        def write(folder):
            keras.utils.set_random_seed(seed)
            recipe = Recipe(width=0.125, image_size=image_size, encoder=encoder)
            identity = Records.open(records_dir).identity
            workdirs.start(workdirs.Run(folder, recipe, CLOUDS, fold, identity))
            Checkpoints(folder, unet(**recipe.model_arguments())).save_best()

        height, width = image_size
        return once(f"workdir_{encoder}_{height}x{width}_{fold}_{seed}", write)

    return make


@pytest.fixture(scope="session")
def trained(records_dir, once):
    """The workdir of a narrow model that was trained for 2 epochs, fold 0 held out."""
    recipe = Recipe(width=0.125, encoder="tiny", image_size=IMAGE_SIZE, batch_size=4, epochs=2)
    return once("trained", lambda folder: train(records_dir, folder, recipe, report=str))


@pytest.fixture(scope="session")
def evaluated(trained, records_dir, once):
    """The postprocessing.json that `evaluate` wrote for `trained`."""
    settings = evaluation.Settings(batch_size=4)

    def write(folder):
        evaluation.evaluate(
            records_dir, [trained], f"{folder}/postprocessing.json", settings=settings
        )

    return f"{once('evaluated', write)}/postprocessing.json"


@pytest.fixture(scope="session")
def exported(trained, evaluated, once):
    """The SavedModel of `trained` with the rules of `evaluated`, a path that ends in /1."""

    def write(folder):
        serving.export([trained], folder, postprocessing=evaluated, check_images=2)

    return f"{once('exported', write)}/1"


@pytest.fixture(scope="module")
def shallow():
    """Gives models of ResNet-34 one block a stage: all kinds of layers in a third of the time.

    For whole modules of tests, which take no model from another fixture.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_STAGE_BLOCKS", (1, 1, 1, 1))
        yield
