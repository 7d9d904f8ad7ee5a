import csv
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import ENVIRONMENT, IMAGE_SIZE, REPOSITORY

from clouds_tf.data import annotations
from clouds_tf.dataset import CLOUDS
from clouds_tf.schema import CLASS_NAMES
from clouds_tf.serving import predictor
from clouds_tf.serving.cloud_model import CloudModel
from clouds_tf.serving.versions import write_version
from clouds_tf.training import workdir as workdirs


def _by_length(image_bytes):
    """Stands in for a model: four RLE that tell the length of the file and the class."""
    # The real one fails on what is not a JPEG too.
    tf.map_fn(tf.io.decode_jpeg, image_bytes, fn_output_signature=tf.uint8)
    lengths = tf.strings.as_string(tf.strings.length(image_bytes))
    columns = [tf.strings.join([str(i + 1), " ", lengths]) for i in range(4)]
    return {"encoded_pixels": tf.stack(columns, axis=1)}


def _expected(folder, filename, class_name):
    return f"{CLASS_NAMES.index(class_name) + 1} {(folder / filename).stat().st_size}"


def _rows(path):
    with open(path) as file:
        return [tuple(row) for row in csv.reader(file)][1:]


@pytest.fixture
def images_dir(data_dir, tmp_path):
    """30 images: the three of the test folder, ten times, each with another last byte."""
    folder = tmp_path / "images"
    folder.mkdir()
    contents = [path.read_bytes() for path in sorted((data_dir / "test_images").iterdir())]
    for i in range(30):
        (folder / f"{i:02d}.jpg").write_bytes(contents[i % 3] + bytes(i))
    return folder


@pytest.fixture
def run(images_dir, tmp_path):
    """A function that predicts the images with _by_length in batches of one, so 8 in a part."""
    arguments = [str(images_dir), str(tmp_path / "s.csv")]
    return functools.partial(predictor.predict_folder, [_by_length], *arguments, batch_size=1)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_rows_are_in_the_order_of_the_sample(images_dir, run, tmp_path, batch_size):
    labels = [("12.jpg", "Sugar"), ("12.jpg", "Fish"), ("00.jpg", "Fish"), ("05.jpg", "Gravel")]
    labels += [("00.jpg", "Flower")]
    sample = str(tmp_path / "sample.csv")
    annotations.write_rows(sample, ((*label, "1 1") for label in labels))
    assert run(sample_submission=sample, batch_size=batch_size) == (4, [])
    expected = [(f"{name}_{c}", _expected(images_dir, name, c)) for name, c in labels]
    assert _rows(tmp_path / "s.csv") == expected
    assert not (tmp_path / "s.csv.parts").exists()


def test_without_a_sample_rows_are_sorted_by_name(images_dir, run, tmp_path):
    (images_dir / "notes.txt").write_text("not an image")
    assert run() == (30, [])
    expected = [
        (f"{i:02d}.jpg_{c}", _expected(images_dir, f"{i:02d}.jpg", c))
        for i in range(30)
        for c in CLASS_NAMES
    ]
    assert _rows(tmp_path / "s.csv") == expected


def test_a_missing_image_is_named_before_anything_is_predicted(run, tmp_path):
    sample = str(tmp_path / "sample.csv")
    annotations.write_csv(sample, ["none.jpg"], [["1 1"] * 4])
    with pytest.raises(FileNotFoundError, match="none.jpg: no such image, but .*sample.csv names"):
        run(sample_submission=sample)
    assert not (tmp_path / "s.csv.parts").exists()


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: no images"):
        predictor.predict_folder([_by_length], str(tmp_path), str(tmp_path / "s.csv"))


def test_the_rows_of_unreadable_images_are_blank(images_dir, run, tmp_path):
    bad = ["03.jpg", "04.jpg", "20.jpg"]
    for name in bad:
        (images_dir / name).write_bytes(b"GIF89a")
    assert run(batch_size=3) == (30, bad)
    rows = _rows(tmp_path / "s.csv")
    assert {label.split("_")[0] for label, found in rows if not found} == set(bad)
    assert sum(not found for _, found in rows) == 12
    with pytest.raises(ValueError, match="03.jpg: not a whole, readable JPEG or PNG"):
        run(batch_size=3, on_error="fail")


def test_shards_share_the_work_and_a_run_without_merges(run, tmp_path):
    run()
    expected = (tmp_path / "s.csv").read_bytes()
    os.remove(tmp_path / "s.csv")
    assert run(shard=(0, 3))[0] == 14  # the parts of 8 and, last, of 6
    assert run(shard=(2, 3))[0] == 8
    assert not (tmp_path / "s.csv").exists()
    seen = {}

    def progress(images, **counts):
        seen.update(counts)
        return images

    assert run(progress=progress)[0] == 30
    assert seen == {"total": 30, "initial": 22}
    assert (tmp_path / "s.csv").read_bytes() == expected


