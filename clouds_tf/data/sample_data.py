"""Synthetic data folders, for the demo and the tests.

All lengths are in pixels of 1400x2100, so that a scene looks the same at every size.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from concurrent import futures

import numpy as np
import tensorflow as tf

from clouds_tf import files, gfile, rle
from clouds_tf.data.annotations import write_csv
from clouds_tf.data.preprocessing import encode_image
from clouds_tf.dataset import (
    CLOUDS,
    SAMPLE_SUBMISSION_CSV,
    TEST_CSV,
    Dataset,
)
from clouds_tf.progress import Progress, shown

# (height, width) of a scene.
_SCENE_SIZE = (1400, 2100)
# Clouds are drawn at this size, which is fine enough for all textures and fast, and then resized.
_RENDER_SIZE = (700, 1050)


def _noise(
    rng: np.random.Generator,
    wavelength: float,
    octaves: float,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> np.ndarray:
    """A random field of mean 0 and variance 1, float32 [*_RENDER_SIZE].

    `wavelength` is in pixels of _SCENE_SIZE and varies by `octaves`: 0.3 makes regular ripples or
    blobs, 1.5 a fractal. Along `angle` (radians, 0 is along a row), waves are `stretch` times
    longer.
    """
    height, width = _RENDER_SIZE
    pitch = _SCENE_SIZE[0] / height
    y = np.fft.fftfreq(height, pitch).astype(np.float32)[:, None]
    x = np.fft.rfftfreq(width, pitch).astype(np.float32)[None, :]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    frequency = wavelength * np.hypot(stretch * along, across)
    frequency[0, 0] = np.inf  # no mean
    # Equal energy per octave, times a bell curve around the wavelength.
    amplitude = np.exp(-0.5 * np.square(np.log2(frequency) / octaves)) / frequency
    # Their sum is normally distributed although the amplitudes, which are faster to draw, are not.
    real, imaginary = rng.random((2, *amplitude.shape), dtype=np.float32) - 0.5
    field = tf.signal.irfft2d(amplitude * (real + 1j * imaginary), _RENDER_SIZE).numpy()
    return field / field.std()


def _ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, and linear between."""
    return np.clip((x - low) / (high - low), 0, 1)


def _ridges(field: np.ndarray, width: float) -> np.ndarray:
    """1 on the zero lines of a field, falling to 0 on either side."""
    return np.exp(-np.square(field / width))


def _fish(rng: np.random.Generator) -> np.ndarray:
    """Long skeletons with ribs."""
    angle = rng.uniform(-0.4, 0.4)
    detail = _noise(rng, 80, 1.6)
    skeleton = _noise(rng, 420, 0.35, stretch=3, angle=angle) + 0.12 * detail
    ribs = _ramp(_noise(rng, 75, 0.5, stretch=3, angle=angle + 1.2) + 0.6 * detail, 0.2, 1.8)
    return _ridges(skeleton, 0.22) * _ramp(detail, -1.8, 1.2) + _ridges(skeleton, 0.5) * ribs


def _flower(rng: np.random.Generator) -> np.ndarray:
    """Large, separate blobs with ragged edges."""
    detail = _noise(rng, 70, 1.6)
    return _ramp(_noise(rng, 330, 0.3) + 0.35 * detail, 0.2, 0.9) * (0.85 + 0.15 * detail)


def _gravel(rng: np.random.Generator) -> np.ndarray:
    """Small bright granules along arcs and rings."""
    arcs = _ridges(_noise(rng, 330, 0.25), 0.5)
    return _ramp(_noise(rng, 45, 0.6) + 2.4 * arcs, 2, 3.4)


def _sugar(rng: np.random.Generator) -> np.ndarray:
    """Fields of tiny clouds."""
    return _ramp(_noise(rng, 16, 0.7) + 0.4 * _noise(rng, 400, 1), 0, 2.2)


# Opacity and colour of the classes, from the highest to the lowest clouds; further classes repeat
# them.
_TEXTURES = (
    (_fish, (214, 222, 232)),
    (_flower, (240, 238, 232)),
    (_gravel, (250, 246, 236)),
    (_sugar, (172, 184, 200)),
)


_Size = tuple[int, int]


# Numbers of training images of the competition with 1, 2, 3 and 4 labels.
_LABEL_COUNTS = (1348, 2372, 1560, 266)
# Weights of a draw without replacement, fitted so that each class is present as often as in the
# competition: in 2781, 2365, 2939 and 3751 of 5546 images.
_CLASS_WEIGHTS = (0.2167, 0.1711, 0.2366, 0.3756)

_OCEAN = (14, 22, 44)
_SUN_GLINT = (120, 118, 112)
_VEIL = (214, 222, 232)


@dataclasses.dataclass(frozen=True)
class _Scene:
    """Classes and boxes of a synthetic image.

    Attributes:
        boxes: float [num_boxes, 4] (top, left, bottom, right) by the name of each present class.
        gap: float [2, 2], start and end of the orbit gap in the first row and in the last.
    """

    boxes: dict[str, np.ndarray]
    gap: np.ndarray


