"""Networks on OpenVINO: the same answers, or one reason why not."""

import concurrent.futures
import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models.unet import unet
from clouds_tf.prediction import engine

SIZE = (32, 64)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return engine.as_network(unet(width=0.125, classification_head=True), SIZE)


@pytest.fixture(scope="module")
def images():
    shape = [5, *SIZE, 3]
    return tf.constant(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


@pytest.fixture(scope="module")
def kept(network, tmp_path_factory):
    """The converted network, and the .xml file that it was written to."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    path = str(tmp_path_factory.mktemp("kept") / "network.xml")
    return engine.convert(network, SIZE, CLOUDS, path), path


@pytest.fixture
def convert(network, tmp_path, monkeypatch):
    """A function that converts the network with another program for the trial."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")

    def start(program):
        (tmp_path / "trial.py").write_text(program)
        monkeypatch.setattr(engine, "_TRIAL", str(tmp_path / "trial.py"))
        engine.convert(network, SIZE, CLOUDS, str(tmp_path / "network.xml"))

    return start


@pytest.fixture
def convert_again(convert, kept):
    """A function that converts the network with a trial that copies what an earlier one wrote."""
    code = "import shutil, sys\nfor end in ('xml', 'bin'):\n"
    code += f"    shutil.copy({kept[1][:-3]!r} + end, sys.argv[2][:-3] + end)\n"
    return lambda: convert(code)


@pytest.mark.slow
def test_answers_are_those_of_tensorflow_for_every_batch_size_and_thread(network, images, kept):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(kept[0], [images[:n] for n in (1, 2, 5, 1)]))
    expected = network(images)
    for n, answer in zip((1, 2, 5, 1), found):
        assert answer.keys() == expected.keys() == {"logits", "presence_logits"}
        for name, values in answer.items():
            scale = np.abs(expected[name]).max()  # bfloat16 has 8 bits
            np.testing.assert_allclose(values, expected[name][:n], atol=0.06 * scale)


@pytest.mark.parametrize(
    "program, reason",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGFPE)", "dies of SIGFPE on this CPU"),
        ("raise RuntimeError('no such operation')", "RuntimeError: no such operation"),
    ],
)
def test_death_and_errors_of_the_trial_are_reasons(convert, program, reason):
    with pytest.raises(engine.UnusableError, match=f"^{reason}$"):
        convert(program)


@pytest.mark.slow
@pytest.mark.parametrize("offset, change", [(0.2, r"0.0\d+"), (np.nan, "nan")])
def test_other_probabilities_are_a_reason(convert_again, monkeypatch, offset, change):
    call = engine.OpenVINONetwork.__call__

    def changed(self, images):
        return {name: values + offset for name, values in call(self, images).items()}

    monkeypatch.setattr(engine.OpenVINONetwork, "__call__", changed)
    with pytest.raises(engine.UnusableError, match=f"^changes probabilities by {change} on aver"):
        convert_again()


@pytest.mark.slow
def test_another_dice_is_a_reason(convert_again, monkeypatch):
    monkeypatch.setattr(engine, "_DICE_TOLERANCE", 0)
    with pytest.raises(engine.UnusableError, match="^changes Dice by .0.000., expected at most 0$"):
        convert_again()


def test_engines_are_checked_by_name_and_package(monkeypatch):
    engine.require("tensorflow")
    with pytest.raises(ValueError, match="engine: got 'torch', expected one of tensorflow, open"):
        engine.require("torch")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--engine=openvino needs the package openvino: .*\[open"):
        engine.require("openvino")
