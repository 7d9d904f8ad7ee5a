"""The facts of the data: classes, sizes, CSV columns, keys of the records.

A size is always (height, width), in pixels.
"""

CLASS_NAMES = ("Fish", "Flower", "Gravel", "Sugar")
NUM_CLASSES = len(CLASS_NAMES)

IMAGE_SIZE = (1400, 2100)  # of the images, and of the RLE of train.csv
SUBMISSION_SIZE = (350, 525)  # of the RLE of a submission, and of the metric

# Columns of train.csv and of a submission; a label is "<file name>_<class>".
LABEL_COLUMN = "Image_Label"
RLE_COLUMN = "EncodedPixels"

# A folder of data has the layout of the competition.
TRAIN_CSV = "train.csv"
TRAIN_IMAGES = "train_images"
TEST_CSV = "test.csv"  # only sample data has it: the truth of the test images
TEST_IMAGES = "test_images"
SAMPLE_SUBMISSION_CSV = "sample_submission.csv"

# Keys of a tf.train.Example.
FILENAME_KEY = "image/filename"
ENCODED_KEY = "image/encoded"
HEIGHT_KEY = "image/height"
WIDTH_KEY = "image/width"
RUNS_KEY = "mask/runs"
MASK_HEIGHT_KEY = "mask/height"
MASK_WIDTH_KEY = "mask/width"
FOLD_KEY = "fold"

# Raised whenever the meaning of the records changes.
SCHEMA_VERSION = 2
