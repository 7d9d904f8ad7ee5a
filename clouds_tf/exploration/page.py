"""One HTML file that needs no other: no script, no font, no request."""

import base64
import html

# What a browser may load: pictures inside the file, and nothing else.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_CSS = """
:root { color-scheme: light dark; --paper: #f3f5f8; --card: #fff; --ink: #1d2733; --soft: #55616f;
  --line: #dde2e8; --link: #0b5cad; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --paper: #0e1217; --card: #171c23; --ink: #e4e9ef;
  --soft: #a3afbd; --line: #2c343f; --link: #7cb8f7; --warn: #fdba74; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.page { max-width: 1440px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .4rem; }
p { margin: .4rem 0 1rem; max-width: 46rem; }
.soft { color: var(--soft); }
nav ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .4rem; }
nav a { display: block; padding: .3rem .7rem; border: 1px solid var(--line); border-radius: 1rem;
  background: var(--card); color: var(--link); text-decoration: none; font-size: .93rem; }
nav a:hover, nav a:focus-visible { border-color: var(--link); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .8rem;
  margin: 1.2rem 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .7rem .9rem; }
.tiles b { display: block; font-size: 1.45rem; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .87rem; }
.cards { columns: 2 26rem; column-gap: 1.1rem; }
figure, .card { break-inside: avoid; margin: 0 0 1.1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .7rem; padding: .9rem; }
figure img { display: block; width: 100%; max-width: 720px; height: auto; margin: 0 auto; }
figcaption { margin-top: .7rem; padding-top: .7rem; border-top: 1px solid var(--line);
  font-size: .95rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
.warn { color: var(--warn); }
@media (min-width: 1080px) {
  .page { display: grid; grid-template-columns: 11.5rem minmax(0, 1fr); column-gap: 2rem; }
  nav { position: sticky; top: 1.5rem; align-self: start; }
  nav ul { flex-direction: column; flex-wrap: nowrap; gap: .1rem; }
  nav a { border-color: transparent; background: none; border-radius: .4rem; }
}
@media (max-width: 1079px) { nav { margin-bottom: 1.5rem; } }
@media (max-width: 480px) { figure, .card { padding: .5rem; margin-inline: -.4rem; } }
@media print { nav { display: none; } }
"""


def paragraph(text, css_class=""):
    """A paragraph of plain text."""
    return f'<p class="{css_class}">{html.escape(text)}</p>'


def figure(light, dark, alt, sentence):
    """A picture that follows the page's colours, with a sentence below it.

    Args:
        light: the bytes of a WebP for a light page.
        dark: those for a dark one.
        alt: what the picture shows, for those who do not see it.
        sentence: what it tells.
    """
    light, dark = (f"data:image/webp;base64,{base64.b64encode(x).decode()}" for x in (light, dark))
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{html.escape(alt)}" src="{light}"></picture>'
        f"<figcaption>{html.escape(sentence)}</figcaption></figure>"
    )


def table(caption, header, rows):
    """A table of plain text, which scrolls where it is wider than the page."""

    def cells(tag, row):
        return "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="card scroll"><table><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def tiles(numbers):
    """Large numbers in a row; a dict of label -> text."""
    items = "".join(
        f"<li><b>{html.escape(text)}</b><span>{html.escape(label)}</span></li>"
        for label, text in numbers.items()
    )
    return f'<ul class="tiles">{items}</ul>'


def page(title, lead, sections):
    """A page with a table of contents.

    Args:
        title: of the page.
        lead: HTML that stands above all sections.
        sections: a dict of title -> (HTML above the cards, list of cards as HTML).

    Returns:
        The HTML of the page.
    """
    names = {name: name.lower().replace(" ", "-") for name in sections}
    contents = "".join(
        f'<li><a href="#{anchor}">{html.escape(name)}</a></li>' for name, anchor in names.items()
    )
    body = "".join(
        f'<section id="{names[name]}"><h2>{html.escape(name)}</h2>{above}'
        f'<div class="cards">{"".join(cards)}</div></section>'
        for name, (above, cards) in sections.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f'<style>{_CSS}</style></head><body><div class="page">'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>'
        f"<main><h1>{html.escape(title)}</h1>{lead}{body}</main></div></body></html>\n"
    )
