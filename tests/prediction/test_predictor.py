"""SavedModels as values; on OpenVINO, converted once and kept beside them."""

import importlib.util
import json
import pathlib
import pickle
import shutil

import numpy as np
import pytest
import stubs
import tensorflow as tf
from shared_fixtures import IMAGE_SIZE
from tensorflow.python.eager import context

from clouds_tf import rle
from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction import engine
from clouds_tf.prediction import predictor as predictors
from clouds_tf.prediction.calibration import Calibration, Curve
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.postprocessing import Rule
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.serving import predict
from clouds_tf.serving.cloud_model import CloudModel, write_version

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra openvino is not installed"
)
RULES = (Rule(), Rule(0.01, 0.7, 0.3), Rule(0.5, min_top_mean=0.9), Rule())


def _export(folder, number):
    """Writes a SavedModel of networks of different sizes."""
    models = [stubs.network(classification_head=True, seed=seed) for seed in range(number)]
    sizes = (IMAGE_SIZE, (32, 64))[:number]
    model = CloudModel(models, Metadata(CLOUDS, sizes, RULES))
    return write_version(model, str(folder / "E"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A SavedModel of two networks that was loaded on OpenVINO before."""
    saved_model = _export(tmp_path_factory.mktemp("kept"), 2)
    assert Predictor.open(saved_model, "openvino").warning == ""
    return saved_model


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One of a network that nothing has been kept for."""
    return _export(tmp_path_factory.mktemp("written"), 1)


@pytest.fixture
def saved_model(written, tmp_path):
    """A copy of `written`, to change."""
    return shutil.copytree(written, str(tmp_path / "E" / "1"))


@pytest.fixture
def dying(tmp_path, monkeypatch):
    """Makes every conversion from now on die."""

    def start():
        program = tmp_path / "dies.py"
        program.write_text("import os; os.abort()")
        monkeypatch.setattr(engine, "_TRIAL", str(program))

    return start


@needs_openvino
@pytest.mark.slow
def test_all_signatures_answer_as_with_tensorflow(kept, data_dir):
    files = sorted((data_dir / "test_images").iterdir())
    contents = tf.constant([path.read_bytes() for path in files])
    pixels = tf.stack([tf.io.decode_jpeg(content) for content in contents])
    plain, other = (Predictor.open(kept, name) for name in engine.ENGINES)
    assert other.warning == "" and other.identity.startswith(f"{plain.identity}/openvino-")
    for name, inputs in (
        ("serving_default", {"image_bytes": contents}),
        ("probabilities", {"image_bytes": contents}),
        ("from_pixels", {"images": pixels}),
    ):
        expected, found = plain.run(name, **inputs), other.run(name, **inputs)
        assert found.keys() == expected.keys()
        for key in found.keys() - {"encoded_pixels", "likeness"}:
            assert np.abs(found[key] - expected[key]).mean() < 0.01
        if "likeness" in found:  # not known without post-processing of `evaluate`
            assert np.isnan(found["likeness"]).all() and np.isnan(expected["likeness"]).all()
        if "encoded_pixels" in found:
            before, after = (
                list(map(bytes.decode, x["encoded_pixels"].numpy().flat)) for x in (expected, found)
            )
            assert any(before) and tf.reduce_mean(rle.dice(before, after)) > 0.97


@needs_openvino
@pytest.mark.slow
def test_a_conversion_is_kept_for_the_next_process(kept, dying, monkeypatch):
    names = sorted(path.name for path in pathlib.Path(f"{kept}.openvino").glob("*/*"))
    assert names == ["0.bin", "0.xml", "1.bin", "1.xml", "checksums.json"]
    dying()
    monkeypatch.setattr(predictors, "_load_module", None)  # not needed any more
    assert Predictor.open(kept, "openvino").warning == ""


@needs_openvino
@pytest.mark.slow
def test_a_refusal_is_kept_too(saved_model, monkeypatch):
    monkeypatch.setattr(engine, "_TOLERANCE", -1.0)
    warning = Predictor.open(saved_model, "openvino").warning
    assert "OpenVINO changes probabilities" in warning
    monkeypatch.setattr(predictors, "_load_module", None)  # not needed any more
    assert Predictor.open(saved_model, "openvino").warning == warning


@needs_openvino
@pytest.mark.slow
def test_where_nothing_can_be_kept_it_works_all_the_same(saved_model, dying):
    pathlib.Path(f"{saved_model}.openvino").write_text("in the way")
    assert Predictor.open(saved_model, "openvino").warning == ""
    dying()
    assert Predictor.open(saved_model, "openvino").warning


@pytest.mark.slow
@needs_openvino
def test_where_it_dies_tensorflow_predicts_and_says_so(saved_model, data_dir, tmp_path, dying):
    dying()
    arguments = saved_model, str(data_dir / "test_images")
    result = predict(*arguments, str(tmp_path / "a.csv"), engine="openvino")
    assert result.warnings == ("OpenVINO dies of SIGABRT on this CPU; using TensorFlow instead",)
    assert not pathlib.Path(f"{saved_model}.openvino").exists()
    assert predict(*arguments, str(tmp_path / "b.csv")).warnings == ()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@needs_openvino
def test_a_saved_model_without_networks_is_to_be_exported_again(tmp_path):
    model = CloudModel([stubs.network()], Metadata(CLOUDS, (IMAGE_SIZE,)))
    del model.networks
    saved_model = write_version(model, str(tmp_path / "E"))
    with pytest.raises(ValueError, match=f"{saved_model}: too old for OpenVINO"):
        Predictor.open(saved_model, "openvino")


@pytest.mark.slow
@pytest.mark.lanes
def test_only_networks_are_optimized_and_answers_stay(written, data_dir, tmp_path):
    contents = [path.read_bytes() for path in sorted((data_dir / "test_images").iterdir())]
    older = CloudModel([stubs.network()], Metadata(CLOUDS, (IMAGE_SIZE,)))
    del older.networks
    older = write_version(older, str(tmp_path / "E"))
    for saved_model, apart in ((written, True), (older, False)):
        module = tf.saved_model.load(saved_model)
        assert predictors._has_networks_apart(module) == apart
        expected = module.signatures["serving_default"](image_bytes=tf.constant(contents))
        found = Predictor.open(saved_model)(tf.constant(contents))
        assert found.keys() == expected.keys() and any(found["encoded_pixels"].numpy().flat)
        for key in found.keys() - {"encoded_pixels"}:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-5)
        np.testing.assert_array_equal(found["encoded_pixels"], expected["encoded_pixels"])
    current = context.context()
    before = current.function_call_options
    with predictors._only_networks_optimized():
        assert current.function_call_options is not before
    assert current.function_call_options is before


@needs_openvino
@pytest.mark.slow
def test_a_damaged_conversion_is_made_anew(saved_model, data_dir):
    pathlib.Path(f"{saved_model}.openvino").mkdir()
    content = min((data_dir / "test_images").iterdir()).read_bytes()
    before = Predictor.open(saved_model, "openvino")(tf.constant([content]))["presence"]
    (kept,) = pathlib.Path(f"{saved_model}.openvino").iterdir()
    weights, checksums = kept / "0.bin", kept / "checksums.json"
    whole = weights.read_bytes()
    for damage in (
        lambda: weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255])),
        checksums.unlink,  # an earlier version wrote none
    ):
        damage()
        after = Predictor.open(saved_model, "openvino")
        assert after.warning == "" and weights.read_bytes() == whole and checksums.exists()
    np.testing.assert_array_equal(after(tf.constant([content]))["presence"], before)


