import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from programs import run_program

from clouds_tf import rle
from clouds_tf.data import (
    annotations,
    examples,
    input_pipeline,
    planning,
    sample_data,
    shards,
)
from clouds_tf.data.examples import _ENCODED_KEY, _FILENAME_KEY, _FOLD_KEY, _RUNS_KEY
from clouds_tf.data.planning import _split_into_folds
from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.manifest import Manifest

pytestmark = [pytest.mark.slow, pytest.mark.lanes]

CLASS_NAMES = CLOUDS.class_names


@pytest.fixture
def forked(monkeypatch):
    """Worker processes are forked from one that has imported TensorFlow; that takes a tenth."""
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)


def _files(folder):
    """Names of the files that readers of records see."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())


def _read(records_dir):
    """All examples of a folder, by file name, read with nothing of ours."""
    found = {}
    for name in sorted(os.listdir(records_dir)):
        if name.endswith(".tfrecord"):
            for record in tf.data.TFRecordDataset(os.path.join(records_dir, name)):
                feature = tf.train.Example.FromString(record.numpy()).features.feature
                found[feature[_FILENAME_KEY].bytes_list.value[0].decode()] = name, feature
    return found


def test_records_hold_every_image_untouched(data_dir, records_dir):
    table = annotations.read_csv(str(data_dir / "train.csv"), CLOUDS)
    found = _read(records_dir)
    assert set(found) == set(table["filename"])
    for row in table.to_dict("records"):
        _, feature = found[row["filename"]]
        image = (data_dir / "train_images" / row["filename"]).read_bytes()
        assert feature[_ENCODED_KEY].bytes_list.value[0] == image
        expected = [
            (i, int(start) - 1, int(length))
            for i, name in enumerate(CLASS_NAMES)
            for start, length in zip(row[name].split()[::2], row[name].split()[1::2])
        ]
        runs = feature[_RUNS_KEY].int64_list.value
        assert list(zip(runs[::3], runs[1::3], runs[2::3])) == expected


def test_info_counts_what_the_shards_hold(records_dir):
    info = Records.open(records_dir).info
    found = _read(records_dir).values()
    assert info.num_examples == 12 and info.num_folds == 3 and len(info.shards) == 4
    for shard in info.shards:
        folds = [f[_FOLD_KEY].int64_list.value[0] for name, f in found if name == shard.file]
        assert shard.num_examples == len(folds)
        assert shard.folds == {fold: folds.count(fold) for fold in set(folds)}
    # Ordered by fold, so that most of them are of one fold.
    assert sum(len(shard.folds) for shard in info.shards) <= 4 + 3 - 1


def test_the_same_bytes_whatever_the_number_of_processes(forked, data_dir, records_dir, tmp_path):
    arguments = {"num_shards": 4, "num_folds": 3, "num_workers": 2}
    shards.write_records(str(data_dir), str(tmp_path), CLOUDS, **arguments)
    for name in _files(records_dir):
        with open(os.path.join(records_dir, name), "rb") as one:
            assert one.read() == (tmp_path / name).read_bytes(), name
    assert _files(tmp_path) == _files(records_dir)
    assert Records.open(records_dir).identity == Records.open(str(tmp_path)).identity


def test_images_can_be_reduced(data_dir, tmp_path):
    _write(data_dir, str(tmp_path), num_shards=1, image_size=(70, 105))
    for name, (_, feature) in _read(tmp_path).items():
        parsed = examples.parse_example(
            tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
        )
        small = tf.io.decode_jpeg(parsed["encoded"]).numpy()
        full = tf.io.decode_jpeg((data_dir / "train_images" / name).read_bytes()).numpy()
        assert small.shape == (70, 105, 3) and parsed["size"].numpy().tolist() == [70, 105]
        assert parsed["mask_size"].numpy().tolist() == [1400, 2100]
        halves = full.reshape(70, 2, 105, 2, 3).mean(axis=(1, 3))
        assert np.abs(small - halves).mean() < 6


@pytest.fixture(scope="session")
def small_dir(once):
    """8 training images of 28x42, for reading only."""
    write = functools.partial(sample_data.write_sample_data, num_train=8, num_test=1)
    return pathlib.Path(once("small_sample", functools.partial(write, image_size=(28, 42))))


@pytest.fixture
def broken(small_dir, tmp_path):
    """A folder of data of 3 images to break, and where its records would go."""
    folder = tmp_path / "data"
    shutil.copytree(small_dir, folder)
    for image in sorted((folder / "train_images").iterdir())[3:]:
        image.unlink()
    names = [image.name for image in (folder / "train_images").iterdir()]
    lines = (folder / "train.csv").read_text().splitlines(True)
    kept = [line for line in lines[1:] if line.split("_")[0] in names]
    (folder / "train.csv").write_text("".join([lines[0], *kept]))
    return folder, str(tmp_path / "records")


def _write(folder, output_dir, mask_size=CLOUDS.mask_size, **arguments):
    arguments = {"num_shards": 2, "num_folds": 2, "num_workers": 1, **arguments}
    dataset = dataclasses.replace(CLOUDS, mask_size=mask_size)
    return shards.write_records(str(folder), output_dir, dataset, **arguments)


def _an_image(folder):
    return sorted((folder / "train_images").iterdir())[1]


def test_a_missing_image_is_named(broken):
    image = _an_image(broken[0])
    image.unlink()
    with pytest.raises(ValueError, match=f"{image.name}: no such image"):
        _write(*broken)
    assert not os.path.exists(os.path.join(broken[1], shards.INFO_FILE))
    assert not [name for name in os.listdir(broken[1]) if name.startswith(".")]


@pytest.mark.parametrize("image_size", [None, (14, 21)])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_truncated_image_is_named(forked, broken, image_size, num_workers):
    image = _an_image(broken[0])
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{image.name}: not a whole, readable JPEG"):
        _write(*broken, image_size=image_size, num_workers=num_workers)


def test_no_records_without_annotations(broken):
    (broken[0] / "train.csv").unlink()
    with pytest.raises(FileNotFoundError, match="train.csv: no such file"):
        _write(*broken)
    assert not os.path.exists(broken[1])


def test_no_more_shards_than_images_unless_asked_for(broken):
    assert len(_write(*broken, num_shards=None).shards) == 3


def test_more_shards_than_images_are_refused(broken):
    with pytest.raises(ValueError, match="num_shards: got 4, expected 1 to 3"):
        _write(*broken, num_shards=4)


def test_info_of_another_version_is_refused(broken):
    _write(*broken)
    path = os.path.join(broken[1], shards.INFO_FILE)
    with open(path) as file:
        info = json.load(file)
    for key, value in (("schema_version", 99),):
        with open(path, "w") as file:
            json.dump({**info, key: value}, file)
        with pytest.raises(ValueError, match=f"dataset_info.json: {key}: got .*, expected"):
            Records.open(broken[1]).info


def test_a_missing_shard_is_named(broken):
    info = _write(*broken)
    os.remove(os.path.join(broken[1], info.shards[1].file))
    with pytest.raises(FileNotFoundError, match="clouds-00001-of-00002.tfrecord: no such shard"):
        Records.open(broken[1]).info


def _contents(folder):
    return {name: (folder / name).read_bytes() for name in _files(folder)}


# Ends the process as soon as a shard is finished, before any more is.
_STOPS_AFTER_A_SHARD = """
import os, signal
from clouds_tf.data import shards
from clouds_tf.dataset import CLOUDS, Dataset

