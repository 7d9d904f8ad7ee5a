"""Trains a model by a recipe on a folder of records; results are in a workdir."""

import typing

from clouds_tf.lazy import face

if typing.TYPE_CHECKING:
    from clouds_tf.training.recipe import Execution, Recipe
    from clouds_tf.training.runs import TrainingResult, folds_table, train, train_folds

__all__ = ["Execution", "Recipe", "TrainingResult", "folds_table", "train", "train_folds"]

__getattr__ = face(
    __name__,
    {
        "recipe": ["Execution", "Recipe"],
        "runs": ["TrainingResult", "folds_table", "train", "train_folds"],
    },
)
