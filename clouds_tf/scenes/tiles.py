"""Cuts scenes into windows, and blends the outputs of the windows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from clouds_tf.geo.grid import Grid
from clouds_tf.prediction.stretch import LEVELS
from clouds_tf.scenes import resample
from clouds_tf.scenes.scene import Scene


def starts(length: int, size: int, overlap: float, periodic: bool = False) -> tuple[int, ...]:
    """Starts of evenly spaced windows along one axis.

    Args:
        length: length of the axis in cells.
        size: size of a window in cells.
        overlap: minimum overlap of neighbouring windows, as a share of their size, 0 to below 1.
        periodic: whether the end of the axis borders on its beginning.

    Returns:
        First cell of each window. A single window that is longer than the axis is centred, and
        begins before it.

    >>> starts(1000, 525, 0.25)
    (0, 238, 475)
    """
    stride = max(1, int(size * (1 - overlap)))
    if periodic and length > size:
        count = int(np.ceil(length / stride))
        return tuple(round(i * length / count) for i in range(count))
    if length <= size:
        return (-((size - length) // 2),)
    count = int(np.ceil((length - size) / stride)) + 1
    return tuple(round(i * (length - size) / (count - 1)) for i in range(count))


def ramp(size: int, overlap: float) -> np.ndarray:
    """Weights of a window along one axis: 1 inside, decreasing as sin^2 over the overlap.

    Returns:
        float32 [size], above 0; in windows with exactly this overlap, they sum to 1.
    """
    margin = round(overlap * size)
    weights = np.ones(size)
    if margin:
        distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
        weights = np.sin(np.pi / 2 * np.minimum(distance / margin, 1)) ** 2
    return weights.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The windows of a grid.

    Attributes:
        grid: the cells.
        window: (height, width) of a window, in cells.
        scale: pixels along a side of a cell.
        overlap: minimum overlap of neighbouring windows, as a share of their size.
    """

    grid: Grid
    window: tuple[int, int]
    scale: int
    overlap: float

    @property
    def rows(self) -> tuple[int, ...]:
        """First rows of windows, from north to south."""
        return starts(self.grid.shape[0], self.window[0], self.overlap)

    @property
    def columns(self) -> tuple[int, ...]:
        """First columns of windows, from west to east."""
        return starts(self.grid.shape[1], self.window[1], self.overlap, self.grid.periodic)

    @property
    def pixels(self) -> Grid:
        """The grid of the pixels of all windows."""
        cell = tuple(side / self.scale for side in self.grid.cell)
        return dataclasses.replace(self.grid, cell=cell)

    @property
    def filled(self) -> float:
        """Share of a window that is on the grid: 1 unless the grid is smaller."""
        sides = zip(self.grid.shape, self.window)
        return math.prod(min(length / size, 1) for length, size in sides)

    def column_index(self, start: int, scale: int = 1) -> np.ndarray:
        """Columns of a window: wrapped round the globe, or -1 outside the grid."""
        length = self.grid.shape[1] * scale
        index = np.arange(start * scale, (start + self.window[1]) * scale)
        return index % length if self.grid.periodic else _on_axis(index, length)

    def row_index(self, start: int, scale: int = 1) -> np.ndarray:
        """Rows of a window: -1 outside the grid."""
        index = np.arange(start * scale, (start + self.window[0]) * scale)
        return _on_axis(index, self.grid.shape[0] * scale)


def _on_axis(index: np.ndarray, length: int) -> np.ndarray:
    return np.where((index >= 0) & (index < length), index, -1)


@dataclasses.dataclass(frozen=True)
class Strip:
    """Rows of cells of a scene, without the network.

    Attributes:
        start: first row.
        observed: bool [n, columns].
        image: uint8 [n, columns, 3].
    """

    start: int
    observed: np.ndarray
    image: np.ndarray


@dataclasses.dataclass(frozen=True)
class Tile:
    """A window, with pixels for the network.

    Attributes:
        row: first row of cells.
        column: first column.
        pixels: uint8 [height, width, 3], black outside the scene.
        filled: share of the window that the scene fills.
    """

    row: int
    column: int
    pixels: np.ndarray
    filled: float = 1.0


