import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.training import distribution
from clouds_tf.training.optimizers import Nadam, make_optimizer

pytestmark = pytest.mark.lanes

START = [np.float32([1.0, -2.0]), np.float32([[0.5], [3.0]])]
NUM_STEPS = 12


def _gradients(variables):
    """Of the sum of fourth powers, whose steps differ from variable to variable."""
    return [4 * variable**3 for variable in variables]


def _by_hand(learning_rate=0.05, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Dozat's algorithm with his schedule of the momentum, in float64."""
    finals = []
    for x in START:
        x = x.astype(np.float64)
        m, v, product = np.zeros_like(x), np.zeros_like(x), 1.0
        for t in range(1, NUM_STEPS + 1):
            now, then = (beta_1 * (1 - 0.5 * 0.96**i) for i in (t, t + 1))
            product *= now
            (g,) = _gradients([x])
            m = beta_1 * m + (1 - beta_1) * g
            v = beta_2 * v + (1 - beta_2) * g**2
            m_hat = then * m / (1 - product * then) + (1 - now) * g / (1 - product)
            x = x - learning_rate * m_hat / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        finals.append(x)
    return finals


def _train(strategy, in_graph=True):
    """The variables of every replica after some steps."""
    with strategy.scope():
        variables = [tf.Variable(x) for x in START]
        optimizer = Nadam(0.05)
        optimizer.build(variables)

    def step():
        # Every replica brings its part, as with the gradient of a mean.
        parts = strategy.num_replicas_in_sync
        gradients = [gradient / parts for gradient in _gradients(variables)]
        optimizer.apply_gradients(zip(gradients, variables))

    run = tf.function(lambda: strategy.run(step)) if in_graph else lambda: strategy.run(step)
    for _ in range(NUM_STEPS):
        run()
    return [
        [local.numpy() for local in strategy.experimental_local_results(variable)]
        for variable in variables
    ]


@pytest.mark.parametrize(
    "num_replicas, in_graph, arguments",
    [(1, False, ()), (1, True, ()), (2, True, ("mirrored", 2))],
)
def test_nadam_is_dozats_on_one_and_two_replicas(num_replicas, in_graph, arguments):
    strategy = distribution.strategy(*arguments)
    for replicas, expected in zip(_train(strategy, in_graph), _by_hand()):
        assert len(replicas) == num_replicas
        for found in replicas:
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nadam_goes_on_from_a_checkpoint(tmp_path):
    def make():
        variables = [tf.Variable(x) for x in START]
        optimizer = Nadam(0.05)
        optimizer.build(variables)
        return variables, optimizer, tf.train.Checkpoint(variables=variables, optimizer=optimizer)

    def run(variables, optimizer, steps):
        for _ in range(steps):
            optimizer.apply_gradients(zip(_gradients(variables), variables))

    variables, optimizer, checkpoint = make()
    run(variables, optimizer, 5)
    path = checkpoint.save(str(tmp_path / "c"))
    variables, optimizer, checkpoint = make()
    checkpoint.restore(path).assert_consumed()
    run(variables, optimizer, NUM_STEPS - 5)
    for found, expected in zip(variables, _by_hand()):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_matrices_decay_under_adamw_and_vectors_do_not():
    variables = [tf.Variable(x) for x in START]
    optimizer = make_optimizer("adamw", 0.5, variables, weight_decay=0.2)
    optimizer.apply_gradients([(tf.zeros_like(variable), variable) for variable in variables])
    vector, matrix = variables
    np.testing.assert_array_equal(vector, START[0])
    np.testing.assert_allclose(matrix, 0.9 * START[1], rtol=1e-6)
