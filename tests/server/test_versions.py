"""Versions that come, go, and are damaged, under a running application."""

import os
import shutil

import pytest
import served
from served import V1, b64, sample, written  # noqa: F401

from clouds_tf.data.sample_data import render_images
from clouds_tf.server.metrics import Metrics
from clouds_tf.server.settings import ServerSettings
from clouds_tf.server.versions import Found, Versions
from clouds_tf.serving import integrity


@pytest.fixture(scope="module")
def image():
    import tensorflow as tf

    images, _ = render_images(1, (60, 90))
    return tf.io.encode_png(images[0]).numpy()


@pytest.fixture(scope="module")
def masks(written, image):  # noqa: F811
    """The masks of each version, by TensorFlow alone."""
    found = {}
    for number in (1, 2):
        outputs = served.signature(f"{written}/{number}")(image_bytes=[image])
        found[number] = [rle.decode() for rle in outputs["encoded_pixels"][0]]
    assert found[1] != found[2]
    return found


def predict(client, image, path=V1):
    answer = client.post(f"{path}:predict", json={"instances": [b64(image)]})
    if answer.status_code != 200:
        return answer.status_code
    return answer.json()["predictions"][0]["encoded_pixels"]


def look(client, times=2):
    for _ in range(times):
        client.portal.call(client.versions.look)


def states(client):
    found = client.get(V1).json()["model_version_status"]
    return {int(x["version"]): x["state"] for x in found}


def damage(path):
    """Cuts the weights of a version off."""
    (name,) = (n for n in os.listdir(f"{path}/variables") if "data" in n)
    with open(f"{path}/variables/{name}", "r+b") as file:
        file.truncate(100)


@pytest.mark.slow
@pytest.mark.lanes
def test_a_new_version_takes_over_and_a_removal_rolls_back(
    written, image, masks, tmp_path  # noqa: F811
):
    served.copy_version(written, 1, tmp_path)
    with served.served(tmp_path, keep_versions=2) as client:
        assert predict(client, image) == masks[1] and states(client) == {1: "AVAILABLE"}
        served.copy_version(written, 2, tmp_path)
        look(client, 1)  # it may still be growing
        assert predict(client, image) == masks[1]
        look(client, 1)
        assert predict(client, image) == masks[2]
        assert states(client) == {2: "AVAILABLE", 1: "AVAILABLE"}
        assert predict(client, image, f"{V1}/versions/1") == masks[1]
        shutil.rmtree(tmp_path / "2")
        look(client)
        assert predict(client, image) == masks[1]
        assert predict(client, image, f"{V1}/versions/2") == 404
        assert sample(client, "clouds_model_info", version="2") == 0
        shutil.rmtree(tmp_path / "1")
        look(client)
        assert predict(client, image) == masks[1]  # rather than nothing
        served.copy_version(written, 2, tmp_path, to=1)
        look(client)
        assert predict(client, image) == masks[2]  # another model under the same number
        assert states(client) == {1: "AVAILABLE"}


@pytest.mark.slow
def test_a_damaged_version_is_refused_and_the_old_one_stays(
    written, image, masks, tmp_path, caplog  # noqa: F811
):
    served.copy_version(written, 1, tmp_path)
    damage(served.copy_version(written, 2, tmp_path))
    with served.served(tmp_path) as client:
        damage(served.copy_version(written, 2, tmp_path, to=3))
        look(client, 4)
        assert predict(client, image) == masks[1]
        assert states(client) == {3: "END", 2: "END", 1: "AVAILABLE"}
        (status,) = client.get(f"{V1}/versions/3").json()["model_version_status"]
        assert f"{tmp_path}/3: cannot be loaded" in status["status"]["error_message"]
        assert sample(client, "clouds_versions_refused_total") == 2  # tried once each
        assert caplog.text.count("version 3 is refused") == 1
        shutil.rmtree(tmp_path / "3")
        served.copy_version(written, 2, tmp_path, to=3)
        look(client)
        assert predict(client, image) == masks[2] and states(client)[3] == "AVAILABLE"


def test_of_two_under_one_number_the_one_loaded_last_answers(tmp_path):
    """The other one is kept until its last request is answered."""
    versions = Versions(str(tmp_path), ServerSettings(), Metrics())
    found = [Found(number, "E", identity) for number, identity in ((2, "a"), (1, "b"), (2, "c"))]
    versions._loaded.update(zip(found, "abc"))
    assert (versions.find(), versions.find(1)) == ((2, "c"), (1, "b"))


def test_without_any_version_nothing_starts(written, tmp_path):  # noqa: F811
    def load(**settings):
        Versions(str(tmp_path), ServerSettings(**settings), Metrics()).load_first()

    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: no SavedModel"):
        load()
    path = served.copy_version(written, 1, tmp_path)
    manifest = integrity.write(path, integrity.checksums(path))
    damage(path)
    with pytest.raises(ValueError, match=f"{tmp_path}/1: cannot be loaded"):
        load()
    with pytest.raises(ValueError, match=f"not the SavedModel of {manifest}: 1/variables.*changed"):
        load(manifest=manifest)
