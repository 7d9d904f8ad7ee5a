"""Scenes that overlap; scenes of hours and moments. numpy and xarray are the oracles."""

import filecmp
import shutil

import numpy as np
import pytest
import xarray
from scene_writer import NAMES, draw, write_scene

from clouds_tf.climatology import inputs, merge, pictures, product, scenes
from clouds_tf.climatology.days import Settings
from clouds_tf.climatology.inputs import AddedDays
from clouds_tf.geo import parse_platforms
from clouds_tf.geo.grid import Grid

GRID = Grid(5.0, (-20, 0, 10, 10))


def _fields(paths, measure="expected", grid=GRID):
    found = merge.fields_of("2017-03-04", [scenes.read(str(p)) for p in paths], measure, grid)
    return found


def _make(folder, **options):
    form = product.Aggregation(options.pop("by", "all"), num_resamples=5)
    output = str(folder / f"{form.by}.nc")
    return product.make(output, scenes_dir=str(folder / "s"), grid=GRID, form=form, **options)


def _cut(folder, fields, tiles, step=0.5, north=10, west=-20):
    """Writes parts of a scene as scenes; a tile is a slice of its rows and one of its columns."""
    paths = []
    for i, (rows, columns) in enumerate(tiles):
        place = (west + step * columns.start, north - step * rows.stop)
        extent = (*place, west + step * columns.stop, north - step * rows.start)
        parts = tuple(values[..., rows, columns] for values in fields)
        paths.append(folder / f"tile{i}.nc")
        write_scene(paths[-1], extent=extent, step=step, fields=parts)
    return paths


TILES = [(slice(i, i + 12), slice(j, j + 36)) for i in (0, 8) for j in (0, 8, 24)]


@pytest.mark.parametrize("measure, cells", [("mask", 2**23), ("expected", 1500)])
def test_overlapping_tiles_of_a_scene_are_the_scene(tmp_path, monkeypatch, measure, cells):
    fields = draw(0, (20, 60))
    write_scene(tmp_path / "whole.nc", extent=(-20, 0, 10, 10), fields=fields)
    whole = _fields([tmp_path / "whole.nc"], measure)
    monkeypatch.setattr(merge, "_CELLS_AT_ONCE", cells)  # bands of two rows of 720 columns
    tiles = _fields(_cut(tmp_path, fields, TILES), measure)
    for name in ("fraction", "unclassified", "coverage", "shared"):
        np.testing.assert_allclose(getattr(tiles, name), getattr(whole, name), atol=1e-6)
    values = xarray.open_dataset(tmp_path / "whole.nc")["calibrated_probability"][0]
    area = np.cos(np.radians(values.lat))
    top = (values * area).coarsen(lat=10, lon=10).sum()
    bottom = (area * values.notnull()).coarsen(lat=10, lon=10).sum()
    if measure == "expected":
        expected = (top / bottom)[:, ::-1]
        np.testing.assert_allclose(tiles.fraction, expected, atol=1e-4)


def test_edges_of_overlapping_tiles_do_not_pull_the_map_down(tmp_path):
    """Within four cells of its edge a tile sees less of what is there."""
    masks, observed, packed = draw(1, (40, 120))
    truth = _fields(
        _cut(tmp_path, (masks, observed, packed), [(slice(0, 40), slice(0, 120))], 0.25)
    )
    tiles = [(slice(i, i + 24), slice(j, j + 48)) for i in (0, 16) for j in (0, 36, 72)]
    paths, plain = _cut(tmp_path, (masks, observed, packed), tiles, 0.25), []
    reach = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5 for n in (24, 48))
    fall = np.minimum(np.minimum.outer(*reach) / 4, 1)
    for path, (rows, columns) in zip(paths, tiles):
        parts = (masks[:, rows, columns], observed[rows, columns])
        faded = np.rint(packed[:, rows, columns] * fall).astype(int)
        extent = (-20 + columns.start / 4, 10 - rows.stop / 4)
        extent += (-20 + columns.stop / 4, 10 - rows.start / 4)
        write_scene(path, extent=extent, step=0.25, fields=(*parts, faded))
        plain.append(_fields([path]))
    weights = sum(one.coverage for one in plain)
    equal = sum(one.fraction * one.coverage for one in plain) / weights
    inner = (slice(None), slice(None), slice(1, -1))  # the others end where the scene does
    lost = [np.mean((truth.fraction - f)[inner]) for f in (equal, _fields(paths).fraction)]
    assert lost[1] < 0.6 * lost[0] and lost[0] > 0.01


