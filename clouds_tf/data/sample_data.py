"""A synthetic folder in the layout of the competition, for the demo and the tests.

All lengths are in pixels of schema.IMAGE_SIZE, so that a scene is the same at every size.
"""

import math
import os
from concurrent import futures

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from clouds_tf import files, rle, schema
from clouds_tf.data import annotations

# Clouds are drawn at this size and then resized: it shows the finest texture, and is fast.
_RENDER_SIZE = (700, 1050)

# How many training images of the competition have 1, 2, 3 and 4 labels.
_LABEL_COUNTS = (1348, 2372, 1560, 266)
# Weights of a draw without replacement, fitted so that each class is present as often as in the
# competition: in 2781, 2365, 2939 and 3751 of 5546 images.
_CLASS_WEIGHTS = (0.2167, 0.1711, 0.2366, 0.3756)

_OCEAN = (14, 22, 44)
_SUN_GLINT = (120, 118, 112)
_VEIL = (214, 222, 232)


def draw_scene(rng):
    """Draws which classes an image shows, and where.

    Args:
        rng: a numpy.random.Generator.

    Returns:
        A dict: "boxes", from the name of each present class to float [num_boxes, 4] (top, left,
        bottom, right), and "gap", float [2, 2], where the orbit gap begins and ends in the first
        row and in the last.
    """
    height, width = schema.IMAGE_SIZE
    num_labels = 1 + rng.choice(4, p=np.divide(_LABEL_COUNTS, sum(_LABEL_COUNTS)))
    classes = rng.choice(schema.CLASS_NAMES, num_labels, replace=False, p=_CLASS_WEIGHTS)

    boxes = {}
    for place, name in enumerate(classes):
        # Classes are spread from left to right, so that they overlap in part but rarely in whole.
        sides = rng.uniform((0.35, 0.25), (0.95, 0.65)) * schema.IMAGE_SIZE
        free = schema.IMAGE_SIZE - sides
        start = free * (rng.uniform(), (place + rng.uniform()) / num_labels)
        box = np.concatenate([start, start + sides])
        # Three annotators see the same clouds and hardly agree on where they end.
        drawn = box + rng.uniform(-0.1, 0.1, (3, 4)) * np.tile(sides, 2)
        boxes[str(name)] = np.clip(drawn, 0, (height, width, height, width))

    slant = rng.choice((-1, 1)) * rng.uniform(100, 200)
    centers = rng.uniform(0.05, 0.95) * width + np.array([-slant, slant])
    half_widths = rng.uniform(90, 155, 2)
    return {"boxes": boxes, "gap": np.stack([centers - half_widths, centers + half_widths], axis=1)}


def _pixel_centers(size):
    """The rows [h, 1] and the columns [1, w] of the pixels of an image of `size`, float32."""
    (height, width), (full_height, full_width) = size, schema.IMAGE_SIZE
    y = (np.arange(height, dtype=np.float32) + 0.5) * full_height / height
    x = (np.arange(width, dtype=np.float32) + 0.5) * full_width / width
    return y[:, None], x[None, :]


def _is_gap(gap, size):
    """Bool [h, w]: whether a pixel lies in the orbit gap."""
    y, x = _pixel_centers(size)
    left, right = (first + (last - first) * y / schema.IMAGE_SIZE[0] for first, last in gap.T)
    return (left <= x) & (x < right)


def _depth(boxes, size):
    """Float32 [h, w]: how far a pixel lies inside the union of the boxes; negative outside."""
    y, x = _pixel_centers(size)
    top, left, bottom, right = np.float32(boxes).T[..., None, None]
    return np.minimum(np.minimum(y - top, bottom - y), np.minimum(x - left, right - x)).max(axis=0)


def make_masks(scene, size):
    """The truth of a scene.

    Args:
        scene: what `draw_scene` returns.
        size: (height, width).

    Returns:
        uint8 [4, height, width] of 0 and 1, in the order of schema.CLASS_NAMES; 0 in the gap.
    """
    masks = np.zeros((schema.NUM_CLASSES, *size), np.uint8)
    for name, boxes in scene["boxes"].items():
        masks[schema.CLASS_NAMES.index(name)] = _depth(boxes, size) > 0
    return masks * ~_is_gap(scene["gap"], size)


