"""Compares a climatology, day by day, with labels of people or with another climatology.

python tools/climatology.py --scenes_dir=S --output=C.nc --measure=expected --by=day
python tools/validate.py --days_dir=C_days --reference=freq.nc --output=V.csv --picture=V.png
"""

import cli

from absl import flags

from clouds_tf.climatology import validation
from clouds_tf.messages import counted

FLAGS = flags.FLAGS
flags.DEFINE_string("days_dir", None, "Folder of days of tools/climatology.py.", required=True)
flags.DEFINE_string(
    "reference",
    None,
    "NetCDF in the layout of C3ONTEXT, freq(date, longitude, latitude, pattern); a CSV of boxes; "
    "or another folder of days on the same grid.",
    required=True,
)
flags.DEFINE_string("output", None, "CSV of measures with their 95 % intervals.", required=True)
flags.DEFINE_string("picture", None, "PNG of the daily means of each class.")
cli.DEFINE_dataclass(validation.Comparison)


def main() -> None:
    cli.refuse_unused(("seed", "--num_resamples above 0", FLAGS.num_resamples))
    cli.check_inputs("days_dir reference")
    found = validation.validate(
        FLAGS.days_dir,
        FLAGS.reference,
        FLAGS.output,
        FLAGS.picture,
        cli.dataclass_from_flags(validation.Comparison),
    )
    for name, measure, value, lower, upper in found.rows:
        interval = "" if lower != lower else f" ({lower:.3f} to {upper:.3f})"
        print(f"{name + ', ' + measure:<36} {value:.3f}{interval}")
    blocks = f", intervals by blocks of {counted(found.block_days, 'day')}"
    print(
        f"Compared {counted(len(found.dates), 'day')}{blocks if found.block_days else ''}; "
        f"wrote {FLAGS.output}"
    )


if __name__ == "__main__":
    cli.run(main)