def test_an_identity_differs_with_everything_that_changes_an_answer(saved_model, tmp_path):
    path = pathlib.Path(saved_model)
    found = [Predictor.open(saved_model).identity]
    for name in ("saved_model.pb", "variables/variables.data-00000-of-00001"):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found.append(Predictor.open(saved_model).identity)
        (path / name).write_bytes(content)
    file = path / "assets.extra" / "metadata.json"
    metadata = json.loads(file.read_text())
    curves = Calibration((Curve((0, 1), (0, 0.5)),) * 4).to_json(CLOUDS.class_names)
    sugar = {"Sugar": {**metadata["postprocessing"]["Sugar"], "threshold": 0.4}}
    for changed in (
        {"postprocessing": {**metadata["postprocessing"], **sugar}},
        {"calibration": curves},
        {"test_time_augmentation": "flips"},
        {"member_weights": [1, 2]},
    ):
        file.write_text(json.dumps({**metadata, **changed}))
        found.append(Predictor.open(saved_model).identity)
    assert len(set(found)) == len(found) == 7
    file.write_text(json.dumps(metadata, indent=1) + "\n")
    copy = shutil.copytree(saved_model, str(tmp_path / "copy"))
    assert Predictor.open(copy).identity == found[0]


def test_a_predictor_is_pickled_as_its_path(saved_model):
    predictor = Predictor.open(saved_model)
    copies = [pickle.loads(pickle.dumps(predictor)) for _ in range(2)]
    assert copies[0].identity == predictor.identity and copies[0] is copies[1]
    assert "serving_default" in copies[0].functions


@pytest.mark.parametrize(
    "name",
    ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"],
)
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_truncated_saved_model_is_said_in_a_line(saved_model, data_dir, tmp_path, name, share):
    path = pathlib.Path(saved_model, name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"{saved_model}: cannot be loaded .*export") as error:
        predict(saved_model, str(data_dir / "test_images"), str(tmp_path / "s.csv"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "s.csv.parts").exists()
