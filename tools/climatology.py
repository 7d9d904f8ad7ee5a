"""Makes a climatology, the frequency of cloud patterns on a grid, of scenes or box tables.

python tools/climatology.py --boxes=B.csv --output=C.nc --by=season --pictures_dir=P
"""

import cli

from absl import flags

from clouds_tf.climatology import pictures, product
from clouds_tf.climatology.merge import MEASURES
from clouds_tf.data.runners import Runner
from clouds_tf.geo import Grid, parse_extent, parse_platforms, parse_regions

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "boxes", None, "CSV of boxes: date, label, lon1, lon2, lat1, lat2; may end with .gz."
)
flags.DEFINE_string(
    "scenes_dir", None, "Folder of tools/predict_scenes.py, or a pattern of its NetCDF files."
)
flags.DEFINE_enum(
    "measure",
    "mask",
    MEASURES,
    "Area in scenes: that of the masks, or the expected area from calibrated probabilities.",
)
flags.DEFINE_list(
    "platforms",
    [],
    "Satellites whose scenes count, such as Terra,Aqua or VIIRS; default: all.",
)
flags.DEFINE_string("output", None, "NetCDF file to write.", required=True)
flags.DEFINE_string(
    "days_dir",
    None,
    "Folder of the daily fields, one NetCDF file per day, to which days are added; default: the "
    "output's name with _days. Without --boxes and --scenes_dir, its existing days are aggregated.",
)
flags.DEFINE_float(
    "cell", None, "Width and height of a grid cell in degrees; default: 1.", lower_bound=0
)
flags.DEFINE_string(
    "extent", None, "Extent of the grid: lon_min,lat_min,lon_max,lat_max; default: the globe."
)
flags.DEFINE_boolean(
    "each_year", False, "Keep the months and seasons of each year apart, as a time series."
)
flags.DEFINE_multi_string(
    "region", [], "Region to average over: NAME:lon_min,lat_min,lon_max,lat_max; may be repeated."
)
flags.DEFINE_enum(
    "on_error", "fail", ["fail", "skip"], "Stop at faulty rows, or leave them out and count them."
)
cli.DEFINE_dataclass(product.ExtraOutputs)
cli.DEFINE_dataclass(pictures.Look)
cli.DEFINE_dataclass(product.Aggregation)
cli.DEFINE_dataclass(Runner)
cli.DEFINE_dataset()


def main() -> None:
    cli.refuse_unused(
        ("measure platforms objects", "--scenes_dir", FLAGS.scenes_dir),
        ("agreement dataset", "--boxes", FLAGS.boxes),
        (
            "cell extent on_error runner num_workers beam_options",
            "--boxes or --scenes_dir; days that are there have theirs",
            FLAGS.boxes or FLAGS.scenes_dir,
        ),
        ("num_workers", "--runner=local", FLAGS.runner == "local"),
        ("each_year", "--by=month or --by=season", FLAGS.by in ("month", "season")),
        ("region", "--layout=cf", FLAGS.layout == "cf"),
        ("num_resamples", "--layout=cf", FLAGS.layout == "cf" or FLAGS.agreement),
        ("seed", "--num_resamples above 0", FLAGS.num_resamples),
        ("seed", "--layout=cf or --agreement", FLAGS.layout == "cf" or FLAGS.agreement),
        ("colors coastlines picture_formats max_pictures", "--pictures_dir", FLAGS.pictures_dir),
    )
    cli.check_inputs("boxes scenes_dir track")
    with cli.progress_bar("day") as progress:
        made = product.make(
            FLAGS.output,
            boxes=FLAGS.boxes,
            scenes_dir=FLAGS.scenes_dir,
            measure=FLAGS.measure,
            platforms=parse_platforms(FLAGS.platforms),
            days_dir=FLAGS.days_dir,
            class_names=FLAGS.dataset.class_names,
            grid=Grid(FLAGS.cell or 1.0, parse_extent(FLAGS.extent or "-180,-90,180,90")),
            form=cli.dataclass_from_flags(
                product.Aggregation,
                across_years=not FLAGS.each_year,
                regions=parse_regions(FLAGS.region),
            ),
            extras=cli.dataclass_from_flags(
                product.ExtraOutputs, look=cli.dataclass_from_flags(pictures.Look)
            ),
            on_error=FLAGS.on_error,
            runner=cli.dataclass_from_flags(Runner),
            progress=progress,
        )
    print(made)


if __name__ == "__main__":
    cli.run(main)
