"""Cloud patterns in satellite images: from annotated images to masks, maps and a climatology.

Modules and subpackages by layer, from the lowest up. A module imports only from lower layers.

    lazy, gfile, own                  delayed imports; paths; a user's functions by name
    settings, messages                settings with bounds and help; one-line messages
    dataset, keras, files             description of a data set; access to Keras; atomic writes
    client                            requests to a running server, without TensorFlow
    rle, figures                      run-length encoding as graph ops; figures and reports
    data, models                      input pipeline; U-Net, losses and metrics
    prediction                        SavedModels, post-processing and calibration
    training                          recipe, training loop, checkpoints
    serving, exploration              export and submissions; a report on a data folder
    evaluation, scenes, server        rules and scores; georeferenced scenes; an HTTP server
    climatology                       frequencies on a grid, maps, tracks
    tools/                            the command-line programs
"""

__version__ = "0.2.0"