def progress(done, total):
    os.kill(os.getpid(), signal.SIGKILL)

shards.write_records(*{folders}, CLOUDS, num_workers=1, progress=progress, **{arguments})
"""


def test_a_killed_run_is_finished_by_the_same_call(data_dir, tmp_path):
    """SIGKILL in the middle, then again: byte for byte what an undisturbed run writes."""
    arguments = {"num_shards": 6, "num_folds": 3, "image_size": (70, 105)}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shards.write_records(str(data_dir), str(whole), CLOUDS, num_workers=1, **arguments)
    code = _STOPS_AFTER_A_SHARD.format(folders=[str(data_dir), str(killed)], arguments=arguments)
    child = run_program("-c", code)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not (killed / "dataset_info.json").exists()
    kept = {path: path.stat().st_ino for path in killed.glob("clouds*.tfrecord")}
    assert 1 <= len(kept) < 6
    (killed / ".123.clouds-00005-of-00006.tfrecord").write_bytes(b"half")
    shards.write_records(str(data_dir), str(killed), CLOUDS, num_workers=1, **arguments)
    assert _contents(killed) == _contents(whole)
    assert all(path.stat().st_ino == inode for path, inode in kept.items())


def test_shards_of_another_plan_and_of_earlier_versions_go(broken):
    folder, output_dir = broken
    _write(folder, output_dir, num_shards=3)
    for name in ("clouds-00000-of-00009.tfrecord", "clouds-00000-of-00009.tfrecord.json"):
        pathlib.Path(output_dir, name).write_bytes(b"")
    pathlib.Path(output_dir, "clouds-notes.tfrecord").write_bytes(b"")
    info = _write(folder, output_dir, num_shards=2)
    expected = {shard.file for shard in info.shards} | {"clouds-notes.tfrecord"}
    assert {name for name in _files(output_dir) if "tfrecord" in name} == expected


def test_a_second_process_in_the_folder_is_refused(broken):
    folder, output_dir = broken
    before = _write(folder, output_dir)
    with Manifest(output_dir, {"of": "another process"}).open(alone=False):
        with pytest.raises(ValueError, match=f"{output_dir}.*: another process is working in this"):
            _write(folder, output_dir)
    assert _write(folder, output_dir) == before


def test_a_finished_shard_is_written_again_when_it_or_its_source_changed(broken):
    folder, output_dir = broken
    info = _write(folder, output_dir)
    paths = [os.path.join(output_dir, shard.file) for shard in info.shards]
    before = [os.stat(path).st_mtime_ns for path in paths]
    assert _write(folder, output_dir) == info
    assert [os.stat(path).st_mtime_ns for path in paths] == before

    with open(paths[0], "r+b") as file:
        file.seek(100)
        file.write(b"damage")
    assert _write(folder, output_dir) == info
    after = [os.stat(path).st_mtime_ns for path in paths]
    assert after[0] != before[0] and after[1] == before[1]
    assert _write(folder, output_dir, image_size=(14, 21)).shards != info.shards


def test_an_image_that_was_replaced_by_one_of_the_same_length_is_read_again(broken):
    folder, output_dir = broken
    one, two, _ = sorted((folder / "train_images").iterdir())
    # Bytes behind the end of a JPEG are ignored.
    length = max(one.stat().st_size, two.stat().st_size)
    first, second = (path.read_bytes().ljust(length, b"\0") for path in (one, two))
    one.write_bytes(first)
    two.write_bytes(second)
    _write(folder, output_dir)
    one.write_bytes(second)
    _write(folder, output_dir)
    _, feature = _read(output_dir)[one.name]
    assert feature[_ENCODED_KEY].bytes_list.value[0] == second


def _break_everything(folder):
    """Breaks rows and images of a folder of 8 images; gives what the faults must say."""
    images = sorted((folder / "train_images").iterdir())
    images[1].write_bytes(b"GIF89a")
    images[2].write_bytes(b"<html>404</html>")
    images[3].write_bytes(b"")
    images[4].write_bytes(images[4].read_bytes()[:-300])
    images[5].unlink()
    (folder / "train_images" / "stray.jpg").write_bytes(images[0].read_bytes())
    path = folder / "train.csv"
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{images[6].name}_Gravel"))
    lines[at] = f"{images[6].name}_Gravel,7 0"
    path.write_text("\n".join([*lines, "x.jpg_Cirrus,"]))
    return [
        f"{images[1].name}: a GIF, expected a JPEG or a PNG",
        f"{images[2].name}: HTML or XML, expected a JPEG or a PNG",
        f"{images[3].name}: not a JPEG or PNG, its first bytes are b''",
        f"{images[4].name}: not a whole, readable JPEG",
        f"{images[5].name}: no such image",
        "stray.jpg: no rows for it",
        f"train.csv, line {at + 1}: {images[6].name}, Gravel: .*length 0",
        f"train.csv, line {len(lines) + 1}: got the label 'x.jpg_Cirrus'",
    ]


@pytest.fixture
def all_broken(small_dir, tmp_path):
    folder = shutil.copytree(small_dir, tmp_path / "data")
    return folder, tmp_path / "records", _break_everything(folder)


def test_all_faults_are_listed_at_once(all_broken):
    folder, output_dir, expected = all_broken
    with pytest.raises(ValueError, match="^8 faults:") as error:
        _write(folder, str(output_dir))
    for pattern in expected:
        assert re.search(pattern, str(error.value)), pattern
    assert not output_dir.exists()


def test_faulty_images_can_be_skipped(all_broken):
    folder, output_dir, expected = all_broken
    for _ in range(2):  # the second time from finished shards
        info = _write(folder, str(output_dir), on_error="skip")
        assert info.num_examples == 2 == len(_read(output_dir)) and info.num_rejected == 8
        lines = (output_dir / "rejected.csv").read_text().splitlines()
        assert lines[0] == "file,line,reason" and len(lines) == 9
    Records.open(str(output_dir)).verify()


def test_grey_and_cmyk_images_are_kept(broken):
    folder, output_dir = broken
    first, second, _ = sorted((folder / "train_images").iterdir())
    image = PIL.Image.open(first)
    image.convert("L").save(first)
    image.convert("CMYK").save(second)
    assert _write(folder, output_dir, image_size=(14, 21)).num_examples == 3


def test_the_seed_draws_the_folds():
    labels = np.random.default_rng(0).random((60, 4)) < 0.5
    one, again, other = (_split_into_folds(labels, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_folds_are_written_and_taken(data_dir, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    _write(data_dir, str(one), num_folds=3)
    lines = (one / "folds.csv").read_text().splitlines()
    assert lines[0] == "filename,fold" and len(lines) == 13
    _write(data_dir, str(two), seed=5, folds_csv=str(one / "folds.csv"))
    assert (two / "folds.csv").read_text().splitlines() == lines
    assert Records.open(str(two)).info.num_folds == 3
    (one / "folds.csv").write_text("\n".join([*lines[:4], "b.jpg,x"]))
    with pytest.raises(ValueError, match="10 faults:.*\n.*line 5: got the fold 'x'"):
        _write(data_dir, str(two), folds_csv=str(one / "folds.csv"))


def test_excluded_images_are_left_out(broken, tmp_path):
    folder, output_dir = broken
    image = _an_image(folder)
    name = image.name
    image.write_bytes(b"")
    image = image.rename(image.with_name("my image 0.jpg"))
    csv = folder / "train.csv"
    csv.write_text(csv.read_text().replace(name, image.name))
    (tmp_path / "exclude.txt").write_text(f"{image.name}\n\n")
    _write(folder, output_dir, exclude=str(tmp_path / "exclude.txt"))
    assert len(_read(output_dir)) == 2 and image.name not in _read(output_dir)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_from_windows_are_read_or_refused(broken, tmp_path, encoding):
    path = tmp_path / "exclude.txt"
    path.write_text(f"{_an_image(broken[0]).name}\r\n", encoding=encoding)
    how = planning.Conversion(num_folds=2, exclude=str(path))
    if encoding == "utf-16":
        with pytest.raises(ValueError, match="exclude.txt: not UTF-8 text"):
            planning.plan_shards(str(broken[0]), CLOUDS, how)
        return
    shards, faults = planning.plan_shards(str(broken[0]), CLOUDS, how)
    assert sum(map(len, shards)) == 2 and not faults


def test_nothing_is_left_of_the_images(broken, tmp_path):
    names = [image.name for image in (broken[0] / "train_images").iterdir()]
    (tmp_path / "exclude.txt").write_text("\n".join(names))
    with pytest.raises(ValueError, match="exclude.txt: names every image of .*train.csv"):
        _write(*broken, exclude=str(tmp_path / "exclude.txt"))


def test_faults_come_before_the_number_of_folds(broken):
    csv, name = broken[0] / "train.csv", _an_image(broken[0]).name
    csv.write_text(csv.read_text().replace(f"{name}_Fish", f"{name}_Fog"))
    with pytest.raises(ValueError, match=f"got the label '{name}_Fog'"):
        _write(*broken, num_folds=3, num_shards=None)


def test_unlisted_images_of_any_case_are_faults_but_hidden_files_are_not(broken):
    content = _an_image(broken[0]).read_bytes()
    for name in ("b.JPG", "c.Jpeg", "._d.jpg", "Thumbs.db"):
        (broken[0] / "train_images" / name).write_bytes(content)
    with pytest.raises(ValueError, match="2 faults:\n.*b.JPG: no rows.*\n.*c.Jpeg: no rows"):
        _write(*broken)


@pytest.mark.parametrize("image_size", [None, (14, 21)])
def test_what_libjpeg_says_has_the_name_of_the_file(broken, capfd, image_size):
    image = _an_image(broken[0])
    image.write_bytes(image.read_bytes()[:-2] + b"\1\2\3\4\5\xff\xd9")
    assert _write(*broken, image_size=image_size).num_examples == 3
    said = capfd.readouterr().err
    assert re.search(rf"{image}: Corrupt JPEG data: \d extraneous bytes", said)
    assert said.count("extraneous") == 1


def test_unknown_names_to_exclude_are_listed(broken, tmp_path):
    (tmp_path / "exclude.txt").write_text(f"{_an_image(broken[0]).name}\nmy cloud.jpg\n")
    with pytest.raises(ValueError, match="exclude.txt: no image has the name 'my cloud.jpg'"):
        _write(*broken, exclude=str(tmp_path / "exclude.txt"))


@pytest.mark.parametrize(
    "folds, message",
    [
        ([0, 2, 2], "folds.csv: no image has the fold 1; expected images in every fold from 0 to"),
        ([0, 1, 100_000], "folds.csv: got the fold 100000, expected less than 1000"),
    ],
)
def test_folds_without_images_are_refused(broken, tmp_path, folds, message):
    names = [image.name for image in sorted((broken[0] / "train_images").iterdir())]
    lines = [f"{name},{fold}" for name, fold in zip(names, folds)]
    (tmp_path / "folds.csv").write_text("\n".join(["filename,fold", *lines]))
    with pytest.raises(ValueError, match=message):
        _write(*broken, folds_csv=str(tmp_path / "folds.csv"))


def test_records_without_any_image_are_refused(broken):
    for image in (broken[0] / "train_images").iterdir():
        image.write_bytes(b"")
    with pytest.raises(ValueError, match="train_images: no image can be read; 3 faults"):
        _write(*broken, on_error="skip")
    assert not os.path.exists(os.path.join(broken[1], shards.INFO_FILE))


def test_rotated_images_are_named(broken):
    image = _an_image(broken[0])
    PIL.Image.open(image).transpose(PIL.Image.Transpose.ROTATE_90).save(image)
    with pytest.raises(ValueError, match=rf"{image.name}: 42x28 .* the masks' 1400x2100"):
        _write(*broken)


def test_orientation_in_exif_is_not_applied(broken):
    image = _an_image(broken[0])
    picture = PIL.Image.open(image)
    exif = picture.getexif()
    exif[0x0112] = 3  # upside down
    picture.save(image, exif=exif, quality=95)
    _write(*broken, image_size=(28, 42))
    _, feature = _read(broken[1])[image.name]
    kept = tf.io.decode_jpeg(feature[_ENCODED_KEY].bytes_list.value[0]).numpy()
    assert np.abs(kept - np.float32(picture)).mean() < 5


def test_dead_links_and_folders_are_named(broken):
    link, folder, _ = sorted((broken[0] / "train_images").iterdir())
    for path in (link, folder):
        path.unlink()
    link.symlink_to("/nowhere/a.jpg")
    folder.mkdir()
    with pytest.raises(ValueError) as error:
        _write(*broken)
    assert f"{link.name}: a link to /nowhere/a.jpg, which is not there" in str(error.value)
    assert f"{folder.name}: a folder, expected an image file" in str(error.value)


def test_masks_of_another_size_are_noticed(small_dir, tmp_path):
    folder = shutil.copytree(small_dir, tmp_path / "data")
    with pytest.raises(ValueError, match="train.csv: .* masks of 1400 rows, got 2100x1400.*--mask"):
        _write(folder, str(tmp_path / "r"), mask_size=(2100, 1400))
    csv = folder / "train.csv"
    table = annotations.read_csv(str(csv), CLOUDS)
    small = rle.resize(table[list(CLASS_NAMES)].to_numpy(object).tolist(), (1400, 2100), (350, 525))
    decoded = [[text.decode() for text in row] for row in small.numpy()]
    annotations.write_csv(str(csv), table["filename"], decoded, CLOUDS)
    with pytest.raises(ValueError, match="train.csv: the runs are those of masks of 350 rows"):
        _write(folder, str(tmp_path / "r"))
    assert _write(folder, str(tmp_path / "r"), mask_size=(350, 525)).num_examples == 8


@pytest.mark.parametrize("content", ["", "[]", '{"num_examples": 3', '{"num_folds": 5}'])
def test_a_damaged_info_is_named(broken, content):
    _write(*broken)
    path = os.path.join(broken[1], shards.INFO_FILE)
    with open(path, "w") as file:
        file.write(content)
    with pytest.raises(ValueError, match="dataset_info.json: damaged, or not written by make_tfre"):
        Records.open(broken[1]).info


def test_a_damaged_shard_is_named(broken):
    info = _write(*broken)
    records = Records.open(broken[1])
    records.verify()
    assert records.info == info
    path = os.path.join(broken[1], info.shards[1].file)
    with open(path, "r+b") as file:
        file.seek(50)
        file.write(b"damage")
    with pytest.raises(ValueError, match="00001-of-00002.tfrecord: SHA-256 is .*, expected"):
        records.verify()
    os.truncate(path, 40)
    with pytest.raises(ValueError, match="00001-of-00002.tfrecord: has 40 bytes, expected"):
        Records.open(broken[1]).info


def test_other_file_systems_work_as_the_local_one_does(data_dir, records_dir):
    """TensorFlow's file system in memory stands for all that are reached through tf.io.gfile."""
    folder, output_dir = "ram://data", "ram://records"
    tf.io.gfile.makedirs(f"{folder}/train_images")
    for path in [data_dir / "train.csv", *(data_dir / "train_images").iterdir()]:
        tf.io.gfile.copy(str(path), f"{folder}/{path.relative_to(data_dir)}")
    for _ in range(2):  # the second time, all shards are there
        _write(folder, output_dir, num_shards=4, num_folds=3)
    written = Records.open(output_dir)
    written.verify()
    assert written.info == Records.open(records_dir).info
    names = tf.io.gfile.listdir(output_dir)
    assert not [name for name in names if name.startswith(".")]
    for name in names:
        if name.endswith((".tfrecord", ".csv")):
            with tf.io.gfile.GFile(f"{output_dir}/{name}", "rb") as one:
                with open(os.path.join(records_dir, name), "rb") as other:
                    assert one.read() == other.read(), name
    batches = input_pipeline.training_batches(output_dir, [0, 1, 2], (28, 42), 4, 1)
    assert sum(len(images) for images, _ in batches) == 12


