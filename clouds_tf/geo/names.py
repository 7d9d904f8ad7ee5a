"""Extents, dates and satellites in file names."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable

from clouds_tf.geo.extent import Extent

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_NAMED_EXTENT = re.compile(f"_{_NUMBER}-{_NUMBER}_{_NUMBER}-{_NUMBER}$")
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_YEARDAY = rf"{_YEAR}(?P<yearday>\d{{3}})"
# Names of agencies in which the date of acquisition is marked.
_CODED_DATES = (
    # MODIS and VIIRS: MYD021KM.A2008011.1530; GOES: s20200131500215, in tenths of seconds.
    rf"(?<![A-Za-z0-9])[ATVs]{_YEARDAY}(?:\.(?P<hour>\d\d)(?P<minute>\d\d))?(?!\d)",
    rf"(?<![A-Za-z0-9])[ATVs]{_YEARDAY}(?P<hour>\d\d)"
    r"(?:(?P<minute>\d\d)(?:(?P<second>\d\d)\d?)?)?(?!\d)",
    # Landsat until 2017: LC80010502020012LGN00.
    rf"(?<![A-Za-z0-9])L[A-Z]\d{{7}}{_YEARDAY}[A-Z]{{3}}\d\d",
    # Sentinel-2 until 2016, whose first date is that of processing.
    rf"_V{_YEAR}(?P<month>\d\d)(?P<day>\d\d)T(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)",
)
# In other names, the first date counts: programs write acquisition before processing.
_HOUR, _MINUTE = r"[01]\d|2[0-3]", r"[0-5]\d"
_FIRST_DATE = re.compile(
    rf"(?<!\d){_YEAR}(?P<dash>[-_]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)(?:"
    # 2020011215, 202001121530, 20200112153000
    rf"(?P<hour>{_HOUR})(?:(?P<minute>{_MINUTE})(?P<second>{_MINUTE})?)?(?!\d)"
    # 20200112T1530, 2020-01-12T15_30_00Z
    rf"|[T ](?P<hour2>{_HOUR})(?:[:_-]?(?P<minute2>{_MINUTE})(?:[:_-]?(?P<second2>{_MINUTE}))?)?"
    r"(?!\d)"
    # 20200112_1530, but neither 20200112_1000m nor a second date
    rf"|[_.-](?P<hour3>{_HOUR})(?P<minute3>{_MINUTE})(?P<second3>{_MINUTE})?"
    r"(?=Z|UTC|[^0-9A-Za-z]|$)"
    # d20200112_t0448123, in tenths of seconds
    rf"|_t(?P<hour4>{_HOUR})(?P<minute4>{_MINUTE})(?P<second4>{_MINUTE})\d?(?!\d)"
    r"|(?!\d))"
)
_PLATFORMS = {
    "Terra": r"terra|(?<![a-z])MOD\d",
    "Aqua": r"aqua|(?<![a-z])MYD\d",
    "Suomi NPP": r"suomi|s-?npp|_npp_|(?<![a-z])VNP\d",
    "NOAA-20": r"noaa-?20|_j01_|(?<![a-z])VJ1\d",
    "NOAA-21": r"noaa-?21|_j02_|(?<![a-z])VJ2\d",
    **{f"GOES-{i}": rf"goes-?{i}|_g{i}_" for i in (16, 17, 18, 19)},
    "Himawari-8": r"himawari-?8|_h08_",
    "Himawari-9": r"himawari-?9|_h09_",
    **{f"Sentinel-{i}": rf"sentinel-?{i}|(?<![a-z0-9])S{i}[A-D]_" for i in (2, 3)},
    **{f"Landsat {i}": rf"landsat[-_ ]?{i}|(?<![a-z0-9])L[COT]0?{i}[_\d]" for i in (8, 9)},
}

_INSTRUMENTS = {
    "MODIS": ("Terra", "Aqua"),
    "VIIRS": ("Suomi NPP", "NOAA-20", "NOAA-21"),
}


def parse_platforms(names: Iterable[str]) -> tuple[str, ...]:
    """Normalises names of satellites, in any case; MODIS and VIIRS mean all that carry them.

    >>> parse_platforms(["terra", "VIIRS"])
    ('NOAA-20', 'NOAA-21', 'Suomi NPP', 'Terra')
    """
    known = {**{name: (name,) for name in (*_PLATFORMS, "unknown")}, **_INSTRUMENTS}
    by_name = {name.lower(): members for name, members in known.items()}
    found: set[str] = set()
    for name in names:
        if name.strip().lower() not in by_name:
            raise ValueError(f"platforms: got {name!r}, expected some of {', '.join(known)}")
        found.update(by_name[name.strip().lower()])
    return tuple(sorted(found))


def named_extent(stem: str) -> Extent | None:
    """Reads the extent at the end of a file name, as in Worldview snapshots of this field.

    >>> str(named_extent("Aqua_CorrectedReflectance20071227_-61--40_10-24"))
    '-61,10,-40,24'
    """
    found = _NAMED_EXTENT.search(stem)
    if not found:
        return None
    west, east, south, north = map(float, found.groups())
    return Extent(west, south, east, north)


def named_date(stem: str) -> datetime.datetime | None:
    """Reads the acquisition time from a file name; None if it has no date or an invalid one.

    >>> named_date("MYD021KM.A2008011.1530.061.2018030123456")
    datetime.datetime(2008, 1, 11, 15, 30)
    """
    text = _NAMED_EXTENT.sub("", stem)
    for pattern in _CODED_DATES:
        found = re.search(pattern, text)
        if found:
            return _date(found)
    found = _FIRST_DATE.search(text)
    return _date(found) if found else None


def _date(found: re.Match[str]) -> datetime.datetime | None:
    parts = {
        key.rstrip("234"): int(value)
        for key, value in found.groupdict().items()
        if value and key != "dash"
    }
    yearday = parts.pop("yearday", 1)
    try:
        date = datetime.datetime(**{"month": 1, "day": 1, **parts})  # type: ignore
        date += datetime.timedelta(days=yearday - 1)
    except ValueError:
        return None
    return date if date.year == parts["year"] else None


def parse_date(text: str) -> datetime.datetime:
    """Parses a date such as 2007-12-27 or 2007-12-27T13:30 (UTC); ValueError otherwise."""
    try:
        return datetime.datetime.fromisoformat(text.rstrip("Z"))
    except ValueError:
        raise ValueError(f"date: got {text!r}, expected YYYY-MM-DD or YYYY-MM-DDTHH:MM") from None


def named_platform(text: str) -> str:
    """The satellite in a file name or a tag, such as "Aqua"; "" if there is none."""
    for platform, pattern in _PLATFORMS.items():
        if re.search(pattern, text, re.IGNORECASE):
            return platform
    return ""
