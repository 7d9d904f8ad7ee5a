import math

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.training.choices import SCHEDULES
from clouds_tf.training.schedules import Schedule, plateau_factor

pytestmark = pytest.mark.lanes


def _rates(name, num_steps=100, **arguments):
    schedule = Schedule(name, 2.0, num_steps, **arguments)
    in_graph = tf.function(schedule)
    rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(num_steps + 5)]
    for step in (0, 37, num_steps):
        assert float(in_graph(tf.constant(step, tf.int64))) == pytest.approx(rates[step], rel=1e-5)
    return np.array(rates)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_no_rate_is_above_the_highest_or_below_zero(name):
    rates = _rates(name, warmup_steps=7)
    assert rates.min() >= 0 and rates.max() <= 2


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_a_constant(name):
    np.testing.assert_array_equal(_rates(name), 2)


def test_cosine():
    rates = _rates("cosine")
    assert rates[0] == 2 and rates[50] == pytest.approx(1) and rates[100:].max() < 1e-6
    assert rates[25] == pytest.approx(1 + math.cos(math.pi / 4))


def test_warmup_is_a_line_from_zero():
    rates = _rates("constant", warmup_steps=4)
    np.testing.assert_allclose(rates[:5], [0.5, 1, 1.5, 2, 2])


def test_one_cycle_rises_over_three_tenths_and_falls():
    # From 1/25 of the highest to the highest to 4e-6 of it; the means of these are half-way.
    rates = _rates("one_cycle")
    expected = {0: 0.08, 15: 1.04, 30: 2.0, 65: 1.0000040, 100: 8e-6}
    for step, rate in expected.items():
        assert rates[step] == pytest.approx(rate, rel=1e-5, abs=1e-6)


def test_cosine_restarts_are_cycles_of_one_two_and_four():
    rates = _rates("cosine_restarts", num_steps=70)
    starts = [step for step in range(70) if rates[step] == pytest.approx(2)]
    assert starts == [0, 10, 30]
    assert rates[5] == rates[20] == rates[50] == pytest.approx(1)
    assert rates[70] < 1e-6


def test_the_factor_multiplies_and_can_change():
    schedule = Schedule("constant", 2.0, 10)
    in_graph = tf.function(schedule)
    assert float(in_graph(tf.constant(3))) == 2
    schedule.factor.assign(0.25)
    assert float(in_graph(tf.constant(3))) == 0.5


@pytest.mark.parametrize(
    "scores, expected",
    [
        ([], 1),
        ([0.1, 0.2, 0.3], 1),
        ([0.3, 0.2, 0.2], 1),
        ([0.3, 0.2, 0.2, 0.3], 0.5),  # as good as the best is not better
        ([0.3, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1], 0.25),
        ([0.3, 0.2, 0.2, 0.4, 0.2, 0.2], 1),
        ([0.3, *[0.1] * 100], 1e-3),
    ],
)
def test_the_rate_falls_where_scores_stay(scores, expected):
    assert plateau_factor(scores) == expected


def test_it_is_saved_and_loaded_by_keras():
    schedule = Schedule("one_cycle", 2.0, 100, 5)
    loaded = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert float(loaded(tf.constant(9))) == float(schedule(tf.constant(9)))
