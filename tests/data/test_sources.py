"""Masks from PNG files and COCO JSON; PNG images."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from clouds_tf import rle
from clouds_tf.data import coco, shards
from clouds_tf.data.records import Records
from clouds_tf.data.records_info import RecordsInfo
from clouds_tf.data.sources import Source, read_annotations
from clouds_tf.dataset import Dataset
from clouds_tf.messages import raise_faults

SIZE = (6, 9)
STEEL = Dataset(("pit", "scratch"), SIZE, SIZE, ("image", "class"))


def _images(folder, names, size=SIZE):
    (folder / "train_images").mkdir(exist_ok=True)
    for i, name in enumerate(names):
        grey = np.full(size, 60 * i + 20, np.uint8)
        PIL.Image.fromarray(grey).save(folder / "train_images" / name)
    return str(folder)


def _masks(found, dataset=STEEL):
    """File name -> masks [C, h, w]."""
    return {
        name: rle.decode(rles, found.sizes[name], found.sizes[name], dataset.rle_order).numpy()
        for name, *rles in found.table.values.tolist()
    }


def _palette(values):
    image = PIL.Image.fromarray(values.astype(np.uint8))
    image.putpalette([0, 0, 0] * 2 + [200, 10, 10] + [0, 0, 0] * 253)  # 0 and 1 look alike
    return image


@pytest.mark.parametrize("kind", ["grey", "palette", "rgb", "sixteen"])
@pytest.mark.parametrize("order", ["columns", "rows"])
def test_masks_of_class_values(tmp_path, kind, order):
    values = np.random.default_rng(0).integers(0, 3, SIZE)
    image = {
        "grey": PIL.Image.fromarray(values.astype(np.uint8)),
        "palette": _palette(values),
        "rgb": PIL.Image.fromarray(values.astype(np.uint8)).convert("RGB"),
        "sixteen": PIL.Image.fromarray(values.astype(np.uint16)),
    }[kind]
    folder = _images(tmp_path, ["a.jpg", "b.png"])
    (tmp_path / "M").mkdir()
    image.save(tmp_path / "M" / "a.png")
    PIL.Image.fromarray(np.zeros((12, 18), np.uint8)).save(tmp_path / "M" / "b.png.png")
    dataset = dataclasses.replace(STEEL, rle_order=order)
    found = read_annotations(folder, dataset, Source(masks_dir=str(tmp_path / "M")))
    assert not found.faults + found.unlisted
    masks = _masks(found, dataset)
    np.testing.assert_array_equal(masks["a.jpg"], [values == 1, values == 2])
    assert masks["b.png"].shape == (2, 12, 18) and not masks["b.png"].any()


def test_masks_of_single_classes_by_folder_and_as_predict_writes_them(tmp_path):
    rng = np.random.default_rng(0)
    drawn = {name: rng.random((2, *SIZE)) < 0.4 for name in ("a", "b")}
    folder, masks_dir = _images(tmp_path, ["a.jpg", "b.jpg"]), tmp_path / "M"
    for i, name in enumerate(STEEL.class_names):
        (masks_dir / name).mkdir(parents=True)
        PIL.Image.fromarray(drawn["a"][i]).save(masks_dir / name / "a.png")
        PIL.Image.fromarray(255 * np.uint8(drawn["b"][i])).save(masks_dir / f"b.jpg_{name}.png")
    source = Source(masks_dir=str(masks_dir), mask_layout="classes")
    found = read_annotations(folder, STEEL, source)
    assert not found.faults + found.unlisted
    for name, masks in _masks(found).items():
        np.testing.assert_array_equal(masks, drawn[name[0]])
    (masks_dir / "pit" / "a.png").unlink()
    (fault,) = read_annotations(folder, STEEL, source).faults
    assert "no mask of pit for a.jpg" in fault.reason
    sparse = dataclasses.replace(STEEL, missing_rows="absent")
    found = _masks(read_annotations(folder, sparse, source))
    assert not found["a.jpg"][0].any() and (found["a.jpg"][1] == drawn["a"][1]).all()


def test_faulty_masks_are_named(tmp_path):
    folder, masks_dir = _images(tmp_path, [f"{c}.jpg" for c in "abcde"]), tmp_path / "M"
    masks_dir.mkdir()
    PIL.Image.fromarray(np.full(SIZE, 3, np.uint8)).save(masks_dir / "a.png")
    (masks_dir / "b.png").write_bytes((masks_dir / "a.png").read_bytes()[:45])
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[0, 0] = 1, 2, 3
    PIL.Image.fromarray(colours).save(masks_dir / "c.png")
    (masks_dir / "d.png").write_bytes(b"GIF89a")
    PIL.Image.fromarray(np.zeros(SIZE, np.uint8)).save(masks_dir / "z.png")
    source = Source(masks_dir=str(masks_dir))
    found = read_annotations(folder, STEEL, source)
    reasons = {fault.file[-5]: fault.reason for fault in found.faults + found.unlisted}
    assert reasons == {
        "a": "got the value 3, expected 0 to 2: the background and pit, scratch",
        "b": "not a whole, readable PNG",
        "c": "has colours, expected grey values or a palette",
        "d": "not a whole, readable PNG",
        "e": f"no masks for it in {masks_dir}",
        "z": "no image for this mask",
    }
    assert found.table.empty
    one = dataclasses.replace(STEEL, class_names=("pit",))
    PIL.Image.fromarray(np.uint8([[0, 255], [255, 0]])).save(masks_dir / "a.png")
    masks = _masks(read_annotations(folder, one, source), one)
    assert masks["a.jpg"].tolist() == [[[0, 1], [1, 0]]]
    source = Source(masks_dir=str(masks_dir), mask_layout="classes")
    PIL.Image.fromarray(np.arange(54, dtype=np.uint8).reshape(SIZE)).save(masks_dir / "a_pit.png")
    reasons = [fault.reason for fault in read_annotations(folder, one, source).faults]
    assert any("got the values 0, 1, 2, 3, 4, ...; expected 0 and one" in text for text in reasons)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_annotations(folder, STEEL, Source(masks_dir="nowhere"))
    with pytest.raises(ValueError, match="coco: got a.json and masks_dir"):
        Source(masks_dir="M", coco="a.json")


@given(
    st.lists(
        st.tuples(*[st.one_of(st.integers(-3, 20), st.floats(-3, 20, width=16))] * 2),
        min_size=3,
        max_size=9,
    )
)
def test_polygons_are_drawn_as_pycocotools_draws_them(points):
    size = (11, 14)
    (expected,) = coco_masks.frPyObjects([np.ravel(points).tolist()], *size)
    found = coco.draw_polygon(np.array(points, np.float64), size)
    np.testing.assert_array_equal(
        rle.decode(found, size, size).numpy(), coco_masks.decode(expected)
    )


def _coco(tmp_path):
    """COCO JSON of three images, and their masks by pycocotools."""
    rng, sizes = np.random.default_rng(1), [(20, 30), (20, 30), (16, 12)]
    drawn = rng.random((20, 30)) < 0.3
    compressed = coco_masks.encode(np.asfortranarray(drawn, np.uint8))
    edges = np.flatnonzero(np.diff(drawn.T.ravel().astype(int), prepend=0))
    counts = np.diff([0, *edges, drawn.size])
    polygons = [[2, 2, 9.5, 3, 8, 12.25], [1, 1, 4, 1, 4, 4, 1, 4]]
    text = {"counts": compressed["counts"].decode(), "size": [20, 30]}
    segmentations = [
        (1, 7, polygons),
        (1, 7, [[8, 8, 20, 8, 20, 15]]),
        (1, 3, text),
        (2, 3, {"counts": counts.tolist(), "size": [20, 30]}),
        (2, 7, text),
        (9, 7, [[1, 1, 9, 1, 9, 9]]),
    ]
    content = {
        "info": {},
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": h, "width": w}
            for i, (h, w) in zip((1, 2, 9), sizes)
        ],
        "categories": [{"id": 7, "name": "scratch"}, {"id": 3, "name": "pit"}],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "segmentation": shape, "iscrowd": 0}
            for k, (i, c, shape) in enumerate(segmentations)
        ],
    }
    expected = {f"{i}.jpg": np.zeros((2, *size), bool) for i, size in zip((1, 2, 9), sizes)}
    for i, category, shape in segmentations:
        height, width = sizes[(1, 2, 9).index(i)]
        found = coco_masks.frPyObjects(shape, height, width) if "counts" not in shape else shape
        if "counts" in shape and isinstance(shape["counts"], list):
            found = coco_masks.frPyObjects(shape, height, width)
        mask = coco_masks.decode(found)
        expected[f"{i}.jpg"][(3, 7).index(category)] |= mask.reshape(height, width, -1).any(axis=2)
    return json.loads(json.dumps(content)), expected


@pytest.mark.parametrize("order", ["columns", "rows"])
def test_coco_json_gives_the_masks_of_pycocotools(tmp_path, order):
    content, expected = _coco(tmp_path)
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    dataset = coco.describe(str(path))
    assert dataset.class_names == ("pit", "scratch") and dataset.mask_size == (20, 30)
    dataset = dataclasses.replace(dataset, rle_order=order)
    found = read_annotations(_images(tmp_path, expected), dataset, Source(coco=str(path)))
    assert not found.faults + found.unlisted
    masks = _masks(found, dataset)
    assert list(masks) == list(expected) and masks["9.jpg"].shape == (2, 16, 12)
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, expected[name], err_msg=name)
    assert masks["2.jpg"][0].any() and (masks["2.jpg"][0] == masks["2.jpg"][1]).all()


def _set(path, value):
    def change(content):
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "path, value, message",
    [
        (
            ["annotations", 3, "image_id"],
            5,
            r"annotations\[3\]: image_id: got 5, which does not exist",
        ),
        (
            ["annotations", 0, "category_id"],
            "7",
            r"\[0\] \(1.jpg\): category_id: got '7', expected",
        ),
        (["annotations", 1, "segmentation"], None, r"\[1\] \(1.jpg\): segmentation: got None, exp"),
        (["annotations", 1, "segmentation"], [[1, 2, 3]], r"got the polygon \[1, 2, 3\], expected"),
        (["annotations", 2, "segmentation", "counts"], "0~", r"\[2\] \(1.jpg\): segmentation: 0~:"),
        (["annotations", 3, "segmentation", "counts"], [4, 5], r"\[3\] \(2.jpg\): .*sum 9, expec"),
        (
            ["annotations", 2, "segmentation", "size"],
            [30, 20],
            r"got the size \[30, 20\], expected",
        ),
        (["images", 1, "file_name"], "1.jpg", r"images\[1\]: a second image 1.jpg"),
        (["images", 1, "file_name"], "../b.jpg", r"images\[1\]: got the file name '../b.jpg'"),
        (["images", 1, "height"], 0, r"images\[1\]: height, width: got \(0, 30\)"),
        (["categories", 0, "name"], "dog", "got the category 'dog', expected one of pit, scratch"),
        (["annotations"], {}, "coco.json: annotations: got {}, expected a list"),
        (["images"], [], "coco.json: has no images"),
    ],
)
def test_faults_of_coco_json_are_named(tmp_path, path, value, message):
    content, _ = _coco(tmp_path)
    _set(path, value)(content)
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        _, faults = coco.read(str(tmp_path / "coco.json"), STEEL)
        raise_faults(faults)


def test_an_image_with_a_faulty_object_is_left_out(tmp_path):
    content, expected = _coco(tmp_path)
    _set(["annotations", 4, "segmentation", "counts"], "0~")(content)
    (tmp_path / "coco.json").write_text(json.dumps(content))
    source = Source(coco=str(tmp_path / "coco.json"))
    found = read_annotations(_images(tmp_path, expected), STEEL, source)
    assert list(found.table["filename"]) == ["1.jpg", "9.jpg"] and len(found.faults) == 1


@pytest.mark.slow
def test_records_of_coco_json_have_masks_at_their_own_size(tmp_path):
    content, expected = _coco(tmp_path)
    path, folder = str(tmp_path / "coco.json"), str(tmp_path)
    (tmp_path / "coco.json").write_text(json.dumps(content))
    _images(tmp_path, ["1.jpg", "2.jpg"], (20, 30))
    _images(tmp_path, ["9.jpg"], (16, 12))
    how = {"num_shards": 1, "num_folds": 2, "num_workers": 1, "progress": False}
    shards.write_records(folder, f"{folder}/R", coco.describe(path), coco=path, **how)
    records = Records.open(f"{folder}/R")
    names = records.first_names([0, 1], 3)
    batches = records.held_out_batches([0, 1], (16, 12), 1, (16, 12))
    (mask,) = [m for name, (_, m) in zip(names, batches) if name == "9.jpg"]
    np.testing.assert_array_equal(np.moveaxis(mask[0].numpy(), -1, 0), expected["9.jpg"])
    batches = records.held_out_batches([0, 1], (20, 30), 1, (20, 30))
    (mask,) = [m for name, (_, m) in zip(names, batches) if name == "1.jpg"]
    np.testing.assert_array_equal(np.moveaxis(mask[0].numpy(), -1, 0), expected["1.jpg"])
    _images(tmp_path, ["9.jpg"], (12, 16))
    with pytest.raises(ValueError, match="9.jpg: 12x16 .* another shape than the masks' 16x12"):
        shards.write_records(folder, f"{folder}/R", coco.describe(path), coco=path, **how)


def _png_folder(tmp_path):
    """PNG images of 16 bits, grey, with a palette and with transparency, and their pixels."""
    rng, folder = np.random.default_rng(0), tmp_path / "train_images"
    folder.mkdir()
    values = rng.integers(0, 256, SIZE).astype(np.uint8)
    deep = rng.integers(0, 65536, SIZE).astype(np.uint16)
    colours = rng.integers(0, 256, (*SIZE, 4)).astype(np.uint8)
    PIL.Image.fromarray(values).save(folder / "grey.png")
    PIL.Image.fromarray(deep).save(folder / "deep.png")
    PIL.Image.fromarray(colours).save(folder / "alpha.png")
    rows = [
        f"{name}.png,{label}," for name in ("grey", "deep", "alpha") for label in ("pit", "scratch")
    ]
    (tmp_path / "train.csv").write_text("\n".join(["image,class,EncodedPixels", *rows]))
    grey = np.repeat(values[..., np.newaxis], 3, axis=2)
    return {
        "grey.png": grey,
        "deep.png": np.repeat((deep // 256)[..., None], 3, axis=2),
        "alpha.png": colours[..., :3],
    }


def test_png_images_are_kept_and_decoded_as_in_serving(tmp_path):
    expected = _png_folder(tmp_path)
    how = {"num_shards": 1, "num_folds": 3, "num_workers": 1, "progress": False}
    shards.write_records(str(tmp_path), str(tmp_path / "R"), STEEL, **how)
    records = Records.open(str(tmp_path / "R"))
    names = records.first_names([0, 1, 2], 3)
    for name, (image, _) in zip(names, records.held_out_batches([0, 1, 2], SIZE, 1)):
        np.testing.assert_array_equal(image[0], expected[name], err_msg=name)
    shards.write_records(str(tmp_path), str(tmp_path / "R"), STEEL, image_size=(3, 9), **how)
    records = Records.open(str(tmp_path / "R"))
    for name, (image, _) in zip(names, records.held_out_batches([0, 1, 2], (3, 9), 1)):
        halves = expected[name].reshape(3, 2, 9, 3).mean(axis=1)
        assert np.abs(image[0].numpy() - halves).max() <= 0.5, name


def test_dark_png_and_tiff_images_are_refused_with_what_to_do(tmp_path):
    _png_folder(tmp_path)
    folder = tmp_path / "train_images"
    PIL.Image.fromarray(np.full(SIZE, 4095, np.uint16)).save(folder / "deep.png")
    PIL.Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "x.tif")
    (folder / "grey.png").write_bytes((folder / "grey.png").read_bytes()[:-30])
    (folder / "alpha.png").write_bytes((folder / "x.tif").read_bytes())
    with pytest.raises(ValueError, match="^4 faults") as error:
        shards.write_records(
            str(tmp_path), str(tmp_path / "R"), STEEL, num_folds=2, num_workers=1, progress=False
        )
    text = str(error.value)
    assert "deep.png: a PNG of 16 bits a value, all below 16384; scale them" in text
    assert "grey.png: not a whole, readable PNG" in text
    command = (
        f"""convert it: python -c "from PIL import Image; Image.open('{folder}/x.tif').save("""
    )
    assert "x.tif: a TIFF, expected a JPEG or a PNG; " + command in text
    code = text.split(f"Image.open('{folder}/x.tif')")[1].split('"')[0]
    exec(f"from PIL import Image; Image.open('{folder}/x.tif'){code}")
    assert PIL.Image.open(folder / "x.png").size == SIZE[::-1]


