"""Climatology: scenes or box tables become frequencies of the cloud patterns on a regular grid.

    tables      reads box tables
    boxes       boxes -> fractions of every cell, by the exact area of the union of boxes
    labellers   agreement of several labellers of one image
    scenes      reads the metadata of files of tools/predict_scenes.py
    merge       scenes, which may overlap -> fractions of every cell
    days        one small NetCDF file a day, so that work can be resumed
    inputs      adds the days of tables and scenes to a folder of days
    aggregate   days -> months, seasons, years
    bootstrap   intervals of means, by blocks of days
    write       the product as CF NetCDF, or in the layout of C3ONTEXT
    track       fractions along the track of a ship or an aircraft
    objects     a table of all objects; organisation of the clouds of a scene
    series      regional series: seasonal cycle, longitude over time
    pictures    maps, charts and a report
    product     the whole way from tables or scenes to files, for tools/climatology.py
    validation  agreement with labels of people, or with other days
"""

import typing

from clouds_tf.lazy import face

if typing.TYPE_CHECKING:
    from clouds_tf.climatology.days import DayStore
    from clouds_tf.climatology.product import Aggregation, ExtraOutputs, Summary, make

__all__ = ["Aggregation", "DayStore", "ExtraOutputs", "Summary", "make"]

__getattr__ = face(
    __name__,
    {
        "days": ["DayStore"],
        "product": ["Aggregation", "ExtraOutputs", "Summary", "make"],
    },
)
