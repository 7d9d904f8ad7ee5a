import dataclasses

import numpy as np
import pytest
from programs import run_tool

from clouds_tf.data import sample_data, shards, showcase
from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS

SIZE = (28, 42)


@pytest.fixture(scope="module")
def lonely_records(tmp_path_factory):
    """Two images in two folds, so that each fold has one image alone."""
    folder = tmp_path_factory.mktemp("lonely")
    sample_data.write_sample_data(str(folder / "data"), 2, 1, SIZE)
    arguments = {"num_shards": 2, "num_folds": 2, "num_workers": 1}
    shards.write_records(str(folder / "data"), str(folder / "records"), CLOUDS, **arguments)
    return Records.open(str(folder / "records"))


@pytest.mark.slow
def test_every_augmentation_changes_the_image(lonely_records):
    shown = showcase._augment_examples(lonely_records, SIZE)
    originals = [image for image, _ in shown.pop("none")]
    assert (originals[0] != originals[1]).any() and (originals[0] == originals[2]).all()
    assert {"flips", "baseline", "strong", "bend", "cutout", "mixup", "cutmix"} <= set(shown)
    for name, pairs in shown.items():
        assert len(pairs) == 3
        assert any((image != old).any() for (image, _), old in zip(pairs, originals)), name
    for name in ("mixup", "cutmix"):
        assert np.abs(shown[name][0][0].astype(int) - originals[0]).max() > 0, name


def test_layers_of_keras_cv_are_shown_if_asked_for(lonely_records):
    pytest.importorskip("keras_cv", reason="lane two has no keras-cv")
    name = "keras_cv:random_hue"
    shown = showcase._augment_examples(lonely_records, SIZE, num_columns=1, more=[name])
    assert (shown[name][0][0] != shown["none"][0][0]).any()


def test_there_is_a_picture(lonely_records, tmp_path):
    pytest.importorskip("matplotlib")
    output = tmp_path / "a.png"
    flags = f"--records_dir={lonely_records.path}", f"--output={output}", "--image_size=28,42"
    found = run_tool("show_augmentation", *flags, "--num_columns=1")
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"Wrote pictures of the augmentations to {output}\n"
    assert output.stat().st_size > 1000


def test_one_image_cannot_be_mixed(lonely_records):
    info = dataclasses.replace(lonely_records.info, num_examples=1)
    lonely_records = Records(lonely_records.path, info, "")
    with pytest.raises(ValueError, match="has one image, expected two or more to mix"):
        showcase._augment_examples(lonely_records, SIZE)
