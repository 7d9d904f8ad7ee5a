import json

import numpy as np
import pytest

from clouds_tf import figures
from clouds_tf.climatology import product
from clouds_tf.figures import climatology as draw
from clouds_tf.geo.grid import Grid

NAMES = ("Fish", "Flower", "Gravel", "Sugar")


def _luminance(image):
    """Relative luminance of uint8 [..., 3] (WCAG 2.1)."""
    channels = image / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("color", [None, *draw.FIELD_COLORS.values()])
def test_larger_shares_are_darker_in_black_and_white(color):
    figure = draw.maps([0, 1], [0, 1], np.full((1, 1, 1), 0.5), ["Fish"], "t", [1.0], [color])
    shades = figure.axes[0].collections[0].get_cmap()(np.linspace(0, 1, 50))[:, :3]
    brightness = _luminance(255 * shades)
    assert (np.diff(brightness) < 0).all()
    assert brightness[0] > 0.95 and brightness[-1] < 0.05


def test_longitudes_on_maps_end_at_180_degrees():
    figure = draw.maps(np.linspace(160, 200, 5), [-10, 0, 10], np.ones((1, 2, 4)), ["Fish"], "t")
    axes = figure.axes[0]
    names = [axes.xaxis.get_major_formatter()(value) for value in (170, 180, 190, 360)]
    assert names == ["170°E", "180°", "170°W", "0°"]
    assert [axes.yaxis.get_major_formatter()(value) for value in (-10, 10)] == ["10°S", "10°N"]


def test_maps_have_a_panel_per_class_and_coastlines():
    values = np.random.default_rng(0).random((4, 3, 6))
    values[1, 0, 0] = np.nan
    coast = [np.array([[0.0, 0], [10, 10]])]
    figure = draw.maps(
        np.linspace(-30, 30, 7), np.linspace(-10, 20, 4), values, NAMES, "t", coastlines=coast
    )
    panels = figure.axes[:4]
    assert [axes.get_title("left") for axes in panels] == list(NAMES)
    for axes, shares in zip(panels, values):
        (mesh,) = axes.collections
        np.testing.assert_array_equal(mesh.get_array().filled(np.nan), shares)
        assert [line.get_xdata().tolist() for line in axes.lines] == [
            [-360, -350], [0, 10], [360, 370]
        ]
        assert axes.patch.get_hatch()  # seen where there is no value
    assert figures.pixels(figure).std() > 0


def test_lines_of_the_seasonal_cycle_differ_without_colour():
    means = np.arange(8.0).reshape(2, 4)
    figure = draw.seasonal_cycle(["DJF", "JJA"], means, means - 1, means + 2, NAMES, "t")
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
        {"type": "GeometryCollection", "geometries": [{"type": "MultiPolygon",
                                                       "coordinates": [[ring], [ring]]}]},
    ]
    features = [{"type": "Feature", "geometry": part, "properties": {}} for part in parts]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    lines = draw.read_coastlines(str(path))
    assert [len(line) for line in lines] == [2, 2, 2, 4, 4, 4]
    assert lines[0].tolist() == [[1, 2], [3, 4]]
    for text in ("", "{", "[]", '{"type": "Point", "coordinates": [0, 0]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="coast.geojson: expected GeoJSON"):
            draw.read_coastlines(str(path))
    with pytest.raises(FileNotFoundError):
        draw.read_coastlines(str(tmp_path / "none"))


@pytest.mark.slow
def test_a_run_writes_all_pictures(tmp_path):
    rows = [
        f"2017-{m:02}-{d:02},{NAMES[(m + d) % 4]},{10 * m - 60},{10 * m - 45},-5,{d}"
        for m in (1, 7)
        for d in (1, 15)
    ]
    (tmp_path / "b.csv").write_text("date,label,lon1,lon2,lat1,lat2\n" + "\n".join(rows))
    (tmp_path / "ship.csv").write_text("time,latitude,longitude\n2017-01-02,1,2\n")
    made = product.make(
        str(tmp_path / "c.nc"),
        boxes=str(tmp_path / "b.csv"),
        class_names=NAMES,
        grid=Grid(10.0),
        form=product.Aggregation("season", regions={"north": (-180, 0, 180, 90)}, num_resamples=10),
        extras=product.ExtraOutputs(
            track_csv=str(tmp_path / "ship.csv"), pictures_dir=str(tmp_path / "p"), colors="field"
        ),
    )
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        *(f"map_{season}.png" for season in ("DJF", "JJA")),
        *("hovmoeller.png", "co_occurrence.png", "seasonal_cycle.png", "seasonal_cycle_north.png"),
    }
    assert str(made).endswith(f"; wrote {tmp_path}/c_track.csv; wrote {tmp_path}/p")


def test_pictures_of_another_layout_are_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="pictures_dir: needs layout cf, got 'c3ontext'"):
        product.make(
            str(tmp_path / "c.nc"),
            form=product.Aggregation(layout="c3ontext"),
            extras=product.ExtraOutputs(pictures_dir=str(tmp_path / "p")),
        )
