"""Renders reports as self-contained HTML files, without scripts, fonts or requests."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2

from clouds_tf.figures.style import describe, encode, save

_FOLDER = os.path.dirname(__file__)


@dataclasses.dataclass(frozen=True)
class Card:
    """A caption, with a figure or a table above it, if any.

    Attributes:
        text: the caption, with computed numbers.
        name: name of the figure's file, without extension.
        draw: returns the matplotlib Figure; takes the keyword `dark`.
        table: a pandas DataFrame; it scrolls if it is wider than the page.
        is_wide: whether the card takes the whole width of the page.
    """

    text: str
    name: str = ""
    draw: Callable[..., Any] | None = None
    table: Any = None
    is_wide: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: its heading.
        text: paragraph below the heading.
        cards: its content.
        numbers: label -> text of the large numbers above the cards.
    """

    title: str
    text: str
    cards: Sequence[Card]
    numbers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def render(
    title: str,
    lead: str,
    sections: Sequence[Section],
    figures_dir: str,
    formats: Sequence[str] = ("png",),
) -> str:
    """Draws the figures and renders a page with a table of contents as HTML.

    Args:
        lead: paragraph below the title.
        figures_dir: folder for the figures as files.
        formats: formats of these files, see `save`.
    """

    def draw(card: Card) -> dict[str, str]:
        """Draws the figure of a card for light and dark pages, and saves the light one."""
        assert card.draw is not None
        light, dark = card.draw(), card.draw(dark=True)
        for ending in formats:
            save(light, os.path.join(figures_dir, f"{card.name}.{ending}"))
        alt = describe(light)
        return {"alt": alt, "light": _data_uri(light), "dark": _data_uri(dark)}

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, lead=lead, sections=sections, draw=draw).strip() + "\n"


def _data_uri(figure: Any) -> str:
    return f"data:image/webp;base64,{base64.b64encode(encode(figure)).decode()}"