def _labelled(folder, names, rows):
    (folder / "train.csv").write_text("\n".join(["image,class,EncodedPixels", *rows]) + "\n")
    return _images(folder, names)


def _rows(names, rle="1 3"):
    return [f"{name},{label},{rle}" for name in names for label in STEEL.class_names]


HOW = {"num_shards": 2, "num_folds": 2, "num_workers": 1, "progress": False}


@pytest.mark.slow
def test_pseudo_labels_are_trained_on_and_never_held_out(tmp_path):
    names, others = [f"{c}.jpg" for c in "abcd"], ["y.png", "z.png"]
    folder = _labelled(tmp_path, names, _rows(names))
    (tmp_path / "test_images").mkdir()
    for name in others:
        PIL.Image.fromarray(np.full(SIZE, 9, np.uint8)).save(tmp_path / "test_images" / name)
    path = tmp_path / "pseudo.csv"
    path.write_text("\n".join(["image,class,EncodedPixels", *_rows(others, "3 2")]) + "\n")
    how = {**HOW, "pseudo_labels": str(path), "rle_size": (2, 3)}
    info = shards.write_records(folder, f"{folder}/R", STEEL, **how)
    assert info.num_folds == 2 and info.extra_folds == (-1,) and info.count([-1]) == 2
    assert RecordsInfo.from_json(json.loads(json.dumps(info.to_json()))) == info
    records = Records.open(f"{folder}/R")
    assert records.split(0) == ([-1, 1], [0]) and records.split(1) == ([-1, 0], [1])
    assert set(records.first_names([-1], 9)) == set(others)
    assert set(records.first_names([0, 1], 9)) == set(names)
    weights = dict.fromkeys([*names, *others], 1.0)
    assert records.weights_of([0, 1], weights).shape == [4]
    ((_, masks),) = records.held_out_batches([-1], SIZE, 2)
    np.testing.assert_array_equal(masks[0, ..., 0], [[0] * 3 + [1] * 3 + [0] * 3] * 6)
    ((images, _),) = records.training_batches([-1, 1], SIZE, 9, 1)
    assert len(images) == info.count([-1, 1]) == 4
    lines = (tmp_path / "R" / "folds.csv").read_text().splitlines()
    assert "y.png,-1" in lines and "z.png,-1" in lines
    path.write_text("\n".join(["image,class,EncodedPixels", *_rows(["y.png", "a.jpg", "x.png"])]))
    with pytest.raises(ValueError) as error:
        shards.write_records(folder, f"{folder}/R", STEEL, **{**how, "rle_size": None})
    assert "pseudo.csv: a.jpg is a training image" in str(error.value)
    assert "test_images/x.png: no such image" in str(error.value)
    with pytest.raises(ValueError, match=r"rle_size: got \(2, 3\) without pseudo_labels"):
        shards.write_records(folder, f"{folder}/R", STEEL, **HOW, rle_size=(2, 3))