def _noise(rng, wavelength, octaves, stretch=1.0, angle=0.0):
    """A random field of mean 0 and variance 1, float32 of _RENDER_SIZE.

    Args:
        rng: a numpy.random.Generator.
        wavelength: how long its waves are.
        octaves: how much that varies: 0.3 makes even ripples or blobs, 1.5 a fractal.
        stretch: how many times longer the waves are in the direction of `angle`.
        angle: radians, 0 is along a row.
    """
    height, width = _RENDER_SIZE
    pitch = schema.IMAGE_SIZE[0] / height
    y = np.float32(np.fft.fftfreq(height, pitch))[:, None]
    x = np.float32(np.fft.rfftfreq(width, pitch))[None, :]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    frequency = wavelength * np.hypot(stretch * along, across)
    frequency[0, 0] = np.inf  # the mean is no wave
    # The same energy in every octave, under a bell around the wavelength.
    amplitude = np.exp(-0.5 * np.square(np.log2(frequency) / octaves)) / frequency
    # Their sum is normally distributed although the waves are not, and these are faster to draw.
    real, imaginary = rng.random((2, *amplitude.shape), dtype=np.float32) - 0.5
    field = tf.signal.irfft2d(amplitude * (real + 1j * imaginary), _RENDER_SIZE).numpy()
    return field / field.std()


def _ramp(x, low, high):
    """0 below `low`, 1 above `high`, and linear between."""
    return np.clip((x - low) / (high - low), 0, 1)


def _ridges(field, width):
    """1 on the lines where a field changes its sign, and falling to 0 on either side."""
    return np.exp(-np.square(field / width))


def _fish(rng):
    """Long skeletons with ribs."""
    angle = rng.uniform(-0.4, 0.4)
    detail = _noise(rng, 80, 1.6)
    skeleton = _noise(rng, 420, 0.35, stretch=3, angle=angle) + 0.12 * detail
    ribs = _ramp(_noise(rng, 75, 0.5, stretch=3, angle=angle + 1.2) + 0.6 * detail, 0.2, 1.8)
    return _ridges(skeleton, 0.22) * _ramp(detail, -1.8, 1.2) + _ridges(skeleton, 0.5) * ribs


def _flower(rng):
    """Large blobs, apart from each other, with ragged edges."""
    detail = _noise(rng, 70, 1.6)
    return _ramp(_noise(rng, 330, 0.3) + 0.35 * detail, 0.2, 0.9) * (0.85 + 0.15 * detail)


def _gravel(rng):
    """Small bright granules along arcs and rings."""
    arcs = _ridges(_noise(rng, 330, 0.25), 0.5)
    return _ramp(_noise(rng, 45, 0.6) + 2.4 * arcs, 2, 3.4)


def _sugar(rng):
    """A dust of tiny puffs."""
    return _ramp(_noise(rng, 16, 0.7) + 0.4 * _noise(rng, 400, 1), 0, 2.2)


# Opacity and colour, from the lowest clouds to the highest.
_CLOUDS = {
    "Sugar": (_sugar, (172, 184, 200)),
    "Gravel": (_gravel, (250, 246, 236)),
    "Flower": (_flower, (240, 238, 232)),
    "Fish": (_fish, (214, 222, 232)),
}


def _blend(image, color, opacity):
    """`image` [3, h, w] under a cloud of one colour; opacity [h, w] is cut to 0..1."""
    color = np.float32(color)[:, None, None]
    return image + np.clip(opacity, 0, 1) * (color - image)