def cut(
    scene: Scene,
    layout: Layout,
    gap_brightness: int | None,
    levels: np.ndarray = LEVELS,
) -> Iterator[Strip | Tile]:
    """Reads a scene once from north to south, and cuts its windows.

    Windows without observations are left out. Only the rows of one row of windows are in memory.
    For gap_brightness and levels, see `resample.read_rows`.

    Yields:
        Tiles, row by row, and each Strip before the first Tile with its rows.
    """
    scale, (height, width) = layout.scale, layout.grid.shape
    axes = resample.axis_taps(scene, layout.pixels)
    first = done = 0
    band = np.empty((4, 0, width * scale), np.uint8)
    for row in layout.rows:
        drop = max(row, 0) - first
        first += drop
        stop = min(row + layout.window[0], height)
        new = resample.read_rows(scene, axes, done * scale, stop * scale, gap_brightness, levels)
        new = np.moveaxis(new, -1, 0)
        band = np.concatenate([band[:, drop * scale :], new], axis=1)
        yield _strip(done, new, scale)
        done = stop
        rows = layout.row_index(row, scale)
        planes = band[:, rows - first * scale]
        planes[:, rows < 0] = 0
        for column in layout.columns:
            columns = layout.column_index(column, scale)
            tile = planes.take(columns, axis=2)
            tile[..., columns < 0] = 0
            if tile[3].any():
                yield Tile(row, column, np.moveaxis(tile[:3], 0, -1), layout.filled)


def _strip(start: int, planes: np.ndarray, scale: int) -> Strip:
    height, width = planes.shape[1] // scale, planes.shape[2] // scale
    blocks = planes.reshape(4, height, scale, width, scale)
    cells = blocks.mean(axis=(2, 4), dtype=np.float32)
    # Unobserved pixels are black, and not part of the mean.
    seen = (blocks[3] >= 255 * resample.LEAST_SEEN).mean(axis=(1, 3), dtype=np.float32)
    image = np.rint(cells[:3] / np.maximum(seen, 1 / scale**2)).astype(np.uint8)
    return Strip(start, cells[3] >= 255 * resample.LEAST_SEEN, np.moveaxis(image, 0, -1))


def _straight(index: np.ndarray) -> list[tuple[int, int]]:
    """Ranges (start, stop) in which an index increases by 1: one, or two across the seam."""
    breaks = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    return list(zip(breaks[:-1], breaks[1:]))


class Blend:
    """Weighted mean of the outputs of windows for C classes, by rows of windows."""

    def __init__(self, layout: Layout, num_classes: int) -> None:
        self._layout = layout
        height, width = layout.window[0], layout.grid.shape[1]
        self._first = 0  # row of the grid
        self._sums = np.zeros((2, num_classes, height, width), np.float32)
        self._weights = np.zeros((height, width), np.float32)
        # A single window is not blended, and keeps its output to the last bit.
        self._ramps = [
            ramp(size, layout.overlap if len(begin) > 1 else 0)
            for size, begin in zip(layout.window, (layout.rows, layout.columns))
        ]

    def add(
        self, row: int, column: int, probabilities: np.ndarray, masks: np.ndarray
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """Adds the output of a window; windows must be added row by row.

        Args:
            row: first row of the window.
            column: first column.
            probabilities: float32 [height, width, C].
            masks: bool [height, width, C].

        Returns:
            The rows above all later windows, see `flush`.
        """
        finished = self.flush(max(row, 0))
        above, left = max(-row, 0), max(-column, 0)
        height = min(row + self._layout.window[0], self._layout.grid.shape[0]) - max(row, 0)
        columns = self._layout.column_index(column)
        columns = columns[left : left + self._layout.grid.shape[1]]
        y, x = slice(above, above + height), slice(left, left + len(columns))
        weight = self._ramps[0][y, np.newaxis] * self._ramps[1][x]
        values = np.stack([np.moveaxis(part[y, x], -1, 0) for part in (probabilities, masks)])
        values *= weight
        for first, last in _straight(columns):
            where = slice(columns[first], columns[first] + last - first)
            self._sums[..., :height, where] += values[..., first:last]
            self._weights[:height, where] += weight[:, first:last]
        return finished

    def flush(self, row: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Removes and returns all rows above `row`.

        Returns:
            Their first row; probabilities, float32 [C, n, columns], 0 where no window was; and
            masks, bool [C, n, columns], by weighted majority of the windows.
        """
        start, count = self._first, row - self._first
        # After skipped windows, this may be more rows than a window has.
        kept = min(count, len(self._weights))
        means = np.zeros((*self._sums.shape[:2], count, self._sums.shape[3]), np.float32)
        weights = self._weights[:kept]
        np.divide(self._sums[:, :, :kept], weights, out=means[:, :, :kept], where=weights > 0)
        for array in (self._sums, self._weights):
            left = array.shape[-2] - kept
            array[..., :left, :] = array[..., kept:, :].copy()
            array[..., left:, :] = 0
        self._first = row
        return start, means[0], means[1] >= 0.5