def _draw_scene(rng: np.random.Generator, dataset: Dataset = CLOUDS) -> _Scene:
    """Draws the classes of an image and their boxes.

    The four classes of CLOUDS are as frequent as in the competition; classes of other data sets are
    equally frequent.
    """
    height, width = _SCENE_SIZE
    class_counts, class_weights = np.ones(min(4, dataset.num_classes)), None
    if dataset.class_names == CLOUDS.class_names:
        class_counts, class_weights = np.array(_LABEL_COUNTS), _CLASS_WEIGHTS
    num_labels = 1 + rng.choice(len(class_counts), p=class_counts / class_counts.sum())
    classes = rng.choice(dataset.class_names, num_labels, replace=False, p=class_weights)

    boxes = {}
    for place, name in enumerate(classes):
        # Classes are spread from left to right, so that they overlap partly but rarely fully.
        sides = rng.uniform((0.35, 0.25), (0.95, 0.65)) * _SCENE_SIZE
        free = _SCENE_SIZE - sides
        start = free * (rng.uniform(), (place + rng.uniform()) / num_labels)
        box = np.concatenate([start, start + sides])
        # Three annotators see the same clouds but disagree on their edges.
        drawn = box + rng.uniform(-0.1, 0.1, (3, 4)) * np.tile(sides, 2)
        boxes[str(name)] = np.clip(drawn, 0, (height, width, height, width))

    slant = rng.choice((-1, 1)) * rng.uniform(100, 200)
    centers = rng.uniform(0.05, 0.95) * width + np.array([-slant, slant])
    half_widths = rng.uniform(90, 155, 2)
    return _Scene(boxes, np.stack([centers - half_widths, centers + half_widths], axis=1))


def _pixel_centers(size: _Size) -> tuple[np.ndarray, np.ndarray]:
    """The rows [h, 1] and the columns [1, w] of the pixels of an image of `size`, float32."""
    (height, width), (full_height, full_width) = size, _SCENE_SIZE
    y = (np.arange(height, dtype=np.float32) + 0.5) * full_height / height
    x = (np.arange(width, dtype=np.float32) + 0.5) * full_width / width
    return y[:, None], x[None, :]


def _is_gap(gap: np.ndarray, size: _Size) -> np.ndarray:
    """Whether each pixel lies in the orbit gap, bool [h, w]."""
    y, x = _pixel_centers(size)
    left, right = (first + (last - first) * y / _SCENE_SIZE[0] for first, last in gap.T)
    return (left <= x) & (x < right)


def _depth(boxes: np.ndarray, size: _Size) -> np.ndarray:
    """Distance of each pixel to the edge of the union of the boxes, float32 [h, w]; < 0 outside."""
    y, x = _pixel_centers(size)
    top, left, bottom, right = np.asarray(boxes, np.float32).T[..., None, None]
    return np.minimum(np.minimum(y - top, bottom - y), np.minimum(x - left, right - x)).max(axis=0)


def _make_masks(scene: _Scene, size: _Size, dataset: Dataset = CLOUDS) -> np.ndarray:
    """Draws the masks of a scene, uint8 [C, height, width] of 0 and 1; 0 in the gap."""
    masks = np.zeros((dataset.num_classes, *size), np.uint8)
    for name, boxes in scene.boxes.items():
        masks[dataset.class_names.index(name)] = _depth(boxes, size) > 0
    if dataset.exclusive:
        masks[masks.cumsum(axis=0) > 1] = 0
    return masks * ~_is_gap(scene.gap, size)


def _blend(image: np.ndarray, color: Sequence[float], opacity: np.ndarray) -> np.ndarray:
    """Blends a cloud of one colour over an image [3, h, w]; opacity [h, w] is clipped to 0..1."""
    return image + np.clip(opacity, 0, 1) * (np.array(color, np.float32)[:, None, None] - image)


def _render_image(
    rng: np.random.Generator, scene: _Scene, size: _Size, dataset: Dataset = CLOUDS
) -> np.ndarray:
    """Draws the image of a scene, uint8 [height, width, channels], black in the gap.

    Channels beyond the third repeat red, green and blue; a single channel is the green one.
    """
    image = np.array(_OCEAN, np.float32)[:, None, None] * (1 + 0.12 * _noise(rng, 1500, 1))
    glint_center, glint_width = rng.uniform((0, 100), (_SCENE_SIZE[1], 300))
    glint = _ridges(_pixel_centers(_RENDER_SIZE)[1] - glint_center, glint_width)
    image = _blend(image, _SUN_GLINT, rng.uniform(0, 0.5) * glint)
    # Thin high clouds, which are never labelled.
    veil = _noise(rng, 350, 1.7, stretch=3, angle=rng.uniform(0, math.pi))
    image = _blend(image, _VEIL, 0.3 * _ramp(veil, 0.5, 3))

    for place, name in reversed(list(enumerate(dataset.class_names))):
        if name in scene.boxes:
            draw_opacity, color = _TEXTURES[place % len(_TEXTURES)]
            # The clouds have ragged edges near the edge of the label.
            depth = _depth(scene.boxes[name], _RENDER_SIZE) + 25 * _noise(rng, 200, 1)
            image = _blend(image, color, draw_opacity(rng) * _ramp(depth, -40, 40))

    image = np.moveaxis(image, 0, -1)
    image = tf.image.resize(image, size, method="bicubic", antialias=True).numpy()
    image[_is_gap(scene.gap, size)] = 0
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if dataset.channels == 1:
        return image[..., 1:2]
    return image[..., np.arange(dataset.channels) % 3]


