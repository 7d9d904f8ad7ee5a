"""The page in Chromium, from a picture to its files, beside the SavedModel's own answer."""

import base64
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import shapely
import stubs
import tensorflow as tf
from pages import blocks
from PIL import Image
from programs import REPOSITORY, TOOLS, start_program
from served import written  # noqa: F401

from clouds_tf import client
from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction.likeness import Likeness, statistics
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.serving import onnx, outputs
from clouds_tf.serving.answers import Answer
from clouds_tf.serving.cloud_model import CloudModel

NAME = "Aqua_20200101_-61--40_10-24.jpg"
SIZE = (140, 210)
SMALL = (64, 96)  # of the input of the model in the browser
# Where `npm install onnxruntime-web` puts it.
ONNXRUNTIME_WEB = os.environ.get(
    "ONNXRUNTIME_WEB", f"{REPOSITORY}/node_modules/onnxruntime-web/dist"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def images_dir(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    first, second, _ = sorted((data_dir / "test_images").iterdir())
    shutil.copy(first, folder / NAME)
    shutil.copy(second, folder / "b.jpg")
    (folder / "page.jpg").write_text("<html>")
    return folder


@pytest.fixture(scope="module")
def expected(written, images_dir):  # noqa: F811
    """The Answer of the SavedModel itself to the image NAME."""
    serve = tf.saved_model.load(f"{written}/2").signatures["serving_default"]
    found = serve(image_bytes=tf.constant([(images_dir / NAME).read_bytes()]))
    values = {name: value[0].numpy().tolist() for name, value in found.items()}
    rles = tuple(text.decode() for text in values.pop("encoded_pixels"))
    assert any(rles)
    return Answer(NAME, CLOUDS.class_names, SIZE, rles, **values)


@pytest.fixture(scope="module")
def small_model():
    """A model of another input size than the served ones, and without a classification head."""
    noise = np.random.default_rng(1).integers(0, 256, (8, *SMALL, 3), np.uint8)
    likeness = Likeness.fit(statistics(tf.constant(noise)).numpy(), SMALL)
    return CloudModel([stubs.network(seed=2)], Metadata(CLOUDS, (SMALL,), likeness=likeness))


@pytest.fixture(scope="module")
def onnx_flags(small_model, tmp_path_factory):
    """Flags of a page that runs the small model by itself; none without the packages for it."""
    if not os.path.isdir(ONNXRUNTIME_WEB) or not importlib.util.find_spec("tf2onnx"):
        return []
    path = str(tmp_path_factory.mktemp("onnx") / "m.onnx")
    images = np.zeros((1, *SMALL, 3), np.uint8)
    onnx.write(path, small_model.networks, small_model.metadata, [images])
    return [f"--onnx={path}", f"--onnxruntime_web={ONNXRUNTIME_WEB}"]


@pytest.fixture(scope="module")
def url(written, images_dir, onnx_flags):  # noqa: F811
    flags = [f"--saved_model={written}", "--port=0", f"--images_dir={images_dir}", *onnx_flags]
    with start_program(f"{TOOLS}/serve.py", *flags, "--access_log=false") as program:
        lines = (re.search(r"Serving .* on (http://\S+)/", line) for line in program.stdout)
        yield next(filter(None, lines))[1]
        program.kill()


@pytest.fixture
def page(url):
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which containers lack; it sees this server only.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(30_000)
        page.faults, page.requested = [], []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("request", lambda request: page.requested.append(request.url))
        yield page
        browser.close()


def _drop(page, name, content):
    page.evaluate(
        """([name, content]) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name));
          for (const kind of ["dragover", "drop"]) {
            document.body.dispatchEvent(
              new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
          }
        }""",
        [name, base64.b64encode(content).decode()],
    )


def _wait_for_answer(page):
    answered, alert = page.get_by_text("Answered in"), page.locator("#error:visible")
    answered.or_(alert).first.wait_for()
    assert not alert.count(), alert.inner_text()


def _saved(page, button, folder):
    """Path of what a button saves, under the name that the page gives it."""
    with page.expect_download() as download:
        button.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.slow
def test_from_a_dropped_picture_to_the_files(page, url, images_dir, expected, tmp_path):
    page.goto(url)
    page.get_by_text("Masks of Fish, Flower, Gravel, and Sugar will appear here.").wait_for()
    _drop(page, NAME, (images_dir / NAME).read_bytes())
    _wait_for_answer(page)
    rows = page.get_by_role("row").all_inner_texts()[1:]
    for row, name, presence, rle in zip(
        rows, CLOUDS.class_names, expected.presence, expected.encoded_pixels
    ):
        assert row.split()[:2] == [name, f"{presence:.2f}"]
        assert ("absent" in row) == (rle == "")

    path = _saved(page, page.get_by_role("button", name="Submission rows"), tmp_path)
    assert path.name == f"{NAME}.csv"
    rles = zip(itertools.repeat(NAME), CLOUDS.class_names, expected.encoded_pixels)
    outputs.write_submission(str(tmp_path / "expected.csv"), rles, CLOUDS)
    assert path.read_text() == (tmp_path / "expected.csv").read_text()

    outputs.write_masks(str(tmp_path), expected, CLOUDS)
    masks = client.decode_masks(expected.encoded_pixels, CLOUDS.to_json())
    for name in CLOUDS.class_names:
        (tmp_path / "page").mkdir(exist_ok=True)
        button = page.get_by_role("button", name=f"Mask of {name} as PNG")
        path = _saved(page, button, tmp_path / "page")
        found, truth = (Image.open(p) for p in (path, tmp_path / f"{NAME}_{name}.png"))
        np.testing.assert_array_equal(np.array(found.convert("L")), np.array(truth))

    assert page.get_by_label("Extent").input_value() == "-61,10,-40,24"
    path = _saved(page, page.get_by_role("button", name="GeoJSON"), tmp_path)
    features = json.loads(path.read_text())["features"]
    present = [i for i, mask in enumerate(masks) if mask.any()]
    assert len(features) == len(present) > 0
    for i, feature in zip(present, features):
        shape, about = shapely.geometry.shape(feature["geometry"]), feature["properties"]
        assert shape.is_valid and shape.area == pytest.approx(masks[i].mean() * 21 * 14)
        assert about["class"] == CLOUDS.class_names[i] and about["model"] == "clouds, version 2"
        assert about["presence"] == pytest.approx(expected.presence[i], abs=1e-5)

    _check_controls(page, present)
    _drop(page, "page.jpg", b"<html>")
    page.get_by_role("alert").get_by_text("expected a JPEG or a PNG").wait_for()
    assert not page.get_by_role("table").is_visible()
    assert not page.faults
    assert all(x.startswith((f"{url}/", "blob:", "data:")) for x in page.requested)


def _check_controls(page, present):
    """Toggles, opacity, a wrong extent, a phone and the dark; with the mouse, then with keys."""
    name = CLOUDS.class_names[present[0]]
    line, outlines = page.locator(f'path.line[data-class="{name}"]'), page.locator("#outlines")
    assert line.is_visible() and name in outlines.get_attribute("aria-label")
    page.get_by_role("checkbox", name=name).uncheck()
    assert not line.is_visible() and name not in outlines.get_attribute("aria-label")
    page.get_by_label("Opacity").focus()
    page.keyboard.press("End")
    fill = page.locator("path.fill").first
    assert fill.evaluate("path => getComputedStyle(path).fillOpacity") == "1"
    page.get_by_label("Extent").fill("1,2,3")
    page.keyboard.press("Enter")
    page.get_by_text('extent: got "1,2,3", expected lon_min').wait_for()
    assert page.get_by_label("Extent").get_attribute("aria-invalid") == "true"
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_pictures_beside_the_server_and_the_keyboard(page, url, images_dir):
    page.goto(f"{url}/?image=b.jpg")
    _wait_for_answer(page)
    assert page.get_by_role("img", name="b.jpg").is_visible()
    page.get_by_label("Image on the server").fill(f"{url}/images/{NAME}")
    page.keyboard.press("Enter")
    page.get_by_role("img", name=NAME).wait_for()
    assert page.url == f"{url}/?image={NAME}"
    page.get_by_label("Image on the server").fill("c.jpg")
    page.keyboard.press("Enter")
    page.get_by_text("c.jpg: no such image on the server").wait_for()
    page.goto(url)
    page.get_by_text("will appear here").wait_for()
    page.keyboard.press("Tab")
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    while not choosers:  # shortly after a page is shown, Chromium opens none
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
    choosers[0].set_files(images_dir / "b.jpg")
    _wait_for_answer(page)
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == "Another picture" and not page.faults


@pytest.mark.slow
def test_the_browser_answers_as_the_saved_model(page, url, onnx_flags, images_dir, small_model):
    if not onnx_flags:
        pytest.skip("needs the extra onnx, and onnxruntime-web (ONNXRUNTIME_WEB names its folder)")
    content = tf.io.encode_png(tf.io.decode_jpeg((images_dir / NAME).read_bytes())).numpy()
    expected = {k: v.numpy() for k, v in small_model.serve(tf.constant([content])).items()}
    page.goto(url)
    page.get_by_label("In this browser").check()
    _drop(page, "a.png", content)
    _wait_for_answer(page)
    assert "in this browser" in page.get_by_role("status").inner_text()
    rows = page.get_by_role("row").all_inner_texts()[1:]
    assert [row.split()[1] for row in rows] == [f"{x:.2f}" for x in expected["presence"][0]]
    likeness = page.get_by_text(re.compile("Likeness 0|likeness 0")).first.inner_text()
    assert f"ikeness {expected['likeness'][0]:.2f}" in likeness
    with page.expect_download() as download:
        page.get_by_role("button", name="Submission rows").click()
    rles = [line.split(",")[1] for line in download.value.path().read_text().splitlines()[1:]]
    found = client.decode_masks(rles, CLOUDS.to_json())
    truth = [text.decode() for text in expected["encoded_pixels"][0]]
    differs = found != client.decode_masks(truth, CLOUDS.to_json())
    assert found.any() and differs.mean() < 1e-3
    assert not any(":predict" in address for address in page.requested) and not page.faults


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("node"), reason="no Node.js on this machine")
def test_the_documented_javascript_is_answered(url, images_dir, expected, tmp_path):
    (program,) = (b.text for b in blocks("docs/serve.md") if b.kind == "js")
    shutil.copy(REPOSITORY / "clouds_tf" / "server" / "page" / "client.js", tmp_path)
    shutil.copy(images_dir / NAME, tmp_path / "image.jpg")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "a.js").write_text(program.replace("http://localhost:8501", url))
    found = subprocess.run(["node", "a.js"], cwd=tmp_path, capture_output=True, text=True)
    mask = client.decode_masks(expected.encoded_pixels[:1], CLOUDS.to_json())
    assert found.stderr == "" and found.stdout.split()[0] == CLOUDS.class_names[0]
    assert float(found.stdout.split()[1]) == pytest.approx(expected.presence[0], abs=1e-6)
    assert int(found.stdout.split()[2]) == mask.sum()
    (tmp_path / "image.jpg").write_text("<html>")
    found = subprocess.run(["node", "a.js"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode and "Error: HTML or XML, expected a JPEG or a PNG" in found.stderr


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_the_documented_requests_by_hand_are_answered(url, images_dir, expected, tmp_path):
    shutil.copy(images_dir / NAME, tmp_path / "image.jpg")
    found = []
    for block in blocks("docs/serve.md"):
        if "curl" in block.text:
            command = "set -eo pipefail\n" + block.text.replace("http://localhost:8501", url)
            for line in block.text.splitlines():
                assert line.startswith(("#", "echo", "curl"))
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
            assert done.returncode == 0, done.stderr
            found.append(done.stdout.decode())
    (v1,) = json.loads(found[0])["predictions"]
    assert v1["encoded_pixels"] == list(expected.encoded_pixels)
    assert '"AVAILABLE"' in found[1] and '"ready":true' in found[1]
    outputs = {output["name"]: output["data"] for output in json.loads(found[2])["outputs"]}
    assert outputs["presence"] == pytest.approx(expected.presence, abs=1e-6)


@pytest.mark.slow
def test_colours_can_be_read_in_light_and_dark():
    text = (REPOSITORY / "clouds_tf" / "server" / "page" / "page.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w+);", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    )
    assert set(light) == set(dark)
    pairs = {("ink", "paper"): 7, ("ink", "card"): 7, ("faint", "paper"): 4.5, ("bad", "card"): 4.5}
    pairs.update({("faint", "card"): 4.5, ("on-accent", "accent"): 4.5, ("accent", "card"): 4.5})
    pairs.update({("warn-ink", "warn-paper"): 7, ("border", "card"): 3})  # as WCAG 2.2 asks for
    for colors in (light, dark):
        for (front, back), least in pairs.items():
            lights = sorted(map(_luminance, (colors[front], colors[back])))
            assert (lights[1] + 0.05) / (lights[0] + 0.05) >= least, (front, back)


def _luminance(color):
    """Relative luminance of #rgb or #rrggbb, after WCAG 2.2."""
    digits = color[1:] if len(color) == 7 else "".join(c * 2 for c in color[1:])
    values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
