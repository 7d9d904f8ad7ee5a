"""Near-duplicates, and what is unlike the rest."""

from clouds_tf.exploration import findings, page
from clouds_tf.exploration.sections.parts import NUM_SHOWN, Picture, counted, listed, overlays


def worth_a_look(data):
    """Near-duplicates, images unlike the others, tiny masks and masks on black."""
    summary = data.summary
    pairs, unlike = summary["closest_pairs"], summary["unlike_others"]
    near = [pair for pair in pairs if pair["correlation"] >= findings.NEAR_DUPLICATE]
    cards = []
    if pairs:
        shown = pairs[: NUM_SHOWN // 2]
        names = [name for pair in shown for name in pair["filenames"]]
        titles = [f"{name} ({p['correlation']:.2f})" for p in shown for name in p["filenames"]]
        cards.append(
            Picture(
                "closest_pairs",
                overlays(data, names, titles),
                "Pairs of images beside each other, with the correlation of their thumbnails: "
                + "; ".join(titles)
                + ".",
                f"{counted(len(near), 'near-duplicate')} (thumbnails that correlate with "
                f"{findings.NEAR_DUPLICATE} or more); the closest pair has "
                f"{pairs[0]['correlation']:.2f}.",
            )
        )
    cards += _suspects(
        data,
        "unlike_others",
        unlike,
        lambda found: f"{found['filename']}: {found['measure']} {found['value']:.3g}",
        f"{counted(len(unlike), 'image')} at least {findings.UNLIKE:g} spreads from the median in "
        f"one of {listed(findings.IMAGE_MEASURES)}",
    )
    cards += _suspects(
        data,
        "tiny_masks",
        summary["tiny"],
        lambda found: f"{found['filename']}: {found['class']} {found['fraction']:.2%}",
        f"{counted(len(summary['tiny']), 'mask')} of less than {findings.TINY:.0%} of the image",
    )
    cards += _suspects(
        data,
        "masks_on_black",
        summary["on_black"],
        lambda found: f"{found['filename']}: {found['class']} {found['on_black']:.1%}",
        f"{counted(len(summary['on_black']), 'mask')} with {findings.ON_BLACK:.0%} or more "
        "of the area in the black gap",
    )
    return page.paragraph("All of them are listed in statistics.json; the first are shown."), cards


def _suspects(data, name, found, title, sentence):
    """A picture of the first that were found; where there are none, a card that says so."""
    if not found:
        return [f'<div class="card">{page.paragraph(sentence + ".")}</div>']
    shown = found[:NUM_SHOWN]
    titles = [title(one) for one in shown]
    more = f"; the first {len(shown)} are shown" if len(found) > len(shown) else ""
    filenames = [one["filename"] for one in shown]
    return [
        Picture(
            name,
            overlays(data, filenames, titles),
            f"Images with outlines: {'; '.join(titles)}.",
            f"{sentence}{more}.",
        )
    ]
