"""Losses by name, and weighted sums of them."""

import inspect
import re

import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.losses import entropy, hinge, overlap, separation

_FUNCTIONS = (
    entropy.bce,
    entropy.weighted_bce,
    entropy.balanced_bce,
    entropy.focal,
    separation.distance_bce,
    overlap.dice,
    overlap.present_dice,
    overlap.batch_dice,
    overlap.tversky,
    overlap.batch_tversky,
    overlap.jaccard,
    overlap.batch_jaccard,
    hinge.lovasz,
    hinge.symmetric_lovasz,
)
LOSSES = {function.__name__: function for function in _FUNCTIONS}
_SHORT = {"bce_dice": "bce+batch_dice"}  # the baseline's
_NUMBER = r"\d*\.?\d+(?:e-?\d+)?"
_TERM = re.compile(rf"(?:({_NUMBER})\*)?(\w+)(?:\((.*)\))?")
_KNOB = re.compile(rf"(\w+)=({_NUMBER})")


def _parse_term(term, spec):
    """One term -> (weight, function, its knobs)."""
    match = _TERM.fullmatch(term)
    weight, name, knobs = match.groups() if match else (None, term, None)
    if name not in LOSSES:
        known = ", ".join([*LOSSES, *_SHORT])
        raise ValueError(f"loss: got {name!r} in {spec!r}, expected a sum of {known}")
    function = LOSSES[name]
    known = list(inspect.signature(function).parameters)[2:]  # after mask and logits
    pairs = [_KNOB.fullmatch(knob) for knob in knobs.split(",")] if knobs else []
    if not all(pair and pair[1] in known for pair in pairs):
        expected = ", ".join(f"{knob}=NUMBER" for knob in known) or "nothing"
        raise ValueError(f"loss: got {name}({knobs}), expected {expected} in the brackets")
    if float(weight or 1) == 0:
        raise ValueError(f"loss: got {weight}*{name} in {spec!r}, expected a weight above 0")
    return float(weight or 1), function, {pair[1]: float(pair[2]) for pair in pairs}


@keras.utils.register_keras_serializable("clouds_tf")
class WeightedSum:
    """A sum of losses as `parse` reads it, which Keras saves with a model and loads again."""

    def __init__(self, spec):
        self.spec = spec
        self.__name__ = re.sub(r"\W+", "_", spec)  # Keras wants one
        terms = _SHORT.get(spec, spec).replace(" ", "").split("+")
        self._terms = [_parse_term(term, spec) for term in terms]

    def __call__(self, mask, logits):
        return tf.add_n([a * loss(mask, logits, **knobs) for a, loss, knobs in self._terms])

    def __repr__(self):
        return f"losses.parse({self.spec!r})"

    def __eq__(self, other):
        return isinstance(other, WeightedSum) and self._terms == other._terms

    def __hash__(self):
        return hash(self.spec)

    def get_config(self):
        return {"spec": self.spec}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def parse(spec):
    """Reads a loss such as "0.75*bce+0.25*dice" or "focal(gamma=3)+lovasz".

    Args:
        spec: names in LOSSES joined by "+", each after a weight and "*" if it is not 1, and before
            its keyword arguments in brackets if they are not the usual ones; or "bce_dice", short
            for the baseline's "bce+batch_dice".

    Returns:
        A function of (mask, logits) that gives float32 [B], as every loss does.

    Raises:
        ValueError: a name or an argument is unknown; the error lists those that are known.
    """
    return WeightedSum(spec)
