"""Agreement of labellers; shapely is the oracle."""

import itertools

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray

from clouds_tf.climatology import labellers, product, tables
from clouds_tf.geo.earth import sine
from clouds_tf.geo.grid import Grid

NAMES = ("Fish", "Sugar")
IMAGE = "Aqua_CorrectedReflectance2011{:02}15_-61--40_10-24.jpeg"


def _table(tmp_path, seed=0, months=(1, 2, 7)):
    """Three images of three labellers each, one labeller's rows after the other's."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(3):
        for month in months:
            for _ in range(rng.integers(1, 4)):
                x, y = np.sort(rng.integers(0, 2100, 2)), np.sort(rng.integers(0, 1400, 2))
                box = f"{x[0]},{y[0]},{x[1] + 1},{y[1] + 1}"
                rows.append(f"0,{IMAGE.format(month)},{box},{rng.choice(NAMES)}")
    (tmp_path / "z.csv").write_text("\n".join(rows) + "\n")
    return tables.read(str(tmp_path / "z.csv"), NAMES)


def test_agreement_is_shared_over_united_area_of_all_pairs(tmp_path):
    table = _table(tmp_path)
    found = labellers.agreement(table, 2, num_resamples=20)
    assert [(item.period, item.num_days) for item in found] == [("DJF", 2), ("JJA", 1)]
    whole = 21 * (sine(24) - sine(10))
    for item, months in zip(found, ((1, 2), (7,))):
        for c in range(2):
            both = either = 0.0
            shares = []
            for date, views in table.by_day():
                if int(date[5:7]) not in months:
                    continue
                unions = [
                    shapely.union_all(
                        [
                            shapely.box(w, sine(s), e, sine(n))
                            for w, s, e, n in view.boxes[view.labels == c]
                        ]
                    )
                    for view in views
                ]
                shares.append(np.mean([union.area for union in unions]) / whole)
                for one, other in itertools.combinations(unions, 2):
                    both += one.intersection(other).area
                    either += one.union(other).area
            assert item.agreement[c] == pytest.approx(both / either, rel=1e-9)
            assert item.fraction[c] == pytest.approx(np.mean(shares), rel=1e-9)
    assert all(np.isnan(item.lower).all() for item in found)  # two days are no two blocks
    (whole,) = labellers.agreement(_table(tmp_path, months=range(1, 13)), 2, "all")
    assert (whole.lower <= whole.agreement).all() and (whole.agreement <= whole.upper).all()


def test_the_table_has_a_row_per_region_period_and_class(tmp_path):
    found = labellers.agreement(_table(tmp_path), 2, num_resamples=0)
    labellers.write(found, NAMES, str(tmp_path / "a.csv"))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "region,period,num_days,class,fraction,agreement,lower,upper"
    assert len(lines) == 1 + 2 * 2
    assert lines[1].startswith("-61 10 -40 24,DJF,2,Fish,0.") and lines[1].endswith(",,")


def test_a_climatology_has_it_and_the_shares_along_a_track_beside_it(tmp_path):
    table = _table(tmp_path, months=range(1, 13))
    (tmp_path / "t.csv").write_text("time,latitude,longitude\n2011-02-15T12:00,14.2,-50.3\n")
    made = product.make(
        str(tmp_path / "c.nc"),
        boxes=str(tmp_path / "z.csv"),
        class_names=NAMES,
        grid=Grid(1.0, (-61, 10, -40, 24)),
        form=product.Aggregation("all", num_resamples=20, seed=3),
        extras=product.ExtraOutputs(
            track=str(tmp_path / "t.csv"), agreement=str(tmp_path / "a.csv")
        ),
    )
    assert str(made).endswith(f"; wrote {tmp_path}/c_track.csv; wrote {tmp_path}/a.csv")
    by_season = labellers.agreement(table, 2, num_resamples=20, seed=3)
    labellers.write(by_season, NAMES, str(tmp_path / "expected.csv"))
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "expected.csv").read_text()
    found = pd.read_csv(tmp_path / "c_track.csv")[list(NAMES)].to_numpy()
    with xarray.open_dataset(tmp_path / "c_days" / "2011-02-15.nc") as day:
        expected = day["fraction"].interp(lat=14.2, lon=-50.3).sel({"class": list(NAMES)})
    assert expected.max() > 0
    np.testing.assert_allclose(found, [expected], rtol=1e-4)