def test_beam_writes_the_same_bytes(data_dir, records_dir, tmp_path):
    pytest.importorskip("apache_beam")
    _write(data_dir, str(tmp_path), num_shards=4, num_folds=3, runner="direct")
    for name in _files(records_dir):
        with open(os.path.join(records_dir, name), "rb") as one:
            assert one.read() == (tmp_path / name).read_bytes(), name


def test_faults_are_listed_through_beam_too(broken):
    pytest.importorskip("apache_beam")
    image = _an_image(broken[0])
    image.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{image.name}: not a JPEG"):
        _write(*broken, runner="direct")


def test_a_missing_beam_is_named(broken, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ValueError, match="runner: direct needs the package apache_beam"):
        _write(*broken, runner="direct")


STEEL = Dataset(
    class_names=("pitted", "crazed", "scratched"),
    mask_size=(64, 400),
    submission_size=(64, 400),
    label_columns=("ImageId", "ClassId"),
    rle_order="rows",
)


# Three go the whole way in test_end_to_end.py.
@pytest.mark.parametrize("num_classes", [1, pytest.param(5, marks=pytest.mark.nightly), 32])
def test_records_of_another_data_set(tmp_path, num_classes):
    """Runs along rows, two label columns, other sizes, any number of classes."""
    names = tuple(f"class_{i}" for i in range(num_classes))
    dataset = dataclasses.replace(STEEL, class_names=names)
    folder, output_dir = tmp_path / "data", str(tmp_path / "records")
    sample_data.write_sample_data(str(folder), 6, 1, dataset=dataset)
    arguments = {"num_shards": 2, "num_folds": 2, "num_workers": 1}
    shards.write_records(str(folder), output_dir, dataset, **arguments)
    assert Records.open(output_dir).info.dataset == dataset
    table = annotations.read_csv(str(folder / "train.csv"), dataset)
    expected = {
        np.stack([_decode_rows(text, (64, 400)) for text in rles], axis=-1).tobytes()
        for _, *rles in table.values.tolist()
    }
    batches = Records.open(output_dir).held_out_batches([0, 1], (16, 24), 3)
    assert batches.element_spec[1].shape == (None, 64, 400, num_classes)
    assert {mask.numpy().tobytes() for _, masks in batches for mask in masks} == expected
    batches = input_pipeline.training_batches(
        output_dir, [0, 1], (16, 24), 3, 1, augmentation="strong", mix="cutmix"
    )
    assert [masks.shape for _, masks in batches] == [(3, 16, 24, num_classes)] * 2


