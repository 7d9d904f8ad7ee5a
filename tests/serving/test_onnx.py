"""ONNX files: the answers of the SavedModel in other runtimes, or one line why not."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf
from programs import run_tool
from shared_fixtures import IMAGE_SIZE, LANE_ONE

from clouds_tf import rle, serving
from clouds_tf.data.sample_data import render_images
from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models.unet import unet
from clouds_tf.prediction.calibration import Calibration, Curve
from clouds_tf.prediction.likeness import Likeness, statistics
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.serving import onnx as onnx_files
from clouds_tf.serving.cloud_model import CloudModel

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

OUTPUTS = {
    "masks": [350, 525, 4],
    "probabilities": [350, 525, 4],
    "presence": [4],
    "area_fraction": [4],
    "expected_area_fraction": [4],
    "likeness": [],
}


def _images(num):
    return render_images(num, IMAGE_SIZE, dataset=CLOUDS)[0].astype(np.uint8)


def _model(*encoders, head=True, way="none", weights=(), likeness=None):
    """A CloudModel of random weights, with a calibration, and by default a classification head."""
    curve = Curve((0, 0.3, 0.55, 0.7, 1), (0, 0.2, 0.4, 0.8, 0.9))
    metadata = Metadata(
        CLOUDS,
        (IMAGE_SIZE,) * len(encoders),
        test_time_augmentation=way,
        calibration=Calibration((curve,) * 4),
        member_weights=weights,
        likeness=likeness,
        version=3,
    )
    models = []
    for seed, encoder in enumerate(encoders):
        keras.utils.set_random_seed(seed)
        models.append(unet(width=0.125, encoder=encoder, classification_head=head))
    return CloudModel(models, metadata)


def _write(path, model):
    return onnx_files.write(str(path), model.networks, model.metadata, [_images(2)])


def _runtimes(path):
    """Functions from images to a dict of outputs, one for each runtime that is installed."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    yield lambda images: dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"images": images})))
    try:
        import openvino
    except ImportError:
        return
    network = openvino.Core().read_model(path)
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def infer(images):
        found = compiled([images])
        return {name: found[name] for name in OUTPUTS}

    yield infer


def _check(model, path):
    """Compares all outputs in all runtimes with those of the SavedModel's from_pixels."""
    for infer in _runtimes(str(path)):
        for num in (3, 1):
            images = _images(num)
            expected = {k: v.numpy() for k, v in model.serve_pixels(tf.constant(images)).items()}
            size = CLOUDS.submission_size
            masks = rle.decode(expected.pop("encoded_pixels"), size, size)
            expected["masks"] = np.transpose(masks, [0, 2, 3, 1])
            found = infer(images)
            assert set(expected) == set(OUTPUTS)
            for name, shape in OUTPUTS.items():
                assert list(found[name].shape) == [num, *shape], name
                assert found[name].dtype == expected[name].dtype, name
                if name == "masks":  # a pixel may lie at the threshold
                    assert np.mean(found[name] != expected[name]) < 1e-4
                    assert 0.01 < np.mean(found[name]) < 0.99
                    continue
                # OpenVINO adds all pixels up in one float32.
                tolerance = 1e-3 if name == "expected_area_fraction" else 1e-4
                np.testing.assert_allclose(found[name], expected[name], atol=tolerance)


@pytest.fixture(scope="module")
def model():
    return _model("tiny", head=False)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    """The ONNX file of this model."""
    path = tmp_path_factory.mktemp("onnx") / "F.onnx"
    assert _write(path, model) < 1e-4
    return path


@pytest.mark.slow
@pytest.mark.lanes
def test_a_network_with_its_rules_answers_as_the_saved_model_does(model, written):
    _check(model, written)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "encoders, way",
    [
        (["resnet34"], "none"),
        (["efficientnet_lite2"], "none"),
        (["mobilenet_v3_small"], "none"),  # of keras-cv
        (["tiny", "tiny_preactivation"], "flips"),
    ],
)
def test_encoders_and_members_answer_as_the_saved_model_does(encoders, way, tmp_path):
    if "mobilenet_v3_small" in encoders and not LANE_ONE:
        pytest.skip("keras-cv is one of lane one")
    weights = (3.0, 1.0)[: len(encoders)]
    likeness = Likeness.fit(statistics(_images(8)).numpy(), IMAGE_SIZE)
    model = _model(*encoders, way=way, weights=weights, likeness=likeness)
    assert _write(tmp_path / "F.onnx", model) < 1e-4
    _check(model, tmp_path / "F.onnx")


