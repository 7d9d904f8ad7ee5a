import numpy as np
import pytest

from clouds_tf.keras import keras
from clouds_tf.models import losses
from clouds_tf.models.losses import entropy, overlap

pytestmark = pytest.mark.lanes

RNG = np.random.default_rng(0)
MASK = RNG.integers(0, 2, [2, 4, 5, 4], dtype=np.uint8)
LOGITS = RNG.normal(size=MASK.shape).astype(np.float32)


@pytest.mark.parametrize(
    "spec, terms",
    [
        ("bce", [(1, entropy.bce, {})]),
        ("bce_dice", [(1, entropy.bce, {}), (1, overlap.batch_dice, {})]),
        ("0.75*bce+0.25*dice", [(0.75, entropy.bce, {}), (0.25, overlap.dice, {})]),
        ("focal + .5*lovasz", [(1, entropy.focal, {}), (0.5, overlap.lovasz, {})]),
        (
            "2*focal(gamma=3,alpha=0.5)+1e-1*tversky(beta=0.7)",
            [(2, entropy.focal, {"gamma": 3, "alpha": 0.5}), (0.1, overlap.tversky, {"beta": 0.7})],
        ),
    ],
)
def test_sums(spec, terms):
    expected = sum(a * loss(MASK, LOGITS, **knobs) for a, loss, knobs in terms)
    np.testing.assert_allclose(losses.parse(spec)(MASK, LOGITS), expected, rtol=1e-6)


@pytest.mark.parametrize("spec", ["cross_entropy", "bce+cross_entropy", "2cross_entropy"])
def test_an_unknown_name_lists_those_that_are_known(spec):
    with pytest.raises(ValueError, match="loss: got '.*cross_entropy' in .*a sum of bce, .*lovasz"):
        losses.parse(spec)


@pytest.mark.parametrize(
    "spec", ["", "bce+", "bce*2", "-1*bce", "0*bce", "bce+0.0*dice", "bce dice", "focal(gamma=3"]
)
def test_what_is_no_sum_is_refused(spec):
    with pytest.raises(ValueError, match="loss: got "):
        losses.parse(spec)


@pytest.mark.parametrize("knob", ["delta=3", "gamma", "gamma=x", "mask=1"])
def test_an_unknown_knob_lists_those_that_are_known(knob):
    with pytest.raises(ValueError, match=rf"got focal\({knob}\), expected gamma=NUMBER, alpha=NUM"):
        losses.parse(f"focal({knob})")


def test_a_loss_prints_as_what_makes_it():
    loss = losses.parse("0.75*bce+0.25*dice")
    assert repr(loss) == "losses.parse('0.75*bce+0.25*dice')"
    assert loss == losses.parse("0.75*bce + 0.25*dice") != losses.parse("bce+dice")


def test_a_loss_without_knobs_says_so():
    with pytest.raises(ValueError, match=r"got lovasz\(beta=1\), expected nothing in the brackets"):
        losses.parse("lovasz(beta=1)")


@pytest.mark.parametrize("save_format", ["keras", "h5", "tf"])
def test_saved_models_are_loaded_without_custom_objects(tmp_path, save_format):
    path = str(tmp_path / ("model" + {"keras": ".keras", "h5": ".h5", "tf": ""}[save_format]))
    image = keras.Input([4, 5, 3])
    model = keras.Model(image, keras.layers.Conv2D(4, 1)(image))
    model.compile("sgd", losses.parse("0.75*bce+0.25*dice"))
    images = RNG.normal(size=[2, 4, 5, 3])
    model.save(path, save_format=save_format)
    loaded = keras.models.load_model(path)
    assert loaded.evaluate(images, MASK, verbose=0) == pytest.approx(
        model.evaluate(images, MASK, verbose=0), rel=1e-5
    )
    expected = 0.75 * entropy.bce(MASK, model(images)) + 0.25 * overlap.dice(MASK, model(images))
    assert loaded.evaluate(images, MASK, verbose=0) == pytest.approx(np.mean(expected), rel=1e-5)
