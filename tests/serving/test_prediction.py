import csv
import functools
import importlib.util
import io
import os
import shutil
import signal
import sys
import threading

import numpy as np
import pytest
import stubs
import tensorflow as tf
from PIL import Image
from programs import run_program
from shared_fixtures import IMAGE_SIZE

from clouds_tf.data.runners import Runner
from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.postprocessing import plain_rules
from clouds_tf.prediction.predictor import Predictor, devices
from clouds_tf.serving.cloud_model import CloudModel, write_version
from clouds_tf.serving.prediction import PredictionResult, predict
from clouds_tf.settings import parse_shard

NAMES = CLOUDS.class_names
METADATA = Metadata(CLOUDS, (IMAGE_SIZE,), plain_rules(4), "none", 1_000_000)


def _by_length(image_bytes):
    """Stands in for a model: four RLE that tell the length of the file and the class."""
    # The real one fails on what is not a JPEG too.
    tf.map_fn(tf.io.decode_jpeg, image_bytes, fn_output_signature=tf.uint8)
    lengths = tf.strings.as_string(tf.strings.length(image_bytes))
    columns = [tf.strings.join([str(i + 1), " ", lengths]) for i in range(4)]
    numbers = tf.tile([[0.25, 0.5, 0.75, 1.0]], [len(image_bytes), 1])
    found = {"encoded_pixels": tf.stack(columns, axis=1), "presence": numbers}
    return {**found, "area_fraction": numbers / 2, "expected_area_fraction": numbers / 4}


def _predictor(function, identity="model 1"):
    functions = {"serving_default": lambda image_bytes: function(image_bytes)}
    return Predictor("E/1", METADATA, identity, lambda: functions, dict)


MODEL = _predictor(_by_length)


def _expected(folder, filename, class_name):
    return f"{NAMES.index(class_name) + 1} {(folder / filename).stat().st_size}"


def _rows(path):
    with open(path) as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def _write_sample(path, labels):
    lines = [f"{name}_{class_name},1 1\n" for name, class_name in labels]
    path.write_text("".join(["Image_Label,EncodedPixels\n", *lines]))
    return str(path)


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
    return functools.partial(predict, MODEL, str(images_dir), str(tmp_path / "s.csv"), batch_size=1)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_rows_are_in_the_order_of_the_sample(images_dir, run, tmp_path, batch_size):
    labels = [("12.jpg", "Sugar"), ("12.jpg", "Fish"), ("00.jpg", "Fish"), ("00.jpg", "Flower")]
    labels += [("05.jpg", "Gravel")]
    sample = _write_sample(tmp_path / "sample.csv", labels)
    result = run(sample_submission=sample, batch_size=batch_size)
    assert result == PredictionResult(str(tmp_path / "s.csv"), 3)
    expected = [(f"{name}_{c}", _expected(images_dir, name, c)) for name, c in labels]
    assert _rows(tmp_path / "s.csv") == expected
    assert not (tmp_path / "s.csv.parts").exists()


def test_a_sample_sorted_by_class_costs_each_image_once(images_dir, run, tmp_path):
    labels = [(f"{i:02d}.jpg", c) for c in NAMES for i in (3, 1, 2)]
    calls = []

    def predictor(image_bytes):
        calls.append(len(image_bytes))
        return _by_length(image_bytes)

    model = _predictor(predictor)
    sample = _write_sample(tmp_path / "sample.csv", labels)
    output = str(tmp_path / "s.csv")
    assert predict(model, str(images_dir), output, sample, batch_size=2).num_images == 3
    assert sum(calls) == 3
    expected = [(f"{name}_{c}", _expected(images_dir, name, c)) for name, c in labels]
    assert _rows(tmp_path / "s.csv") == expected


def test_without_a_sample_rows_are_sorted_by_name_and_other_files_are_named(
    images_dir, run, tmp_path
):
    (images_dir / "notes.txt").write_text("not an image")
    (images_dir / "scene.tif").write_bytes(b"II*\0")
    (images_dir / "more").mkdir()
    (images_dir / "._00.jpg").write_bytes(b"\0\5\x16\7")  # as macOS writes beside 00.jpg
    result = run()
    assert list(result.skipped) == [
        "more: a folder",
        "notes.txt: does not end in .jpg, .jpeg or .png",
        "scene.tif: a TIFF, which tools/predict_scenes.py reads",
    ]
    expected = [
        (f"{i:02d}.jpg_{c}", _expected(images_dir, f"{i:02d}.jpg", c))
        for i in range(30)
        for c in NAMES
    ]
    assert result.num_images == 30 and _rows(tmp_path / "s.csv") == expected