@pytest.mark.parametrize("shift, tolerance", [(0, 1e-6), (0.2, 0.02)])
@pytest.mark.parametrize("likeness", [None, (0.9, 0.2)])
def test_weights_are_distance_times_likeness(tmp_path, shift, tolerance, likeness):
    """Cell by cell of 0.1 degrees; grids that are off by less than a cell are off by little."""
    about = [{"likeness": value} for value in likeness] if likeness else [{}, {}]
    extents = [(-10, 0, 0, 5), (-4 + shift, 2 + shift, 6 + shift, 7 + shift)]
    top, bottom = np.zeros((4, 100, 300)), np.zeros((100, 300))
    for i, extent in enumerate(extents):
        found = write_scene(tmp_path / f"{i}.nc", extent=extent, seed=i, **about[i])
        _, observed, shares, lat, lon = found
        weight = np.minimum.outer(
            *(np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5 for n in observed.shape)
        )
        weight = weight * observed * (likeness[i] if likeness else 1)
        y = np.rint((np.repeat(lat, 5) + np.tile(np.arange(2, -3, -1), len(lat)) / 10) * 10 - 0.5)
        x = np.rint((np.repeat(lon, 5) + np.tile(np.arange(-2, 3), len(lon)) / 10 + 20) * 10 - 0.5)
        place = np.ix_(y.astype(int), x.astype(int))
        fine = np.repeat(np.repeat(weight, 5, 0), 5, 1)
        bottom[place] += fine
        top[(slice(None), *place)] += fine * np.repeat(np.repeat(shares, 5, 1), 5, 2)
    seen = (bottom > 0) * np.cos(np.radians(np.arange(0.05, 10, 0.1)))[:, None]
    merged = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0) * seen
    sums = [x.reshape(-1, 2, 50, 6, 50).sum(axis=(2, 4)) for x in (merged, seen)]
    found = _fields([tmp_path / "0.nc", tmp_path / "1.nc"])
    observed = sums[1][0] > 0
    expected = np.divide(sums[0], sums[1], out=np.zeros_like(sums[0]), where=observed)
    np.testing.assert_allclose(found.fraction, expected, atol=tolerance)
    whole = 50 * np.cos(np.radians(np.arange(0.05, 10, 0.1))).reshape(2, 50).sum(axis=1)
    np.testing.assert_allclose(found.coverage, sums[1][0] / whole[:, None], atol=tolerance)


def test_a_scene_that_is_like_nothing_counts_where_it_is_alone(tmp_path):
    *_, alone = (write_scene(tmp_path / "a.nc", likeness=0.0), _fields([tmp_path / "a.nc"]))
    write_scene(tmp_path / "b.nc", extent=(0, 0, 10, 5), seed=1, likeness=1.0)
    both = _fields([tmp_path / "a.nc", tmp_path / "b.nc"])
    np.testing.assert_allclose(both.fraction[:, :, :4], alone.fraction[:, :, :4], atol=1e-6)


def test_grids_that_go_round_the_globe_and_across_the_date_line(tmp_path):
    fields, grid = draw(3, (10, 360)), Grid(5.0, (-180, 0, 180, 10))
    write_scene(tmp_path / "belt.nc", extent=(-180, 0, 180, 10), step=1.0, fields=fields)
    whole = _fields([tmp_path / "belt.nc"], grid=grid)
    part = tuple(np.roll(values, 10, axis=-1)[..., :20] for values in fields)
    write_scene(tmp_path / "seam.nc", extent=(170, 0, 190, 10), step=1.0, fields=part)
    both = _fields([tmp_path / "belt.nc", tmp_path / "seam.nc"], grid=grid)
    np.testing.assert_allclose(both.fraction, whole.fraction, atol=1e-6)
    np.testing.assert_allclose(both.coverage, whole.coverage, atol=1e-6)


