"""A small SavedModel of random weights, and drawn scenes."""

import numpy as np
import pytest
import rasterio
import stubs

from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.postprocessing import Rule
from clouds_tf.serving.cloud_model import CloudModel, write_version

RULES = (
    Rule(),
    Rule(0.01, 0.9, 0.3),
    Rule(0.45, 0.8, 0.5),
    Rule(0.5, min_top_mean=1),  # never
)


@pytest.fixture(scope="session")
def saved_model(once):
    """The folder of a SavedModel of one network with random weights and inputs of 64x96."""

    def write(folder):
        model = stubs.network(classification_head=True)
        write_version(CloudModel([model], Metadata(CLOUDS, ((64, 96),), RULES)), folder)

    return f"{once('saved_for_scenes', write)}/1"


def write_mosaic(
    path, size=(200, 400), extent=(-60.0, 0.0, -40.0, 10.0), seed=0, high=255, **profile
):
    """A GeoTIFF of a drawn sky; extent is west, south, east, north."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, high, (size[0] // 10 + 1, size[1] // 10 + 1)).astype(np.uint8)
    pixels = np.kron(small, np.ones((10, 10), np.uint8))[: size[0], : size[1]]
    pixels = np.repeat(pixels[np.newaxis], 3, axis=0)
    transform = rasterio.transform.from_bounds(*extent, size[1], size[0])
    with rasterio.open(
        path, "w", "GTiff", size[1], size[0], 3, "EPSG:4326", transform, np.uint8, **profile
    ) as file:
        file.write(pixels)
    return pixels
