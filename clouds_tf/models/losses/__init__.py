"""Losses from logits, as functions of (mask, logits) in Keras' order.

Each returns float32 [B]; the loss is the mean over all B examples of the global batch: under
several replicas, sum over the examples of a replica, divide by the global batch size, and sum over
replicas. That holds for the losses of a whole batch too (`batch_dice` and so on): their sums go
over all replicas, and the one number that follows stands for each example. So loss and gradients
do not depend on how a batch is divided, not even where a replica has less or nothing.

Prefixes of the names say what is summed before dividing: without a prefix, each image and class;
`present_`, the classes present in an image; `batch_`, the whole batch.

Masks are [B, h, w, C] of {0, 1}, or anything between for blended examples, of any numeric dtype;
other numbers raise tf.errors.InvalidArgumentError, except in steps compiled by XLA, which cannot
raise. Logits are [B, h', w', C], resized bilinearly where h', w' differ from h, w. `cce` alone
takes one more map, the background's, which all others leave out.
"""

from clouds_tf.models.losses.entropy import presence_bce
from clouds_tf.models.losses.sums import LOSSES, ByClass, OwnScore, WeightedSum, parse

__all__ = ["LOSSES", "ByClass", "OwnScore", "WeightedSum", "parse", "presence_bce"]
