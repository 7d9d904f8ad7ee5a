"""What all pictures share: palette, style sheet, and how they are written."""

import functools
import io
import itertools

import numpy as np

from clouds_tf import files
from clouds_tf.schema import CLASS_NAMES

try:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image  # which matplotlib brings

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

# Four of Okabe and Ito's colours, which stay apart for colour-blind eyes and on clouds.
PALETTE = dict(zip(CLASS_NAMES, ("#56B4E9", "#E69F00", "#00C795", "#F06EAA")))
# For classes of other data sets, in turn.
_OTHER_COLORS = (*PALETTE.values(), "#0072B2", "#D55E00", "#F0E442", "#CC79A7")
NEUTRAL = "#8C96A3"  # what belongs to no class; seen on white and on black

WIDTH = 5.6  # inches: in this width text is legible on a page and on a phone

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


def _colors(paper, ink, faint):
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    papers = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {**dict.fromkeys(inks, ink), **dict.fromkeys(papers, paper), "grid.color": faint}


_LIGHT = _colors("#FFFFFF", "#1D2733", "#DDE2E8")
_DARK = _colors("#171C23", "#E4E9EF", "#343D48")


def styled(draw):
    """Lets a function that draws a Figure use the style sheet, and take the keyword `dark`."""

    @functools.wraps(draw)
    def wrapper(*args, dark=False, **kwargs):
        if not AVAILABLE:
            raise ImportError("pictures need matplotlib: pip install clouds_tf[plots]")
        with matplotlib.rc_context({**_STYLE, **(_DARK if dark else _LIGHT)}):
            return draw(*args, **kwargs)

    return wrapper


def class_colors(class_names):
    """The colour of each class: that of PALETTE, or the next of a cycle of eight."""
    cycle = itertools.cycle(_OTHER_COLORS)
    return [PALETTE.get(name, color) for name, color in zip(class_names, cycle)]


def ink():
    """The colour of text, inside a styled function."""
    return matplotlib.rcParams["text.color"]


def new_figure(width, height):
    """A figure of that many inches, inside a styled function."""
    return Figure(figsize=(width, height), layout="constrained")


def headline(figure, title):
    """Writes a title above all axes of a figure."""
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11.5)


def save(figure, path):
    """Writes a figure as PNG, whole or not at all."""
    with files.written_whole(path) as temporary:
        _render(figure).save(temporary, format="png")


def encode(figure):
    """Writes a figure as the bytes of a WebP, much smaller than a PNG where it shows images."""
    buffer = io.BytesIO()
    _render(figure).convert("RGB").save(buffer, format="webp", quality=85)
    return buffer.getvalue()


def pixels(figure):
    """A figure as uint8 [height, width, 3]."""
    return np.asarray(_render(figure).convert("RGB"))


def _render(figure):
    """The figure as an image of Pillow; drawn once, as long as it does not change."""
    canvas = figure.canvas
    if figure.stale or not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))
