"""Constants that are on their way into `Dataset`, which replaces this module."""

from clouds_tf.dataset import (  # noqa: F401
    CLOUDS,
    SAMPLE_SUBMISSION_CSV,
    TEST_CSV,
    TEST_IMAGES,
    TRAIN_CSV,
    TRAIN_IMAGES,
)

CLASS_NAMES = CLOUDS.class_names
NUM_CLASSES = CLOUDS.num_classes
IMAGE_SIZE = CLOUDS.mask_size
SUBMISSION_SIZE = CLOUDS.submission_size
LABEL_COLUMN = CLOUDS.label_columns[0]
RLE_COLUMN = CLOUDS.rle_column
SCHEMA_VERSION = 2
