"""Dates, extents and satellites of file names; docs/scenes.md has the table of them."""

import datetime
import re

import pytest
from shared_fixtures import REPOSITORY

from clouds_tf.geo import named_date, named_extent, parse_date
from clouds_tf.geo.names import named_platform


def documented():
    """Rows of the table of names in docs/scenes.md: name, satellite, time."""
    text = (REPOSITORY / "docs" / "scenes.md").read_text()
    row = r"^\| `([^`]+)` \| ([^|]*) \| (\d{4}-\d\d-\d\d(?: \d\d:\d\d)?) \|$"
    return re.findall(row, text, re.MULTILINE)


def test_names_of_agencies_say_when_and_by_which_satellite():
    names = documented()
    assert len(names) >= 20
    for name, platform, date in names:
        expected = datetime.datetime.fromisoformat(date)
        found = named_date(name.rsplit(".", 1)[0])
        assert found is not None and found.replace(second=0) == expected, name
        assert named_platform(name) == platform.strip(), name


@pytest.mark.parametrize(
    "name, expected",
    [
        ("goes_s202036612", "2020-12-31 12:00"),  # hours only
        ("202001121530", "2020-01-12 15:30"),
        ("x_2020011215", "2020-01-12 15:00"),
        ("20200112_1000m", "2020-01-12"),  # metres
        ("20200112_20200127", "2020-01-12"),
        ("Aqua20071227_10-20_10-24", "2007-12-27"),  # an extent, no time
        ("20180301_MOD021KM.A2008011.1530", "2008-01-11 15:30"),  # acquisition, wherever it is
        ("A2007999", None),
        ("A2007366", None),  # no leap year
        ("A2008366", "2008-12-31"),
        ("20071399", None),
        ("20071399_20180101", None),  # the first date is wrong: the second one is another's
        ("120071227", None),
        ("200712271", None),
        ("2018030123456", None),
        ("snapshot", None),
    ],
)
def test_doubtful_names(name, expected):
    date = None if expected is None else datetime.datetime.fromisoformat(expected)
    assert named_date(name) == date


def test_names_without_extent_or_satellite_and_dates_of_flags():
    assert named_platform("x") == "" and named_extent("x_1-2") is None
    assert parse_date("2007-12-27T13:30Z") == datetime.datetime(2007, 12, 27, 13, 30)
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        parse_date("27.12.2007")
