import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import IMAGE_SIZE

from clouds_tf import rle
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.serving.ensemble import mean_prediction
from clouds_tf.serving.export import CloudModel, export
from clouds_tf.serving.postprocessing import Rule, postprocess
from clouds_tf.training import workdir as workdirs

RULES = (
    Rule(),
    Rule(0.45, 0.5, 100, fill="boxes", remove_gap=True),
    Rule(0.55, 0.55, 2000, min_component_area=50, fill="holes"),
    Rule(0.5, 0.5, 90000),
)
SIZES = [IMAGE_SIZE, (32, 64)]


@pytest.fixture(scope="module")
def models(make_workdir):
    return [workdirs.load_model(make_workdir(seed=seed)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def saved(models, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export") / "E")
    return export(CloudModel(models, SIZES, RULES, "flips"), folder)


@pytest.fixture(scope="module")
def image_bytes(data_dir):
    """Three JPEGs of the test folder, the last one of another size."""
    images = [path.read_bytes() for path in sorted((data_dir / "test_images").iterdir())]
    small = tf.io.encode_jpeg(decode_image(images[2], (77, 90))).numpy()
    return tf.constant([images[0], images[1], small])


def test_the_reloaded_model_equals_the_one_in_memory(models, saved, image_bytes):
    images = [tf.stack([decode_image(image, size) for image in image_bytes]) for size in SIZES]
    expected, presence = mean_prediction(models, images, "flips")
    signatures = tf.saved_model.load(saved).signatures
    found = signatures["probabilities"](image_bytes=image_bytes)["probabilities"]
    assert found.shape == (3, 350, 525, 4)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    answer = signatures["serving_default"](image_bytes=image_bytes)
    masks = tf.transpose(postprocess(found, presence, images[0], RULES), [0, 3, 1, 2])
    np.testing.assert_array_equal(rle.decode(answer["encoded_pixels"], *[(350, 525)] * 2), masks)
    np.testing.assert_allclose(answer["presence"], presence, atol=1e-5)


def test_no_image_gives_no_answer(saved):
    answer = tf.saved_model.load(saved).signatures["serving_default"](
        image_bytes=tf.constant([], tf.string)
    )
    assert answer["encoded_pixels"].shape == (0, 4) and answer["presence"].shape == (0, 4)


def test_bytes_that_are_no_image_are_an_error_and_the_next_request_works(saved, image_bytes):
    serve = tf.saved_model.load(saved).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        serve(image_bytes=tf.constant(["<html>"]))
    assert serve(image_bytes=image_bytes)["encoded_pixels"].shape == (3, 4)


def test_a_process_with_tensorflow_alone_gets_the_same_answer(saved, image_bytes, tmp_path):
    image = tmp_path / "image.jpg"
    image.write_bytes(image_bytes[0].numpy())
    code = f"""
import sys, tensorflow as tf
serve = tf.saved_model.load({saved!r}).signatures["serving_default"]
answer = serve(image_bytes=tf.constant([tf.io.read_file({str(image)!r}).numpy()]))
assert not {{"clouds_tf", "tensorflow_addons", "keras_cv"}} & set(sys.modules)
print(b"|".join(answer["encoded_pixels"].numpy()[0]).decode())
"""
    # Elsewhere than in the repository, so that clouds_tf cannot be found by accident.
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    serve = tf.saved_model.load(saved).signatures["serving_default"]
    expected = serve(image_bytes=image_bytes[:1])["encoded_pixels"].numpy()[0]
    assert found == b"|".join(expected).decode()


def test_versions_count_up_and_are_whole(models, saved):
    folder = os.path.dirname(saved)
    assert os.path.basename(saved) == "1"
    os.makedirs(os.path.join(folder, "7"))
    path = export(CloudModel(models[:1], SIZES[:1]), folder)
    assert os.path.basename(path) == "8"
    assert sorted(os.listdir(folder)) == ["1", "7", "8"]
