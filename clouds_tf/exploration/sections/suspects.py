"""Section "Worth a look": near-duplicates, unusual images, tiny masks and masks in the gap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clouds_tf.exploration import findings
from clouds_tf.exploration.page import Card, Picture, Section, Text
from clouds_tf.exploration.sections.parts import NUM_SHOWN, Explored, counted, listed, overlays

Finding = dict[str, Any]  # an entry of a list in statistics.json


def suspects(data: Explored) -> Section:
    """Shows near-duplicates, images unlike the others, tiny masks and masks in the black gap."""
    unlike, tiny, on_black = (
        data.summary[key] for key in ("unlike_others", "tiny", "on_black")
    )
    cards = [
        *_closest_pairs(data),
        _suspects(
            data,
            "unlike_others",
            unlike,
            lambda found: f"{found['filename']}: {found['measure']} {found['value']:.3g}",
            f"{counted(len(unlike), 'image')} at least {findings.UNLIKE:g} spreads from the median "
            f"in one of {listed(findings.IMAGE_MEASURES)}",
        ),
        _suspects(
            data,
            "tiny_masks",
            tiny,
            lambda found: f"{found['filename']}: {found['class']} {found['fraction']:.2%}",
            f"{counted(len(tiny), 'mask')} of less than {findings.TINY:.0%} of the image",
        ),
    ]
    if data.dataset.gap_brightness is not None:
        cards.append(
            _suspects(
                data,
                "masks_on_black",
                on_black,
                lambda found: f"{found['filename']}: {found['class']} {found['on_black']:.1%}",
                f"{counted(len(on_black), 'mask')} with {findings.ON_BLACK:.0%} or more of the "
                "area in the black gap",
            )
        )
    text = "All findings are listed in statistics.json; the first are shown."
    return Section("Worth a look", cards, text)


def _closest_pairs(data: Explored) -> list[Card]:
    pairs = data.summary["closest_pairs"]
    if not pairs:
        return []
    near = [pair for pair in pairs if pair["correlation"] >= findings.NEAR_DUPLICATE]
    shown: list[Finding] = []
    names: list[str] = []
    for pair in pairs:  # shows each image once: three that look alike are three pairs
        if len(names) < NUM_SHOWN and not set(names) & set(pair["filenames"]):
            shown.append(pair)
            names += pair["filenames"]
    titles = [f"{name} ({p['correlation']:.2f})" for p in shown for name in p["filenames"]]
    return [
        Picture(
            "closest_pairs",
            overlays(data, names, titles),
            "Pairs of images side by side, with the correlation of their thumbnails: "
            f"{'; '.join(titles)}.",
            f"{counted(len(near), 'near-duplicate')} (thumbnails that correlate with "
            f"{findings.NEAR_DUPLICATE} or more); the closest pair has "
            f"{pairs[0]['correlation']:.2f}.",
        )
    ]


def _suspects(
    data: Explored,
    name: str,
    found: Sequence[Finding],
    title: Callable[[Finding], str],
    sentence: str,
) -> Card:
    """A picture of the first findings, or a card that says that there are none."""
    if not found:
        return Text(f"{sentence}.")
    shown = found[:NUM_SHOWN]
    titles = [title(finding) for finding in shown]
    more = f"; the first {len(shown)} are shown" if len(found) > len(shown) else ""
    return Picture(
        name,
        overlays(data, [finding["filename"] for finding in shown], titles),
        f"Images with outlines: {'; '.join(titles)}.",
        f"{sentence}{more}.",
    )