def test_the_fold_minus_1_of_a_csv_is_never_held_out(tmp_path):
    names = [f"{c}.jpg" for c in "abcd"]
    folder, path = _labelled(tmp_path, names, _rows(names)), tmp_path / "folds.csv"
    path.write_text("filename,fold\na.jpg,0\nb.jpg,-1\nc.jpg,1\nd.jpg,-1\n")
    info = shards.write_records(folder, f"{folder}/R", STEEL, **HOW, folds_csv=str(path))
    assert (info.num_folds, info.count([-1]), info.count([0])) == (2, 2, 1)
    with pytest.raises(ValueError, match=r"folds: got \[-1\], expected some of 0 to 1"):
        dataclasses.replace(info, shards=()).count([-1])
    path.write_text("filename,fold\na.jpg,-2\nb.jpg,-1\nc.jpg,-1\nd.jpg,-1\n")
    with pytest.raises(ValueError, match="line 2: got the fold '-2', expected 0, 1, 2, ... or -1"):
        shards.write_records(folder, f"{folder}/R", STEEL, **HOW, folds_csv=str(path))
    path.write_text(path.read_text().replace("-2", "-1"))
    with pytest.raises(ValueError, match="folds.csv: no image has the fold 0"):
        shards.write_records(folder, f"{folder}/R", STEEL, **HOW, folds_csv=str(path))
