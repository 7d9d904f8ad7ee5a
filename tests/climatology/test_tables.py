import gzip

import numpy as np
import pandas as pd
import pytest
from shared_fixtures import real_data

from clouds_tf.climatology import tables

pytestmark = pytest.mark.lanes

NAMES = ("Fish", "Flower", "Gravel", "Sugar")
HEADER = "date,label,lon1,lon2,lat1,lat2\n"
GOOD = "2017-01-01,Fish,-10,0,5,-5\n"
IMAGE = "Region1_DJF_Aqua/Aqua_CorrectedReflectance20110118_-61--40_10-24.jpeg"


def _write(tmp_path, text):
    path = tmp_path / "b.csv"
    path.write_text(text)
    return str(path)


def _days(table):
    return dict(table.by_day())


def test_rows_are_grouped_by_day_whatever_their_order(tmp_path):
    text = "id,Date,label,lon1,lon2,lat1,lat2\n"
    text += "0,2017-01-02,Sugar,170,-170,1,3\n1,2017-01-01,Fish,-10,0,5,-5\n"
    text += "\n2,2017-01-02,Fish,1,2,3,4\n3,2017-01-03,,,,,\n"
    table = tables.read(_write(tmp_path, text), NAMES)
    found = _days(table)
    assert list(found) == ["2017-01-01", "2017-01-02", "2017-01-03"]
    (view,) = found["2017-01-02"]
    assert view.boxes.tolist() == [[170, 1, 190, 3], [1, 3, 2, 4]]
    assert view.labels.tolist() == [3, 0]
    assert found["2017-01-01"][0].boxes.tolist() == [[-10, -5, 0, 5]]
    assert not len(found["2017-01-03"][0].boxes)  # looked at, nothing found


@pytest.mark.parametrize(
    "row, reason",
    [
        ("2017-01-01,Fish,-10,0,95.5,-5", "lat1 95.5, expected -90 to 90"),
        ("2017-01-01,Fish,-10,0,5,-95", "lat2 -95, expected -90 to 90"),
        ("2017-01-01,Fish,nan,0,5,-5", "lon1 'nan', expected a number of degrees"),
        ("2017-01-01,Fish,-10,,5,-5", "lon2 '', expected a number of degrees"),
        ("2017-01-01,Fish,-10,inf,5,-5", "lon2 'inf', expected a number of degrees"),
        ("2017-01-01,Fish,7,7,5,-5", "a box without area: lon1 and lon2 are both 7"),
        ("2017-01-01,Fish,7,8,5,5", "a box without area: lat1 and lat2 are both 5"),
        ("2017-01-01,Fish,-1000,8,5,6", "lon1 -1000, expected -180 to 180"),
        ("2017-01-01,Fish,10,0,5,6", "lon1 10 > lon2 0: a box across 180 degrees, 350.0 degrees"),
        ("2017-01-01,Cirrus,7,8,5,6", "label 'Cirrus', expected one of Fish, Flower"),
        ("2017-01-01,,7,8,5,6", "label '', expected one of"),
        ("2017-02-29,Fish,7,8,5,6", "date '2017-02-29', expected one such as 2017-01-31"),
        ("today,Fish,7,8,5,6", "date 'today', expected"),
        (",Fish,7,8,5,6", "date '', expected"),
    ],
)
def test_a_faulty_row_is_named_by_file_and_line(tmp_path, row, reason):
    path = _write(tmp_path, HEADER + GOOD + row + "\n" + GOOD)
    with pytest.raises(ValueError) as error:
        tables.read(path, NAMES)
    assert str(error.value).startswith(f"{path}, line 3: {reason}")
    assert "\n" not in str(error.value)
    table = tables.read(path, NAMES, on_error="skip")
    assert table.num_skipped == 1 and len(table.days) == 2


def test_boxes_across_180_degrees_may_be_half_the_globe_wide(tmp_path):
    rows = "2017-01-01,Fish,170,-170,5,6\n2017-01-01,Fish,90,-90,5,6\n2017-01-01,Fish,350,10,5,6\n"
    (view,) = _days(tables.read(_write(tmp_path, HEADER + rows), NAMES))["2017-01-01"]
    assert (view.boxes[:, 2] - view.boxes[:, 0]).tolist() == [20, 180, 20]


