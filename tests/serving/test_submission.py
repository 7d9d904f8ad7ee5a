import os

import pytest

from clouds_tf.dataset import CLOUDS
from clouds_tf.serving import outputs

ROWS = [("a.jpg", "Fish", "1 2"), ("a.jpg", "Sugar", ""), ("b,c.jpg", "Fish", "3 4 9 1")]


def test_a_csv_is_what_the_competition_wants(tmp_path):
    path = tmp_path / "s.csv"
    outputs.write_submission(str(path), iter(ROWS), CLOUDS)
    assert path.read_text() == (
        'Image_Label,EncodedPixels\na.jpg_Fish,1 2\na.jpg_Sugar,\n"b,c.jpg_Fish",3 4 9 1\n'
    )


def test_parquet_has_the_same_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    path = str(tmp_path / "s.parquet")
    rows = ROWS * 3000  # more than one row group
    outputs.write_submission(path, iter(rows), CLOUDS)
    table = parquet.read_table(path).to_pydict()
    assert list(table) == ["Image_Label", "EncodedPixels"]
    assert table["Image_Label"] == [f"{name}_{class_name}" for name, class_name, _ in rows]
    assert table["EncodedPixels"] == [found for *_, found in rows]
    assert parquet.ParquetFile(path).num_row_groups > 1

    def fails():
        yield ROWS[0]
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        outputs.write_submission(str(tmp_path / "t.parquet"), fails(), CLOUDS)
    assert os.listdir(tmp_path) == ["s.parquet"]
