"""Masks of the four cloud patterns, from train.csv to submission.csv, in plain TensorFlow.

The rooms, from the ground floor up. A module imports only from floors below its own.

    schema                            names, sizes, columns and keys: the facts of the data
    rle, figures                      run-length encoding as graph ops; pictures in one style
    data, models                      train.csv -> batches; batches -> logits and loss
    training, serving, exploration    fit; SavedModel and submission; a look at the data
    evaluation                        held-out predictions -> post-processing and scores
    tools/                            the command-line programs, where the rooms meet
"""
