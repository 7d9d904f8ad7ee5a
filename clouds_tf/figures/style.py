"""Common style of all figures; saves and encodes them."""

from __future__ import annotations

import functools
import importlib.util
import io
import itertools
import math
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from clouds_tf import files, gfile

AVAILABLE = importlib.util.find_spec("matplotlib") is not None
if AVAILABLE:
    import matplotlib
if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

# After Okabe and Ito, for colour-blind readers. The first four also stand out on clouds.
COLORS = (
    "#56B4E9",
    "#E69F00",
    "#00C795",
    "#F06EAA",
    "#0072B2",
    "#D55E00",
    "#F0E442",
    "#CC79A7",
)
NEUTRAL = "#8C96A3"  # for data without a class; visible on white and on black

FORMATS = ("png", "pdf")  # of files
_PRINT_DPI = 300  # of maps inside a PDF, whose text and lines are vectors

Axes = Any  # of matplotlib

WIDTH = 5.6  # inches, at which text is legible on a page and on a phone

_STYLE = {
    "figure.dpi": 160,
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.6,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
}


def _colors(paper: str, ink: str, faint: str) -> dict[str, str]:
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    papers = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {**dict.fromkeys(inks, ink), **dict.fromkeys(papers, paper), "grid.color": faint}


_LIGHT = _colors("#FFFFFF", "#1D2733", "#DDE2E8")
_DARK = _colors("#171C23", "#E4E9EF", "#343D48")


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a function that draws a Figure with the style and the keyword `dark`.

    The decorated function raises ValueError if matplotlib is not installed.
    """

    @functools.wraps(draw)
    def wrapper(*args: Any, dark: bool = False, **kwargs: Any) -> Any:
        files.require("matplotlib", "plots", "a picture")
        settings: dict[Any, Any] = {**_STYLE, **(_DARK if dark else _LIGHT)}
        with matplotlib.rc_context(settings):
            return draw(*args, **kwargs)

    return wrapper


def class_colors(class_names: Iterable[str]) -> list[str]:
    """Colours of the classes in their order, repeating after eight."""
    return [color for _, color in zip(class_names, itertools.cycle(COLORS))]


def ink() -> str:
    """Colour of text; call it inside a styled function."""
    return matplotlib.rcParams["text.color"]


def rgba(color: str, alpha: float) -> tuple[float, float, float, float]:
    """A colour as numbers from 0 to 1, with an opacity."""
    return matplotlib.colors.to_rgba(color, alpha)


def percent(share: float, _: object = None) -> str:
    """Formats a share of 0 to 1 as a percentage; also a formatter of an axis."""
    return f"{100 * share:.3g}%"


def longitude(degrees: float, _: object = None) -> str:
    """Formats degrees east as 61°W, 0°, 40°E or 180°; also a formatter of an axis."""
    degrees = (degrees + 180) % 360 - 180
    side = "W" if -180 < degrees < 0 else "E" if degrees > 0 else ""
    return f"{abs(degrees):g}\N{DEGREE SIGN}{side}"


def latitude(degrees: float, _: object = None) -> str:
    """Formats degrees north as 10°S, 0° or 24°N; also a formatter of an axis."""
    return f"{abs(degrees):g}\N{DEGREE SIGN}{'S' if degrees < 0 else 'N' if degrees else ''}"


def new_figure(width: float, height: float) -> Any:
    """A new Figure, width x height in inches; call it inside a styled function."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def headline(figure: Figure, title: str) -> None:
    """Writes a title above all axes of a figure."""
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11.5, parse_math=False)


def panels(
    class_names: Sequence[str],
    height: float,
    title: str,
    labels: tuple[str, str] = ("", ""),
    shared: bool = True,
) -> tuple[Any, list[Any], Any]:
    """Makes a figure with one axes per class in two columns; call it inside a styled function.

    Args:
        class_names: titles of the axes.
        height: height of an axes in inches.
        title: headline of the figure.
        labels: labels of the outer x and y axes.
        shared: whether all axes have the same limits.

    Returns:
        The figure, the axes of the classes, and the grid of all axes.
    """
    num_columns = min(2, len(class_names))
    num_rows = math.ceil(len(class_names) / num_columns)
    figure = new_figure(WIDTH, 0.3 + height * num_rows)
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=shared, sharey=shared)
    for axes in grid.ravel()[len(class_names) :]:
        axes.set_axis_off()
    found = list(grid.ravel()[: len(class_names)])
    for axes, name in zip(found, class_names):
        axes.set_title(name, fontsize=10.5, pad=4)
    for axes in grid[-1]:
        axes.set_xlabel(labels[0])
    for axes in grid[:, 0]:
        axes.set_ylabel(labels[1])
    headline(figure, title)
    return figure, found, grid


def describe(figure: Figure) -> str:
    """Joins the titles of all parts of a figure, as an alternative text."""
    titles = [axes.get_title(place) for axes in figure.axes for place in ("left", "center")]
    return "; ".join(filter(None, [figure.get_suptitle(), *titles]))


def save(figure: Figure, path: str, compression: int = 6) -> None:
    """Writes a figure as PNG or PDF, by the extension of the path, whole or not at all.

    The compression of a PNG is 0 to 9; for photographs, 2 takes a quarter of the time of 6 for
    files that are 3 % larger.
    """
    buffer = io.BytesIO()
    if path.endswith(".pdf"):
        # Journals require editable fonts; without a date, equal figures are equal files.
        with matplotlib.rc_context({"pdf.fonttype": 42}):
            about = {"CreationDate": None}
            figure.savefig(buffer, format="pdf", dpi=_PRINT_DPI, metadata=about)
    else:
        image = _render(figure).convert("RGB")
        image.save(buffer, format="png", compress_level=compression)
    with files.written_whole(path) as temporary, gfile.opened(temporary, "wb") as file:
        file.write(buffer.getvalue())


def encode(figure: Figure) -> bytes:
    """Encodes a figure as WebP, which is much smaller than PNG for photographs."""
    buffer = io.BytesIO()
    _render(figure).convert("RGB").save(buffer, format="webp", quality=85)
    return buffer.getvalue()


def pixels(figure: Figure) -> np.ndarray:
    """Renders a figure to uint8 [height, width, 3]."""
    return np.asarray(_render(figure).convert("RGB"))


def _render(figure: Figure) -> Any:
    """Renders a figure to a Pillow image; an unchanged figure is drawn only once."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image  # installed with matplotlib

    canvas = figure.canvas
    if figure.stale or not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))
