"""Processing of one scene, from pixels to masks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Optional, Tuple

import numpy as np

from clouds_tf import gfile
from clouds_tf.geo.grid import Grid, cover
from clouds_tf.prediction import stretch as stretches
from clouds_tf.scenes import exclude, resample, tiles
from clouds_tf.scenes.masks import Prediction
from clouds_tf.scenes.network import Network
from clouds_tf.scenes.scene import Reading, Scene, stem
from clouds_tf.scenes.tiles import Layout, Strip, Tile
from clouds_tf.settings import CheckedSettings, setting

FORMATS = {
    "netcdf": ".nc",
    "cog": ".tif",
    "geojson": ".geojson",
    "geoparquet": ".parquet",
    "picture": ".png",
}
_MIN_CELLS = 16  # along each side of a scene
_COARSER, _MAX_COARSER = 1.3, 2  # times the pixels of the training: a warning, and an error
_LEAST_FILLED = 0.5  # of a window; a scene that fills less causes a warning
_FAR_NORTH = 40  # degrees of latitude, beyond which cells are narrower than in training


@dataclasses.dataclass(frozen=True)
class Options(CheckedSettings):
    """Settings of a scene prediction.

    Attributes:
        reading: fallback metadata for files that lack it.
    """

    overlap: float = setting(
        0.25, "Overlap of neighbouring windows, as a share of their side.", min=0, max=0.75
    )
    resolution: Optional[float] = setting(
        None,
        "Cell size of the results in degrees; default: that of the training.",
        min=0.005,
        max=1,
    )
    formats: Tuple[str, ...] = setting(
        ("netcdf", "cog", "geojson"),
        f"Files to write: {', '.join(FORMATS)}.",
        choices=tuple(FORMATS),
    )
    land: str = setting(
        "auto",
        "Land mask; land does not count as observed: auto for the coasts of Natural Earth, none, "
        "or a file as for --ignore.",
    )
    ignore: Tuple[str, ...] = setting(
        (),
        "Masks of other areas that do not count as observed: GeoJSON, GeoTIFF or NetCDF, with a "
        "condition if needed, such as F.nc:BT<280; {scene} stands for the name of the scene.",
    )
    batch_size: int = setting(16, "Windows in a batch.", min=1)
    force: bool = setting(
        False, "Also predict scenes that are much coarser than the training images."
    )
    min_likeness: float = setting(
        0.0,
        "Leave out scenes whose likeness to the training images is lower: 0.01 drops noise, "
        "night and deserts, and one good scene in a hundred.",
        min=0,
        max=1,
    )
    reading: Reading = Reading()

    def __post_init__(self) -> None:
        super().__post_init__()
        list(exclude.masks(self.land, self.ignore))  # raises ValueError if one is not a mask


class Job:
    """A scene in progress: its windows, and their answers so far.

    Only `parts` reads the scene.

    Raises:
        ValueError: the scene is too small or too coarse.
    """

    def __init__(self, scene: Scene, network: Network, options: Options) -> None:
        self.scene, self._network, self._options = scene, network, options
        grid = cover(scene.extent, network.cell)
        _check_size(scene, grid)
        if not options.force:
            _check_coarseness(scene, network)
        self.layout = Layout(grid, network.window, network.scale, options.overlap)
        shape = (network.dataset.num_classes, *grid.shape)
        self._blend = tiles.Blend(self.layout, network.dataset.num_classes)
        self._probabilities = np.zeros(shape, np.float32)
        self._masks = np.zeros(shape, bool)
        self._observed = np.zeros(grid.shape, bool)
        self._image = np.zeros((*grid.shape, 3), np.uint8)
        self.curve = stretches.Curve()
        self._likeness: list[tuple[float, float]] = []  # of each window, with its weight

    @property
    def num_windows(self) -> int:
        """Number of windows."""
        return len(self.layout.rows) * len(self.layout.columns)

    @property
    def warning(self) -> str | None:
        """A warning about the result, or None."""
        extent, reading, found = self.scene.extent, self._options.reading, []
        share = self.layout.filled
        if share < _LEAST_FILLED:
            sides = " x ".join(f"{side:g}" for side in self._network.dataset.degrees or ())
            found.append(
                f"fills {100 * share:.0f} % of the {sides} degrees that the network sees at once, "
                "and the rest is black, so its result is less reliable; use a larger scene"
            )
        coarser = _coarser(self.scene, self._network)
        if coarser > _COARSER:
            found.append(
                f"has pixels {coarser:.1f} times those of the training, without its fine structure"
            )
        latitude = max(abs(extent.lat_min), abs(extent.lat_max))
        if latitude > _FAR_NORTH:
            found.append(
                f"reaches {latitude:g} degrees of latitude, where cells are narrower than in "
                "training, so its result is less reliable"
            )
        if self.scene.ignores_range and reading.value_range is not None:
            found.append("has 8-bit values, which --value_range leaves as they are")
        if reading.extent and not np.allclose(reading.extent, extent, atol=max(self.scene.pixel)):
            found.append(f"has an extent of its own, {extent}, which --extent leaves as it is")
        if reading.date not in (None, self.scene.date):
            found.append(f"has a date of its own, {self.scene.date}, which --date leaves as it is")
        return f"{self.scene.path}: {'; '.join(found)}" if found else None

    def is_frame(self) -> bool:
        """Whether `serving.predict` could take the file: a JPEG or PNG of one window."""
        scene, degrees = self.scene, self._network.dataset.degrees
        assert degrees is not None
        fits = all(
            abs(span - expected) < 0.5 * pixel
            for span, expected, pixel in zip(scene.extent.degrees, degrees, scene.pixel)
        )
        few = scene.size[0] * scene.size[1] <= self._network.max_image_pixels
        whole = self.layout.grid.shape == self.layout.window
        unchanged = self._options.reading.stretch == "none"
        return scene.is_plain_image and fits and few and whole and unchanged

    def parts(self) -> Iterator[Tile | bytes]:
        """Yields the inputs of the network, from north to south.

        If `is_frame`, the only input is the whole file, as for `serving.predict`.
        """
        gap_brightness = self._network.dataset.gap_brightness
        is_frame, stretch, counts = self.is_frame(), self._options.reading.stretch, None
        if stretch == "auto":
            counts = resample.count_brightness(self.scene, gap_brightness)
        self.curve = stretches.make_curve(stretch, counts)
        for part in tiles.cut(self.scene, self.layout, gap_brightness, self.curve.levels):
            if isinstance(part, Strip):
                rows = slice(part.start, part.start + len(part.observed))
                self._observed[rows], self._image[rows] = part.observed, part.image
            elif not is_frame:
                yield part
        if is_frame:
            with gfile.opened(self.scene.path, "rb") as file:
                yield self._network.read_file(file.read())

    def _stretch(self) -> str:
        asked, about = self._options.reading.stretch, self.curve.about
        return f"{asked}: {about}" if about and asked == "auto" else asked

    def add(
        self,
        part: Tile | bytes,
        probabilities: np.ndarray,
        masks: np.ndarray,
        likeness: float,
    ) -> None:
        """Adds the output of the network for a part, in the order of `parts`.

        Args:
            part: the input of the network.
            probabilities: float32 [height, width, C].
            masks: bool [height, width, C].
            likeness: in [0, 1], or NaN.
        """
        dark, seen = self._network.dataset.gap_brightness, 1.0
        if isinstance(part, Tile) and dark is not None and not self.is_frame():
            seen = float(np.mean(part.pixels.max(axis=2) > dark))
        self._likeness.append((likeness, seen))
        row, column = (part.row, part.column) if isinstance(part, Tile) else (0, 0)
        self._store(*self._blend.add(row, column, probabilities, masks))

    def _store(self, start: int, probabilities: np.ndarray, masks: np.ndarray) -> None:
        rows = slice(start, start + probabilities.shape[1])
        self._probabilities[:, rows], self._masks[:, rows] = probabilities, masks

    def finish(self) -> Prediction:
        """Makes the prediction of the whole scene, after all parts have been added."""
        self._store(*self._blend.flush(self.layout.grid.shape[0]))
        scene, network, grid = self.scene, self._network, self.layout.grid
        land, ignore = self._options.land, self._options.ignore
        self._observed &= ~exclude.excluded(grid, land, ignore, stem(scene.path))
        probabilities, masks = self._probabilities, self._masks
        observed, image = self._observed, self._image
        if self._options.resolution is not None:
            grid = cover(scene.extent, (self._options.resolution,) * 2)
            rows, columns = (
                _whole(resample.taps(length, 0, side / cell, count))
                for length, side, cell, count in zip(
                    self.layout.grid.shape, grid.cell, network.cell, grid.shape
                )
            )
            probabilities, shares, colors = (
                resample.mean_of_seen(planes, observed, (rows, columns))
                for planes in (probabilities, masks, np.moveaxis(image, -1, 0))
            )
            masks = shares >= 0.5
            image = np.rint(np.moveaxis(colors, 0, -1)).astype(np.uint8)
            seen_share = resample.apply(columns, resample.apply(rows, observed, 0), 1)
            observed = seen_share >= resample.LEAST_SEEN
        if network.dataset.exclusive:  # of two windows, each may vote for another class
            masks = masks & (np.cumsum(masks, axis=0) == 1)
        return Prediction(
            name=stem(scene.path),
            date=scene.date,
            platform=scene.platform,
            model=network.fingerprint,
            class_names=network.dataset.class_names,
            grid=grid,
            probabilities=probabilities,
            masks=masks,
            observed=observed,
            image=image,
            calibration=network.calibration,
            stretch=self._stretch(),
            likeness=self._mean_likeness(),
            excluded=exclude.describe(land, ignore),
        )

    def _mean_likeness(self) -> float:
        """The mean over the windows, weighted by their observed shares."""
        values, weights = np.array(self._likeness or [(np.nan, 1)]).T
        return float(np.average(values, weights=weights)) if weights.any() else math.nan


def _whole(taps: resample.Taps) -> resample.Taps:
    """Normalises taps, so that weights sum to 1 at the edges, too."""
    total = np.maximum(taps.weight.sum(axis=1, keepdims=True), 1e-6)
    return dataclasses.replace(taps, weight=taps.weight / total)


def _check_size(scene: Scene, grid: Grid) -> None:
    if min(grid.shape) < _MIN_CELLS:
        height, width = scene.extent.degrees
        least = [_MIN_CELLS * side for side in grid.cell]
        raise ValueError(
            f"spans {height:g} x {width:g} degrees (latitude x longitude), expected at least "
            f"{least[0]:g} x {least[1]:g}; is its georeference correct?"
        )


def _check_coarseness(scene: Scene, network: Network) -> None:
    """Refuses pixels that are much larger than those of the training."""
    coarser = _coarser(scene, network)
    if coarser > _MAX_COARSER:
        height, width = scene.pixel
        raise ValueError(
            f"has pixels of {height:.3g} x {width:.3g} degrees, {coarser:.1f} times those of the "
            "training; use a finer scene, or predict it nevertheless with --force"
        )


def _coarser(scene: Scene, network: Network) -> float:
    """Ratio of the pixel size to that of the training images; the larger of both directions."""
    assert network.dataset.degrees is not None
    return max(
        pixel * max(size[i] for size in network.image_sizes) / degrees
        for i, (pixel, degrees) in enumerate(zip(scene.pixel, network.dataset.degrees))
    )
