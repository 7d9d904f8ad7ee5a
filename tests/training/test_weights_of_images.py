"""Weights of images and of classes in the loss."""

import re

import numpy as np
import pytest
import tensorflow as tf
from program import batches, trainer

from clouds_tf.data.records import Records
from clouds_tf.data.sample_weights import read_sample_weights
from clouds_tf.models import losses
from clouds_tf.training import Recipe, train

SIZE = (16, 24)


@pytest.fixture
def table(records_dir, tmp_path):
    """The weights of all images, 1, 2, 3, ..., and their CSV."""
    names = Records.open(records_dir).first_names([0, 1, 2])
    weights = {name: number for number, name in enumerate(names, start=1)}
    path = tmp_path / "weights.csv"
    path.write_text("image,weight\n" + "".join(f"{k},{v}\n" for k, v in weights.items()))
    return weights, str(path)


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_batches_have_the_weights_of_their_images(records_dir, table, cache):
    weights, path = table
    assert read_sample_weights(path) == weights
    records, folds = Records.open(records_dir), [1, 2]
    data = records.training_batches(folds, SIZE, 3, 2, sample_weights=weights, cache=cache)
    steps = records.steps_per_epoch(folds, 3)
    for number, (images, _, found) in enumerate(data):
        names = records.batch_names(folds, 3, 0, *divmod(number, steps))
        assert len(images) == len(names)
        np.testing.assert_array_equal(found, [weights[name] for name in names])


def _csv(*rows):
    return "image,weight\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    "text, fault",
    [
        ("name,weight\na,1\n", ": no column 'image', got 'name', 'weight'"),
        (_csv("a,1", "b,x"), ", line 3: b: weight: got 'x', expected >= 0"),
        (_csv("a,-1"), ", line 2: a: weight: got '-1', expected >= 0"),
        (_csv("a,nan"), ", line 2: a: weight: got 'nan', expected >= 0"),
        (_csv("a,1", "a,2"), ", line 3: second row for a"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(text, fault, tmp_path):
    path = tmp_path / "w.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}{fault}"):
        read_sample_weights(str(path))


def test_weights_of_other_images_are_refused(records_dir, table, tmp_path):
    weights, path = table
    records = Records.open(records_dir)
    first = min(records.first_names([0]))
    wrong = [
        ({**weights, "x.jpg": 1}, "1 image not in the records, the first is x.jpg"),
        ({k: v for k, v in weights.items() if k != first}, f"without a weight, .* {first}"),
        (dict.fromkeys(weights, 0), "all training images have the weight 0"),
    ]
    for given, fault in wrong:
        with pytest.raises(ValueError, match=f"^sample_weights: .*{fault}"):
            records.training_batches([0, 1], SIZE, 3, 1, sample_weights=given)
    with open(path, "a") as file:
        file.write("x.jpg,1\n")
    recipe = Recipe(encoder="tiny", width=0.125, image_size=SIZE, sample_weights=path)
    with pytest.raises(ValueError, match="^sample_weights: .*x.jpg"):
        train(records_dir, str(tmp_path / "W"), recipe)
    assert not (tmp_path / "W").exists()


def test_weights_multiply_the_losses_of_their_images():
    (images, masks), stop = next(iter(batches([3]))), tf.constant(0.0)
    weighted = trainer(loss="bce+batch_dice")
    outputs = weighted.model(images, training=True)
    each = losses.parse("bce+batch_dice")(masks, outputs["logits"])
    each += 0.1 * losses.presence_bce(masks, outputs["presence_logits"])
    loss, _ = weighted.step(images, masks, tf.constant([2.0, 0, 1]), stop)
    assert float(loss) == pytest.approx(float((2 * each[0] + each[2]) / 3), rel=1e-5)
    assert weighted.meter.result()["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_class_weights_weigh_the_loss_of_each_class():
    mask = tf.cast(tf.random.stateless_uniform([3, 6, 8, 2], [1, 2]) < 0.5, tf.float32)
    logits = tf.random.stateless_normal([3, 6, 8, 2], [3, 4])
    for name in ("bce", "dice", "lovasz", "focal"):
        loss = losses.parse(name)
        one, other = (loss(mask[..., i : i + 1], logits[..., i : i + 1]) for i in (0, 1))
        found = losses.ByClass(loss, (1.0, 3.0))(mask, logits)
        np.testing.assert_allclose(found, (one + 3 * other) / 4, rtol=1e-5)
        np.testing.assert_allclose(
            losses.ByClass(loss, (2.0, 2.0))(mask, logits), loss(mask, logits), rtol=1e-5
        )


def test_class_weights_that_do_not_fit_are_refused():
    assert Recipe(class_weights=[1, 2]).class_weights == (1.0, 2.0)
    for weights, fault in (([1, -1], "numbers >= 0"), ([0, 0], "not all 0"), (["a"], "numbers")):
        with pytest.raises(ValueError, match=f"^class_weights: got .*{fault}"):
            Recipe(class_weights=weights)
    with pytest.raises(ValueError, match="^class_weights: got 2, expected one for each of Fish"):
        trainer(class_weights=[1, 2])
