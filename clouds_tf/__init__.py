"""Cloud patterns in satellite images: from annotated images to masks, maps and a climatology.

The rooms, from the ground floor up. A module imports only from floors below its own.

    lazy, gfile, own                  delayed imports; paths; a user's functions by name
    settings, messages                fields with bounds and help; errors in one line
    dataset, keras, files             facts of a data set; the door to Keras; files written whole
    client                            requests to a running server, without TensorFlow
    rle, figures                      run-length encoding as graph ops; pictures in one style
    data, models                      train.csv -> batches; batches -> logits and loss
    prediction                        a SavedModel as a value, post-processing and calibration
    training                          recipe, training loop, checkpoints
    serving, exploration              SavedModel and submission; a report on a data folder
    evaluation, scenes, server        rules and scores; georeferenced scenes; a server over HTTP
    climatology                       frequencies on a grid, maps, tracks
    tools/                            the command-line programs
"""

__version__ = "0.2.0"
