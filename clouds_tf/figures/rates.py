"""The chart of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from clouds_tf.figures.style import NEUTRAL, WIDTH, ink, new_figure, styled


@styled
def learning_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    proposal: Optional[float],
) -> Any:
    """Draws the losses of a learning-rate range test; a dashed line marks the proposal.

    Args:
        rates: learning rates.
        losses: the loss of a batch at each of them.
        smoothed: the running mean of these.
        proposal: the proposed rate, or None.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 4.0)
    axes = figure.subplots()
    axes.plot(rates, losses, ".", color=NEUTRAL, label="batch")
    axes.plot(rates, smoothed, color=ink(), label="running mean")
    if proposal is not None:
        label = f"falls fastest: {proposal:.2g}"
        axes.axvline(proposal, color=ink(), lw=1.2, ls=(0, (4, 3)), label=label)
    axes.set(xscale="log", xlabel="learning rate", title="Loss")
    axes.grid()
    figure.legend(loc="outside lower center", ncols=3)
    return figure
