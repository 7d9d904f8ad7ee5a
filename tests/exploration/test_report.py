import dataclasses
import functools
import json
import re
import shutil
import subprocess

from cli import read_dataset

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from pages import Parser
from shared_fixtures import run_tool

from clouds_tf import figures
from clouds_tf.data import annotations, sample_data
from clouds_tf.dataset import CLOUDS
from clouds_tf.exploration import report
from clouds_tf.figures import page

CLASS_NAMES = CLOUDS.class_names

SECTIONS = ["The folder", "Labels", "Examples", "Masks", "Images", "Worth a look", "Problems"]
PICTURES = {
    "rows",
    "masks_per_class",
    "class_balance",
    "labels_per_image",
    "combinations",
    "cooccurrence",
    "correlation",
    "images",
    "image_with_masks",
    "one_mask",
    "all_masks",
    "images_by_class",
    "augmentation",
    "areas",
    "average_masks",
    "bounding_boxes",
    "components",
    "component_sizes",
    "rle_lengths",
    "brightness",
    "brightness_by_class",
    "black_gap",
    "sun_glint",
    "masks_at_the_gap",
    "closest_pairs",
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not figures.AVAILABLE, reason="no matplotlib for the figures"),
]


@pytest.fixture(scope="module")
def written(data_dir, tmp_path_factory):
    """The tool's report on the sample data."""
    folder = tmp_path_factory.mktemp("report") / "new"
    result = run_tool("explore", f"--data_dir={data_dir}", f"--output_dir={folder}")
    assert result.returncode == 0, result.stderr
    expected = f"Wrote the report on 12 images, with 0 problems, to {folder}/report.html"
    assert result.stdout.strip() == expected
    return folder, (folder / "report.html").read_text()


def _once(draw):
    """Gives the figure of a light page to a dark one too."""
    figure = functools.lru_cache(draw)
    return lambda dark=False: figure()


def _change_cards(monkeypatch, change):
    """Pages get cards with other fields, change(card)."""

    def changed(section):
        cards = [dataclasses.replace(card, **change(card)) for card in section.cards]
        return dataclasses.replace(section, cards=cards)

    def render(title, lead, sections, *figures):
        return before(title, lead, [changed(section) for section in sections], *figures)

    before = page.render
    monkeypatch.setattr(page, "render", render)


@pytest.fixture
def drawn_only(monkeypatch):
    """Figures are drawn once but not rendered, which takes most of the time."""
    _change_cards(monkeypatch, lambda card: {"draw": card.draw and _once(card.draw)})
    monkeypatch.setattr(page, "save", lambda figure, path: None)
    monkeypatch.setattr(page, "encode", lambda figure: b"")


@pytest.fixture
def not_drawn(monkeypatch):
    """Figures are left out, for tests of numbers and sentences."""
    _change_cards(monkeypatch, lambda card: {"draw": None})


def test_all_sections_are_there_and_in_the_table_of_contents(written):
    parser = Parser(written[1])
    assert parser.text("h2") == SECTIONS
    ids = [attrs["id"] for attrs in parser.all("section")]
    assert [attrs["href"] for attrs in parser.all("a")] == [f"#{name}" for name in ids]


def test_every_picture_has_an_alt_text_and_a_sentence(written):
    folder, text = written
    parser = Parser(text)
    images = parser.all("img")
    assert len(images) == len(parser.all("source"))
    assert all(len(attrs["alt"]) > 6 for attrs in images)
    captions = parser.text("figcaption")
    assert len(captions) >= len(images) and all(caption.endswith(".") for caption in captions)
    found = {path.stem for path in (folder / "figures").iterdir()}
    assert PICTURES <= found and len(found) == len(images)


def test_nothing_is_asked_from_outside(written):
    parser = Parser(written[1])
    for _, attrs in parser.tags:
        for key in ("src", "srcset", "href"):
            assert attrs.get(key, "#").startswith(("#", "data:"))
    assert not re.search(r"https?:|url\(|@import|<script", written[1])
    (policy,) = [a for a in parser.all("meta") if "http-equiv" in a]
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


def test_numbers_are_written_too(written):
    folder, _ = written
    summary = json.loads((folder / "statistics.json").read_text())
    assert (summary["num_train_images"], summary["num_test_images"]) == (12, 3)
    assert summary["problems"] == []
    rows = pd.read_csv(folder / "rows.csv")
    assert len(rows) == 48 and set(rows["class"]) == set(CLASS_NAMES)
    assert {"area", "fraction", "runs", "components", "top", "brightness"} <= set(rows.columns)
    assert not [path for path in folder.rglob(".*")]


