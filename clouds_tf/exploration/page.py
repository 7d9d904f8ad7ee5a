"""Renders the report as one HTML file that needs no other file, script, font or request."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Union

import jinja2

from clouds_tf import files

_FOLDER = os.path.dirname(__file__)


@dataclasses.dataclass(frozen=True)
class Text:
    """A card with one paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A card with a table; it scrolls if it is wider than the page.

    Attributes:
        caption: title above the table.
        header: names of the columns.
        rows: cells of each row.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure that is still to be drawn.

    Attributes:
        name: name of the PNG, without its ending.
        draw: returns a matplotlib Figure; takes the keyword `dark`.
        alt: description of the figure, for readers who do not see it.
        sentence: what the figure tells, with computed numbers.
    """

    name: str
    draw: Callable[..., Any]
    alt: str
    sentence: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A card with a figure that follows the colours of the page.

    Attributes:
        light: bytes of a WebP for a light page.
        dark: bytes of a WebP for a dark page.
        alt: see `Picture`.
        sentence: see `Picture`.
    """

    kind: ClassVar[str] = "figure"
    light: bytes
    dark: bytes
    alt: str
    sentence: str


Card = Union[Text, Table, Picture, Figure]


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: its heading.
        cards: its content.
        text: paragraph below the heading; may be empty.
        numbers: label -> text of large numbers above the cards.
    """

    title: str
    cards: Sequence[Card]
    text: str = ""
    numbers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """Name of the section in links."""
        return self.title.lower().replace(" ", "-")


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Renders a page with a table of contents.

    Args:
        title: title of the page.
        lead: paragraph below the title.
        sections: the sections, without any Picture: those are drawn before.

    Returns:
        The HTML of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["data_uri"] = _data_uri
    css = files.read_text(os.path.join(_FOLDER, "page.css"))
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, lead=lead, sections=sections, css=css).strip() + "\n"


def _data_uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
