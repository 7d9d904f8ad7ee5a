"""The checker of IOOS finds no error in any NetCDF file: pip install compliance-checker."""

import datetime
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from clouds_tf.climatology import product
from clouds_tf.geo import Extent, Grid, cover, netcdf
from clouds_tf.prediction.calibration import Calibration, Curve
from clouds_tf.scenes import write
from clouds_tf.scenes.masks import Prediction

# What the checker says of a coordinate of strings, by which xarray selects classes.
KNOWN = "check_coordinate_variables_strict_monotonicity: unsupported operand type"
# Recommendations that are not followed: classes between time and place, as the field has them.
OPEN = ("spatio-temporal dimensions are not in the recommended order",)
# Bounds of the one time of a day, a scalar coordinate (CF 7.1 asks for one dimension more).
SCALAR = "Boundary variable time_bnds specified by time should have at least two dimensions"


@pytest.mark.nightly
def test_all_files_follow_the_conventions_that_they_name(tmp_path):
    folder = os.path.dirname(sys.executable)
    checker = shutil.which("compliance-checker", path=os.pathsep.join([folder, os.environ["PATH"]]))
    if checker is None:
        pytest.skip("no compliance-checker; pip install -e '.[conventions]'")
    grid, rng = cover(Extent(175, 10, 185, 14), (0.5, 0.5)), np.random.default_rng(0)
    (tmp_path / "s").mkdir()
    for i, date in enumerate((datetime.datetime(2016, 7, 1), datetime.datetime(2017, 1, 20, 3))):
        prediction = Prediction(
            name=f"s{i}",
            date=date,
            platform="Aqua",
            model="abc",
            class_names=("Fish", "Sugar"),
            grid=grid,
            probabilities=rng.random((2, *grid.shape), np.float32),
            masks=rng.random((2, *grid.shape)) < 0.5,
            observed=rng.random(grid.shape) < 0.7,
            image=rng.integers(0, 255, (*grid.shape, 3)).astype(np.uint8),
            calibration=Calibration((Curve((0, 1), (0, 1)),) * 2),
        )
        write.write_netcdf(str(tmp_path / "s" / f"s{i}.nc"), prediction)
    for by, layout in (("season", "cf"), ("day", "cf"), ("all", "cf"), ("month", "c3ontext")):
        product.make(
            str(tmp_path / f"{by}.nc"),
            scenes_dir=str(tmp_path / "s"),
            days_dir=str(tmp_path / "days"),
            grid=Grid(5.0),
            form=product.Aggregation(by, layout=layout, num_resamples=10),
        )
    for path in sorted(tmp_path.rglob("*.nc")):
        test = f"--test={netcdf.CONVENTIONS.lower().replace('-', ':')}"
        done = subprocess.run([checker, test, path], capture_output=True, text=True)
        assert "Compliance Checker Report" in done.stdout, done.stderr  # it has checked
        report = done.stdout.split("Corrective Actions")[-1]
        assert "Errors" not in report, f"{path}\n{report}"
        problems = [line for line in report.splitlines() if line.startswith(("*", "cf:"))]
        rest = [p for p in problems if not any(known in p for known in (KNOWN, SCALAR, *OPEN))]
        assert not rest, f"{path}\n" + "\n".join(rest)