def test_no_image_of_a_sample_counts_twice(data_dir, tmp_path, not_drawn):
    summary = report.write_report(str(data_dir), str(tmp_path), CLOUDS, max_images=11)
    assert (summary["num_images"], summary["num_rows"]) == (11, 44)
    assert "11 of 12 training images" in (tmp_path / "report.html").read_text()
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows["filename"].nunique() == 11 and len(rows) == 11 * 4


def test_text_is_escaped(tmp_path, drawn_only, monkeypatch):
    monkeypatch.setattr(page, "describe", lambda figure: 'a "b" <c>')
    cards = [
        page.Card("x < y & z", "name", lambda dark=False: None),
        page.Card("<i>", table=pd.DataFrame({"<i>": ["<i>"]})),
        page.Card("<i>"),
    ]
    section = page.Section("<i> of it", "<i>", cards, {"<i>": "<i>"})
    shown = page.render("<i>", "<i>", [section], str(tmp_path))
    assert 'alt="a &#34;b&#34; &lt;c&gt;"' in shown and "x &lt; y &amp; z" in shown
    assert "<i>" not in shown
    parser = Parser(shown)
    assert parser.all("img")[0]["alt"] == 'a "b" <c>'
    assert parser.text("h2") == ["<i> of it"]


def _copy(data_dir, folder):
    shutil.copytree(data_dir, folder)
    return folder, sorted((folder / "train_images").iterdir())


def test_problems_are_a_section_of_their_own(data_dir, tmp_path, not_drawn, capfd):
    folder, images = _copy(data_dir, tmp_path / "data")
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:2000])
    small = tf.io.encode_jpeg(np.full((70, 105, 3), 90, np.uint8))
    images[2].write_bytes(small.numpy())
    (folder / "train_images" / "unlisted.jpg").write_bytes(small.numpy())
    (folder / "train_images" / "._a.jpg").write_bytes(b"")
    # More than what libjpeg reads ahead without a word.
    images[3].write_bytes(images[3].read_bytes()[:-2] + b"\1" * 30 + b"\xff\xd9")
    summary = report.write_report(str(folder), str(tmp_path / "out"), CLOUDS)
    assert summary["num_images"] == 10
    assert re.fullmatch(r"Summary\(10 images, \d+ masks, 5 problems\)", repr(summary))
    problems = "\n".join(summary["problems"])
    assert re.search(rf"{images[3]}: Corrupt JPEG data: \d+ extraneous bytes", problems)
    assert "Corrupt" not in capfd.readouterr().err
    assert f"{images[0]}: no such image, but it is annotated" in problems
    assert f"{images[1]}: not a whole, readable JPEG" in problems
    without = f"train_images: 1 file without annotations in {folder / 'train.csv'}"
    assert f"{without}, such as unlisted.jpg" in problems
    assert "images of 2 sizes: 1 of 70 x 105, 9 of 140 x 210" in problems
    assert Parser((tmp_path / "out" / "report.html").read_text()).text("td")[-5:] == (
        summary["problems"]
    )


def test_a_folder_without_masks(data_dir, tmp_path, drawn_only):
    folder, images = _copy(data_dir, tmp_path / "data")
    names = [image.name for image in images]
    annotations.write_csv(str(folder / "train.csv"), names, [[""] * 4] * len(names), CLOUDS)
    report.write_report(str(folder), str(tmp_path / "out"), CLOUDS)
    assert "There are no masks." in (tmp_path / "out" / "report.html").read_text()


def test_other_layouts_and_sources_are_explored(tmp_path, drawn_only, request):
    """Ids without ending, relative runs and PNG; masks of two sizes in COCO JSON."""
    size = (12, 18)
    siim = dataclasses.replace(read_dataset("siim"), mask_size=size, submission_size=size)
    sample_data.write_sample_data(str(tmp_path / "D"), 4, 1, dataset=siim)
    summary = report.write_report(str(tmp_path / "D"), str(tmp_path / "siim"), siim)
    assert summary["num_images"] == 4 and summary["image_sizes"] == {"12 x 18": 4}
    assert not summary["problems"]

    images = sorted((tmp_path / "D" / "train_images").iterdir())
    square = {"segmentation": [[0, 0, 9, 0, 9, 6, 0, 6]], "category_id": 1}
    content = {
        "images": [
            {"id": i, "file_name": path.name, "height": h, "width": w}
            for i, (path, (h, w)) in enumerate(zip(images[:3], (size, size, (24, 36))))
        ],
        "categories": [{"id": 1, "name": "cloud"}],
        "annotations": [{**square, "image_id": 0}, {**square, "image_id": 2}],
    }
    request.getfixturevalue("not_drawn")
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    tool = f"--data_dir={tmp_path / 'D'}", f"--output_dir={tmp_path / 'coco'}", f"--coco={path}"
    result = run_tool("explore", *tool)
    assert result.returncode == 0, result.stderr
    assert "report on 3 images, with 1 problem" in result.stdout  # the fourth is not in it
    rows = pd.read_csv(tmp_path / "coco" / "rows.csv")
    # 9 x 6 pixels; of the third image every other one, from the second on: 4 x 3 of them.
    assert rows["area"].tolist() == [54, 0, 12]


