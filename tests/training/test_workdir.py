import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.models.unet import unet
from clouds_tf.training import workdir as workdirs

SETTINGS = {"model": {"num_classes": 4, "width": 0.125}, "image_size": [32, 48], "epochs": 2}


def test_the_same_settings_come_back_and_more_epochs_are_allowed(tmp_path):
    folder = str(tmp_path / "new" / "run")
    workdirs.start(folder, SETTINGS)
    workdirs.start(folder, SETTINGS)
    workdirs.start(folder, {**SETTINGS, "epochs": 5})
    assert workdirs.read_settings(folder) == {**SETTINGS, "epochs": 5}


def test_other_settings_are_refused_by_name_and_the_old_ones_stay(tmp_path):
    workdirs.start(str(tmp_path), SETTINGS)
    with pytest.raises(ValueError, match=r"image_size=\[32, 48\], got image_size=\[64, 96\]"):
        workdirs.start(str(tmp_path), {**SETTINGS, "image_size": [64, 96]})
    with pytest.raises(ValueError, match="holds a run with loss=None, got loss=bce"):
        workdirs.start(str(tmp_path), {**SETTINGS, "loss": "bce"})
    assert workdirs.read_settings(str(tmp_path)) == SETTINGS


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="holds files, but no run"):
        workdirs.start(str(tmp_path), SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_best_model_comes_back(tmp_path):
    workdirs.start(str(tmp_path), SETTINGS)
    with pytest.raises(FileNotFoundError, match="checkpoints/best: no checkpoint yet"):
        workdirs.load_model(str(tmp_path))
    model = unet(**SETTINGS["model"])
    workdirs.Checkpoints(str(tmp_path), model).save_best()
    images = tf.random.stateless_uniform([1, 32, 48, 3], [1, 2], 0, 255)
    np.testing.assert_array_equal(workdirs.load_model(str(tmp_path))(images), model(images))


def test_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="settings.json: no such file"):
        workdirs.load_model(str(tmp_path))


def test_history_comes_back(tmp_path):
    assert workdirs.read_history(str(tmp_path)) == []
    rows = [{"epoch": 1, "loss": 0.1234567}, {"epoch": 2, "loss": 1e-9}]
    workdirs.write_history(str(tmp_path), rows)
    assert workdirs.read_history(str(tmp_path)) == rows
    assert (tmp_path / "history.csv").read_text().splitlines()[:2] == ["epoch,loss", "1,0.1234567"]


def test_other_records_are_refused(make_workdir, records_dir, tmp_path):
    folder = make_workdir()
    workdirs.check_records(folder, records_dir)
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="trained on records with the fingerprint"):
        workdirs.check_records(folder, str(tmp_path))