@pytest.mark.slow
def test_the_file_is_valid_and_says_what_it_is(model, written):
    found = onnx.load(str(written))
    onnx.checker.check_model(found, full_check=True)
    (images,) = found.graph.input
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert (images.name, dims) == ("images", ["N", *IMAGE_SIZE, 3])
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert {output.name for output in found.graph.output} == set(OUTPUTS)
    # Browsers have the standard operations alone.
    assert {node.domain for node in found.graph.node} == {""}
    # Scales that runtimes may multiply in float64, and round down.
    scales = {x.name: onnx.numpy_helper.to_array(x) for x in found.graph.initializer}
    *_, last = (scales[n.input[2]] for n in found.graph.node if n.op_type == "Resize")
    assert np.floor(last[2:].astype(float) * IMAGE_SIZE).tolist() == [350, 525]
    (entry,) = found.metadata_props
    assert entry.key == "clouds_tf"
    assert Metadata.from_json(json.loads(entry.value)) == model.metadata


@pytest.mark.slow
def test_other_answers_are_refused_and_nothing_is_left(written, tmp_path, monkeypatch):
    content = written.read_bytes()
    monkeypatch.setattr(onnx_files, "_convert", lambda predict, metadata: content)
    path = tmp_path / "F.onnx"
    with pytest.raises(ValueError, match=r"F.onnx: a probability of ONNX Runtime differs by 0\.\d"):
        _write(path, _model("tiny_preactivation"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_operation_that_onnx_lacks_is_named(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE_SIZE, 3], tf.uint8, "images")])
    def predict(images):
        return {"masks": tf.math.bessel_i0e(tf.cast(images, tf.float32))}

    level = logging.getLogger("tf2onnx").level
    with pytest.raises(ValueError, match="onnx: the model has operations that .*: BesselI0e;"):
        onnx_files._convert(predict, _model("tiny").metadata)
    assert logging.getLogger("tf2onnx").level == level


def test_what_cannot_be_written_is_refused_before_any_work(make_workdir, tmp_path, monkeypatch):
    workdirs = [make_workdir(), make_workdir(image_size=(32, 64), encoder="tiny_preactivation")]
    export_dir, path = tmp_path / "E", tmp_path / "F.onnx"

    def refused(*more, onnx=path, runs=workdirs[:1]):
        flags = [f"--workdirs={','.join(runs)}", f"--export_dir={export_dir}", f"--onnx={onnx}"]
        found = run_tool("export", *flags, *more, "--check_images=1")
        assert found.returncode == 1 and found.stdout == ""
        assert not list(export_dir.glob("*")) and not path.exists()
        (line,) = found.stderr.splitlines()
        return line

    assert "onnx: the networks take images of several sizes (48x72, 32x64)" in refused(
        runs=workdirs
    )
    assert "several sizes (48x72, 32x64, 64x96)" in refused("--test_time_augmentation=scales")
    assert f"onnx: got {tmp_path}/F.pb, expected a file name" in refused(onnx=tmp_path / "F.pb")
    (tmp_path / "folder.onnx").mkdir()
    assert "folder.onnx: is a folder" in refused(onnx=tmp_path / "folder.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "--onnx needs the package tf2onnx: " in refused()


@pytest.mark.nightly  # test_snippets.py runs the command
def test_export_writes_it_beside_a_saved_model_of_any_precision(make_workdir, tmp_path):
    path = str(tmp_path / "F.onnx")
    result = serving.export(
        [make_workdir()],
        str(tmp_path / "E"),
        precision="bfloat16",
        check_images=1,
        onnx=path,
    )
    assert result.onnx_difference < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (metadata,) = session.get_modelmeta().custom_metadata_map.values()
    assert Metadata.from_json(json.loads(metadata)) == Predictor.open(result.path).metadata