def test_a_missing_image_is_named_before_anything_is_predicted(run, tmp_path):
    sample = _write_sample(tmp_path / "sample.csv", [("none.jpg", "Fish")])
    with pytest.raises(FileNotFoundError, match="none.jpg: no such image, but .*sample.csv names"):
        run(sample_submission=sample)
    assert not (tmp_path / "s.csv.parts").exists()


def test_a_repeated_row_of_a_sample_is_refused(images_dir, run, tmp_path):
    labels = [("01.jpg", "Fish"), ("00.jpg", "Fish"), ("01.jpg", "Fish")]
    sample = _write_sample(tmp_path / "sample.csv", labels)
    with pytest.raises(ValueError, match="sample.csv: 01.jpg has a second row for Fish"):
        run(sample_submission=sample)
    assert not (tmp_path / "s.csv.parts").exists()


def test_a_folder_whose_name_looks_like_a_pattern_is_taken_as_it_is(images_dir, tmp_path):
    folder = images_dir.rename(tmp_path / "[2020] a*b?")
    output = tmp_path / "[s].csv"
    assert predict(MODEL, str(folder), str(output)).num_images == 30
    assert len(_rows(output)) == 120


def test_a_folder_without_images_is_named(tmp_path):
    output = str(tmp_path / "out" / "s.csv")
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        predict(MODEL, str(tmp_path / "none"), output)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(ValueError, match=f"{folder}: no images, .*; skipped a.tif: a TIFF, which"):
        predict(MODEL, str(folder), output)


def test_the_rows_of_unreadable_images_are_blank_and_the_reason_is_said(images_dir, run, tmp_path):
    (images_dir / "03.jpg").write_bytes(b"GIF89a")
    (images_dir / "04.jpg").unlink()
    (images_dir / "04.jpg").symlink_to("nowhere.jpg")
    with open(os.fsencode(images_dir) + b"/\xff.jpg", "wb"):
        pass
    (images_dir / "05.jpg").unlink()
    (images_dir / "05.jpg").mkdir()
    Image.fromarray(np.full((20, 30), 4095, np.uint16)).save(images_dir / "06.jpg", "PNG")
    content = (images_dir / "20.jpg").read_bytes()
    (images_dir / "20.jpg").write_bytes(content[:500])
    result = run(batch_size=3)
    assert result.num_images == 31
    assert list(result.unreadable) == [
        "03.jpg: a GIF, expected a JPEG or a PNG",
        "04.jpg: a broken link, or a name that is not UTF-8",
        "05.jpg: a folder",
        "06.jpg: a PNG of 16 bits a value, all below 16384; scale them up to 65535",
        "20.jpg: a damaged or truncated JPEG",
        "\\xff.jpg: a broken link, or a name that is not UTF-8",
    ]
    rows = _rows(tmp_path / "s.csv")
    blank = {label.split("_")[0] for label, found in rows if not found}
    assert blank == {"03.jpg", "04.jpg", "05.jpg", "06.jpg", "20.jpg", "\\xff.jpg"}
    assert sum(not found for _, found in rows) == 24
    with pytest.raises(ValueError, match="03.jpg: a GIF"):
        run(batch_size=3, on_error="fail")


def test_a_batch_that_is_too_large_together_is_divided(images_dir, run, tmp_path):
    sizes = []

    def refuses_more_than_two(image_bytes):
        if len(image_bytes) > 2:
            raise tf.errors.InvalidArgumentError(None, None, "too many pixels in all images")
        sizes.append(len(image_bytes))
        return _by_length(image_bytes)

    model = _predictor(refuses_more_than_two)
    assert not predict(model, *run.args[1:], batch_size=8).unreadable
    assert sum(sizes) == 30 and max(sizes) == 2
    assert all(found for _, found in _rows(tmp_path / "s.csv"))


def test_an_image_of_another_shape_is_named(images_dir, run):
    for name, size in (("a.png", (300, 200)), ("b.png", (305, 200)), ("c.png", (309, 200))):
        Image.new("RGB", size).save(images_dir / name)
    model = _predictor(lambda contents: _by_length(tf.repeat(JPEG, len(contents))))
    (remark,) = predict(model, *run.args[1:], batch_size=1).squeezed
    assert remark.startswith("c.png: 200x309 (height x width) was squeezed to the shape of 1400x21")
    assert "tools/predict_scenes.py" in remark