def _decode_rows(text, size):
    mask = np.zeros(size[0] * size[1], np.uint8)
    numbers = list(map(int, text.split()))
    for start, length in zip(numbers[::2], numbers[1::2]):
        mask[start - 1 : start - 1 + length] = 1
    return mask.reshape(size)


def test_an_earlier_info_is_read(broken):
    info = _write(*broken, image_size=(14, 21))
    path = os.path.join(broken[1], shards.INFO_FILE)
    with open(path) as file:
        fields = json.load(file)
    dataset = fields.pop("dataset")
    fields |= {name: dataset[name] for name in ("class_names", "mask_size")}
    with open(path, "w") as file:
        json.dump(fields, file)
    assert Records.open(broken[1]).info == info
    assert info.dataset == CLOUDS and info.image_size == (14, 21)


@pytest.mark.parametrize(
    "argument, message",
    [
        ({"num_workers": 0}, "num_workers: got 0, expected at least 1"),
        ({"jpeg_quality": 101}, "jpeg_quality: got 101, expected 1 to 100"),
        ({"on_error": "ignore"}, "on_error: got 'ignore', expected one of fail, skip"),
        ({"seed": -1}, "seed: got -1, expected at least 0"),
        ({"image_size": (0, 4)}, r"image_size: got \(0, 4\), expected \(height, width\)"),
    ],
)
def test_impossible_arguments_are_named(argument, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        _write("nowhere", str(tmp_path), **argument)
