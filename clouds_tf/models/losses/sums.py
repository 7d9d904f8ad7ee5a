"""Losses by name, and weighted sums of them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from clouds_tf import own
from clouds_tf.keras import serializable
from clouds_tf.lazy import unconverted
from clouds_tf.models.losses import entropy, overlap
from clouds_tf.models.losses.inputs import prepared

_FUNCTIONS = (
    entropy.bce,
    entropy.cce,
    entropy.weighted_bce,
    entropy.balanced_bce,
    entropy.focal,
    entropy.distance_bce,
    overlap.dice,
    overlap.present_dice,
    overlap.batch_dice,
    overlap.semimetric_dice,
    overlap.batch_semimetric_dice,
    overlap.tversky,
    overlap.batch_tversky,
    overlap.jaccard,
    overlap.batch_jaccard,
    overlap.lovasz,
    overlap.symmetric_lovasz,
)
LOSSES = {function.__name__: function for function in _FUNCTIONS}
_SHORT = {"bce_dice": "bce+batch_dice"}  # the baseline's
_NUMBER = r"\d*\.?\d+(?:e-?\d+)?"
_TERM = re.compile(rf"(?:({_NUMBER})\*)?(\w+|[\w.]+:[\w.]+)(?:\((.*)\))?")
_KNOB = re.compile(rf"(\w+)=({_NUMBER})")


@dataclasses.dataclass(frozen=True)
class OwnScore:
    """A user's function (mask, logits) that returns a number per image; imported when called.

    Attributes:
        setting: the setting that names it, for errors.
        name: "module:function", see `clouds_tf.own`.
    """

    setting: str
    name: str

    @unconverted  # AutoGraph would warn of the import in it
    def __call__(self, mask: tf.Tensor, logits: tf.Tensor, **arguments: float) -> tf.Tensor:
        """Calls the function with float32 mask and logits [B, h, w, C]; returns float32 [B]."""
        found = own.call(self.setting, self.name, *prepared(mask, logits), **arguments)
        values = tf.cast(tf.convert_to_tensor(found), tf.float32)
        if values.shape.rank != 1:
            raise ValueError(
                f"{self.setting}: {self.name} returned the shape {values.shape}, expected [B], "
                "one number per image"
            )
        return values


def _parse_term(
    term: str, spec: str
) -> tuple[float, Callable[..., tf.Tensor], tuple[tuple[str, float], ...]]:
    """Reads one summand, such as "0.5*focal(gamma=3)": weight, loss and arguments."""
    match = _TERM.fullmatch(term)
    weight, name, knobs = match.groups() if match else (None, term, None)
    if name not in LOSSES and not own.is_own(name):
        names = ", ".join([*LOSSES, *_SHORT])
        raise ValueError(
            f"loss: got {name!r} in {spec!r}, expected a sum of {names}, or module:function"
        )
    function = LOSSES.get(name) or OwnScore("loss", name)
    pairs = [_KNOB.fullmatch(knob) for knob in knobs.split(",")] if knobs else []
    arguments = tuple((pair[1], float(pair[2])) for pair in pairs if pair)
    known, are_known = ["NAME"], True  # the call of a user's function checks the names
    if name in LOSSES:
        known = list(inspect.signature(function).parameters)[2:]  # after mask and logits
        are_known = all(knob in known for knob, _ in arguments)
    if len(arguments) < len(pairs) or not are_known:
        expected = ", ".join(f"{knob}=NUMBER" for knob in known) or "nothing"
        raise ValueError(f"loss: got {name}({knobs}), expected {expected} in the brackets")
    if float(weight or 1) == 0:
        raise ValueError(f"loss: got {weight}*{name} in {spec!r}, expected a weight above 0")
    return float(weight or 1), function, arguments


@serializable
class WeightedSum:
    """Weighted sum of losses, as read by `parse`; Keras saves it with a model."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.__name__ = re.sub(r"\W+", "_", spec)  # required by Keras
        terms = _SHORT.get(spec, spec).replace(" ", "").split("+")
        self._terms = tuple(_parse_term(term, spec) for term in terms)

    def __call__(self, mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Computes the loss of each example, float32 [B]."""
        return tf.add_n(
            [weight * loss(mask, logits, **dict(knobs)) for weight, loss, knobs in self._terms]
        )

    def uses(self, name: str) -> bool:
        """Whether a loss of LOSSES is among the terms."""
        return any(loss is LOSSES[name] for _, loss, _ in self._terms)

    def __repr__(self) -> str:
        return f"losses.parse({self.spec!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightedSum) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(self._terms)

    def get_config(self) -> dict[str, Any]:
        return {"spec": self.spec}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WeightedSum:
        return cls(**config)


@dataclasses.dataclass(frozen=True)
class ByClass:
    """Weighted mean over classes of a loss that is computed for each class separately.

    With equal weights, losses that are means over classes, such as "bce" and "dice", are unchanged.
    The `batch_` losses sum over the images and pixels of one class at a time.

    Attributes:
        loss: a function (mask, logits) -> float32 [B].
        weights: one weight per class; they are normalised by their sum.
    """

    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    weights: tuple[float, ...]

    def __call__(self, mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Computes the loss of each example, float32 [B]."""
        each = [
            weight / sum(self.weights) * self.loss(mask[..., i : i + 1], logits[..., i : i + 1])
            for i, weight in enumerate(self.weights)
            if weight
        ]
        return tf.add_n(each)


def parse(spec: str) -> WeightedSum:
    """Parses a loss such as "0.75*bce+0.25*dice" or "focal(gamma=3)+lovasz".

    Args:
        spec: a sum of terms WEIGHT*NAME(ARGUMENT=NUMBER,...), in which weight and arguments are
            optional. NAME is a key of LOSSES, or "module:function" for a function of the user with
            the same arguments and result, which gets float32 of one size. "bce_dice" is short for
            the baseline's "bce+batch_dice".

    Returns:
        A function of (mask, logits) that returns float32 [B]. It raises ValueError if a user's
        function is not found or returns something else.

    Raises:
        ValueError: a name or an argument is unknown, or a weight is 0; the message lists the known
            names.

    >>> loss = parse("0.75*bce+0.25*dice(smooth=2)")
    >>> loss
    losses.parse('0.75*bce+0.25*dice(smooth=2)')
    >>> loss(tf.ones([2, 8, 8, 4]), tf.zeros([2, 8, 8, 4])).shape
    TensorShape([2])
    """
    return WeightedSum(spec)