def _jpeg():
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "JPEG")
    return tf.constant([file.getvalue()])


JPEG = _jpeg()


def test_shards_share_the_work_and_a_run_without_merges(run, tmp_path):
    run()
    expected = (tmp_path / "s.csv").read_bytes()
    os.remove(tmp_path / "s.csv")
    first = run(shard=(0, 3))
    assert (first.output, first.num_images) == (None, 14)  # the parts of 8 and, last, of 6
    assert run(shard=(2, 3)).num_images == 8
    assert not (tmp_path / "s.csv").exists()
    seen = []
    assert run(progress=lambda *counts: seen.append(counts)).num_images == 30
    assert seen[0] == (22, 30) and seen[-1] == (30, 30) and len(seen) == 9
    assert (tmp_path / "s.csv").read_bytes() == expected
    assert not (tmp_path / "s.csv.parts").exists()


def test_parts_of_another_model_are_not_mixed_in(images_dir, run, tmp_path):
    def other(image_bytes):
        found = _by_length(image_bytes)
        return {**found, "encoded_pixels": tf.fill([len(image_bytes), 4], "7 7")}

    run(shard=(0, 2))
    predict(_predictor(other, "model 2"), *run.args[1:], batch_size=1)
    assert {found for _, found in _rows(tmp_path / "s.csv")} == {"7 7"}


def test_parts_of_earlier_versions_which_name_no_rules_are_done_again(run, tmp_path):
    folder = tmp_path / "s.csv.parts" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text("{}")
    (folder / "000000.jsonl").write_text('["00.jpg", ["Fish"], [1, 1], ["7 7"], [], [], [], ""]')
    run()
    assert not (tmp_path / "s.csv.parts").exists()
    assert "7 7" not in {found for _, found in _rows(tmp_path / "s.csv")}


def test_images_that_were_replaced_or_removed_are_predicted_again(images_dir, run, tmp_path):
    run(shard=(0, 2))
    run(shard=(1, 2))
    content = (images_dir / "09.jpg").read_bytes()
    (images_dir / "09.jpg").write_bytes(content + bytes(100))
    seen = []
    run(shard=(0, 2), progress=lambda *counts: seen.append(counts))
    assert seen == [(16, 16)]  # its part is one of the others
    (images_dir / "29.jpg").unlink()
    seen.clear()
    run(progress=lambda *counts: seen.append(counts))
    assert seen[0] == (16, 29)
    expected = [
        (f"{i:02d}.jpg_{c}", _expected(images_dir, f"{i:02d}.jpg", c))
        for i in range(29)
        for c in NAMES
    ]
    assert _rows(tmp_path / "s.csv") == expected


def test_a_replaced_image_of_the_same_length_is_noticed(images_dir, run):
    run(shard=(0, 2))
    content = (images_dir / "00.jpg").read_bytes()
    (images_dir / "00.jpg").write_bytes(content[:-1] + b"x")
    seen = []
    run(shard=(0, 2), progress=lambda *counts: seen.append(counts))
    assert seen[0] == (8, 16)


def test_an_image_that_was_repaired_is_predicted_again(images_dir, run, tmp_path):
    content = (images_dir / "09.jpg").read_bytes()
    (images_dir / "09.jpg").write_bytes(content[:200])
    assert len(run(shard=(1, 2)).unreadable) == 1
    (images_dir / "09.jpg").write_bytes(content)
    assert run().unreadable == ()
    assert all(found for _, found in _rows(tmp_path / "s.csv"))


def test_images_that_were_unreadable_for_a_while_are_predicted_again(run, tmp_path):
    def refuses(image_bytes):
        raise tf.errors.InvalidArgumentError(None, None, "not now")

    model = _predictor(refuses)
    assert predict(model, *run.args[1:], **run.keywords, shard=(1, 2)).unreadable
    assert run().unreadable == ()
    assert all(found for _, found in _rows(tmp_path / "s.csv"))


def test_a_merge_waits_for_shards(images_dir, run, tmp_path):
    started, go_on = threading.Event(), threading.Event()

    def waits(image_bytes):
        started.set()
        assert go_on.wait(60)
        return _by_length(image_bytes)

    model = _predictor(waits)
    shard = threading.Thread(
        target=predict, args=(model, *run.args[1:]), kwargs={"batch_size": 1, "shard": (0, 2)}
    )
    shard.start()
    try:
        assert started.wait(60)
        with pytest.raises(
            ValueError, match="another process is working in this folder; run the command again"
        ):
            run()
        assert run(shard=(1, 2)).num_images == 14
    finally:
        go_on.set()
        shard.join()
    assert run().num_images == 30