def test_parts_of_another_run_are_not_mixed_in(run, tmp_path):
    run(shard=(0, 2), model="1")
    with pytest.raises(ValueError, match="s.csv.parts: holds parts of a run with model=1, got mod"):
        run(model="2")


@pytest.mark.parametrize("text", ["1", "2/2", "a/b", "1/2/3", "-1/2", ""])
def test_what_is_no_shard_is_refused(text):
    assert predictor.parse_shard("2/3") == (2, 3)
    with pytest.raises(ValueError, match=f"shard: got '{text}', expected i/n"):
        predictor.parse_shard(text)


def test_two_batches_at_a_time_on_every_device_and_no_more(run):
    running, most, used = [0], [0], set()
    lock = threading.Lock()

    def predict(device, image_bytes):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            used.add(device)
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return _by_length(image_bytes)

    predictors = [functools.partial(predict, device) for device in range(2)]
    predictor.predict_folder(predictors, *run.args[1:], batch_size=1)
    assert most[0] == 4 and used == {0, 1}


def test_a_picture_for_every_readable_image(images_dir, run, tmp_path):
    (images_dir / "01.jpg").write_bytes(b"GIF89a")
    sample = str(tmp_path / "sample.csv")
    annotations.write_csv(sample, ["00.jpg", "01.jpg", "02.jpg"], [["1 1"] * 4] * 3)
    run(sample_submission=sample, overlay_dir=str(tmp_path / "overlays"))
    pictures = sorted((tmp_path / "overlays").iterdir())
    assert [path.name for path in pictures] == ["00.png", "02.png"]
    shape = tf.io.decode_png(pictures[0].read_bytes()).shape
    assert shape[1] > shape[0] > 100


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no SavedModel; expected a folder such as E/1"):
        predictor.load(str(tmp_path))


def test_a_model_of_something_else_is_refused(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(module, str(tmp_path / "other"), module.double)
    with pytest.raises(ValueError, match="not a SavedModel of export"):
        predictor.load(str(tmp_path / "other"))


def test_a_picture_shows_the_first_images(data_dir, tmp_path):
    names = sorted(path.name for path in (data_dir / "test_images").iterdir())
    path = str(tmp_path / "submission.csv")
    annotations.write_csv(path, names, [["", "1 2000", "", "183750 1"]] * 3)
    figure = predictor.draw(path, str(data_dir / "test_images"), num_images=2)
    assert [axes.get_title() for axes in figure.axes][:2] == names[:2]
    assert [text.get_text() for text in figure.axes[0].texts] == ["Flower", "Sugar"]
    assert np.asarray(figure.axes[0].images[0].get_array()).shape == (350, 525, 3)


@pytest.fixture(scope="module")
def saved_model(make_workdir, tmp_path_factory):
    model = workdirs.load_model(make_workdir())
    folder = str(tmp_path_factory.mktemp("export") / "E")
    return write_version(CloudModel([model], [IMAGE_SIZE], CLOUDS), folder)


def test_every_device_gives_the_same(saved_model, data_dir, tmp_path):
    devices = predictor.devices(2)
    assert len(devices) == 2 and devices[1].endswith("device:CPU:1")
    one, two = (
        [predictor.load(saved_model, device) for device in some] for some in (devices[:1], devices)
    )
    assert all(weight.device.endswith("CPU:1") for weight in two[1].module.weights[0])
    folder = shutil.copytree(data_dir / "train_images", tmp_path / "images")
    for name, predictors in (("one.csv", one), ("two.csv", two)):
        path = str(tmp_path / name)
        predictor.predict_folder(predictors, str(folder), path, batch_size=2)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    with pytest.raises(ValueError, match="num_devices: got 99, expected 1 to 4 .CPUs"):
        predictor.devices(99)


def test_killed_and_run_again_it_writes_the_same_file(saved_model, images_dir, tmp_path):
    for i in range(30, 240):
        os.link(images_dir / f"{i % 30:02d}.jpg", images_dir / f"{i}.jpg")
    output, parts = tmp_path / "s.csv", tmp_path / "s.csv.parts"
    process = subprocess.Popen(
        [sys.executable, "tools/predict.py", f"--saved_model={saved_model}", "--batch_size=1"]
        + [f"--images_dir={images_dir}", f"--output={output}"],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
    )
    while process.poll() is None and not (parts / "000002.jsonl").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not output.exists()
    done = len(list(parts.glob("0*.jsonl")))
    assert 3 <= done < 30

    initial = []

    def progress(images, **counts):
        initial.append(counts["initial"])
        return images

    predictors = [predictor.load(saved_model)]
    arguments = {"batch_size": 1, "model": predictor.fingerprint(saved_model), "progress": progress}
    for path in (output, tmp_path / "undisturbed.csv"):
        assert predictor.predict_folder(predictors, str(images_dir), str(path), **arguments) == (
            240,
            [],
        )
    assert initial == [8 * done, 0]
    assert output.read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()
    assert sum(bool(found) for _, found in _rows(output)) > 0
