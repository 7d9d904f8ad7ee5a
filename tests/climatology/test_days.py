import dataclasses

import numpy as np
import pytest
import xarray

from clouds_tf.climatology.days import DayFields, DayStore, Settings, digest
from clouds_tf.geo.grid import Grid

SETTINGS = Settings(Grid(2.0, (170, 0, 178, 6)), ("Fish", "Sugar"))


def _fields(date="2017-03-04"):
    rng = np.random.default_rng(0)
    coverage = np.float32([[1, 0, 0.5, 1]] * 3)
    fraction = rng.random((2, 3, 4), np.float32) * (coverage > 0)
    unclassified = rng.random((3, 4), np.float32) * (coverage > 0)
    return DayFields(date, fraction, unclassified, coverage, np.array([[0.3, 0.1], [0.1, 0.2]]))


@pytest.fixture
def store(tmp_path):
    store = DayStore(str(tmp_path / "days"), SETTINGS)
    with store.open():
        pass
    store.write(_fields(), digest(b"x"), {"source": "b.csv"})
    return store


def test_a_day_comes_back(store):
    found, expected = store.read("2017-03-04"), _fields()
    for name in ("fraction", "unclassified", "coverage", "shared"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert store.dates() == ["2017-03-04"] and ", 1 day)" in repr(store)


def test_xarray_reads_a_day(store):
    with xarray.open_dataset(store.path("2017-03-04")) as found:
        expected = _fields()
        gaps = np.where(expected.coverage > 0, expected.fraction, np.nan)
        np.testing.assert_array_equal(found["fraction"].sel({"class": ["Fish", "Sugar"]}), gaps)
        assert found["time"].values == np.datetime64("2017-03-04T12:00")
        assert found["lat"].attrs["units"] == "degrees_north"
        np.testing.assert_allclose(found["lon_bnds"][0], [170, 172])
        assert found.attrs["source"] == "b.csv"


def test_expected_areas_say_nothing_of_what_has_no_class(tmp_path):
    store = DayStore(str(tmp_path), dataclasses.replace(SETTINGS, measure="expected"))
    with store.open():
        store.write(_fields(), "y", {"source": "x"})
    with xarray.open_dataset(store.path("2017-03-04")) as found:
        assert not {"unclassified", "co_occurrence"} & set(found)
    assert not store.read("2017-03-04").unclassified.any()


def test_parts_of_a_digest_do_not_run_together():
    assert digest(b"ab", b"c") != digest(b"a", b"bc")


@pytest.mark.parametrize(
    "other, difference",
    [
        (
            Settings(Grid(1.0, SETTINGS.grid.extent), ("Fish", "Sugar")),
            "grid 2 degrees in .* got grid 1 degrees in",
        ),
        (Settings(SETTINGS.grid, ("Fish",)), "class names .*'Sugar'.* got class names"),
        (
            Settings(SETTINGS.grid, ("Fish", "Sugar"), model_fingerprint="abc"),
            "model fingerprint , got model fingerprint abc",
        ),
    ],
)
def test_days_of_another_kind_are_refused(store, other, difference):
    with pytest.raises(ValueError, match=f"^{store.folder}: has days with .*{difference}"):
        DayStore(store.folder, other)
    assert DayStore(store.folder).settings == SETTINGS
    assert Settings.from_json(SETTINGS.to_json()) == SETTINGS


def test_a_truncated_day_is_named(store):
    path = store.path("2017-03-04")
    with open(path, "rb+") as file:
        file.truncate(1500)
    with pytest.raises(ValueError, match=f"^{path}: is damaged or not a NetCDF-4 file"):
        store.read("2017-03-04")
    assert not store.manifest.is_done("2017-03-04", digest(b"x"))


def test_without_days_the_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a folder of days"):
        DayStore(str(tmp_path))
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="settings.json: is damaged"):
        DayStore(str(tmp_path))