@pytest.mark.parametrize("text", ["1", "2/2", "a/b", "1/2/3", "-1/2", ""])
def test_what_is_no_shard_is_refused(text):
    assert parse_shard("2/3") == (2, 3)
    with pytest.raises(ValueError, match=f"shard: got '{text}', expected i/n"):
        parse_shard(text)


def test_two_batches_at_a_time_on_every_device_and_no_more(images_dir, run):
    for i in (28, 29):
        (images_dir / f"{i}.jpg").unlink()
    running, most, used = [0], [0], set()
    lock, barrier = threading.Lock(), threading.Barrier(4, timeout=60)

    def predictor(device, image_bytes):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            used.add(device)
        barrier.wait()  # breaks unless four are here at once
        with lock:
            running[0] -= 1
        return _by_length(image_bytes)

    predictors = [_predictor(functools.partial(predictor, device)) for device in range(2)]
    assert predict(predictors, *run.args[1:], batch_size=1).num_images == 28
    assert most[0] == 4 and used == {0, 1}


def test_a_table_has_the_numbers_of_every_image_and_class(images_dir, run, tmp_path):
    (images_dir / "00.jpg").write_bytes(b"")
    table = tmp_path / "t.csv"
    run(table=str(table))
    header, *rows = table.read_text().splitlines()
    assert header == "filename,class,presence,area_fraction,expected_area_fraction,likeness"
    assert rows[:5] == [*(f"00.jpg,{c},,,," for c in NAMES), "01.jpg,Fish,0.25,0.125,0.0625,"]
    assert len(rows) == 30 * 4


@pytest.mark.slow
def test_masks_of_an_image_that_became_unreadable_are_removed(data_dir, tmp_path):
    folder, masks, overlays = (tmp_path / name for name in ("images", "masks", "overlays"))
    shutil.copytree(data_dir / "test_images", folder)

    def left_half(image_bytes):
        _by_length(image_bytes)
        return {"encoded_pixels": tf.tile([["1 9"] * 4], [len(image_bytes), 1])}

    arguments = _predictor(left_half), str(folder), str(tmp_path / "s.csv")
    folders = {"masks_dir": str(masks), "overlay_dir": str(overlays)}
    predict(*arguments, **folders)
    damaged, *others = sorted(os.listdir(folder))
    (folder / damaged).write_bytes(b"GIF89a")
    predict(*arguments, **folders)
    assert {name.rsplit("_", 1)[0] for name in os.listdir(masks)} == set(others)
    assert sorted(os.listdir(overlays)) == [f"{name}.png" for name in others]


@pytest.mark.parametrize("name", ["../{}", "..", "/etc/{}", "a/{}", "..\\{}"])
def test_names_of_a_sample_lead_nowhere_else(images_dir, run, tmp_path, name):
    name = name.format("00.jpg")
    (tmp_path / "00.jpg").write_bytes((images_dir / "00.jpg").read_bytes())
    sample = _write_sample(tmp_path / "sample.csv", [("00.jpg", "Fish"), (name, "Fish")])
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match="sample.csv, line 3: .*without a folder") as error:
        run(sample_submission=sample, masks_dir=str(tmp_path / "masks" / "deep"))
    assert repr(name) in str(error.value)
    assert sorted(set(os.listdir(tmp_path)) - {"masks"}) == before