def test_copies_are_not_counted_twice(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    write_scene(folder / "a.nc")
    shutil.copy(folder / "a.nc", folder / "renamed.nc")
    write_scene(folder / "moved.nc", clock="20:00:00")  # the same picture, as of another hour
    for other in ("moved", "renamed"):
        with pytest.raises(ValueError, match=f"{other}.nc: 2017-03-04 is there twice, .*a.nc has"):
            _make(tmp_path)
        assert _make(tmp_path, on_error="skip").added.num_skipped > 0
        (folder / f"{other}.nc").unlink()
    nothing = np.zeros((4, 10, 20), int)
    for i in range(2):  # two nights look alike
        fields = (nothing > 0, nothing[0] > 0, nothing)
        write_scene(folder / f"night{i}.nc", clock=f"0{i}:00:00", fields=fields)
    _make(tmp_path)
    np.testing.assert_array_equal(
        _fields(sorted(folder.iterdir())).fraction, _fields([folder / "a.nc"]).fraction
    )


def test_platforms_count_alone_or_together(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    for i, name in enumerate(("Terra", "Aqua", "NOAA-20")):
        write_scene(folder / f"{i}.nc", seed=i, platform=name)
    together = _fields(sorted(folder.iterdir()), "mask")
    for names, members in (([], "012"), (["MODIS"], "01"), (["viirs"], "2"), (["aqua"], "1")):
        days = str(tmp_path / "-".join(["days", *names]))
        _make(tmp_path, platforms=parse_platforms(names), days_dir=days)
        expected = _fields([folder / f"{i}.nc" for i in members], "mask")
        with xarray.open_dataset(f"{days}/2017-03-04.nc") as found:
            np.testing.assert_array_equal(found["fraction"].fillna(0), expected.fraction)
        assert len(members) < 3 or (expected.fraction == together.fraction).all()
    with pytest.raises(ValueError, match="has days with platforms .'Aqua',., got platforms .'Te"):
        _make(tmp_path, platforms=parse_platforms(["Terra"]), days_dir=days)
    with pytest.raises(ValueError, match="platforms: got NOAA-21, but all scenes are of Aqua, NOA"):
        _make(tmp_path, platforms=("NOAA-21",))
    with pytest.raises(ValueError, match="platforms: got 'Tera', expected some of Terra, Aqua"):
        parse_platforms(["Terra", "Tera"])


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Four days of scenes at 14:00, 14:20 and 15:00, a Dataset of their masks."""
    folder = tmp_path_factory.mktemp("series")
    (folder / "s").mkdir()
    parts = []
    for i in range(12):
        day, clock = f"2020-01-{21 + i // 3}", ("14:00:00", "14:20:00", "15:00:00")[i % 3]
        masks, observed, _, lat, lon = write_scene(
            folder / "s" / f"{i}.nc", date=day, clock=clock, seed=i, platform="GOES-16"
        )
        dims = ("class", "lat", "lon")
        data = {"mask": (dims, masks), "observed": (dims[1:], observed)}
        place = {"class": list(NAMES), "lat": lat, "lon": lon}
        place["time"] = np.datetime64(f"{day}T{clock}", "ns")
        parts.append(xarray.Dataset(data, place).astype(float))
    return folder, xarray.concat(parts, "time")


def test_a_series_by_scene_has_every_moment(series):
    folder, fields = series
    made = _make(folder, by="scene")
    assert (made.num_periods, made.added) == (12, AddedDays(12, 0, 0))
    with xarray.open_dataset(folder / "scene.nc") as found:
        assert (found["time"] == fields["time"]).all()
        assert found["period"].values[1] == "2020-01-21T14:20:00"
        area = np.cos(np.radians(fields.lat))
        share = (fields["mask"] * area).sum(("lat", "lon"))
        share = share / (fields["observed"] * area).sum(("lat", "lon"))
        mean = found["region_fraction"].sel(region="all").transpose(*share.dims)
        np.testing.assert_allclose(mean, share, rtol=1e-4)


def test_the_diurnal_cycle_is_a_mean_over_days_of_each_hour(series):
    folder, fields = series
    made = _make(folder, by="hour")
    assert (made.num_periods, made.added.num_new) == (2, 8)
    assert "2 periods (by hour) of 8 hours; 8 hours added" in str(made)
    # Scenes of one hour have the same weights; where one saw a cell, it counts alone.
    hourly = fields.groupby(fields.time.dt.floor("h")).sum()
    seen = hourly["observed"] > 0
    share = (hourly["mask"] / hourly["observed"]).where(seen, 0)
    area = np.cos(np.radians(fields.lat))
    hours = (share * area).sum(("lat", "lon")).groupby("floor.hour").sum()
    hours = hours / (seen * area).sum(("lat", "lon")).groupby("floor.hour").sum()
    with xarray.open_dataset(folder / "hour.nc") as found:
        assert found["period"].values.tolist() == ["14 UTC", "15 UTC"]
        mean = found["region_fraction"].sel(region="all")
        np.testing.assert_allclose(mean, hours.transpose("hour", "class"), rtol=1e-4)
        assert found["num_days"].max() == 4 and mean.dims == ("time", "class")
        assert found["fraction"].cell_methods == "time: mean within days time: mean over days"
        start = np.datetime64("2020-01-21").astype(int)
        expected = [start + 14 / 24, start + 3 + 15 / 24]
        np.testing.assert_allclose(found["climatology_bounds"][0], expected, rtol=1e-9)
        assert found["region_fraction_lower"].notnull().all()
    with pytest.raises(ValueError, match="holds files of each hour, expected of each day for by"):
        product.make(
            str(folder / "x.nc"),
            days_dir=str(folder / "hour_hours"),
            form=product.Aggregation("month"),
        )


def test_pictures_of_hours_and_moments(series, tmp_path, monkeypatch):
    folder, _ = series
    cards = {}

    def render(title, lead, sections, *rest):
        cards.update({card.name: card for section in sections for card in section.cards})
        return title + lead

    monkeypatch.setattr(pictures, "render", render)
    extras = product.ExtraOutputs(pictures_dir=str(tmp_path))
    for by, name, labels, lead in (
        ("hour", "diurnal_cycle", ("14", "15"), "By hour, of 8 hours: masks of scenes"),
        ("scene", "series", ("2020-01-21T14:00:00",), "By scene, of 12 scenes"),
    ):
        _make(folder, by=by, extras=extras)
        assert cards[name].draw.args[0][: len(labels)] == labels
        assert "Observed: 10°W to 0°, 0° to 5°N." in (tmp_path / "report.html").read_text()
        assert lead in (tmp_path / "report.html").read_text()
    assert len(cards["diurnal_cycle"].draw.args[0]) == 2 and "seasonal_cycle" not in cards


def test_hours_need_scenes_and_have_no_tracks(tmp_path):
    with pytest.raises(ValueError, match="by: got 'hour', which needs scenes"):
        product.make("c.nc", boxes="b.csv", form=product.Aggregation("hour"))
    extras = product.ExtraOutputs(track="ship.csv")
    with pytest.raises(ValueError, match="track: reads days, got by='scene'"):
        product.make("c.nc", scenes_dir="s", form=product.Aggregation("scene"), extras=extras)


@pytest.mark.parametrize("seed", range(2))
def test_days_follow_whatever_happens_to_the_scenes(tmp_path, seed):
    """Scenes come, change, get other names, break and go: the folder is that of a new run."""
    rng, folder, number = np.random.default_rng(seed), tmp_path / "s", 0
    folder.mkdir()
    write_scene(folder / "kept.nc")
    for step in range(6):
        for _ in range(2):
            paths = sorted(folder.glob("[0-9n]*.nc"))
            action = rng.choice(["new", "new", "change", "rename", "damage", "remove"])
            path = paths[rng.integers(len(paths))] if paths else folder / "0.nc"
            if action in ("new", "change"):
                path = path if action == "change" else folder / f"{number}.nc"
                day, west = rng.integers(4, 7), int(rng.integers(-12, 0))
                write_scene(path, f"2017-03-0{day}", (west, 0, west + 10, 5), seed=number)
                number += 1
            elif len(paths) > 1:
                text = path.read_bytes()
                path.unlink()
                if action == "rename":
                    (folder / f"n{number}.nc").write_bytes(text)
                elif action == "damage":
                    path.write_bytes(text[:99])
        for days in ("days", f"new{step}"):
            target = str(tmp_path / days)
            settings = Settings(GRID, (), "scenes", "mask")
            inputs.add_scenes(target, str(folder), settings, "skip")
        found = filecmp.dircmp(tmp_path / "days", tmp_path / f"new{step}", ["manifest"])
        assert not (found.left_only or found.right_only)
        for name in found.common_files:
            one, other = (tmp_path / f / name for f in ("days", f"new{step}"))
            assert one.read_bytes() == other.read_bytes(), name
