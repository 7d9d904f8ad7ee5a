"""Predicts georeferenced scenes of any size (extra `geo`)."""

import typing

from clouds_tf.lazy import face

if typing.TYPE_CHECKING:
    from clouds_tf.scenes.jobs import Options
    from clouds_tf.scenes.predict import ScenesResult, predict_scenes
    from clouds_tf.scenes.read import open_scene
    from clouds_tf.scenes.scene import Reading, Scene

__all__ = ["Options", "Reading", "Scene", "ScenesResult", "open_scene", "predict_scenes"]

__getattr__ = face(
    __name__,
    {
        "jobs": ["Options"],
        "predict": ["ScenesResult", "predict_scenes"],
        "read": ["open_scene"],
        "scene": ["Reading", "Scene"],
    },
)