def test_pictures_and_masks_of_every_readable_image(data_dir, tmp_path):
    source = sorted((data_dir / "test_images").iterdir())[0]
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(source, folder / "a.jpg")
    shutil.copy(source, folder / "$a_{$.jpg")  # which matplotlib takes for mathematics
    shutil.copy(source, folder / f"{'a' * 251}.jpg")  # no room for .png behind it
    Image.open(source).resize((63, 42)).save(folder / "a.png")
    (folder / "b.jpg").write_bytes(b"GIF89a")

    def left_half(image_bytes):
        _by_length(image_bytes)  # which refuses what is no image
        rles = [["", f"1 {350 * 262}", "", f"1 {350 * 525}"]]
        return {"encoded_pixels": tf.tile(rles, [len(image_bytes), 1])}

    model = _predictor(left_half)
    overlays, masks = tmp_path / "overlays", tmp_path / "masks"
    result = predict(
        model,
        str(folder),
        str(tmp_path / "s.csv"),
        batch_size=1,  # the stand-in cannot decode images of several sizes at once
        overlay_dir=str(overlays),
        masks_dir=str(masks),
        picture=str(tmp_path / "p.png"),
    )
    assert [remark.split(": ")[1] for remark in result.unreadable] == [
        "cannot be drawn",
        "a GIF, expected a JPEG or a PNG",
    ]
    assert sorted(os.listdir(overlays)) == ["$a_{$.jpg.png", "a.jpg.png", "a.png.png"]
    assert len(os.listdir(masks)) == 12
    fish, flower, _, sugar = (np.asarray(Image.open(masks / f"a.png_{c}.png")) for c in NAMES)
    assert fish.shape == (42, 63) and not fish.any() and (sugar == 255).all()
    assert (flower[:, :31] == 255).all() and not flower[:, 32:].any()
    assert np.asarray(Image.open(tmp_path / "p.png")).shape[0] > 100


@pytest.mark.parametrize("name", ["output", "table", "picture", "masks_dir", "overlay_dir"])
def test_what_cannot_be_written_is_named_before_any_work(images_dir, tmp_path, name):
    def never(image_bytes):
        raise AssertionError("predicted")

    (tmp_path / "file").write_text("")
    wrong = str(tmp_path / "file" if name.endswith("_dir") else tmp_path)
    arguments = {"output": str(tmp_path / "out" / "s.csv"), name: wrong}
    with pytest.raises(ValueError, match=f"^{wrong}"):
        predict(_predictor(never), str(images_dir), **arguments)
    assert not (tmp_path / "out" / "s.csv.parts").exists()


