import dataclasses
import json

import pytest
import tensorflow as tf

from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.prediction.calibration import Calibration, Curve
from clouds_tf.prediction.metadata import Metadata, read_metadata
from clouds_tf.prediction.postprocessing import Rule

pytestmark = pytest.mark.lanes

METADATA = Metadata(
    dataset=Dataset(("scratch", "pit"), (64, 400), (64, 400), ("Id", "Class"), "Runs", "rows"),
    image_sizes=((32, 200), (64, 400)),
    rules=(Rule(0.4, 0.6, 0.3), Rule()),
    test_time_augmentation="flips",
    max_image_pixels=1000,
    calibration=Calibration((Curve((0, 1), (0, 0.5)), Curve((0, 0.5, 1), (0, 1, 1)))),
    training=({"fold": 0}, {"fold": 1}),
    version=3,
)


def _saved_model(folder, metadata=None):
    """Any SavedModel, with that text as its metadata."""
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(module, str(folder))
    if metadata is not None:
        (folder / "assets.extra").mkdir()
        (folder / "assets.extra" / "metadata.json").write_text(metadata)
    return str(folder)


def test_metadata_come_back(tmp_path):
    path = _saved_model(tmp_path / "1", json.dumps(METADATA.to_json()))
    assert read_metadata(path) == METADATA


def test_programs_of_today_find_classes_and_size_where_they_were():
    fields = METADATA.to_json()
    assert (fields["class_names"], fields["mask_size"]) == (["scratch", "pit"], [64, 400])


def test_a_saved_model_without_a_data_set_is_one_of_the_competition(tmp_path):
    names = ["Fish", "Flower", "Gravel", "Sugar"]
    rule = {"threshold": 0.45, "top_threshold": 0.5, "min_area": 0, "min_presence": 0.0}
    rule.update(min_component_area=0, fill="nothing", remove_gap=False)
    fields = {"version": 2, "schema_version": 2, "class_names": names, "mask_size": [350, 525]}
    fields.update(image_sizes=[[320, 480]], postprocessing=dict.fromkeys(names, rule))
    fields.update(test_time_augmentation="none", max_image_pixels=2**25, training=None)
    found = read_metadata(_saved_model(tmp_path / "2", json.dumps(fields)))
    assert found.dataset == CLOUDS and found.image_sizes == ((320, 480),) and found.version == 2
    assert found.rules == (Rule(0.45),) * 4
    assert found.calibration is None and found.training == ()


def test_a_saved_model_whose_rules_did_more_is_refused_in_words(tmp_path):
    fields = METADATA.to_json()
    fields["postprocessing"]["pit"].update(min_component_area=0, fill="holes", remove_gap=False)
    path = _saved_model(tmp_path / "1", json.dumps(fields))
    with pytest.raises(ValueError, match="fill: got 'holes', .*export again"):
        read_metadata(path)


def test_what_is_no_saved_model_of_ours_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: no SavedModel; expected a folder"):
        read_metadata(str(tmp_path))
    with pytest.raises(ValueError, match="1: not a SavedModel of export: it has no assets.extra"):
        read_metadata(_saved_model(tmp_path / "1"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schema_version": 9}, "schema_version: got 9, expected 2 or 3; export again"),
        ({"dataset": {}}, "metadata.json: dataset: missing .* expected the fields class_names"),
        ({"postprocessing": {}}, "metadata.json: damaged metadata .*scratch"),
        ({"image_sizes": [[3]]}, "metadata.json: .*unpack"),
        ({"calibration": {"scratch": {}}}, "metadata.json: calibration: got the classes"),
    ],
)
def test_damaged_metadata_are_named(tmp_path, change, message):
    text = json.dumps({**METADATA.to_json(), **change})
    with pytest.raises(ValueError, match=message):
        read_metadata(_saved_model(tmp_path / "1", text))


def test_metadata_that_are_no_json_are_named(tmp_path):
    with pytest.raises(ValueError, match="metadata.json: "):
        read_metadata(_saved_model(tmp_path / "1", '{"version": 1, '))


def test_metadata_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        METADATA.version = 4
