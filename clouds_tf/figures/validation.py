"""Pictures of a validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clouds_tf.figures.style import class_colors, ink, panels, percent, styled


@styled
def daily_means(means: np.ndarray, class_names: Sequence[str], reference: str) -> Any:
    """Draws daily means of each class against those of a reference.

    Args:
        means: shares [2, days, C]: ours, and the reference's.
        class_names: C names.
        reference: name of the reference, on its axis.

    Returns:
        A matplotlib Figure.
    """
    title = f"Daily mean shares of the area, {means.shape[1]} days"
    figure, axes, _ = panels(class_names, 2.6, title, (reference, "predicted"), shared=False)
    for c, (ax, color) in enumerate(zip(axes, class_colors(class_names))):
        ours, theirs = means[..., c]
        limit = 1.05 * max(means[..., c].max(), 0.01)
        ax.plot([0, limit], [0, limit], color=ink(), lw=0.8, ls="--")
        ax.scatter(theirs, ours, s=22, color=color, edgecolors=ink(), linewidths=0.5, zorder=3)
        ax.set(xlim=(0, limit), ylim=(0, limit))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(percent)
        ax.grid()
    return figure