def test_an_image_is_shown_once_and_ties_are_named(data_dir, tmp_path, drawn_only):
    folder, images = _copy(data_dir, tmp_path / "data")
    names = [image.name for image in images]
    for image in images[1:3]:
        shutil.copy(images[0], image)
    rows = [["1 9", "", "1 9", "1 9"]] * 6 + [["", "1 9", "1 9", ""]] * 6
    annotations.write_csv(str(folder / "train.csv"), names, rows, CLOUDS)
    summary = report.write_report(str(folder), str(tmp_path / "out"), CLOUDS)
    pairs = [pair["filenames"] for pair in summary["closest_pairs"][:3]]
    assert {name for pair in pairs for name in pair} == set(names[:3])
    parser = Parser((tmp_path / "out" / "report.html").read_text())
    (shown,) = [img["alt"] for img in parser.all("img") if " (1.00)" in img["alt"]]
    assert all(shown.count(name) <= 1 for name in names)
    ties = "Most frequent: Gravel, in 100.0% of the images; rarest: Fish, Flower, Sugar, in 50.0%."
    assert ties in parser.text("figcaption")


@pytest.mark.parametrize("fault", ["no CSV", "no images", "no columns"])
def test_a_bad_folder_is_named_and_nothing_is_written(fault, data_dir, tmp_path):
    folder, _ = _copy(data_dir, tmp_path / "data")
    csv = folder / "train.csv"
    if fault == "no CSV":
        csv.unlink()
        expected = f"{csv}: no such file"
    elif fault == "no images":
        shutil.rmtree(folder / "train_images")
        expected = f"{folder / 'train_images'}: no such folder"
    else:
        csv.write_text("a,b\n1,2\n")
        expected = f"{csv}: no column 'Image_Label', got 'a', 'b'"
    with pytest.raises((FileNotFoundError, ValueError), match=f"^{re.escape(expected)}$"):
        report.write_report(str(folder), str(tmp_path / "out"), CLOUDS)
    assert not (tmp_path / "out").exists()


def test_the_tool_says_what_is_wrong_in_one_line(data_dir, tmp_path):
    folder, _ = _copy(data_dir, tmp_path / "data")
    lines = (folder / "train.csv").read_text().splitlines()
    lines[1] = lines[1].split(",")[0] + ",7"
    (folder / "train.csv").write_text("\n".join(lines))
    result = run_tool("explore", f"--data_dir={folder}", f"--output_dir={tmp_path / 'out'}")
    assert result.returncode == 1
    assert result.stderr.startswith(f"explore.py: error: {folder / 'train.csv'}, line 2:")
    assert result.stderr.count("\n") == 1


def _open_in_browser(path, profile):
    """The page as the browser has it, and what the browser said."""
    offline = "--disable-quic --disable-background-networking --disable-component-update"
    options = f"--headless --no-sandbox --disable-gpu --no-first-run --disable-sync {offline}"
    return subprocess.run(
        [
            CHROMIUM,
            *options.split(),
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
def test_a_browser_shows_it_and_would_refuse_a_request(written, tmp_path):
    folder, text = written
    result = _open_in_browser(folder / "report.html", tmp_path / "profile")
    assert result.stdout.count("<figcaption>") == text.count("<figcaption>"), result.stderr
    assert ":CONSOLE" not in result.stderr

    asking = text.replace("<h1>", '<img alt="" src="http://127.0.0.1:9/asked.webp"><h1>')
    (tmp_path / "asking.html").write_text(asking)
    result = _open_in_browser(tmp_path / "asking.html", tmp_path / "profile")
    assert ":CONSOLE" in result.stderr and "Content Security Policy" in result.stderr
