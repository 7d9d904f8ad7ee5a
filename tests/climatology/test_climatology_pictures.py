import json
import re

import numpy as np
import pytest
import tensorflow as tf
from pages import Parser
from PIL import Image

from clouds_tf import figures
from clouds_tf.climatology import bootstrap, pictures, product
from clouds_tf.climatology.pictures import Look
from clouds_tf.figures import climatology as draw
from clouds_tf.figures import maps, style
from clouds_tf.figures.style import latitude, longitude
from clouds_tf.geo import land
from clouds_tf.geo.grid import Grid

NAMES = ("Fish", "Flower", "Gravel", "Sugar")


def _luminance(image):
    """Relative luminance of uint8 [..., 3] (WCAG 2.1)."""
    channels = image / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("color", [None, *draw.FIELD_COLORS.values()])
def test_larger_shares_are_darker_in_black_and_white(color):
    figure = maps.maps([0, 1], [0, 1], np.full((1, 1, 1), 0.5), ["Fish"], "t", [1.0], [color])
    shades = figure.axes[0].collections[0].get_cmap()(np.linspace(0, 1, 50))[:, :3]
    brightness = _luminance(255 * shades)
    assert (np.diff(brightness) < 0).all()
    assert brightness[0] > 0.95 and brightness[-1] < 0.05


def test_degrees_end_at_180():
    names = [longitude(value) for value in (-180, -61, 0, 170, 180, 190, 360)]
    assert names == ["180°", "61°W", "0°", "170°E", "180°", "170°W", "0°"]
    assert [latitude(value) for value in (-10, 0, 24.5)] == ["10°S", "0°", "24.5°N"]
    figure = maps.maps(np.linspace(160, 200, 5), [-10, 0, 10], np.ones((1, 2, 4)), ["Fish"], "t")
    assert figure.axes[0].xaxis.get_major_formatter()(190) == "170°W"


def test_maps_have_a_panel_per_class_and_coastlines():
    values = np.random.default_rng(0).random((4, 3, 6))
    values[1, 0, 0] = np.nan
    coast = [np.array([[0.0, 0], [10, 10]])]
    figure = maps.maps(
        np.linspace(-30, 30, 7), np.linspace(-10, 20, 4), values, NAMES, "t", coastlines=coast
    )
    panels = figure.axes[:4]
    assert [axes.get_title("left") for axes in panels] == list(NAMES)
    for axes, shares in zip(panels, values):
        mesh, lines = axes.collections
        np.testing.assert_array_equal(mesh.get_array().filled(np.nan), shares)
        segments = [segment.tolist() for segment in lines.get_segments()]
        assert segments == [[[0, 0], [10, 10]]]  # turned by 360 degrees it would be outside
        assert axes.patch.get_hatch()  # seen where there is no value
    assert figures.pixels(figure).std() > 0


