"""Description of a data set: classes, sizes, CSV format, run-length order, ground resolution.

A size is always (height, width) in pixels.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from clouds_tf.settings import check_size

# Names in a data folder of the competition; other data sets may use other names.
TRAIN_CSV = "train.csv"
TRAIN_IMAGES = "train_images"
TEST_CSV = "test.csv"  # true masks of the test images, in sample data only
TEST_IMAGES = "test_images"
SAMPLE_SUBMISSION_CSV = "sample_submission.csv"

MAX_CLASSES = 32
MAX_CHANNELS = 16
_CHOICES = {
    "rle_order": ("columns", "rows"),
    "rle_start": (0, 1),
    "rle_runs": ("absolute", "relative"),
    "missing_rows": ("error", "absent"),
    "repeated_rows": ("error", "union", "objects"),
}
# Fields of the first version, which are always in the JSON. Other fields are omitted if they have
# their defaults, so that records of earlier versions keep their identity.
_ALWAYS_WRITTEN = (
    "class_names",
    "mask_size",
    "submission_size",
    "label_columns",
    "rle_column",
    "rle_order",
    "gap_brightness",
    "degrees",
)


def is_photographic(channels: int) -> bool:
    """Whether images with that many channels are JPEG or PNG files; all others are NumPy files."""
    return channels in (1, 3)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Description of a data set, for every stage from the CSV to the submission.

    >>> steel = Dataset(
    ...     class_names=("pitted", "crazed", "scratched"),
    ...     mask_size=(256, 1600),
    ...     submission_size=(256, 1600),
    ...     label_columns=("ImageId", "ClassId"),
    ... )
    >>> steel.num_classes, steel.columns
    (3, ('ImageId', 'ClassId', 'EncodedPixels'))
    >>> Dataset.from_json(steel.to_json()) == steel
    True

    Attributes:
        class_names: 1 to 32 class names, in the order of the mask channels.
        mask_size: (height, width) of the masks that the RLE of the annotations encodes.
        submission_size: (height, width) of the masks of a submission, and of the metric.
        label_columns: one column "<file name>_<class>", or two columns, the file name and the
            class; or, with names_class=False, one column with the file name.
        rle_column: column of the run-length encodings.
        rle_order: "columns" if runs count down the columns (column-major), "rows" if they count
            along the rows.
        gap_brightness: pixels whose channels are all at most this value (0 to 255) belong to the
            black gap between two orbits; None for images without gaps.
        degrees: (latitude, longitude) extent of a whole image in degrees; None if images have no
            common ground resolution.
        names_class: whether rows name their class; optional in data sets with one class.
        image_ending: file extension of the images, such as ".png", if file names in the CSV lack
            it.
        absent: cell of an absent class, such as "-1"; an empty cell always means that, too.
        missing_rows: "error"; or "absent" if a class without a row is absent, and an image without
            any row shows no class.
        repeated_rows: "error"; or "union" if several rows of an image and class are one mask; or
            "objects" if, in addition, a submission has a row for each connected component.
        rle_start: number of the first pixel of a mask, 1 or 0.
        rle_runs: "absolute", or "relative" if each start counts from the end of the previous run.
        train_csv: the CSV of annotations in a data folder.
        train_images: folder of the training images in a data folder.
        test_images: folder of the test images in a data folder.
        channels: number of channels, 1 to 16. Images with 1 (grey) or 3 (RGB) are JPEG or PNG
            files; others are NumPy files, uint8 [height, width, channels].
        exclusive: whether a pixel belongs to at most one class. Then the probabilities of all
            classes and of the background sum to 1, and masks never overlap.
    """

    class_names: tuple[str, ...]
    mask_size: tuple[int, int]
    submission_size: tuple[int, int]
    label_columns: tuple[str, ...] = ("Image_Label",)
    rle_column: str = "EncodedPixels"
    rle_order: str = "columns"
    gap_brightness: int | None = None
    degrees: tuple[float, float] | None = None
    names_class: bool = True
    image_ending: str = ""
    absent: str = ""
    missing_rows: str = "error"
    repeated_rows: str = "error"
    rle_start: int = 1
    rle_runs: str = "absolute"
    train_csv: str = TRAIN_CSV
    train_images: str = TRAIN_IMAGES
    test_images: str = TEST_IMAGES
    channels: int = 3
    exclusive: bool = False

    def __post_init__(self) -> None:
        for field in ("class_names", "label_columns"):
            if isinstance(getattr(self, field), str):
                raise ValueError(f"{field}: got {getattr(self, field)!r}, expected a list of names")
        for field in ("class_names", "mask_size", "submission_size", "label_columns", "degrees"):
            value = getattr(self, field)
            if isinstance(value, list):  # from JSON
                object.__setattr__(self, field, tuple(value))
        for field, kinds, expected in (
            ("class_names", str, "names in quotes"),
            ("label_columns", str, "names of columns"),
            ("rle_column", str, "the name of a column"),
            ("gap_brightness", (int, type(None)), "a whole number or null"),
            ("degrees", (int, float, type(None)), "two numbers or null"),
            ("image_ending", str, "an ending such as '.png'"),
            ("absent", str, "the text of a cell"),
            ("train_csv", str, "the name of a file"),
            ("train_images", str, "the name of a folder"),
            ("test_images", str, "the name of a folder"),
            ("channels", int, f"a whole number from 1 to {MAX_CHANNELS}"),
        ):
            value = getattr(self, field)
            for item in value if isinstance(value, tuple) else [value]:
                if not isinstance(item, kinds) or isinstance(item, bool):
                    raise ValueError(f"{field}: got {item!r}, expected {expected}")
        for field in ("mask_size", "submission_size"):
            check_size(field, getattr(self, field))
        for field, choices in _CHOICES.items():
            value = getattr(self, field)
            if value not in choices or isinstance(value, bool):
                expected = ", ".join(map(str, choices))
                raise ValueError(f"{field}: got {value!r}, expected one of {expected}")
        self._check_rows()
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(f"channels: got {self.channels}, expected 1 to {MAX_CHANNELS}")
        if self.gap_brightness is not None and not 0 <= self.gap_brightness <= 255:
            raise ValueError(f"gap_brightness: got {self.gap_brightness}, expected 0 to 255")
        degrees = self.degrees
        is_span = isinstance(degrees, tuple) and len(degrees) == 2 and min(degrees) > 0
        if degrees is not None and not is_span:
            raise ValueError(
                f"degrees: got {degrees}, expected (latitude, longitude) above 0, or None"
            )

    def _check_rows(self) -> None:
        """Raises ValueError for contradictory fields about the rows of a CSV."""
        names, columns = self.class_names, self.label_columns
        if not 1 <= len(names) <= MAX_CLASSES or len(set(names)) < len(names) or "" in names:
            raise ValueError(f"class_names: got {names}, expected 1 to {MAX_CLASSES} unique names")
        if not 1 <= len(columns) <= 2 or len(set(columns)) < len(columns):
            raise ValueError(f"label_columns: got {columns}, expected one or two different columns")
        if self.rle_column in columns:
            raise ValueError(f"rle_column: got {self.rle_column!r}, which is a label column")
        for field in ("names_class", "exclusive"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"{field}: got {getattr(self, field)!r}, expected true or false")
        if not self.names_class and (len(names), len(columns)) != (1, 1):
            raise ValueError(
                f"names_class: got False with {len(names)} classes and the label columns "
                f"{', '.join(columns)}; expected one class and one column"
            )
        if self.image_ending and not self.image_ending.startswith("."):
            raise ValueError(
                f"image_ending: got {self.image_ending!r}, expected it to begin with ."
            )
        if re.fullmatch(r"\s*(\d+\s+\d+\s*)+", self.absent):
            raise ValueError(f"absent: got {self.absent!r}, which is the RLE of a mask")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the CSV of annotations and of a submission, in their order."""
        return (*self.label_columns, self.rle_column)

    @property
    def image_endings(self) -> tuple[str, ...]:
        """Endings of image files, in lower case.

        >>> CLOUDS.image_endings, dataclasses.replace(CLOUDS, channels=4).image_endings
        (('.jpg', '.jpeg', '.png'), ('.npy',))
        """
        return (".jpg", ".jpeg", ".png") if is_photographic(self.channels) else (".npy",)

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of `unet` that follow from the data set; defaults are left out.

        >>> CLOUDS.model_arguments()
        {'num_classes': 4}
        """
        names = [n for n in ("channels", "exclusive") if getattr(self, n) != getattr(CLOUDS, n)]
        return {"num_classes": self.num_classes, **{name: getattr(self, name) for name in names}}

    def label(self, filename: str, class_name: str) -> tuple[str, ...]:
        """Cells of the label columns of one row of a CSV.

        >>> CLOUDS.label("0011165.jpg", "Fish")
        ('0011165.jpg_Fish',)
        """
        filename = filename.removesuffix(self.image_ending)
        if not self.names_class:
            return (filename,)
        if len(self.label_columns) == 1:
            return (f"{filename}_{class_name}",)
        return filename, class_name

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `from_json` reads."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
            if key in _ALWAYS_WRITTEN or value != getattr(type(self), key)
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Dataset:
        """Reads what `to_json` wrote; ValueError for unknown or missing fields."""
        if not isinstance(fields, dict):
            raise ValueError(f"dataset: got {fields!r}, expected a dict")
        try:
            return cls(**fields)
        except TypeError as error:
            known = ", ".join(field.name for field in dataclasses.fields(cls))
            reason = re.sub(r"^.*__init__\(\) ", "", str(error))
            raise ValueError(f"dataset: {reason}; expected the fields {known}") from None


# "Understanding Clouds from Satellite Images": NASA Worldview snapshots of 21 x 14 degrees.
CLOUDS = Dataset(
    class_names=("Fish", "Flower", "Gravel", "Sugar"),
    mask_size=(1400, 2100),
    submission_size=(350, 525),
    gap_brightness=2,  # black, except for JPEG noise
    degrees=(14.0, 21.0),
)