@pytest.mark.parametrize("name", ["picture", "overlay_dir"])
def test_matplotlib_is_checked_before_any_work(run, tmp_path, monkeypatch, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(ValueError, match=f"--{name} needs the package matplotlib"):
        run(**{name: str(tmp_path / "p.png")})
    assert not (tmp_path / "s.csv.parts").exists()


def test_remote_folders_hold_what_those_on_this_machine_do(data_dir, tmp_path):
    source = sorted((data_dir / "test_images").iterdir())[0]
    outputs = {"table": "t.csv", "masks_dir": "m", "overlay_dir": "o", "picture": "p.png"}
    trees = []
    for root in (str(tmp_path), "ram://predict"):
        tf.io.gfile.makedirs(f"{root}/images")
        tf.io.gfile.copy(str(source), f"{root}/images/a.jpg")
        paths = {name: f"{root}/{path}" for name, path in outputs.items()}
        predict(MODEL, f"{root}/images", f"{root}/s.csv", **paths)
        names = [
            f"{folder.rstrip('/')}/{name}"[len(root) :]
            for folder, _, names in tf.io.gfile.walk(root)
            for name in names
        ]
        trees.append({name: tf.io.read_file(root + name).numpy() for name in names})
    assert trees[0] == trees[1]
    assert {"/s.csv", "/t.csv", "/m/a.jpg_Fish.png", "/o/a.jpg.png", "/p.png"} < set(trees[1])


def test_parquet_and_a_picture_go_together(run, images_dir, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    output, picture = str(tmp_path / "s.parquet"), str(tmp_path / "p.png")
    for path in sorted(images_dir.iterdir())[2:]:
        path.unlink()
    predict(MODEL, str(images_dir), output, picture=picture)
    labels = parquet.read_table(output).to_pydict()["Image_Label"]
    assert labels == [f"0{i}.jpg_{c}" for i in range(2) for c in NAMES]
    assert os.path.exists(picture)


def test_wrong_arguments_are_named(run):
    for arguments, message in (
        ({"batch_size": 0}, "batch_size: got 0, expected at least 1"),
        ({"on_error": "skip"}, "on_error: got 'skip', expected one of blank, fail"),
        ({"shard": (3, 3)}, "shard: got '3/3'"),
    ):
        with pytest.raises(ValueError, match=message):
            run(**arguments)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no SavedModel; expected a folder such as E/1"):
        predict(str(tmp_path), str(tmp_path), "s.csv")


def test_a_model_of_something_else_is_refused(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(module, str(tmp_path / "other"), module.double)
    with pytest.raises(ValueError, match="not a SavedModel of export"):
        predict(str(tmp_path / "other"), str(tmp_path), "s.csv")


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export") / "E")
    return write_version(CloudModel([stubs.network()], METADATA), folder)


def _in_a_cluster(predict):
    """Calls predict with a runner of Dask."""
    distributed = pytest.importorskip("distributed")
    how = {"processes": False, "dashboard_address": None}  # a process would import TensorFlow
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **how) as it:
        options = (f"--dask_client_address={it.scheduler_address}",)
        predict(runner=Runner("dask", beam_options=options))
        distributed.default_client().close()


@pytest.mark.slow
def test_processes_beam_and_dask_write_the_bytes_of_one_process(saved_model, images_dir, tmp_path):
    """With an unreadable image, a table and masks."""
    (images_dir / "03.jpg").write_bytes(b"GIF89a")
    made = []

    def run(**how):
        folder = tmp_path / str(len(made))
        paths = {"table": f"{folder}/t.csv", "masks_dir": f"{folder}/masks"}
        result = predict(
            saved_model, str(images_dir), f"{folder}/s.csv", batch_size=2, **paths, **how
        )
        assert len(result.unreadable) == 1 and result.num_images == 30
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        made.append({str(path.relative_to(folder)): path.read_bytes() for path in found})

    seen = []
    run()
    run(runner=Runner(num_workers=2), progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 30), (16, 30), (30, 30)]
    if importlib.util.find_spec("apache_beam"):
        run(runner=Runner("direct", beam_options=("--direct_num_workers=1",)))
        if sys.version_info >= (3, 10):
            _in_a_cluster(run)
    assert len(made[0]) == 2 + 4 * 29 and made[1:] == made[:1] * (len(made) - 1)


@pytest.mark.slow
def test_every_device_gives_the_same(saved_model, data_dir, tmp_path):
    second = Predictor.open(saved_model, device=devices(2)[1])
    module = second.functions["serving_default"].args[0]
    assert all(weight.device.endswith("CPU:1") for weight in module.weights[0])
    for name, number in (("one.csv", 1), ("two.csv", 2)):
        arguments = saved_model, str(data_dir / "train_images"), str(tmp_path / name)
        predict(*arguments, batch_size=2, num_devices=number)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    with pytest.raises(ValueError, match="num_devices: got 99, expected 1 to 4 .CPUs"):
        devices(99)


@pytest.mark.slow
def test_killed_and_run_again_it_writes_the_same_file(saved_model, images_dir, tmp_path):
    output = tmp_path / "s.csv"
    code = f"""
import dataclasses, os, signal
from clouds_tf.prediction.predictor import Predictor, devices
from clouds_tf.serving import predict

model = Predictor.open({saved_model!r}, device=devices(1)[0])
calls = []

def dies(image_bytes):
    calls.append(image_bytes)
    if len(calls) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return model(image_bytes)

dying = dataclasses.replace(model, load=lambda: {{"serving_default": dies}})
predict(dying, {str(images_dir)!r}, {str(output)!r},
        batch_size=1)
"""
    killed = run_program("-c", code)
    assert killed.returncode == -signal.SIGKILL and not output.exists()
    seen = []
    for path in (output, tmp_path / "undisturbed.csv"):
        predict(
            saved_model,
            str(images_dir),
            str(path),
            batch_size=1,
            num_devices=1,
            progress=lambda done, total: seen.append((done, total)),
        )
    # The two parts of eight before the twentieth image were finished, and are not done again.
    assert [count for count in seen if count[0] in (0, 16)] == [(16, 30), (0, 30), (16, 30)]
    assert output.read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()
    assert sum(bool(found) for _, found in _rows(output)) > 0


def test_a_stretch_is_applied_to_the_bytes_and_counted(images_dir, run, tmp_path):
    """The stand-in for a model tells the length of what it gets."""
    (images_dir / "bad.jpg").write_bytes(b"GIF89a")
    result = run(stretch="sqrt", table=str(tmp_path / "t.csv"))
    assert result.curves == "stretch sqrt: gamma 0.5 (30 images)"
    assert result.unreadable == ("bad.jpg: a GIF, expected a JPEG or a PNG",)
    pixels = np.asarray(Image.open(images_dir / "00.jpg"))
    png = tf.io.encode_png(pixels).numpy()
    assert int(_rows(tmp_path / "s.csv")[0][1].split()[1]) > len(png) / 2
    same = run(stretch="auto")
    assert same.curves == "stretch auto: left as it is (30 images)"
    assert _rows(tmp_path / "s.csv")[0][1] == _expected(images_dir, "00.jpg", "Fish")
    with pytest.raises(ValueError, match="stretch: got 'log'"):
        run(stretch="log")
