"""Losses of logits: functions of (mask, logits), in Keras' order.

Each returns float32 [B], and the loss is the mean over the B examples of the global batch. With
several replicas, sum over the examples of a replica, divide by the global batch size, and sum over
replicas. This also holds for losses of a whole batch (`batch_dice` and so on): their sums are over
all replicas, and the resulting number is returned for each example. So loss and gradients do not
depend on how a batch is divided, even if a replica has fewer examples or none.

The prefix of a name tells what is summed before dividing: no prefix, each image and class;
`present_`, the classes present in an image; `batch_`, the whole batch.

Masks are [B, h, w, C] of {0, 1}, or between for blended examples, of any numeric dtype. Other
numbers raise tf.errors.InvalidArgumentError, except in steps compiled by XLA, which cannot raise.
Logits are [B, h', w', C], and are resized bilinearly if h', w' differ from h, w. `cce` takes an
additional last map, that of the background, which all other losses ignore.
"""

from clouds_tf.models.losses.entropy import presence_bce
from clouds_tf.models.losses.sums import LOSSES, ByClass, OwnScore, WeightedSum, parse

__all__ = ["LOSSES", "ByClass", "OwnScore", "WeightedSum", "parse", "presence_bce"]
