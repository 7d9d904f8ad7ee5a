"""SavedModels on OpenVINO, converted once and kept beside them."""

import pathlib

import numpy as np
import pytest
import stubs
import tensorflow as tf
from conftest import IMAGE_SIZE

from clouds_tf import rle
from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction import engine, loading
from clouds_tf.prediction.postprocessing import Rule
from clouds_tf.serving import predict
from clouds_tf.serving.cloud_model import CloudModel
from clouds_tf.serving.versions import write_version

pytest.importorskip("openvino", reason="the extra openvino is not installed")

RULES = (Rule(), Rule(0.4, 0.5, 100, fill="boxes"), Rule(0.5, 0.5, min_presence=0.9), Rule())


def _export(folder, number):
    """Writes a SavedModel of networks of different sizes."""
    models = [stubs.network(classification_head=True, seed=seed) for seed in range(number)]
    model = CloudModel(models, [IMAGE_SIZE, (32, 64)][:number], CLOUDS, RULES)
    return write_version(model, str(folder / "E"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A SavedModel of two networks that was loaded on OpenVINO before."""
    saved_model = _export(tmp_path_factory.mktemp("kept"), 2)
    assert loading.load(saved_model, "openvino").warning == ""
    return saved_model


@pytest.fixture
def saved_model(tmp_path):
    """One of a network that nothing has been kept for."""
    return _export(tmp_path, 1)


@pytest.fixture
def dying(tmp_path, monkeypatch):
    """Makes every conversion from now on die."""

    def start():
        program = tmp_path / "dies.py"
        program.write_text("import os; os.abort()")
        monkeypatch.setattr(engine, "_TRIAL", str(program))

    return start


@pytest.mark.slow
def test_all_signatures_answer_as_with_tensorflow(kept, data_dir):
    files = sorted((data_dir / "test_images").iterdir())
    contents = tf.constant([path.read_bytes() for path in files])
    pixels = tf.stack([tf.io.decode_jpeg(content) for content in contents])
    plain, other = (loading.load(kept, name) for name in engine.ENGINES)
    assert other.warning == "" and other.fingerprint == f"{plain.fingerprint}/openvino"
    for name, inputs in (
        ("serving_default", {"image_bytes": contents}),
        ("probabilities", {"image_bytes": contents}),
        ("from_pixels", {"images": pixels}),
    ):
        expected, found = plain.signatures[name](**inputs), other.signatures[name](**inputs)
        assert found.keys() == expected.keys()
        for key in found.keys() - {"encoded_pixels"}:
            assert np.abs(found[key] - expected[key]).mean() < 0.01
        if "encoded_pixels" in found:
            before, after = (
                list(map(bytes.decode, x["encoded_pixels"].numpy().flat)) for x in (expected, found)
            )
            assert any(before) and tf.reduce_mean(rle.dice(before, after)) > 0.97


@pytest.mark.slow
def test_a_conversion_is_kept_for_the_next_process(kept, dying):
    names = sorted(path.name for path in pathlib.Path(f"{kept}.openvino").glob("*/*"))
    assert names == ["0.bin", "0.xml", "1.bin", "1.xml"]
    dying()
    assert loading.load(kept, "openvino").warning == ""


@pytest.mark.slow
def test_where_nothing_can_be_kept_it_works_all_the_same(saved_model, dying):
    pathlib.Path(f"{saved_model}.openvino").write_text("in the way")
    assert loading.load(saved_model, "openvino").warning == ""
    dying()
    assert loading.load(saved_model, "openvino").warning


def test_where_it_dies_tensorflow_predicts_and_says_so(saved_model, data_dir, tmp_path, dying):
    dying()
    arguments = saved_model, str(data_dir / "test_images")
    result = predict(*arguments, str(tmp_path / "a.csv"), engine="openvino")
    assert result.warning == "OpenVINO dies of SIGABRT on this CPU; TensorFlow computes instead"
    assert not pathlib.Path(f"{saved_model}.openvino").exists()
    assert predict(*arguments, str(tmp_path / "b.csv")).warning == ""
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_saved_model_without_networks_is_to_be_exported_again(tmp_path):
    model = CloudModel([stubs.network()], [IMAGE_SIZE], CLOUDS)
    del model.networks
    saved_model = write_version(model, str(tmp_path / "E"))
    with pytest.raises(ValueError, match=f"{saved_model}: too old for OpenVINO"):
        loading.load(saved_model, "openvino")
