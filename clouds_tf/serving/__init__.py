"""A trained model -> a SavedModel, and a SavedModel -> submission.csv."""
