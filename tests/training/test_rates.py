"""The learning-rate range test and its tool."""

import csv

import numpy as np
import pytest
from programs import run_tool

from clouds_tf.training.rates import propose, rising, smooth


def test_the_rate_rises_by_one_factor():
    found = [float(rising(share, 1e-4)) for share in np.linspace(0, 1, 5, dtype=np.float32)]
    np.testing.assert_allclose(found, np.geomspace(1e-4, 1, 5), rtol=1e-5)


def test_smoothing_has_no_bias_at_its_start():
    assert smooth([3.0] * 5) == pytest.approx([3.0] * 5)
    losses = [1.0, 2.0, 4.0]
    weights = np.array([0.5**2, 0.5, 1])
    assert smooth(losses, 0.5)[-1] == pytest.approx(weights @ losses / weights.sum())


def test_the_proposal_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-6, 1, 61)
    losses = 1 / (1 + (rates / 1e-3) ** 2) + (rates / 0.3) ** 3  # by half at 1e-3, steepest there
    assert propose(rates, losses) == pytest.approx(1e-3, rel=0.3)
    assert propose(rates, np.linspace(1, 2, 61)) is None


@pytest.mark.slow
def test_the_tool_writes_a_curve_a_picture_and_a_proposal(records_dir, tmp_path):
    output = tmp_path / "rates.csv"
    flags = [
        f"--records_dir={records_dir}",
        f"--output={output}",
        "--encoder=tiny",
        "--width=0.125",
    ]
    flags += ["--image_size=32,48", "--batch_size=3", "--num_steps=30", "--optimizer=adam"]
    result = run_tool("find_learning_rate", *flags)
    assert result.returncode == 0 and "steps up to" in result.stdout, result.stderr
    rows = list(csv.DictReader(output.open()))
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, np.geomspace(1e-7, 1, 30)[: len(rates)])
    assert len(rows) > 20 and (tmp_path / "rates.png").exists()
    wrong = run_tool("find_learning_rate", *flags, "--schedule=cosine")
    assert wrong.returncode == 1 and "--schedule: has no effect here" in wrong.stderr
