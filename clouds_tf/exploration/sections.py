"""The sections of the report: for each, the HTML above its cards, and the cards."""

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from clouds_tf import figures
from clouds_tf.data import augmentation
from clouds_tf.exploration import findings, page
from clouds_tf.exploration.statistics import GRID
from clouds_tf.schema import CLASS_NAMES, LABEL_COLUMN, NUM_CLASSES, RLE_COLUMN

_NUM_SHOWN = 6  # pictures in a grid


class Picture(NamedTuple):
    """A figure to be drawn twice, what it shows, and what it tells.

    Attributes:
        name: of the PNG.
        draw: a function with the keyword dark that returns a Figure.
        alt: what the picture shows.
        sentence: what it tells, computed.
    """

    name: str
    draw: object
    alt: str
    sentence: str


class Data(NamedTuple):
    """What the sections are made of."""

    table: object  # of annotations.read_csv
    statistics: object
    summary: dict
    load: object  # file name -> image uint8 [h, w, 3] and masks uint8 [h, w, 4]
    mask_size: tuple


def _list(names):
    """ "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _percents(values):
    """ "Fish 50 %, Flower 43 %, ..."."""
    return ", ".join(f"{name} {value:.1%}" for name, value in values.items())


def folder(data):
    """How many images and rows there are, and of what size."""
    summary = data.summary
    num_empty = summary["num_rows"] - summary["num_masks"]
    heights, widths = zip(*(map(int, size.split(" x ")) for size in summary["image_sizes"]))
    numbers = {
        "training images": f"{summary['num_train_images']:,}",
        "test images": f"{summary['num_test_images']:,}",
        "images measured": f"{summary['num_images']:,}",
        "rows measured": f"{summary['num_rows']:,}",
        "masks (rows that are not empty)": f"{summary['num_masks']:,}",
        "image height, least to most": _span(heights),
        "image width, least to most": _span(widths),
        "problems": str(len(summary["problems"])),
    }
    head = [
        (f"{filename}_{name}", f"{rle_[:24]}…" if len(rle_) > 24 else rle_ or "(empty)")
        for filename, row in data.table.head(2).iterrows()
        for name, rle_ in row.items()
    ]
    cards = [
        page.table("The first rows", (LABEL_COLUMN, RLE_COLUMN), head),
        Picture(
            "rows",
            functools.partial(
                figures.bars,
                {"with a mask": summary["num_masks"], "empty": num_empty},
                "Rows with and without a mask",
                "rows",
            ),
            f"Bars: {summary['num_masks']} rows with a mask, {num_empty} empty.",
            f"{num_empty / summary['num_rows']:.1%} of the rows are empty: that is the score of a "
            "submission without any mask.",
        ),
    ]
    return page.tiles(numbers), cards


def _span(values):
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def labels(data):
    """Which classes there are, and together with which."""
    summary = data.summary
    num_images = summary["num_images"]
    present = {name: count / num_images for name, count in summary["present"].items()}
    total = max(sum(summary["pixels"].values()), 1e-12)
    pixels = {name: share / total for name, share in summary["pixels"].items()}
    most, least = max(present, key=present.get), min(present, key=present.get)
    largest = max(pixels, key=pixels.get)
    counts = summary["labels_per_image"]
    mean_labels = summary["num_masks"] / num_images
    combined = summary["combinations"]
    (first, first_count), *_ = combined.items()
    together = np.array(summary["cooccurrence"], float)
    given = together / np.maximum(np.diag(together), 1)[:, np.newaxis]
    correlation = np.array(summary["correlation"], float)
    cards = [
        Picture(
            "masks_per_class",
            functools.partial(figures.bars, summary["present"], "Masks of each class", "masks"),
            "Bars of the number of masks: "
            + ", ".join(f"{name} {count}" for name, count in summary["present"].items())
            + ".",
            f"{most} is the most frequent class, in {present[most]:.1%} of the images, and {least} "
            f"the rarest, in {present[least]:.1%}.",
        ),
        Picture(
            "class_balance",
            functools.partial(
                figures.shares, present, pixels, ("Share of images", "Share of mask pixels")
            ),
            f"Two rows of bars. Share of images: {_percents(present)}. "
            f"Share of mask pixels: {_percents(pixels)}.",
            f"By pixel {largest} weighs most, with {pixels[largest]:.1%} of all mask pixels; by "
            f"presence {most} does.",
        ),
        Picture(
            "labels_per_image",
            functools.partial(figures.bars, counts, "Labels per image", "images"),
            "Bars of images: " + ", ".join(f"{n} labels {c}" for n, c in counts.items()) + ".",
            f"An image has {mean_labels:.2f} labels on average; "
            f"{1 - (counts[0] + counts[1]) / num_images:.1%} have more than one"
            + (f", and {counts[0]} have none." if counts[0] else ", and none is without a label."),
        ),
        Picture(
            "combinations",
            functools.partial(
                figures.combinations,
                {
                    () if name == "none" else tuple(name.split(" + ")): count
                    for name, count in combined.items()
                },
                "Which classes come together",
            ),
            f"Bars above dots: {len(combined)} combinations, from {first} ({first_count} images).",
            f"{len(combined)} of 16 combinations occur; the most frequent is {first}, in "
            f"{first_count / num_images:.1%} of the images.",
        ),
        Picture(
            "cooccurrence",
            functools.partial(
                figures.matrix,
                _off_diagonal(given),
                "Where the row is, how often is the column?",
                "{:.0%}",
                (0, max(np.nanmax(_off_diagonal(given)), 0.01)),
            ),
            "A matrix of classes by classes: the share of the row's images that show the column.",
            _strongest_pair(given),
        ),
        Picture(
            "correlation",
            functools.partial(
                figures.matrix, correlation, "Correlation of presence", "{:.2f}", (-1, 1), True
            ),
            "A matrix of the correlations between the classes' presence.",
            _strongest_correlation(correlation),
        ),
    ]
    return page.paragraph("How often each class is there, and with which others."), cards


def _off_diagonal(values):
    return np.where(np.eye(NUM_CLASSES, dtype=bool), np.nan, values)


def _strongest_pair(given):
    i, j = np.unravel_index(np.nanargmax(_off_diagonal(given)), given.shape)
    return (
        f"Of the images with {CLASS_NAMES[i]}, {given[i, j]:.0%} show {CLASS_NAMES[j]} too, the "
        "most of all pairs."
    )


def _strongest_correlation(correlation):
    off = np.abs(_off_diagonal(correlation))
    if np.isnan(off).all():
        return "No class varies, so that there is nothing to correlate."
    i, j = np.unravel_index(np.nanargmax(off), off.shape)
    how = "avoid" if correlation[i, j] < 0 else "attract"
    return (
        f"{CLASS_NAMES[i]} and {CLASS_NAMES[j]} {how} each other most, with a correlation of "
        f"{correlation[i, j]:.2f}."
    )


def _overlays(data, filenames, titles=None, classes=CLASS_NAMES):
    """A function that draws images with the masks of some classes, two in a row."""
    loaded = [data.load(filename) for filename in filenames]
    keep = np.array([name in classes for name in CLASS_NAMES], np.uint8)
    return functools.partial(
        figures.overlays,
        [image for image, _ in loaded],
        [masks * keep for _, masks in loaded],
        titles or list(filenames),
        num_columns=2,
    )


def examples(data, rng):
    """Images, masks and augmentations."""
    rows = data.statistics.rows
    images = findings.per_image(rows)["filename"].to_numpy()
    present = (rows["area"] > 0).to_numpy().reshape(-1, NUM_CLASSES)
    some = images[np.sort(rng.permutation(len(images))[:_NUM_SHOWN])]
    labels = dict(zip(images, present))

    def names(filename):
        return [name for name, there in zip(CLASS_NAMES, labels[filename]) if there]

    titled = [", ".join(names(filename)) or "none" for filename in some]
    counts = present.sum(axis=1)
    fewest = images[np.argmin(np.where(counts > 0, counts, NUM_CLASSES + 1))]
    richest = images[np.argmax(counts)]
    cards = [
        Picture(
            "images",
            _overlays(data, some, titled, classes=()),
            "Images without outlines, titled with their labels: " + "; ".join(titled) + ".",
            f"{len(some)} images drawn at random, titled with their labels. They "
            f"have {np.mean([labels[f].sum() for f in some]):.1f} labels on average.",
        ),
        Picture(
            "image_with_masks",
            _overlays(data, some),
            "The same images with outlines: " + "; ".join(titled) + ".",
            "The same images with their masks. "
            f"{np.mean([(data.load(f)[1].sum(axis=2) > 1).mean() for f in some]):.1%} of their "
            "pixels belong to more than one class.",
        ),
        Picture(
            "one_mask",
            functools.partial(_overlays(data, [fewest]), num_columns=1),
            f"{fewest} with the outline of {_list(names(fewest) or ['nothing'])}.",
            f"{fewest}: {_covered(rows, fewest)}.",
        ),
        Picture(
            "all_masks",
            functools.partial(_overlays(data, [richest]), num_columns=1),
            f"{richest} with the outlines of {_list(names(richest) or ['nothing'])}.",
            f"{richest}: {_covered(rows, richest)}.",
        ),
        _by_class(data, sorted(some, key=lambda f: -labels[f].sum())[:2]),
        _augmented(data, richest),
    ]
    return page.paragraph("Drawn at random, always the same for one seed."), cards


def _covered(rows, filename):
    of_image = rows[(rows["filename"] == filename) & (rows["area"] > 0)]
    shares = [f"{row['class']} {row['fraction']:.1%}" for _, row in of_image.iterrows()]
    return f"{_list(shares)} of the image" if shares else "no masks"


def _by_class(data, filenames):
    loaded = [data.load(filename) for filename in filenames]
    images, masks, titles = [], [], []
    for i, name in enumerate(CLASS_NAMES):
        for image, mask in loaded:
            only = np.zeros_like(mask)
            only[..., i] = mask[..., i]
            images.append(image)
            masks.append(only)
            titles.append(name if only.any() else f"{name}: absent")
    num_absent = sum(title.endswith("absent") for title in titles)
    return Picture(
        "images_by_class",
        functools.partial(figures.overlays, images, masks, titles, num_columns=len(filenames)),
        f"A grid: a row for each class, a column for each of {_list(filenames)}.",
        f"A row for each class, a column for each image: {len(titles) - num_absent} of "
        f"{len(titles)} masks are there, and the rest is what a model must leave empty.",
    )


def _augmented(data, filename):
    image, masks = data.load(filename)
    example = {"image": tf.constant(image), "mask": tf.constant(masks)}
    made = [example] + [augmentation.flips(example, [seed, 0]) for seed in range(3)]
    num_changed = sum(not np.array_equal(x["image"], image) for x in made)
    return Picture(
        "augmentation",
        functools.partial(
            figures.overlays,
            [x["image"].numpy() for x in made],
            [x["mask"].numpy() for x in made],
            ["as it is", *(f"flips, seed {seed}" for seed in range(3))],
            num_columns=2,
        ),
        f"{filename} as it is and after three random flips, masks with it.",
        f"Flips as training makes them: {num_changed} of three seeds changed the image, and the "
        "masks move with it.",
    )


def _per_class(data, column, only_masks=True):
    """Class name -> the numbers of a column, of rows with a mask."""
    masks = data.statistics.rows
    masks = masks[masks["area"] > 0] if only_masks else masks
    return {name: masks[column][masks["class"] == name].to_numpy(float) for name in CLASS_NAMES}


def _share_histogram(shares, title):
    """Draws how much of each image something takes; shares, a Series in [0, 1]."""
    return functools.partial(
        figures.histogram,
        shares.to_numpy(),
        np.linspace(0, max(shares.max(), 0.01), 41),
        title,
        "share of the image",
        percent=True,
    )


def _medians(values, label):
    return ", ".join(
        f"{name} {label.format(np.median(some))}" for name, some in values.items() if len(some)
    )


def _log_bins(values, count):
    """Edges between whole numbers from 1 on, about even on a logarithmic axis."""
    most = max((some.max() for some in values.values() if len(some)), default=10)
    return np.unique(np.floor(np.geomspace(1, max(most, 2) + 1, count + 1))) - 0.5


def masks(data):
    """Areas, places, boxes, components and encodings."""
    summary, components = data.summary, data.statistics.components
    fractions = {name: 100 * some for name, some in _per_class(data, "fraction").items()}
    count = _per_class(data, "components")
    sizes = {
        name: components["area"][components["class"] == name].to_numpy(float)
        for name in CLASS_NAMES
    }
    characters = _per_class(data, "characters")
    runs = _per_class(data, "runs")
    average = data.statistics.average_masks
    crumbs = summary["components"]
    num_single = sum(int((some == 1).sum()) for some in count.values())
    boxes = {key: _per_class(data, key) for key in ("top", "left", "bottom", "right")}
    widths = {name: boxes["right"][name] - boxes["left"][name] for name in CLASS_NAMES}
    heights = {name: boxes["bottom"][name] - boxes["top"][name] for name in CLASS_NAMES}
    whole = [
        (widths[name] >= 0.95 * data.mask_size[1]).mean() if len(widths[name]) else 0
        for name in CLASS_NAMES
    ]
    widest = int(np.argmax(whole))
    peak = average.reshape(NUM_CLASSES, -1)
    num_masks = max(summary["num_masks"], 1)
    cards = [
        Picture(
            "areas",
            functools.partial(
                figures.distributions,
                fractions,
                np.linspace(0, 100, 41),
                "How much of the image a mask covers",
                "% of the image",
            ),
            "Histograms of mask area for each class, and their shares in one. Medians: "
            + _medians(fractions, "{:.1f} %")
            + ".",
            f"Medians: {_medians(fractions, '{:.1f} %')} of the image; "
            f"{_count(len(summary['tiny']), 'mask').lower()} of less than {findings.TINY:.0%}.",
        ),
        Picture(
            "average_masks",
            functools.partial(
                figures.average_masks, average, data.mask_size, "Where each class is found"
            ),
            "A map for each class of the share of images in which a place is covered.",
            "Highest and lowest share of images that cover a place: "
            + ", ".join(
                f"{name} {p.max():.0%} and {p.min():.0%}" for name, p in zip(CLASS_NAMES, peak)
            )
            + ".",
        ),
        Picture(
            "bounding_boxes",
            functools.partial(
                figures.box_sizes, widths, heights, data.mask_size, "Bounding boxes of the masks"
            ),
            "A scatter plot of box width and height for each class.",
            f"{whole[widest]:.0%} of the boxes of {CLASS_NAMES[widest]} span at least 95 % of the "
            f"width, the most of all classes. Median width: {_medians(widths, '{:,.0f}')} pixels.",
        ),
        Picture(
            "components",
            functools.partial(
                figures.distributions,
                count,
                _log_bins(count, 24),
                "Connected components of a mask",
                "components",
                log=True,
            ),
            "Histograms of the components of a mask for each class, and their shares in one. "
            f"Medians: {_medians(count, '{:.0f}')}.",
            f"{num_single / num_masks:.1%} of the masks are of one piece, where pixels that "
            f"touch at a corner are one. Median pieces: {_medians(count, '{:.0f}')}.",
        ),
        Picture(
            "component_sizes",
            functools.partial(
                figures.distributions,
                sizes,
                _log_bins(sizes, 32),
                "Size of the components",
                "pixels",
                log=True,
            ),
            "Histograms of component size for each class, on a logarithmic axis.",
            f"{crumbs['num_crumbs'] / max(crumbs['num'], 1):.1%} of {crumbs['num']:,} components "
            f"have fewer than {crumbs['crumb']} pixels, and the largest of each mask together hold "
            f"{crumbs['share_of_largest']:.1%} of all mask pixels.",
        ),
        Picture(
            "rle_lengths",
            functools.partial(
                figures.distributions,
                {name: some / 1000 for name, some in characters.items()},
                (
                    np.linspace(
                        0, max(max(c.max() for c in characters.values() if len(c)), 1) / 1000, 41
                    )
                    if summary["num_masks"]
                    else np.linspace(0, 1, 41)
                ),
                "How long the run-length encodings are",
                "thousand characters",
            ),
            "Histograms of the length of the encodings for each class. Medians: "
            + _medians(characters, "{:,.0f}")
            + " characters.",
            (
                f"The median mask has {np.median(np.concatenate(list(runs.values()))):,.0f} runs; "
                f"the longest encoding {max(c.max() for c in characters.values() if len(c)):,.0f} "
                "characters."
                if summary["num_masks"]
                else "There are no masks."
            ),
        ),
    ]
    return page.paragraph("Counted on the runs of the encodings, at their own size."), cards


def images(data):
    """Brightness, gap and glint."""
    summary = data.summary
    images = findings.per_image(data.statistics.rows)
    rows = data.statistics.rows
    masks = rows[rows["area"] > 0]
    bright, gap, glint = (summary["images"][key] for key in ("brightness", "gap", "glint"))
    by_class = _per_class(data, "brightness")
    touching = summary["touches_gap"] / max(summary["num_masks"], 1)
    by_touch = {
        name: (
            float(masks["touches_gap"][masks["class"] == name].mean())
            if (masks["class"] == name).any()
            else 0.0
        )
        for name in CLASS_NAMES
    }
    on_black = {
        name: (
            float((masks["on_black"][masks["class"] == name] >= findings.ON_BLACK).mean())
            if (masks["class"] == name).any()
            else 0.0
        )
        for name in CLASS_NAMES
    }
    cards = [
        Picture(
            "brightness",
            functools.partial(
                figures.histogram,
                images["brightness"].to_numpy(),
                np.linspace(0, 255, 52),
                "Brightness of the images",
                "mean of what is not gap, 0 to 255",
            ),
            f"A histogram of image brightness, from {bright['min']:.0f} to {bright['max']:.0f}.",
            f"Half of the images have a mean brightness between {bright['q25']:.0f} and "
            f"{bright['q75']:.0f} of 255; the darkest has {bright['min']:.0f}, the brightest "
            f"{bright['max']:.0f}.",
        ),
        Picture(
            "brightness_by_class",
            functools.partial(
                figures.distributions,
                by_class,
                np.linspace(0, 255, 52),
                "Brightness of the images with each class",
                "mean of what is not gap, 0 to 255",
            ),
            "Histograms of image brightness for each class. Medians: "
            + _medians(by_class, "{:.0f}")
            + ".",
            f"Medians: {_medians(by_class, '{:.0f}')}.",
        ),
        Picture(
            "black_gap",
            _share_histogram(images["gap"], "Share of the black gap between two orbits"),
            f"A histogram of the share of black pixels, with a median of {gap['median']:.1%}.",
            f"The gap takes {gap['median']:.1%} of the median image and {gap['max']:.1%} of the "
            f"worst; {(images['gap'] < 0.005).mean():.1%} of the images have next to none.",
        ),
        Picture(
            "sun_glint",
            _share_histogram(images["glint"], "Share of sun glint"),
            f"A histogram of the share of sun glint, with a median of {glint['median']:.1%}.",
            f"{(images['glint'] > 0.1).mean():.1%} of the images have glint on more than a tenth. "
            "It is an estimate: the places where even the darkest spot between the clouds is grey "
            "and bright; haze and land can pass for it.",
        ),
        Picture(
            "masks_at_the_gap",
            functools.partial(
                figures.shares,
                by_touch,
                on_black,
                ("Masks that touch the gap", f"{findings.ON_BLACK:.0%} or more in it"),
            ),
            f"Two rows of bars. Masks that touch the gap: {_percents(by_touch)}. "
            f"With {findings.ON_BLACK:.0%} or more in it: {_percents(on_black)}.",
            f"{touching:.1%} of the masks reach the gap, as near as one of {GRID[0]} x {GRID[1]} "
            f"cells tells; {_count(len(summary['on_black']), 'mask').lower()} in it with at least "
            f"{findings.ON_BLACK:.0%} of their area.",
        ),
    ]
    return page.paragraph("Looked at in a reduced size."), cards


def worth_a_look(data):
    """Near-duplicates, images unlike the others, tiny masks and masks on black."""
    summary = data.summary
    pairs, unlike = summary["closest_pairs"], summary["unlike_others"]
    near = [pair for pair in pairs if pair["correlation"] >= findings.NEAR_DUPLICATE]
    cards = []
    if pairs:
        shown = pairs[: _NUM_SHOWN // 2]
        names = [name for pair in shown for name in pair["filenames"]]
        titles = [f"{name} ({p['correlation']:.2f})" for p in shown for name in p["filenames"]]
        cards.append(
            Picture(
                "closest_pairs",
                _overlays(data, names, titles),
                "Pairs of images beside each other, with the correlation of their thumbnails: "
                + "; ".join(titles)
                + ".",
                f"{_count(len(near), 'near-duplicate')} (thumbnails that correlate with "
                f"{findings.NEAR_DUPLICATE} or more); the closest pair has "
                f"{pairs[0]['correlation']:.2f}.",
            )
        )
    cards += _suspects(
        data,
        "unlike_others",
        unlike,
        lambda found: f"{found['filename']}: {found['measure']} {found['value']:.3g}",
        f"{_count(len(unlike), 'image')} at least {findings.UNLIKE:g} spreads from the median in "
        f"one of {_list(findings.IMAGE_MEASURES)}",
    )
    cards += _suspects(
        data,
        "tiny_masks",
        summary["tiny"],
        lambda found: f"{found['filename']}: {found['class']} {found['fraction']:.2%}",
        f"{_count(len(summary['tiny']), 'mask')} of less than {findings.TINY:.0%} of the image",
    )
    cards += _suspects(
        data,
        "masks_on_black",
        summary["on_black"],
        lambda found: f"{found['filename']}: {found['class']} {found['on_black']:.1%}",
        f"{_count(len(summary['on_black']), 'mask')} with {findings.ON_BLACK:.0%} or more "
        "of the area in the black gap",
    )
    return page.paragraph("All of them are listed in statistics.json; the first are shown."), cards


def _count(number, noun):
    return f"{number or 'No'} {noun}{'' if number == 1 else 's'}"


def _suspects(data, name, found, title, sentence):
    """A picture of the first that were found; where there are none, a card that says so."""
    if not found:
        return [f'<div class="card">{page.paragraph(sentence + ".")}</div>']
    shown = found[:_NUM_SHOWN]
    titles = [title(one) for one in shown]
    more = f"; the first {len(shown)} are shown" if len(found) > len(shown) else ""
    filenames = [one["filename"] for one in shown]
    return [
        Picture(
            name,
            _overlays(data, filenames, titles),
            f"Images with outlines: {'; '.join(titles)}.",
            f"{sentence}{more}.",
        )
    ]


def problems(data):
    """What could not be used, or does not fit together."""
    found = data.summary["problems"]
    if not found:
        return (
            page.paragraph("None: every image of the CSV is there, readable, and of one size."),
            [],
        )
    above = page.paragraph(f"{_count(len(found), 'problem')}:")
    return above, [page.table("Problems", ("what",), [[problem] for problem in found])]
