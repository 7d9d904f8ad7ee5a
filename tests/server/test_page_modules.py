"""JavaScript modules of the page, run by Node.js against Python, shapely and TensorFlow."""

import dataclasses
import io
import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import shapely
from PIL import Image
from shared_fixtures import REPOSITORY

from clouds_tf import rle
from clouds_tf.data.preprocessing import resize_image
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.geo.extent import parse_extent
from clouds_tf.geo.grid import Grid
from clouds_tf.geo.names import named_extent
from clouds_tf.serving import outputs

PAGE = REPOSITORY / "clouds_tf" / "server" / "page"
pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="no Node.js on this machine")


def _node(module, function, cases):
    """What a function of a module of the page gives for lists of arguments, or its error's text."""
    program = f"""
        import {{ {function} }} from "file://{PAGE / module}";
        let text = "";
        for await (const part of process.stdin) text += part;
        const revive = (_, value) => (value?.bytes ? Uint8Array.from(value.bytes) : value);
        const answers = JSON.parse(text, revive).map((given) => {{
          try {{
            const found = {function}(...given);
            return {{ found: ArrayBuffer.isView(found) ? [...found] : found }};
          }} catch (error) {{
            return {{ error: error.message }};
          }}
        }});
        console.log(JSON.stringify(answers));
    """
    command = ["node", "--input-type=module", "-e", program]
    found = subprocess.run(
        command, input=json.dumps(cases), capture_output=True, text=True, timeout=100
    )
    assert found.returncode == 0, found.stderr
    return [answer.get("found", answer.get("error")) for answer in json.loads(found.stdout)]


def _bytes(values):
    """An array as the Uint8Array that `_node` makes of it."""
    return {"bytes": values.ravel().tolist()}


def _masks(shape=(7, 9)):
    """Masks with parts and holes that touch at corners, and with the borders filled."""
    rng = np.random.default_rng(0)
    random = [rng.uniform(size=shape) < share for share in (0, 0.2, 0.5, 0.6, 0.8, 1) * 8]
    return [mask.astype(np.uint8) for mask in random]


def _dataset(shape, **changes):
    return dataclasses.replace(CLOUDS, submission_size=shape, **changes).to_json()


def test_run_length_encodings_are_decoded_and_encoded():
    datasets = [_dataset((7, 9), rle_order=order) for order in ("columns", "rows")]
    masks = [(mask, dataset) for mask in _masks() for dataset in datasets]
    texts = _node("masks.js", "encodeMask", [(_bytes(m), d) for m, d in masks])
    expected = [rle.encode(m, d["rle_order"]).numpy().decode() for m, d in masks]
    assert texts == expected
    cases = [(text, dataset) for text, (_, dataset) in zip(texts, masks)]
    found = _node("client.js", "decodeMask", cases)
    for (mask, _), values in zip(masks, found):
        assert values == mask.ravel().tolist()
    bad = ["0 1", "1 0", "60 5", "1", "1 x"]
    errors = _node("client.js", "decodeMask", [(text, datasets[0]) for text in bad])
    assert all(error.startswith("RLE: got the run") for error in errors)


def _pixels(mask, grid):
    """The pixels of a mask as boxes of degrees, cut at 180."""
    boxes = []
    for row, column in np.argwhere(mask):
        west, east = grid.lon_edges[column : column + 2]
        north, south = grid.lat_edges[row : row + 2]
        for turn in (0, 360):
            left, right = max(west - turn, -180), min(east - turn, 180)
            if left < right:
                boxes.append(shapely.box(left, south, right, north))
    return shapely.union_all(boxes)


@pytest.mark.parametrize(
    "extent", ["-61,10,-40,24", "175.03,-20,-175,-10", "-180,-90,180,90", "100,-60,100,60"]
)
def test_masks_on_earth_are_valid_polygons_of_their_pixels(extent):
    masks = [mask for mask in _masks() if mask.any()]
    (edges,) = _node("masks.js", "parseExtent", [[extent]])
    expected = parse_extent(extent)
    assert edges == pytest.approx(list(expected))
    height, width = masks[0].shape
    grid = Grid((expected.degrees[0] / height, expected.degrees[1] / width), expected, True)
    cases = [([_bytes(mask)], [{"class": "Fish"}], mask.shape, edges) for mask in masks]
    for mask, found in zip(masks, _node("masks.js", "toGeoJSON", cases)):
        (feature,) = found["features"]
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert all(part.exterior.is_ccw for part in shape.geoms)
        assert not any(ring.is_ccw for part in shape.geoms for ring in part.interiors)
        assert shape.symmetric_difference(_pixels(mask, grid)).area == pytest.approx(0, abs=1e-6)
        area = (mask * grid.row_areas[:, np.newaxis]).sum()
        assert feature["properties"] == {"class": "Fish", "area_km2": pytest.approx(area, abs=1e-3)}


