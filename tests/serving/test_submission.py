import os

import pytest

from clouds_tf.serving import submission

ROWS = [("a.jpg", "Fish", "1 2"), ("a.jpg", "Sugar", ""), ("b,c.jpg", "Fish", "3 4 9 1")]


def test_parts_come_back_in_order(tmp_path):
    folder = str(tmp_path / "s.csv.parts")
    submission.start_parts(folder, {"batch_size": 2})
    submission.write_part(folder, 3, [("c.jpg", "Fish", None)])
    submission.write_part(folder, 0, ROWS)
    assert submission.has_part(folder, 3) and not submission.has_part(folder, 1)
    expected = [*ROWS, ("c.jpg", "Fish", None)]
    assert [tuple(row) for row in submission.read_parts(folder, [0, 3])] == expected
    submission.start_parts(folder, {"batch_size": 2})
    with pytest.raises(ValueError, match="holds parts of a run with batch_size=2, got batch_size="):
        submission.start_parts(folder, {"batch_size": 3})


def test_a_csv_is_what_the_competition_wants(tmp_path):
    path = tmp_path / "s.csv"
    submission.write(str(path), iter(ROWS))
    assert path.read_text() == (
        'Image_Label,EncodedPixels\na.jpg_Fish,1 2\na.jpg_Sugar,\n"b,c.jpg_Fish",3 4 9 1\n'
    )


def test_parquet_has_the_same_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    path = str(tmp_path / "s.parquet")
    rows = ROWS * 3000  # more than one row group
    submission.write(path, iter(rows))
    table = parquet.read_table(path).to_pydict()
    assert list(table) == ["Image_Label", "EncodedPixels"]
    assert table["Image_Label"] == [f"{name}_{class_name}" for name, class_name, _ in rows]
    assert table["EncodedPixels"] == [found for *_, found in rows]
    assert parquet.ParquetFile(path).num_row_groups > 1

    def fails():
        yield ROWS[0]
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        submission.write(str(tmp_path / "t.parquet"), fails())
    assert os.listdir(tmp_path) == ["s.parquet"]
