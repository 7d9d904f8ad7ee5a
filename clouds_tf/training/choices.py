"""Names of optimizers and learning-rate schedules, available without importing Keras."""

from __future__ import annotations

from clouds_tf import own
from clouds_tf.lazy import Registry

ADDONS_PREFIX = "addons:"
# Optimizers of tensorflow-addons that take a learning rate and no other optimizer.
_ADDONS = ("AdaBelief", "LAMB", "LazyAdam", "NovoGrad", "ProximalAdagrad", "RectifiedAdam", "Yogi")
# Optimizers that work in both lanes.
KERAS_OPTIMIZERS = ("adam", "adamw", "nadam", "sgd")
# All named optimizers, except addons:NAME.
OPTIMIZERS = (*KERAS_OPTIMIZERS, "lamb", "lookahead", "radam")
# Name -> a function from the finished share of the run (0..1) to a factor on the learning rate.
SCHEDULES = Registry(
    {
        "constant": "clouds_tf.training.schedules:constant",
        "cosine": "clouds_tf.training.schedules:half_cosine",
        "cosine_restarts": "clouds_tf.training.schedules:cosine_restarts",
        "one_cycle": "clouds_tf.training.schedules:one_cycle",
        # `schedules.plateau_factor` lowers it.
        "plateau": "clouds_tf.training.schedules:constant",
    }
)


def check_optimizer(name: str) -> None:
    """Checks the name of an optimizer, without importing tensorflow-addons.

    Raises:
        ValueError: there is no such optimizer.
    """
    known = [*OPTIMIZERS, *(ADDONS_PREFIX + other for other in _ADDONS)]
    if name not in known and not own.is_own(name):
        raise ValueError(
            f"optimizer: got {name!r}, expected one of {', '.join(OPTIMIZERS)}, module:function, "
            f"or {ADDONS_PREFIX}NAME with one of {', '.join(_ADDONS)}"
        )