def render_image(rng, scene, size):
    """Draws a scene.

    Args:
        rng: a numpy.random.Generator.
        scene: what `draw_scene` returns.
        size: (height, width).

    Returns:
        uint8 [height, width, 3] RGB, black in the orbit gap.
    """
    image = np.float32(_OCEAN)[:, None, None] * (1 + 0.12 * _noise(rng, 1500, 1))
    glint_center, glint_width = rng.uniform((0, 100), (schema.IMAGE_SIZE[1], 300))
    glint = _ridges(_pixel_centers(_RENDER_SIZE)[1] - glint_center, glint_width)
    image = _blend(image, _SUN_GLINT, rng.uniform(0, 0.5) * glint)
    # Thin high clouds, which nobody labels.
    veil = _noise(rng, 350, 1.7, stretch=3, angle=rng.uniform(0, math.pi))
    image = _blend(image, _VEIL, 0.3 * _ramp(veil, 0.5, 3))

    for name, (draw_opacity, color) in _CLOUDS.items():
        if name in scene["boxes"]:
            # The clouds end near the edge of the label, raggedly.
            depth = _depth(scene["boxes"][name], _RENDER_SIZE) + 25 * _noise(rng, 200, 1)
            image = _blend(image, color, draw_opacity(rng) * _ramp(depth, -40, 40))

    image = np.moveaxis(image, 0, -1)
    image = tf.image.resize(image, size, method="bicubic", antialias=True).numpy()
    image[_is_gap(scene["gap"], size)] = 0
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def render_images(num_images, size, seed=0):
    """Draws scenes: uint8 images [N, height, width, 3] RGB and masks [N, height, width, 4]."""
    images, masks = [], []
    for index in range(num_images):
        rng = np.random.default_rng((seed, index))
        scene = draw_scene(rng)
        images.append(render_image(rng, scene, size))
        masks.append(np.moveaxis(make_masks(scene, size), 0, -1))
    return np.stack(images), np.stack(masks)


def _make_filename(seed, split, index):
    """Seven hexadecimal digits, as in the competition; no two images of a folder share a name."""
    offset = np.random.default_rng(seed).integers(16**7)
    # An odd factor permutes the numbers below 16**7.
    return f"{(offset + 0x9E3779B * (2 * index + split)) % 16**7:07x}.jpg"


def _write_images(folder, num_images, image_size, seed, split):
    """Writes JPEG files; returns their names, sorted, and four RLE strings for each."""

    def write_image(index):
        # A generator of its own, so that an image depends neither on the others nor on the threads.
        rng = np.random.default_rng((seed, split, index))
        scene = draw_scene(rng)
        image = render_image(rng, scene, image_size)
        filename = _make_filename(seed, split, index)
        tf.io.write_file(os.path.join(folder, filename), tf.io.encode_jpeg(image, quality=90))
        rles = rle.encode(make_masks(scene, schema.IMAGE_SIZE)).numpy()
        return filename, [encoded.decode() for encoded in rles]

    # NumPy and TensorFlow let other threads run while they compute.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(write_image, range(num_images))
        progress = tqdm(written, os.path.basename(folder), num_images, unit="image")
        return zip(*sorted(progress))


def write_sample_data(output_dir, num_train=48, num_test=12, image_size=schema.IMAGE_SIZE, seed=0):
    """Writes a folder in the layout of the competition, whole or not at all.

    It also has test.csv, the truth of the test images. The RLE is at schema.IMAGE_SIZE always.

    Args:
        output_dir: a folder that does not exist yet, or is empty.
        num_train: number of training images, at least 1.
        num_test: number of test images, at least 1.
        image_size: (height, width) of the JPEG files.
        seed: at least 0; the same seed writes the same bytes.

    Raises:
        ValueError: an argument is out of range, or output_dir is a file or not empty.
    """
    for name, value, least in (
        ("num_train", num_train, 1),
        ("num_test", num_test, 1),
        ("image_size", min(image_size), 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: got {value}, expected at least {least}")
    is_folder = tf.io.gfile.isdir(output_dir)
    if tf.io.gfile.listdir(output_dir) if is_folder else tf.io.gfile.exists(output_dir):
        raise ValueError(f"{output_dir}: exists already, expected a new or an empty folder")

    with files.written_whole(output_dir.rstrip("/")) as folder:
        images = os.path.join(folder, schema.TRAIN_IMAGES)
        filenames, rles = _write_images(images, num_train, image_size, seed, split=0)
        annotations.write_csv(os.path.join(folder, schema.TRAIN_CSV), filenames, rles)

        images = os.path.join(folder, schema.TEST_IMAGES)
        filenames, rles = _write_images(images, num_test, image_size, seed, split=1)
        annotations.write_csv(os.path.join(folder, schema.TEST_CSV), filenames, rles)
        sample_submission = os.path.join(folder, schema.SAMPLE_SUBMISSION_CSV)
        annotations.write_csv(sample_submission, filenames, [["1 1"] * 4] * num_test)
