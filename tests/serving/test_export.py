import dataclasses
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import stubs
import tensorflow as tf
from programs import ENVIRONMENT, run_program
from shared_fixtures import IMAGE_SIZE
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from clouds_tf import rle
from clouds_tf.data.preprocessing import decode_image, resize_image
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.prediction.calibration import Calibration, Curve
from clouds_tf.prediction.ensemble import mean_prediction
from clouds_tf.prediction.metadata import Metadata, read_metadata
from clouds_tf.prediction.postprocessing import Rule, postprocess, read_postprocessing
from clouds_tf.serving.cloud_model import CloudModel, write_version

RULES = (
    Rule(),
    Rule(0.01, 0.9, 0.3),
    Rule(0.45, 0.8, 0.5),
    Rule(0.5, min_top_mean=1),  # never
)
NUMBERS = ["encoded_pixels", "presence", "area_fraction", "expected_area_fraction"]
SIZES = (IMAGE_SIZE, (32, 64))


@pytest.fixture(scope="module")
def models():
    """One without a classification head, and one with it."""
    return [stubs.network(), stubs.network(classification_head=True, seed=1)]


@pytest.fixture(scope="module")
def saved(models, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export") / "E")
    training = ({"records": "0123abcd", "fold": 0}, {"records": "0123abcd", "fold": 1})
    metadata = Metadata(CLOUDS, SIZES, RULES, "flips", 300000, training=training)
    return write_version(CloudModel(models, metadata), folder)


@pytest.fixture(scope="module")
def signatures(saved):
    module = tf.saved_model.load(saved)
    yield module.signatures  # which hold the variables of the module only weakly


@pytest.fixture(scope="module")
def image_bytes(data_dir):
    """Three JPEGs of the test folder, the last one of another size."""
    images = [path.read_bytes() for path in sorted((data_dir / "test_images").iterdir())]
    small = tf.io.encode_jpeg(decode_image(images[2], (77, 90))).numpy()
    return tf.constant([images[0], images[1], small])


@pytest.mark.slow
def test_an_export_has_all_that_evaluate_found(exported, evaluated):
    found, tuned = read_metadata(exported), read_postprocessing(evaluated, CLOUDS)
    assert tuned.calibration and tuned.likeness
    for name in ("rules", "calibration", "likeness", "test_time_augmentation"):
        assert getattr(found, name) == getattr(tuned, name), name


@pytest.mark.slow
@pytest.mark.lanes
def test_the_reloaded_model_equals_the_one_in_memory(models, signatures, image_bytes):
    images = [tf.stack([decode_image(image, size) for image in image_bytes]) for size in SIZES]
    expected, presence = mean_prediction(models, images, (350, 525), "flips")
    found = signatures["probabilities"](image_bytes=image_bytes)["probabilities"]
    assert found.shape == (3, 350, 525, 4)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    answer = signatures["serving_default"](image_bytes=image_bytes)
    masks = tf.transpose(postprocess(found, RULES), [0, 3, 1, 2])
    np.testing.assert_array_equal(rle.decode(answer["encoded_pixels"], *[(350, 525)] * 2), masks)
    np.testing.assert_allclose(answer["presence"], presence, atol=1e-5)


def test_answers_in_numbers_are_those_of_the_masks(signatures, image_bytes):
    answer = signatures["serving_default"](image_bytes=image_bytes)
    areas = rle.area(answer["encoded_pixels"]).numpy()
    assert areas.any() and not areas.all()
    np.testing.assert_allclose(answer["area_fraction"], areas / (350 * 525), rtol=1e-5)


def test_pixels_give_what_their_bytes_give(signatures, models):
    images = np.random.default_rng(0).integers(0, 256, (2, 61, 87, 3), np.uint8)
    answer = signatures["from_pixels"](images=images)
    png = tf.stack([tf.io.encode_png(image) for image in images])
    expected = signatures["serving_default"](image_bytes=png)
    np.testing.assert_array_equal(answer["encoded_pixels"], expected["encoded_pixels"])
    resized = [resize_image(images, size) for size in SIZES]
    expected, _ = mean_prediction(models, resized, (350, 525), "flips")
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)


def test_expected_areas_are_mean_probabilities(signatures, image_bytes):
    answer = signatures["serving_default"](image_bytes=image_bytes)
    found = signatures["probabilities"](image_bytes=image_bytes)["probabilities"].numpy()
    expected = found.astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(answer["expected_area_fraction"], expected, rtol=1e-4)


@pytest.mark.lanes
def test_another_data_set_has_its_classes_sizes_order_and_calibration():
    steel = Dataset(("scratch", "pit", "patch"), (64, 400), (32, 200), rle_order="rows")
    curves = (Curve((0, 1), (0, 0.5)), Curve((0, 0.5, 1), (0, 1, 1)), Curve((0, 1), (0, 1)))
    metadata = Metadata(steel, ((32, 96),), calibration=Calibration(curves))
    model = CloudModel([stubs.network(num_classes=3)], metadata)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 400, 3), np.uint8)
    answer = {name: value.numpy() for name, value in model.serve_pixels(images).items()}
    probabilities = answer["probabilities"].astype(np.float64)
    assert probabilities.shape == (2, 32, 200, 3)
    by_class = np.moveaxis(probabilities, 3, 0)
    calibrated = np.stack([by_class[0] / 2, np.minimum(2 * by_class[1], 1), by_class[2]], axis=3)
    np.testing.assert_allclose(answer["expected_area_fraction"], calibrated.mean((1, 2)), rtol=1e-4)
    masks = probabilities > 0.5
    assert masks.any() and not masks.all()
    for image in range(2):
        for c in range(3):
            pixels = np.zeros(32 * 200, bool)
            runs = list(map(int, answer["encoded_pixels"][image, c].split()))
            for start, length in zip(runs[::2], runs[1::2]):
                pixels[start - 1 : start - 1 + length] = True
            np.testing.assert_array_equal(pixels.reshape(32, 200), masks[image, :, :, c])


