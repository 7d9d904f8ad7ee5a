"""Renders the report as one HTML file that needs no other file, script, font or request."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import pandas as pd

from clouds_tf import figures

_FOLDER = os.path.dirname(__file__)


@dataclasses.dataclass(frozen=True)
class Card:
    """A sentence and, above it, a figure or a table if it has one.

    Attributes:
        text: what the card tells, with computed numbers.
        name: name of the figure's PNG, without its ending.
        draw: returns the figure, a matplotlib Figure; takes the keyword `dark`.
        table: a table; it scrolls if it is wider than the page.
    """

    text: str
    name: str = ""
    draw: Callable[..., Any] | None = None
    table: pd.DataFrame | None = None


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: its heading.
        text: paragraph below the heading.
        cards: its content.
        numbers: label -> text of large numbers above the cards.
    """

    title: str
    text: str
    cards: Sequence[Card]
    numbers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def render(title: str, lead: str, sections: Sequence[Section], figures_dir: str) -> str:
    """Draws the figures and renders a page with a table of contents.

    Args:
        title: title of the page.
        lead: paragraph below the title.
        sections: the sections.
        figures_dir: folder for the figures as PNG files.

    Returns:
        The HTML of the page.
    """

    def draw(card: Card) -> dict[str, str]:
        """Draws the figure of a card for pages of either colour, and saves the light one as PNG."""
        assert card.draw is not None
        light, dark = card.draw(), card.draw(dark=True)
        figures.save(light, os.path.join(figures_dir, f"{card.name}.png"))
        alt = figures.describe(light)
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
    return f"data:image/webp;base64,{base64.b64encode(figures.encode(figure)).decode()}"
