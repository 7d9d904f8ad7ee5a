"""Pictures of a network and of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clouds_tf.figures.style import (
    COLORS,
    NEUTRAL,
    WIDTH,
    Axes,
    Figure,
    class_colors,
    ink,
    new_figure,
    styled,
)
from clouds_tf.messages import counted

_DOWN, _UP = COLORS[:2]


def _text(stage: Any) -> str:
    count = stage.convolutions
    made = f"\n{counted(count, 'convolution')}" if count else ""
    return f"{stage.name}\n{stage.height} × {stage.width} × {stage.channels}{made}"


@styled
def network(down: Sequence[Any], up: Sequence[Any], title: str) -> Figure:
    """Draws a U-Net: feature maps as boxes, one row per resolution, and skips between them.

    Args:
        down: stages from the image to the deepest features, with the attributes name, convolutions
            (their number), height, width and channels; see `clouds_tf.models.unet.outline`.
        up: stages from there to the logits.
    """
    figure = new_figure(1.5 * WIDTH, 1.3 * WIDTH)
    axes = figure.subplots()
    heights = sorted({stage.height for stage in [*down, *up]}, reverse=True)
    row = {height: -depth for depth, height in enumerate(heights)}
    axes.set(title=title, xlim=(-0.6, 3.6), ylim=(0.5 - len(row), 0.5))
    axes.set_axis_off()
    columns = [0] * (len(down) - 1) + [1] + [2] * (len(up) - 1) + [3]
    places = [(x, row[stage.height]) for x, stage in zip(columns, [*down, *up])]
    boxes = [
        axes.text(
            *place,
            _text(stage),
            ha="center",
            va="center",
            color="black",
            fontsize=9,
            bbox={"boxstyle": "round,pad=0.6", "facecolor": color, "edgecolor": "none"},
        )
        for place, stage, color in zip(places, [*down, *up], [_DOWN] * len(down) + [_UP] * len(up))
    ]

    def arrow(start: int, end: int, color: str) -> None:
        ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
        style = {"arrowstyle": "-|>", "color": color, "shrinkA": 2, "shrinkB": 2, **ends}
        axes.annotate("", places[end], places[start], arrowprops=style)

    for start in range(len(boxes) - 1):
        arrow(start, start + 1, ink())
    ends = {stage.height: end for end, stage in enumerate(up[:-1], start=len(down))}
    for start, stage in enumerate(down[1:-1], start=1):
        arrow(start, ends[stage.height], NEUTRAL)
    kinds = (("encoder", _DOWN), ("decoder", _UP), ("skip", NEUTRAL))
    for name, color in kinds:
        marker, size, line = (">", 6, "-") if name == "skip" else ("s", 11, "none")
        axes.plot([], [], color=color, label=name, marker=marker, ms=size, ls=line)
    axes.plot([], [], " ", label="height × width × channels")
    axes.legend(loc="lower right", fontsize=9)
    return figure


@styled
def curves(history: Sequence[Mapping[str, float]], class_names: Sequence[str]) -> Figure:
    """Draws loss and Dice over epochs; a dashed line marks the epoch of the best held-out Dice.

    Args:
        history: one mapping per epoch, with epoch, loss, val_loss, dice, val_dice and
            val_dice_<class>.
    """
    figure = new_figure(2 * WIDTH, 4.6)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]

    def line(axes: Axes, key: str, label: str, **style: object) -> None:
        axes.plot(epochs, [row[key] for row in history], marker=".", label=label, **style)

    line(left, "loss", "training", color=NEUTRAL)
    line(left, "val_loss", "held out", color=ink())
    line(right, "dice", "training", color=NEUTRAL)
    line(right, "val_dice", "held out", color=ink())
    for name, color in zip(class_names, class_colors(class_names)):
        line(right, f"val_dice_{name}", f"held out, {name}", color=color, linewidth=1.3)
    best = max(history, key=lambda row: row["val_dice"])
    for axes, title in ((left, "Loss"), (right, "Competition Dice at probability 0.5")):
        axes.axvline(best["epoch"], color=ink(), lw=1.2, ls=(0, (4, 3)), zorder=0)
        axes.set(title=title, xlabel="epoch")
        axes.grid()
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.02)
    left.lines[-1].set_label(f"best epoch: {best['epoch']:.0f}, Dice {best['val_dice']:.3f}")
    for axes, side in ((left, "left"), (right, "right")):
        handles, _ = axes.get_legend_handles_labels()
        figure.legend(handles=handles, loc=f"outside lower {side}", ncols=3)
    return figure


@styled
def learning_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    proposal: float | None,
) -> Figure:
    """Draws the losses of a learning-rate range test; a dashed line marks the proposal.

    Args:
        rates: learning rates.
        losses: loss of a batch at each rate.
        smoothed: running mean of the losses.
        proposal: the proposed rate, or None.
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
