"""A user's function as an augmentation: traced once, and checked before it runs."""

from __future__ import annotations

import tensorflow as tf

from clouds_tf import own
from clouds_tf.data.mixing import Seed

# Operations whose numbers depend on what was drawn before.
_UNSEEDED = (
    *("Random", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial"),
    *("StatefulUniform", "StatefulStandard", "StatefulTruncated", "StatefulRandom"),
)


@tf.autograph.experimental.do_not_convert  # as everything in a pipeline of `Records`
def apply_own(spec: str, example: dict[str, tf.Tensor], seed: Seed) -> dict[str, tf.Tensor]:
    """Applies a user's augmentation and checks what it returns.

    Args:
        spec: "module:function", see `clouds_tf.own`.
        example: a dict with image and mask.
        seed: int [2].

    Raises:
        ValueError: it returns other names, shapes or dtypes, or draws numbers that do not follow
            from the seed.
    """
    pair = {name: example[name] for name in ("image", "mask")}
    seed = tf.convert_to_tensor(seed)
    function = own.find_for("augmentation", spec, pair, seed)
    step = tf.function(lambda *args: function(*args)).get_concrete_function(pair, seed)
    graph = step.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    drawn = sorted({node.op for node in nodes if node.op.startswith(_UNSEEDED)})
    if drawn:
        raise ValueError(
            f"augmentation: {spec} draws with {drawn[0]}, which a resumed run would not repeat; "
            "use tf.random.stateless_uniform and its relatives with the seed"
        )
    expected = {name: (x.dtype, x.shape) for name, x in pair.items()}
    found = step.structured_outputs
    if not isinstance(found, dict) or {k: (x.dtype, x.shape) for k, x in found.items()} != expected:
        raise ValueError(f"augmentation: {spec} returned {found}, expected {pair}")
    return {**example, **step(pair, seed)}
