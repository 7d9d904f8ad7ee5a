"""The Mix Transformer MiT-B0 of SegFormer, with the weights and features of keras-cv's.

Xie et al., "SegFormer", 2021, section 3.1 and table 6. It is written out in plain Keras layers, as
keras-cv's takes square images of one size only.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.encoders import keras_cv_backbones
from clouds_tf.models.encoders.interface import Encoder

layers = keras.layers

_PREFIX = "mit_"
_HEAD_CHANNELS = 32
_SQUARE = 224  # any size divisible by 32 would do, to read weights


@dataclasses.dataclass(frozen=True)
class _Stage:
    """One of the four stages, each of two blocks.

    Attributes:
        heads: number of attention heads.
        patch_size: height and width of the convolution that embeds overlapping patches.
        stride: of that convolution.
        reduction: by which height and width are reduced for keys and values.
    """

    heads: int
    patch_size: int
    stride: int
    reduction: int


_STAGES = (_Stage(1, 7, 4, 8), _Stage(2, 3, 2, 4), _Stage(5, 3, 2, 2), _Stage(8, 3, 2, 1))
_BLOCKS = 2


@keras.utils.register_keras_serializable("clouds_tf")
def approximate_gelu(x: tf.Tensor) -> tf.Tensor:
    """GELU by its approximation with tanh, as in keras-cv."""
    return tf.nn.gelu(x, approximate=True)


@keras.utils.register_keras_serializable("clouds_tf")
class Regroup(keras.layers.Layer):
    """Rearranges maps [B, H, W, C] as keras-cv does on both sides of the reducing convolution.

    keras-cv reads a channels-first sequence as if it were channels-last, so each position of its
    maps holds a run of pixels of one channel. The published weights were trained that way.
    """

    def __init__(self, inverse: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inverse = inverse

    def call(self, x: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(x)
        if self.inverse:  # the convolution's output, which stands for [B, C, H * W]
            x = tf.reshape(x, [shape[0], x.shape[3], -1])
            x = tf.linalg.matrix_transpose(x)
        else:
            x = tf.reshape(x, [shape[0], -1, x.shape[3]])
            x = tf.linalg.matrix_transpose(x)
        return tf.reshape(x, shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "inverse": self.inverse}


@keras.utils.register_keras_serializable("clouds_tf")
class Attention(keras.layers.Layer):
    """Multi-head attention of maps; it has no weights.

    Args:
        heads: number of heads; divides the channels.

    Call arguments:
        inputs: queries [B, H, W, C], keys [B, h, w, C] and values [B, h, w, C].

    Output:
        float [B, H, W, C].
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        channels = inputs[0].shape[3] // self.heads
        query, key, value = (
            tf.reshape(x, [tf.shape(x)[0], -1, self.heads, channels]) for x in inputs
        )
        scores = tf.einsum("bqhc,bkhc->bhqk", query * channels**-0.5, key)
        # In float32, as rounding in a softmax over thousands of positions adds up.
        weights = tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32)), scores.dtype)
        return tf.reshape(tf.einsum("bhqk,bkhc->bqhc", weights, value), tf.shape(inputs[0]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}


def _norm(x: Any, name: str, epsilon: float) -> Any:
    return layers.LayerNormalization(epsilon=epsilon, name=name)(x)


def _attend(x: Any, stage: _Stage, name: str) -> Any:
    """Applies self-attention with keys and values at a lower resolution."""
    channels = x.shape[3]
    query, source = layers.Dense(channels, name=f"{name}_query")(x), x
    if stage.reduction > 1:
        source = Regroup(name=f"{name}_regroup1")(source)
        source = layers.Conv2D(
            channels, stage.reduction, stage.reduction, "same", name=f"{name}_reduce"
        )(source)
        source = Regroup(inverse=True, name=f"{name}_regroup2")(source)
        source = _norm(source, f"{name}_reduce_norm", 1e-3)
    key = layers.Dense(channels, name=f"{name}_key")(source)
    value = layers.Dense(channels, name=f"{name}_value")(source)
    attended = Attention(stage.heads, name=f"{name}_attention")([query, key, value])
    return layers.Dense(channels, name=f"{name}_project")(attended)


def _block(x: Any, stage: _Stage, name: str) -> Any:
    """Applies attention, then two dense layers around a 3x3 depthwise convolution."""
    channels = x.shape[3]
    attended = _attend(_norm(x, f"{name}_norm1", 1e-6), stage, name)
    x = layers.Add(name=f"{name}_add1")([x, attended])
    mixed = layers.Dense(4 * channels, name=f"{name}_expand")(_norm(x, f"{name}_norm2", 1e-6))
    mixed = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depthwise")(mixed)
    mixed = layers.Activation(approximate_gelu, name=f"{name}_gelu")(mixed)
    mixed = layers.Dense(channels, name=f"{name}_shrink")(mixed)
    return layers.Add(name=f"{name}_add2")([x, mixed])


def mit_b0(image: Any, width: float = 1.0) -> list[Any]:
    """Applies a Mix Transformer with two blocks in each of four stages.

    It equals keras-cv's MiTBackbone (3,319,392 parameters at width 1) on square images, and takes
    others too. Its memory grows with the square of the number of pixels.

    Args:
        image: RGB in 0..255, float [B, H, W, 3]; H and W divisible by 32.
        width: multiplies the channels of each attention head, 32 at width 1, in steps of 8.

    Returns:
        Four feature maps at strides 4, 8, 16, 32, with 32, 64, 160, 256 channels at width 1. There
        are none at stride 2, where the U-Net's decoder joins no skip.
    """
    x = layers.Rescaling(1 / 255, name=f"{_PREFIX}scale", dtype="float32")(image)
    features = []
    for number, stage in enumerate(_STAGES, start=1):
        name = f"{_PREFIX}stage{number}"
        x = layers.Conv2D(
            stage.heads * max(8, 8 * round(_HEAD_CHANNELS * width / 8)),
            stage.patch_size,
            stage.stride,
            "same",
            name=f"{name}_embed",
            dtype="float32" if number == 1 else None,
        )(x)
        x = _norm(x, f"{name}_embed_norm", 1e-3)
        for block in range(1, _BLOCKS + 1):
            x = _block(x, stage, f"{name}_block{block}")
        x = _norm(x, f"{name}_norm", 1e-3)
        features.append(x)
    return features


def _named_layers(backbone: Any) -> dict[str, Any]:
    """Layers of keras-cv's MiTBackbone by the names of ours."""
    found: dict[str, Any] = {}
    norms = [layer for layer in backbone.layers if isinstance(layer, layers.LayerNormalization)]
    for number in range(1, len(_STAGES) + 1):
        name = f"{_PREFIX}stage{number}"
        embed = backbone.get_layer(f"patch_and_embed_{number - 1}")
        found |= {f"{name}_embed": embed.proj, f"{name}_embed_norm": embed.norm}
        found[f"{name}_norm"] = norms[number - 1]
        for block in range(1, _BLOCKS + 1):
            theirs = backbone.get_layer(f"hierarchical_encoder_{number - 1}_{block - 1}")
            parts = {
                "norm1": theirs.norm1,
                "query": theirs.attn.q,
                "key": theirs.attn.k,
                "value": theirs.attn.v,
                "project": theirs.attn.proj,
                "norm2": theirs.norm2,
                "expand": theirs.mlp.fc1,
                "depthwise": theirs.mlp.dwconv,
                "shrink": theirs.mlp.fc2,
            }
            if hasattr(theirs.attn, "sr"):
                parts |= {"reduce": theirs.attn.sr, "reduce_norm": theirs.attn.norm}
            found |= {f"{name}_block{block}_{part}": layer for part, layer in parts.items()}
    return found


def _read(path: str) -> dict[str, np.ndarray]:
    """Reads a file of keras-cv as a dict from the names of our variables to arrays."""
    backbone = keras_cv_backbones.models().MiTBackbone(
        include_rescaling=True,
        depths=[_BLOCKS] * len(_STAGES),
        embedding_dims=[stage.heads * _HEAD_CHANNELS for stage in _STAGES],
        input_shape=(_SQUARE, _SQUARE, 3),
    )
    keras_cv_backbones.load_backbone_weights(backbone, path)
    return {
        f"{name}/{re.split('[/:]', weight.name)[-2]}": weight.numpy()
        for name, layer in _named_layers(backbone).items()
        for weight in layer.weights
    }


MIT_B0 = Encoder(
    apply=mit_b0,
    layer_prefixes=(_PREFIX,),
    decoder_momentum=0.9,
    decoder_epsilon=1e-3,
    weights_suffixes=(".h5", ".keras"),
    read_weights=_read,
    published_name=lambda name: name,
    strides=(4, 8, 16, 32),
)
