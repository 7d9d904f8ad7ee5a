import dataclasses
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from programs import run_tool
from stubs import write_workdir

from clouds_tf.data import annotations, shards
from clouds_tf.data.records import Records
from clouds_tf.dataset import Dataset
from clouds_tf.evaluation import Settings, evaluate, pictures, pipeline
from clouds_tf.evaluation.areas import area_biases
from clouds_tf.keras import keras
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import save_model_weights
from clouds_tf.prediction.postprocessing import read_postprocessing

pytestmark = pytest.mark.slow

STEEL = Dataset(
    ("pit", "scratch", "stain"),
    (64, 256),
    (32, 128),
    label_columns=("ImageId", "ClassId"),
    rle_order="rows",
)
SIZE = (32, 64)
ARGUMENTS = {"num_classes": 3, "width": 0.125, "encoder": "tiny"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Records of noise, nine images in three folds; each has a pit of six rows."""
    data, rng = tmp_path_factory.mktemp("steel"), np.random.default_rng(0)
    (data / "train_images").mkdir()
    names = [f"{i}.jpg" for i in range(9)]
    for name in names:
        image = rng.integers(0, 256, (32, 128, 3), np.uint8)
        (data / "train_images" / name).write_bytes(tf.io.encode_jpeg(image).numpy())
    masks = [["1 1536", "" if i % 2 else "1025 2400", "10241 3584"] for i in range(9)]
    annotations.write_csv(str(data / "train.csv"), names, masks, STEEL)
    path = str(data / "R")
    shards.write_records(str(data), path, STEEL, num_shards=3, num_folds=3, num_workers=1)
    return path


@pytest.fixture(scope="module")
def runs(records, tmp_path_factory):
    """Workdirs that held out folds 0 and 2, each with its model."""
    keras.utils.set_random_seed(0)
    return [
        write_workdir(
            tmp_path_factory.mktemp("workdir"), SIZE, fold, Records.open(records).identity, STEEL
        )
        for fold in (0, 2)
    ]


@pytest.fixture(scope="module")
def folders(runs):
    return [path for path, _ in runs]


@pytest.fixture(scope="module")
def result(folder, folders, records):
    return evaluate(
        records,
        folders,
        str(folder / "p.json"),
        settings=Settings(batch_size=2, test_time_augmentation="flips"),
        ladder_csv=str(folder / "ladder.csv"),
        pictures_dir=str(folder / "P"),
        member_weights=(2, 1),
        out_of_fold_table=str(folder / "oof.parquet"),
        out_of_fold_maps=str(folder / "OOF"),
    )


def test_everything_is_written_and_comes_back(result, folder, folders, records):
    found = read_postprocessing(str(folder / "p.json"), STEEL)
    assert found.rules == result.search.rules
    assert found.test_time_augmentation == "flips" and found.workdirs == tuple(folders)
    assert found.records == Records.open(records).identity
    assert found.calibration == result.areas.calibration
    written = {path.name for path in (folder / "P").iterdir()}
    assert written == {f"{name}.png" for name in pictures.NAMES}
    assert len((folder / "ladder.csv").read_text().splitlines()) == 2 + 2 * 2
    assert sorted(os.listdir(folder)) == ["OOF", "P", "ladder.csv", "oof.parquet", "p.json"]
    table = pd.read_parquet(folder / "oof.parquet")
    np.testing.assert_array_equal(table["dice"], result.search.tuned.ravel())
    assert set(table["fold"]) == {0, 2} and list(table["class"][:3]) == list(STEEL.class_names)
    maps = {path.name for path in (folder / "OOF").iterdir()}
    assert maps == {f"{name}.png" for name in table["filename"]} | {"soft_targets.json"}
    assert found.member_weights == (2, 1)  # of one model in each fold, they change nothing
    assert result.folds == (0, 2)
    assert result.num_images == Records.open(records).info.count([0, 2]) < 9
    assert result.search.plain.shape == (result.num_images, 3)
    np.testing.assert_array_equal(result.areas.true[:, 0], 384)  # a quarter of six rows of 256
    np.testing.assert_array_equal(result.areas.true[:, 2], 896)


def test_the_program_finds_the_same_with_the_frozen_weights_of_two_models(
    result, folder, folders, records, tmp_path
):
    for fold, workdir in zip((0, 2), folders):
        (tmp_path / f"fold_{fold}").symlink_to(workdir)
    arguments = f"--records_dir={records}", f"--workdirs={tmp_path}/fold_*"
    settings = "--batch_size=2", "--test_time_augmentation=flips", "--member_weights=2,1"
    found = run_tool("evaluate", *arguments, f"--output={tmp_path / 'p.json'}", *settings)
    assert found.returncode == 0, found.stderr
    ours, expected = (json.loads((x / "p.json").read_text()) for x in (tmp_path, folder))
    assert ours.pop("workdirs") == [f"{tmp_path}/fold_0", f"{tmp_path}/fold_2"]
    assert expected.pop("workdirs") == folders and ours == expected


def test_the_file_has_all_blank_beside_every_score(result, folder):
    content = json.loads((folder / "p.json").read_text())
    assert set(content["scores"]) == {"all_blank", "plain", "tuned", "cross_fitted"}
    blank = result.search.all_blank
    for name, scores in content["scores"].items():
        for c, class_name in enumerate(STEEL.class_names):
            expected = result.search.scores[name][:, c].mean()
            assert scores[class_name] == pytest.approx(expected, abs=6e-5)
            if name != "all_blank":
                gain = content["gain_over_all_blank"][name][class_name]
                assert gain == pytest.approx(expected - blank[:, c].mean(), abs=6e-5)
    right, ends = content["presence_accuracy"], content["interval_of_presence_accuracy"]
    present = pd.DataFrame(result.search.present > 0.5, columns=STEEL.class_names)  # of two folds
    expected = (present == (blank == 0)).mean()
    assert right == pytest.approx({**expected, "mean": expected.mean()}, abs=6e-5)
    assert all(ends[0][name] <= right[name] <= ends[1][name] for name in right)
    for c, class_name in enumerate(STEEL.class_names):
        bias = area_biases(result.areas.expected, result.areas.true)[c]
        stored = content["area_bias"]["expected_area"][class_name]
        assert stored == pytest.approx([bias.value, bias.low, bias.high], abs=6e-5)
    assert content["folds"] == [0, 2]


def test_the_report_shows_blank_biases_and_remarks(result):
    text = str(result)
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == [*STEEL.class_names, "mean"]
    assert lines[1][:2] == ["all", "blank"] and text.count("over blank") == 3
    assert "tuned masks" in text and "expected area" in text
    accuracy = [f"{x:.4f}" for x in result.search.presence_accuracy.mean(axis=0)]
    assert ["accuracy", *accuracy] in [line[:4] for line in lines]
    assert "Best: " in text and text.count(" flips ") == 2
    assert "The best epoch of each run was chosen on its own held-out fold" in text
    assert repr(result).startswith(f"EvaluationResult({result.num_images} images")


def test_worse_than_blank_is_said_in_words(result):
    class_names = STEEL.class_names
    blank = np.tile([1.0, 0.5, 0.0], (4, 1))
    ours = np.tile([0.25, 0.5, 0.25], (4, 1))
    worse = dataclasses.replace(result.search, all_blank=blank, cross_fitted=ours)
    remarks = pipeline._worse_than_blank(worse, class_names)
    assert [remark.split(":")[0] for remark in remarks] == ["pit", "Mean"]
    assert "0.2500 is below the 1.0000 of blank masks" in remarks[0]
    assert not pipeline._worse_than_blank(
        dataclasses.replace(worse, cross_fitted=blank), class_names
    )


@pytest.fixture(scope="module")
def weights(runs, tmp_path_factory):
    """A function that writes the model of a workdir with some metadata."""

    def write(number=0, **metadata):
        path = str(tmp_path_factory.mktemp("weights") / "m.safetensors")
        save_model_weights(runs[number][1], path, {"model": ARGUMENTS, **metadata})
        return path

    return write


@pytest.fixture(scope="module")
def alone(weights, records, tmp_path_factory):
    """The evaluation of a file of weights on fold 0, and its path."""
    path = weights(image_size=list(SIZE))
    output = str(tmp_path_factory.mktemp("alone") / "w.json")
    return evaluate(records, [], output, weights=[path], folds=[0]), path


def test_a_file_of_weights_is_scored(alone, folders, records, tmp_path):
    found, path = alone
    workdir = evaluate(records, folders[:1], str(tmp_path / "d.json"))
    # Kernels are stored in float16.
    np.testing.assert_allclose(found.search.plain, workdir.search.plain, atol=0.02)
    assert "the scores are too good" in found.remarks[-1]
    everything = evaluate(records, [], str(tmp_path / "w.json"), weights=[path])
    assert everything.folds == (0, 1, 2) and everything.num_images == 9
    assert read_postprocessing(str(tmp_path / "w.json"), STEEL).workdirs == (path,)


def test_several_files_of_weights_are_averaged(alone, weights, records, tmp_path):
    output, other = str(tmp_path / "w.json"), weights(1, image_size=list(SIZE))

    def losses(*paths):
        found = evaluate(records, [], output, weights=paths, folds=[0])
        assert read_postprocessing(output, STEEL).workdirs == paths
        return np.array(found.areas.log_losses["uncalibrated"])

    first = np.array(alone[0].areas.log_losses["uncalibrated"])
    # The log loss is convex: that of the mean is below the mean of the losses.
    assert (losses(alone[1], other) < (first + losses(other)) / 2).all()


def test_weights_are_not_scored_on_what_they_were_trained_on(weights, records, tmp_path):
    of_run = {"image_size": SIZE, "records": Records.open(records).identity, "fold": 1}
    path, output = weights(**of_run), str(tmp_path / "w.json")
    with pytest.raises(ValueError, match=r"trained on the folds \[0, 2\] of these records"):
        evaluate(records, [], output, weights=[path])
    assert evaluate(records, [], output, weights=[path], folds=[1]).folds == (1,)
    with pytest.raises(ValueError, match="folds: got 7, expected 0 to 2"):
        evaluate(records, [], output, weights=[path], folds=[7])


@pytest.mark.parametrize(
    "metadata, message",
    [
        ({}, "its metadata has no image_size"),
        (
            {"image_size": SIZE, "class_names": ["a", "b", "c"]},
            r"for the classes \['a', 'b', 'c'\], the records have \['pit'",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, records, tmp_path, metadata, message):
    with pytest.raises(ValueError, match=message):
        evaluate(records, [], str(tmp_path / "w.json"), weights=[weights(**metadata)])


def test_either_workdirs_or_weights(records, folders, tmp_path):
    output = str(tmp_path / "p.json")
    for workdir_list, paths in ((folders, ["m.safetensors"]), ([], [])):
        with pytest.raises(ValueError, match="workdirs, weights: got both or none"):
            evaluate(records, workdir_list, output, weights=paths)
    with pytest.raises(ValueError, match="folds: only for weights"):
        evaluate(records, folders, output, folds=[0])
    with pytest.raises(ValueError, match="m.safetensors: given 2 times, expected once"):
        evaluate(records, [], output, weights=["m.safetensors", "./m.safetensors"])


def test_outputs_are_checked_before_any_work(folders, records, tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError("work was done")

    monkeypatch.setattr(pipeline, "_load", fail)
    good, taken = str(tmp_path / "p.json"), str(tmp_path / "taken")
    os.makedirs(os.path.join(taken, "scores.png"))
    (tmp_path / "file").write_text("")
    for more in (
        {"output": taken},
        {"output": str(tmp_path / "file" / "p.json")},
        {"output": good, "ladder_csv": taken},
        {"output": good, "pictures_dir": taken},
        {"output": good, "pictures_dir": str(tmp_path / "file")},
        {"output": good, "out_of_fold_table": str(tmp_path / "file" / "t.parquet")},
        {"output": good, "out_of_fold_maps": str(tmp_path / "file")},
    ):
        with pytest.raises(ValueError, match="is a folder|cannot be written"):
            evaluate(records, folders, **more)
    for more, message in (
        ({"out_of_fold_table": "t.csv"}, "out_of_fold: got t.csv, expected .*parquet"),
        ({"out_of_fold_maps": taken}, "out_of_fold_maps: .*taken is not empty"),
        ({"member_weights": [1]}, "member_weights: got 1, expected one for each of 2 models"),
        ({"member_weights": [1, 0]}, "member_weights: got 0, expected numbers above 0"),
        (
            {"ladder_csv": good, "settings": Settings(test_time_augmentation="flips+scales")},
            "ladder: .* got flips.scales",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(records, folders, good, **more)
    monkeypatch.setattr(pipeline.files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[parquet\]'"):
        evaluate(records, folders, good, out_of_fold_table=str(tmp_path / "t.parquet"))
    with pytest.raises(ValueError, match=r"pip install -e '.\[plots\]'"):
        evaluate(records, folders, good, pictures_dir=str(tmp_path / "P"))


def test_records_of_other_runs_are_refused(folders, records, tmp_path):
    other = shutil.copytree(records, tmp_path / "R")
    info = other / "dataset_info.json"
    info.write_text(info.read_text() + "\n")
    with pytest.raises(ValueError, match="trained on records with the fingerprint"):
        evaluate(str(other), folders, str(tmp_path / "p.json"))
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"test_time_augmentation": "turns"}, "got 'turns', expected one of none, flips"),
        ({"batch_size": 0}, "batch_size: got 0, expected at least 1"),
        ({"precision": "float8"}, "got 'float8', expected one of float32"),
    ],
)
def test_impossible_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Settings(**fields)


def test_the_precision_of_other_models_is_left_alone(folders, records, tmp_path):
    settings = Settings(precision="bfloat16")
    found = evaluate(records, folders[:1], str(tmp_path / "p.json"), settings=settings)
    assert np.isfinite(found.search.plain).all()
    assert unet(**ARGUMENTS).layers[1].compute_dtype == "float32"