def render_images(
    num_images: int, size: _Size, seed: int = 0, dataset: Dataset = CLOUDS
) -> tuple[np.ndarray, np.ndarray]:
    """Draws scenes: uint8 images [N, height, width, channels] and masks [N, height, width, C]."""
    images, masks = [], []
    for index in range(num_images):
        rng = np.random.default_rng((seed, index))
        scene = _draw_scene(rng, dataset)
        images.append(_render_image(rng, scene, size, dataset))
        masks.append(np.moveaxis(_make_masks(scene, size, dataset), 0, -1))
    return np.stack(images), np.stack(masks)


def _make_filename(seed: int, split: int, index: int, ending: str = ".jpg") -> str:
    """A unique name of seven hexadecimal digits, as in the competition."""
    offset = np.random.default_rng(seed).integers(16**7)
    # An odd factor permutes the numbers below 16**7.
    return f"{(offset + 0x9E3779B * (2 * index + split)) % 16**7:07x}{ending}"


def _write_images(
    folder: str,
    num_images: int,
    image_size: _Size,
    seed: int,
    split: int,
    dataset: Dataset,
) -> Iterator[tuple[str, list[str]]]:
    """Writes image files; yields the name of each, and one RLE string per class."""
    size, order = dataset.mask_size, dataset.rle_order

    def write_image(index: int) -> tuple[str, list[str]]:
        # Each image has its own generator, so that it does not depend on other images or threads.
        rng = np.random.default_rng((seed, split, index))
        scene = _draw_scene(rng, dataset)
        image = _render_image(rng, scene, image_size, dataset)
        ending = dataset.image_ending or dataset.image_endings[0]
        filename, is_png = _make_filename(seed, split, index, ending), ending.lower() == ".png"
        encoded = tf.io.encode_png(image) if is_png else encode_image(image, jpeg_quality=90)
        tf.io.write_file(os.path.join(folder, filename), encoded)
        rles = rle.encode(_make_masks(scene, size, dataset), order).numpy()
        return filename, [encoded.decode() for encoded in rles]

    # NumPy and TensorFlow let other threads run while they compute.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(write_image, range(num_images))


def write_sample_data(
    output_dir: str,
    num_train: int = 48,
    num_test: int = 12,
    image_size: _Size | None = None,
    seed: int = 0,
    dataset: Dataset = CLOUDS,
    progress: Progress | bool = True,
) -> None:
    """Writes a folder in the layout of a data set, whole or not at all.

    It also has test.csv, the true masks of the test images. The RLE is at the data set's mask_size,
    even if the images are smaller.

    Args:
        output_dir: a new or an empty folder.
        num_train: number of training images, at least 1.
        num_test: number of test images, at least 1.
        image_size: (height, width) of the image files; None takes the data set's mask_size.
        seed: at least 0; the same seed writes the same bytes.
        dataset: defines classes, columns, files, sizes and the format of the RLE.
        progress: called with (done, total) images; True shows a bar in a terminal or notebook.

    Raises:
        ValueError: an argument is out of range, or output_dir is a file or not empty.
    """
    image_size = image_size or dataset.mask_size
    for name, value, least in (
        ("num_train", num_train, 1),
        ("num_test", num_test, 1),
        ("image_size", min(image_size), 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: got {value}, expected at least {least}")
    is_folder = gfile.isdir(output_dir)
    if gfile.listdir(output_dir) if is_folder else gfile.exists(output_dir):
        raise ValueError(f"{output_dir}: already exists, expected a new or an empty folder")

    total, done, tell = num_train + num_test, 0, shown(progress, "image")
    with files.written_whole(output_dir.rstrip("/")) as folder:
        for split, (images, csv, count) in enumerate(
            (
                (dataset.train_images, dataset.train_csv, num_train),
                (dataset.test_images, TEST_CSV, num_test),
            )
        ):
            written = []
            images_dir = os.path.join(folder, images)
            for entry in _write_images(images_dir, count, image_size, seed, split, dataset):
                written.append(entry)
                done += 1
                tell(done, total)
            filenames, rles = zip(*sorted(written))
            write_csv(os.path.join(folder, csv), filenames, rles, dataset, dataset.mask_size)
        blank = [["1 1"] * dataset.num_classes] * num_test
        sample_submission = os.path.join(folder, SAMPLE_SUBMISSION_CSV)
        write_csv(sample_submission, filenames, blank, dataset)