def test_models_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="the model has 4 classes, expected the 2 of the data set"):
        other = Dataset(("a", "b"), (8, 8), (8, 8))
        CloudModel([stubs.network()], Metadata(other, (IMAGE_SIZE,)))


def test_no_image_gives_no_answer(signatures):
    answer = signatures["serving_default"](image_bytes=tf.constant([], tf.string))
    shapes = {name: tuple(value.shape) for name, value in answer.items()}
    assert shapes == {**dict.fromkeys(NUMBERS, (0, 4)), "likeness": (0,)}
    answer = signatures["from_pixels"](images=np.zeros([0, 5, 6, 3], np.uint8))
    assert answer["probabilities"].shape == (0, 350, 525, 4)


def test_metadata_say_what_the_model_is(signatures, saved):
    answer = signatures["metadata"](image_bytes=tf.constant(["", ""]))["metadata"].numpy()
    assert answer[0] == answer[1]
    metadata = json.loads(answer[0])
    assert metadata["version"] == 1
    assert metadata["class_names"] == ["Fish", "Flower", "Gravel", "Sugar"]
    assert metadata["mask_size"] == [350, 525] and metadata["image_sizes"] == [[48, 72], [32, 64]]
    assert metadata["postprocessing"]["Gravel"] == dataclasses.asdict(RULES[2])
    assert [run["records"] for run in metadata["training"]] == ["0123abcd"] * 2
    with open(os.path.join(saved, "assets.extra", "metadata.json")) as file:
        assert json.load(file) == metadata


def test_a_bad_request_is_an_error_and_the_next_one_works(signatures, image_bytes):
    serve = signatures["serving_default"]
    too_large = tf.io.encode_png(np.zeros([3, 100001, 3], np.uint8))
    for bad, message in (
        (tf.constant("<html>"), "JPEG or a PNG"),
        (too_large, r"\[300000\] \[pixels"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            serve(image_bytes=tf.stack([image_bytes[0], bad]))
    assert serve(image_bytes=image_bytes)["encoded_pixels"].shape == (3, 4)


@pytest.fixture(scope="module")
def image_and_answer(signatures, image_bytes, tmp_path_factory):
    """The file of an image, and the RLE that other ways of serving must find in it."""
    path = tmp_path_factory.mktemp("image") / "image.jpg"
    path.write_bytes(image_bytes[0].numpy())
    answer = signatures["serving_default"](image_bytes=image_bytes[:1])
    return str(path), [rle.decode() for rle in answer["encoded_pixels"].numpy()[0]]


@pytest.mark.slow
def test_python_without_clouds_tf_gets_the_same_answer(saved, image_and_answer, tmp_path):
    """By tf.saved_model.load and by saved_model_cli, in one process."""
    image, expected = image_and_answer
    with open(image, "rb") as file:
        np.save(tmp_path / "image.npy", np.array([file.read()]))
    code = f"""
import sys
import tensorflow as tf
serve = tf.saved_model.load({saved!r}).signatures["serving_default"]
answer = serve(image_bytes=tf.constant([tf.io.read_file({image!r}).numpy()]))
with open("answer.txt", "wb") as file:
    file.write(b"\\n".join(answer["encoded_pixels"].numpy()[0]))
assert not {{"clouds_tf", "tensorflow_addons", "keras_cv"}} & set(sys.modules)
from tensorflow.python.tools import saved_model_cli
sys.argv[1:] = ["run", "--tag_set=serve", "--signature_def=serving_default", "--outdir=out"]
sys.argv += ["--dir={saved}", "--inputs=image_bytes=image.npy"]
saved_model_cli.main()
"""
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONPATH"}
    found = run_program("-c", code, env=environment, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    answer = np.load(tmp_path / "out" / "encoded_pixels.npy", allow_pickle=True)
    assert [rle.decode() for rle in answer[0]] == expected
    assert (tmp_path / "answer.txt").read_text().split("\n") == expected


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler (cc) on this machine")
def test_a_program_without_python_gets_the_same_answer(saved, image_and_answer, tmp_path):
    image, expected = image_and_answer
    source = os.path.join(os.path.dirname(__file__), "load_saved_model.c")
    folder = tf.sysconfig.get_lib()
    # Some versions need nothing of libtensorflow_cc by name, but it registers the sessions.
    names = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    paths = [f"-I{tf.sysconfig.get_include()}", f"-L{folder}", f"-Wl,-rpath,{folder}"]
    flags = [*paths, "-Wl,--no-as-needed", *names]
    program = str(tmp_path / "load_saved_model")
    subprocess.run(["cc", "-O0", source, "-o", program, *flags], check=True)
    with open(os.path.join(saved, "saved_model.pb"), "rb") as file:
        meta_graph = SavedModel.FromString(file.read()).meta_graphs[0]
    signature = meta_graph.signature_def["serving_default"]
    (taken, _), given = (
        tensor.name.split(":")
        for tensor in (signature.inputs["image_bytes"], signature.outputs["encoded_pixels"])
    )
    command = [program, saved, image, taken, *given]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:4] == expected


def test_versions_count_up_and_are_whole(models, saved):
    folder = os.path.dirname(saved)
    assert os.path.basename(saved) == "1"
    os.makedirs(os.path.join(folder, "7"))
    path = write_version(CloudModel(models[:1], Metadata(CLOUDS, SIZES[:1])), folder)
    assert os.path.basename(path) == "8"
    assert sorted(os.listdir(folder)) == ["1", "7", "8"]