def test_more_faults_are_counted(tmp_path):
    path = _write(tmp_path, HEADER + GOOD + 3 * "2017-01-01,Fish,7,7,5,-5\n")
    with pytest.raises(ValueError, match=r"line 3: .*\(and 2 more faulty rows\)"):
        tables.read(path, NAMES)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "is empty, expected the columns date, label"),
        ("date,label,lon1\n", "line 1: lacks the columns lat1, lat2, lon2"),
        (HEADER.strip() + ",Lon1\n", "line 1: two columns 'lon1'"),
        (HEADER, "has no rows"),
        (HEADER + GOOD + GOOD.strip() + ",7,8\n", "cannot be read: .*line 3"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path, text, reason):
    path = _write(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{path}.*{reason}"):
        tables.read(path, NAMES)


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "b.csv.gz"
    whole = gzip.compress((HEADER + 500 * GOOD).encode())
    path.write_bytes(whole)
    assert len(tables.read(str(path), NAMES).days) == 500
    path.write_bytes(whole[:-12])
    with pytest.raises(ValueError, match=f"^{path}: cannot be read"):
        tables.read(str(path), NAMES)
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="c.csv"):
        tables.read(str(tmp_path / "c.csv"), NAMES)
    with pytest.raises(FileNotFoundError, match="none.csv: no such file"):
        tables.read(str(tmp_path / "none.csv"), NAMES)


def test_rows_in_a_row_of_one_image_are_one_labeller(tmp_path):
    rows = [f"1,{IMAGE},0,0,1050,700,Sugar", f"2,{IMAGE},-20,1300,2100,1500,Fish"]
    rows += [f"3,{IMAGE.replace('20110118', '20110119')},,,,,", f"4,{IMAGE},,,,,"]
    found = _days(tables.read(_write(tmp_path, "\n".join(rows)), NAMES))
    first, second = found["2011-01-18"]
    assert first.extent == second.extent == (-61, 10, -40, 24)
    np.testing.assert_allclose(first.boxes, [[-61, 17, -50.5, 24], [-61, 10, -40, 11]])
    assert first.labels.tolist() == [3, 0] and not len(second.labels)
    assert [len(view.labels) for view in found["2011-01-19"]] == [0]


@pytest.mark.parametrize(
    "row, reason",
    [
        (f"9,{IMAGE},7,0,7,9,Fish", "a box without area"),
        (f"9,{IMAGE},7,0,x,9,Fish", "x1, y1, x2 and y2 must be numbers"),
        (f"9,{IMAGE},7,0,8,9,Cirrus", "label 'Cirrus', expected one of"),
        ("9,a.jpeg,7,0,8,9,Fish", "image a.jpeg, expected a name with date and extent"),
        (f"9,{IMAGE.replace('20110118', '20111318')},7,0,8,9,Fish", "image .*, expected a name"),
    ],
)
def test_a_faulty_row_of_a_labeller_is_named(tmp_path, row, reason):
    path = _write(tmp_path, f"1,{IMAGE},0,0,9,9,Fish\n{row}\n")
    with pytest.raises(ValueError, match=f"^{path}, line 2: {reason}"):
        tables.read(path, NAMES)
    assert len(tables.read(path, NAMES, "skip").days) == 1


def test_the_digest_of_a_day_changes_with_its_boxes_only(tmp_path):
    rows = ["2017-01-01,Fish,-10,0,5,-5", "2017-01-01,Sugar,-10,0,5,-5"]

    def digest(*rows):
        path = _write(tmp_path, HEADER + "\n".join(rows))
        return tables.digest(_days(tables.read(path, NAMES))["2017-01-01"])

    assert digest(*rows) == digest(*rows[::-1]) != digest(rows[0])
    assert digest(rows[0]) != digest(rows[0].replace("-10", "-11"))


def test_the_boxes_of_2017_are_all_read():
    folder = real_data("climatology")
    table = tables.read(str(folder / "retinanet-world-2017.csv.gz"), NAMES)
    counts = np.bincount(table.labels).tolist()
    assert counts == [12168, 1788, 3795, 8170] and len(_days(table)) == 365
    raw = pd.read_csv(folder / "retinanet-world-2017.csv.gz")
    assert [len(view.boxes) for (view,) in _days(table).values()] == list(
        raw.groupby("Date").size()
    )
