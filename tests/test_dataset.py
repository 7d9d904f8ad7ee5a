import dataclasses
import json

import pytest

from clouds_tf.dataset import CLOUDS, Dataset

pytestmark = pytest.mark.lanes

STEEL = Dataset(
    class_names=("pitted", "crazed", "scratched"),
    mask_size=(256, 1600),
    submission_size=(256, 1600),
    label_columns=("ImageId", "ClassId"),
    rle_order="rows",
)


@pytest.mark.parametrize("dataset", [CLOUDS, STEEL])
def test_json_and_back(dataset):
    assert Dataset.from_json(json.loads(json.dumps(dataset.to_json()))) == dataset


def test_columns_are_those_of_the_csv():
    assert CLOUDS.columns == ("Image_Label", "EncodedPixels")
    assert STEEL.columns == ("ImageId", "ClassId", "EncodedPixels") and STEEL.num_classes == 3


def test_a_dataset_is_hashable_and_frozen():
    assert {CLOUDS: 1}[dataclasses.replace(CLOUDS)] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        CLOUDS.mask_size = (1, 2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"class_names": ()}, "class_names: got .*, expected 1 to 32 unique names"),
        ({"class_names": tuple(map(str, range(33)))}, "class_names: .*expected 1 to 32"),
        ({"class_names": ("a", "a")}, "class_names: .*unique"),
        ({"class_names": "Fish"}, "class_names: got 'Fish', expected a list of names"),
        ({"label_columns": "ID"}, "label_columns: got 'ID', expected a list of names"),
        ({"mask_size": (0, 4)}, r"mask_size: got \(0, 4\), expected \(height, width\)"),
        ({"submission_size": (4,)}, r"submission_size: got \(4,\), expected \(height, width\)"),
        ({"mask_size": 4}, r"mask_size: got 4, expected \(height, width\)"),
        ({"label_columns": ()}, r"label_columns: got \(\), expected one or two different columns"),
        ({"label_columns": ("A", "A")}, "label_columns: .*different"),
        ({"rle_column": "Image_Label"}, "rle_column: got 'Image_Label', which is a label column"),
        ({"rle_order": "C"}, "rle_order: got 'C', expected one of columns, rows"),
        ({"gap_brightness": 256}, "gap_brightness: got 256, expected 0 to 255"),
        ({"class_names": (1, 2)}, "class_names: got 1, expected names in quotes"),
        ({"class_names": ("1", None)}, "class_names: got None, expected names in quotes"),
        ({"rle_column": ["RLE"]}, "rle_column: got .'RLE'., expected the name of a column"),
        ({"gap_brightness": "2"}, "gap_brightness: got '2', expected a whole number or null"),
        ({"degrees": (1.0,)}, r"degrees: got \(1.0,\), expected \(latitude, longitude\)"),
    ],
)
def test_impossible_fields_are_named(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        dataclasses.replace(CLOUDS, **change)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"class_names": ["a"]}, "dataset: missing .*mask_size.*; expected the fields class_names"),
        ({**CLOUDS.to_json(), "colour": 1}, "dataset: got an unexpected .*colour.*; expected the"),
        ([], r"dataset: got \[\], expected a dict"),
    ],
)
def test_json_of_something_else_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Dataset.from_json(fields)
