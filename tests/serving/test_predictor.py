import shutil

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.data import annotations
from clouds_tf.schema import CLASS_NAMES
from clouds_tf.serving import predictor


def _by_length(image_bytes):
    """Stands in for a model: four RLE that tell the length of the file and the class."""
    lengths = tf.strings.as_string(tf.strings.length(image_bytes))
    columns = [tf.strings.join([str(i + 1), " ", lengths]) for i in range(4)]
    # The real one fails on what is not a JPEG too.
    tf.map_fn(tf.io.decode_jpeg, image_bytes, fn_output_signature=tf.uint8)
    return {"encoded_pixels": tf.stack(columns, axis=1)}


def _expected(folder, filename, class_name):
    return f"{CLASS_NAMES.index(class_name) + 1} {(folder / filename).stat().st_size}"


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_rows_are_in_the_order_of_the_sample(data_dir, tmp_path, batch_size):
    names = sorted(path.name for path in (data_dir / "test_images").iterdir())
    labels = [(names[2], "Sugar"), (names[2], "Fish"), (names[0], "Fish"), (names[1], "Gravel")]
    labels += [(names[0], "Flower")]
    sample = str(tmp_path / "sample.csv")
    annotations.write_rows(sample, ((*label, "1 1") for label in labels))
    folder = data_dir / "test_images"
    order = predictor.read_order(sample, str(folder))
    rows = list(predictor.predict_rows(_by_length, str(folder), order, batch_size))
    assert rows == [(*label, _expected(folder, *label)) for label in labels]


def test_a_missing_image_is_named_before_anything_is_predicted(data_dir, tmp_path):
    sample = str(tmp_path / "sample.csv")
    annotations.write_csv(sample, ["none.jpg"], [["1 1"] * 4])
    with pytest.raises(FileNotFoundError, match="none.jpg: no such image, but .*sample.csv names"):
        predictor.read_order(sample, str(data_dir / "test_images"))


def test_an_unreadable_image_is_named(data_dir, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(data_dir / "test_images", folder)
    names = sorted(path.name for path in folder.iterdir())
    (folder / names[1]).write_bytes(b"GIF89a")
    order = [(name, list(CLASS_NAMES)) for name in names]
    with pytest.raises(ValueError, match=f"{names[1]}: not a whole, readable JPEG"):
        list(predictor.predict_rows(_by_length, str(folder), order, 3))


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
