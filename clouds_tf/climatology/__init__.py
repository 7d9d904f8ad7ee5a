"""Climatology: frequencies of the cloud patterns on a regular grid, from scenes or box tables.

tables      reads box tables
boxes       fractions of cells from boxes, by the exact area of their union
labellers   agreement between labellers of the same image
scenes      reads the metadata of files of tools/predict_scenes.py
merge       fractions of cells from scenes, which may overlap
days        one small NetCDF file per day, so that work can be resumed
inputs      adds the days of tables and scenes to a folder of days
aggregate   means of days over months, seasons and years
bootstrap   confidence intervals of means, by block bootstrap
write       writes the product as CF NetCDF, or in the layout of C3ONTEXT
track       fractions along the track of a ship or an aircraft
objects     a table of all objects; organisation of the clouds of a scene
series      regional series: seasonal cycle, longitude over time
pictures    maps, charts and a report
product     makes the product from tables or scenes, for tools/climatology.py
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