def test_maps_of_periods_share_a_scale_and_a_bar_for_each_class():
    values = np.random.default_rng(0).random((3, 2, 4, 6)) - 0.5
    place, uncertain = (np.linspace(0, 30, 7), np.linspace(0, 20, 5)), values > 0.3
    figure = maps.period_maps(
        *place, values, ["a", "b", "c"], NAMES[:2], "t", [0.4, 0.3], uncertain=uncertain
    )
    *panels, left, right = figure.axes
    assert [axes.get_ylabel() for axes in panels[::2]] == ["a", "b", "c"]
    for i, axes in enumerate(panels):
        mesh, _, dots = axes.collections
        np.testing.assert_array_equal(mesh.get_array(), values[i // 2, i % 2])
        assert mesh.get_clim() == [(-0.4, 0.4), (-0.3, 0.3)][i % 2]
        # Dots lie where nothing is certain.
        x, y = (np.argwhere(uncertain[i // 2, i % 2])[0][::-1] + 0.5) * 5
        assert dots.hatches == ["...."] and dots.get_paths()[0].contains_point((x, y))
    assert left.get_xlim() == (-0.4, 0.4) and right.get_xlim() == (-0.3, 0.3)


def test_intervals_of_differences_are_those_of_independent_periods():
    rng = np.random.default_rng(0)
    mean, sd = rng.random((4, 5)), rng.uniform(0.01, 0.1, (4, 5))
    samples = mean + sd * rng.standard_normal((20_000, 4, 5))
    reach = 1.96 * sd
    difference, lower, upper = bootstrap.differences(mean, mean - reach, mean + reach)
    np.testing.assert_allclose(difference, mean - mean.mean(axis=0))
    deviations = samples - samples.mean(axis=1, keepdims=True)
    for end, q in ((lower, 0.025), (upper, 0.975)):
        np.testing.assert_allclose(end, np.quantile(deviations, q, axis=0), atol=6e-3)
    mean[0, 0] = np.nan  # was not observed: the others are compared without it
    difference, lower, _ = bootstrap.differences(mean, mean - reach, mean + reach)
    np.testing.assert_allclose(difference[1:, 0], mean[1:, 0] - mean[1:, 0].mean())
    assert np.isnan(lower[0, 0]) and np.isfinite(lower[1:, 0]).all()


@pytest.mark.parametrize(
    "seen, rows, lon",
    [
        ([(3, 2), (5, 4)], (3, 6), (-160, -130)),
        ([(3, 34), (5, 1)], (3, 6), (160, 200)),  # across 180 degrees
        ([(0, 0), (17, 35)], (0, 18), (170, 190)),
        ([(i, j) for i in range(18) for j in range(36)], (0, 18), (-180, 180)),
        ([], (0, 18), (-180, 180)),
    ],
)
def test_maps_show_the_observed_region(seen, rows, lon):
    grid, where = Grid(10.0), np.zeros((18, 36), bool)
    for place in seen:
        where[place] = True
    found, columns, lat_edges, lon_edges = pictures._frame(grid, where)
    assert (found.start, found.stop) == rows and (lon_edges[0], lon_edges[-1]) == lon
    assert where[found][:, columns].sum() == len(seen)
    assert len(columns) == len(lon_edges) - 1 and len(lat_edges) == rows[1] - rows[0] + 1
    centres = (lon_edges[:-1] + lon_edges[1:]) / 2
    np.testing.assert_allclose((centres - grid.lon[columns]) % 360, 0)


def test_lines_of_the_seasonal_cycle_differ_without_colour():
    means = np.arange(8.0).reshape(2, 4)
    figure = draw.cycle(["DJF", "JJA"], means, means - 1, means + 2, NAMES, "t")
    (axes,) = figure.axes
    styles = {(line[0].get_linestyle(), line[0].get_marker()) for line in axes.containers}
    assert len(styles) == 4
    for c, container in enumerate(axes.containers):
        assert container[0].get_ydata().tolist() == means[:, c].tolist()
        ends = [segment[:, 1].tolist() for segment in container[2][0].get_segments()]
        assert ends == [[mean - 1, mean + 2] for mean in means[:, c]]


def test_co_occurrence_is_relative_to_the_row():
    shared = np.array([[0.2, 0.05], [0.05, 0.1]])
    (axes,) = draw.co_occurrence(shared, ["Fish", "Sugar"], "t").axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["20%\nof the area", "25%", "50%", "10%\nof the area"]
    draw.co_occurrence(np.zeros((2, 2)), ["Fish", "Sugar"], "t")  # a year without anything


def test_a_hovmoeller_diagram_runs_downwards():
    times = np.array(["2017-01-01", "2017-02-01", "2017-03-01"], "datetime64[D]")
    figure = draw.hovmoeller(np.array([0, 1, 2, 3]), times, np.ones((2, 2, 3)), ["a", "b"], "t")
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top


def test_coastlines_are_read_from_geojson(tmp_path):
    path = tmp_path / "coast.geojson"
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    parts = [
        {"type": "LineString", "coordinates": [[1, 2, 99], [3, 4, 99]]},
        {"type": "MultiLineString", "coordinates": [[[5, 6], [7, 8]], [[9, 9], [8, 8]]]},
        {"type": "Polygon", "coordinates": [ring]},
        {
            "type": "GeometryCollection",
            "geometries": [{"type": "MultiPolygon", "coordinates": [[ring], [ring]]}],
        },
    ]
    features = [{"type": "Feature", "geometry": part, "properties": {}} for part in parts]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    lines = land.read_lines(str(path))
    assert [len(line) for line in lines] == [2, 2, 2, 4, 4, 4]
    assert lines[0].tolist() == [[1, 2], [3, 4]]
    for text in ("", "{", "[]", '{"type": "Point", "coordinates": [0, 0]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="coast.geojson: expected GeoJSON"):
            land.read_lines(str(path))
    with pytest.raises(FileNotFoundError):
        land.read_lines(str(tmp_path / "none"))


def _run(folder, by, look, days=((1, 1), (1, 15), (7, 1), (7, 15)), num_resamples=10):
    rows = [
        f"2017-{m:02}-{d:02},{NAMES[(m + d) % 4]},{10 * m - 60},{10 * m - 45},-5,{d + 1}"
        for m, d in days
    ]
    (folder / "b.csv").write_text("date,label,lon1,lon2,lat1,lat2\n" + "\n".join(rows))
    regions = {"north": (-60, 0, 60, 30)}
    return product.make(
        str(folder / "c.nc"),
        boxes=str(folder / "b.csv"),
        class_names=NAMES,
        grid=Grid(10.0, (-60, -20, 60, 30)),
        form=product.Aggregation(by, regions=regions, num_resamples=num_resamples),
        extras=product.ExtraOutputs(pictures_dir=str(folder / "p"), look=look),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Pictures of two seasons, as PNG and PDF, and the closing line."""
    folder = tmp_path_factory.mktemp("pictures")
    made = _run(folder, "season", Look("field", picture_formats=("png", "pdf")))
    return folder / "p", made


@pytest.mark.slow
def test_a_run_writes_all_pictures_and_a_report(run):
    folder, made = run
    # No Hovmoeller diagram of four days in seven months, which would show gaps.
    stems = {"maps", "differences", "co_occurrence", "seasonal_cycle", "seasonal_cycle_north"}
    expected = {f"{stem}.{ending}" for stem in stems for ending in ("png", "pdf")}
    assert {path.name for path in folder.iterdir()} == {*expected, "report.html"}
    assert str(made).endswith(f"; wrote {folder}/report.html")
    for path in folder.glob("*.png"):
        assert Image.open(path).size[0] > 5 * style._STYLE["figure.dpi"]
    for path in folder.glob("*.pdf"):
        text = path.read_bytes()
        assert text.startswith(b"%PDF-") and text.rstrip().endswith(b"%%EOF")
        assert b"/Type3" not in text and b"CreationDate" not in text  # fonts that journals take


@pytest.mark.slow
def test_the_report_stands_alone_and_says_what_pictures_show(run):
    folder, _ = run
    text = (folder / "report.html").read_text()
    parser = Parser(text)
    assert parser.text("h1") == ["Cloud patterns from 2017-01-01 to 2017-07-15"]
    assert parser.text("h2") == ["Means", "Maps", "Time and patterns"]
    images = parser.all("img")
    assert len(images) == len(parser.all("source")) == 5
    assert all(len(image["alt"]) > 12 for image in images)
    assert sum("Fish" in image["alt"] for image in images) == 2
    captions = parser.text("figcaption")
    assert len(captions) == 6 and all(caption.endswith(".") for caption in captions)
    assert any("From top to bottom: DJF, JJA." in caption for caption in captions)
    assert parser.text("th")[:3] == ["period", "region", "Fish"]
    assert len(parser.all("tr")) == 1 + 2 * 2
    # As in the exploration report: nothing is asked from outside.
    assert not re.search(r"https?:|url\(|@import|<script", text)
    sources = [attrs.get(key) for _, attrs in parser.tags for key in ("src", "srcset")]
    assert all(source.startswith("data:image/webp;base64,") for source in filter(None, sources))


@pytest.mark.slow
def test_what_is_left_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("clouds_tf.figures.page.encode", lambda figure: b"")
    days = [(1, day) for day in range(1, 20)]
    look = Look(coastlines="none", max_pictures=5)
    made = _run(tmp_path, "day", look, days, num_resamples=0)
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert names == {
        *("maps_1.png", "hovmoeller.png", "series.png", "series_north.png", "co_occurrence.png"),
        "report.html",
    }
    assert str(made).endswith("report.html without 4 pictures (--max_pictures)")
    assert "4 pictures left out" in (tmp_path / "p" / "report.html").read_text()


def test_looks_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(ValueError, match="picture_formats: got svg, expected some of png, pdf"):
        Look(picture_formats=("svg",))
    with pytest.raises(ValueError, match="colors: got 'pink'"):
        Look("pink")
    extras = product.ExtraOutputs(pictures_dir="p", look=Look(coastlines="none.geojson"))
    with pytest.raises((FileNotFoundError, tf.errors.NotFoundError), match="none.geojson"):
        product.make(str(tmp_path / "c.nc"), boxes="b.csv", extras=extras)


def test_pictures_of_another_layout_are_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="pictures_dir: needs layout cf, got 'c3ontext'"):
        product.make(
            str(tmp_path / "c.nc"),
            form=product.Aggregation(layout="c3ontext"),
            extras=product.ExtraOutputs(pictures_dir=str(tmp_path / "p")),
        )
