import sys

import pytest
import tensorflow as tf
from absl import flags
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
import cli  # noqa: E402

SIZE = cli.DEFINE_size("a_size_of_test_cli", (320, 480), "A size.")


@pytest.mark.parametrize("text, size", [("1400,2100", (1400, 2100)), (" 1, 2", (1, 2))])
def test_a_size_is_read_as_height_and_width(text, size):
    flags.FLAGS(["test", f"--a_size_of_test_cli={text}"])
    assert SIZE.value == size
    assert (
        flags.FLAGS["a_size_of_test_cli"].serialize() == f"--a_size_of_test_cli={size[0]},{size[1]}"
    )


@pytest.mark.parametrize("text", ["320x480", "320", "1,2,3", "0,5", "-1,5", "a,b", ""])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(flags.IllegalFlagValueError, match="expected height,width such as 320,480"):
        flags.FLAGS(["test", f"--a_size_of_test_cli={text}"])


@pytest.mark.parametrize(
    "message, line",
    [
        ("a.jpg; No such file", "a.jpg; No such file"),
        ("{{function_node __wrapped__X}} Input is empty. [Op:DecodeJpeg]", "Input is empty."),
        (
            "Graph execution error:\n\nDetected at node X defined at (most recent call last):\n"
            "<stack traces unavailable>\ncycle_length must be 2\n\t [[{{node X}}]]",
            "cycle_length must be 2",
        ),
        (
            "Graph execution error:\n\n2 root error(s) found.\n  (0) INVALID_ARGUMENT:  bad depth\n"
            "\t [[{{node X}}]]\n  (1) CANCELLED: other",
            "bad depth",
        ),
        (
            "{{function_node __wrapped__IteratorGetNext}} assertion failed: [R/a.tfrecord: damaged]"
            "\n\t [[{{node Assert}}]] [Op:IteratorGetNext]",
            "R/a.tfrecord: damaged",
        ),
    ],
)
def test_an_error_of_tensorflow_becomes_one_line(message, line):
    error = tf.errors.InvalidArgumentError(None, None, message)
    assert cli._first_line(error) == line
