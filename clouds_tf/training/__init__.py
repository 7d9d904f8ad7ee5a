"""Training: a recipe and a folder of records -> a trained model in a workdir."""

from clouds_tf.training.recipe import Execution, Recipe
from clouds_tf.training.runs import TrainingResult, folds_table, train, train_folds

__all__ = ["Execution", "Recipe", "TrainingResult", "folds_table", "train", "train_folds"]