def test_extents_are_read_as_python_reads_them():
    good = ["-61,10,-40,24", "170,-10,-170,10", "350,0,20,5.5", " -180, -90,180 ,90", "0,0,360,1"]
    bad = ["", "1,2,3", "a,b,c,d", "0,5,1,5", "0,-91,1,0", "0,0,541,1", "-361,0,0,1", "0,,1,2"]
    bad += ["-10,0,351,1", "0,0,inf,1", "nan,0,1,1", "0,0,1,2,3"]
    found = _node("masks.js", "parseExtent", [[text] for text in good])
    assert found == [pytest.approx(list(parse_extent(text))) for text in good]
    for text, error in zip(bad, _node("masks.js", "parseExtent", [[text] for text in bad])):
        with pytest.raises(ValueError, match="extent"):
            parse_extent(text)
        assert error.startswith("extent: "), text
    names = ["Aqua_CorrectedReflectance20071227_-61--40_10-24.jpeg", "a_1.5-2_-3--2.5.png", "b.jpg"]
    names += [
        "_170--170_-10-10.jpeg",
        "a_1-2_3-4",
        "a_1-2_3-4_.jpg",
        "a_1-2_3.jpg",
        "x_1-2_3-4.a.b",
    ]
    for name, text in zip(names, _node("masks.js", "namedExtent", [[name] for name in names])):
        expected = named_extent(pathlib.PurePath(name).stem)
        assert (parse_extent(text) if text else None) == expected, name


def test_masks_are_resized_as_predict_writes_them():
    sizes = [(7, 9), (14, 18), (20, 31), (3, 4), (1, 1)]
    masks = _masks()[1:5]
    cases = [(_bytes(mask), mask.shape, size) for mask in masks for size in sizes]
    found = iter(_node("masks.js", "resizeMask", cases))
    for mask in masks:
        for size in sizes:
            text = rle.encode(mask, "columns")
            expected = rle.decode(text, mask.shape, size, "columns").numpy()
            np.testing.assert_array_equal(np.reshape(next(found), size), expected)


@pytest.mark.lanes
def test_rows_are_spelled_as_the_data_set_wants_them(tmp_path):
    rles = ["5 2 10 1", "", "1 1", "3 4"]
    kaggle = {"rle_start": 0, "rle_runs": "relative", "absent": "-1"}
    datasets = [
        CLOUDS,
        dataclasses.replace(CLOUDS, class_names=('a,"b"', "c", "d", "e"), **kaggle),
        dataclasses.replace(CLOUDS, label_columns=("Id", "Class"), image_ending=".jpg"),
        Dataset(("ship",), (8, 8), (8, 8), ("ImageId",), names_class=False),
    ]
    cases = [("a, b.jpg", rles, dataset.to_json()) for dataset in datasets]
    for dataset, text in zip(datasets, _node("masks.js", "submission", cases)):
        path = tmp_path / "rows.csv"
        rows = [("a, b.jpg", *row) for row in zip(dataset.class_names, rles)]
        outputs.write_submission(str(path), rows, dataset)
        assert text == path.read_text()
    objects = dataclasses.replace(CLOUDS, repeated_rows="objects").to_json()
    (error,) = _node("masks.js", "submission", [("a.jpg", rles, objects)])
    assert "a row for each object" in error


@pytest.mark.parametrize(
    "source, size", [((40, 60), (40, 60)), ((97, 140), (24, 35)), ((64, 96), (16, 24))]
    + [((33, 47), (32, 48)), ((20, 30), (48, 72)), ((140, 210), (48, 72))]
)  # fmt: skip
def test_pixels_are_resized_as_the_graph_does(source, size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*source, 3), np.uint8)
    rgba = np.concatenate([image, np.full((*source, 1), 255, np.uint8)], axis=2)
    (found,) = _node("local.js", "resize", [(_bytes(rgba), source, size)])
    difference = np.reshape(found, (*size, 3)).astype(int) - resize_image(image, size).numpy()
    # The sums are rounded in another order, which counts where they end near a half.
    assert abs(difference).max() <= 1 and (difference != 0).mean() < 2e-3


def test_pictures_are_shown_as_they_are_stored():
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    contents = []
    for kind, given in (("jpeg", exif), ("png", exif), ("jpeg", None), ("png", None)):
        buffer = io.BytesIO()
        image.save(buffer, kind, **({"exif": given} if given else {}))
        contents.append(buffer.getvalue())
    contents += [b"\xff\xd8\xff", b"\x89PNG", b"GIF", contents[0][:20]]
    cases = [(_bytes(np.frombuffer(content, np.uint8)),) for content in contents]
    found = [bytes(values) for values in _node("local.js", "withoutEXIF", cases)]
    assert found[2:7] == contents[2:7]
    for before, after in zip(contents[:2], found):
        before, after = (Image.open(io.BytesIO(content)) for content in (before, after))
        assert before.getexif() and not after.getexif()
        assert after.tobytes() == before.tobytes()
