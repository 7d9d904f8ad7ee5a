"""Georeferenced scenes of any size -> masks with longitude and latitude (extra `geo`)."""

from clouds_tf.scenes.jobs import Options
from clouds_tf.scenes.predict import ScenesResult, predict_scenes
from clouds_tf.scenes.read import open_scene
from clouds_tf.scenes.scene import Reading, Scene

__all__ = ["Options", "Reading", "Scene", "ScenesResult", "open_scene", "predict_scenes"]
