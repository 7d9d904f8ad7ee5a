import re

import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clouds_tf import rle

SIZE = (30, 20)
AREA = 30 * 20
SPACE = st.text(" \t\n\r\f", min_size=1, max_size=3)

WELL_FORMED = ["", " ", "1 1", "600 1", "1 600", "1 2 3 4", " 1\t2  5\n1 \r", "001 02"]
FAULTS = [
    ("1", "odd count of numbers (1), expected pairs of start and length"),
    ("1 2 3", "odd count of numbers (3), expected pairs of start and length"),
    ("0 3", "pair 1 (0 3): start 0, expected at least 1"),
    ("1 5 937 0", "pair 2 (937 0): length 0, expected at least 1"),
    ("5 2 1 2", "pair 2 (1 2): start 1, expected at least 7"),
    ("5 2 6 2 0 0", "pair 2 (6 2): start 6, expected at least 7"),
    ("601 1", "pair 1 (601 1): last pixel 601, expected at most 600 (30 x 20)"),
    ("1 1 600 2", "pair 2 (600 2): last pixel 601, expected at most 600 (30 x 20)"),
    ("1 2 abc 4", "number 3 (abc): expected 1 to 12 digits"),
    ("-1 3", "number 1 (-1): expected 1 to 12 digits"),
    ("+1 3", "number 1 (+1): expected 1 to 12 digits"),
    ("1.5 2", "number 1 (1.5): expected 1 to 12 digits"),
    ("1 1e30", "number 2 (1e30): expected 1 to 12 digits"),
    ("1,2", "number 1 (1,2): expected 1 to 12 digits"),
    ("1 0x2", "number 2 (0x2): expected 1 to 12 digits"),
    ("nan nan", "number 1 (nan): expected 1 to 12 digits"),
    (b"1 \xff\xfe 3", "number 2 (): expected 1 to 12 digits"),
    (b"1 2\x00", "number 2 (2): expected 1 to 12 digits"),
    ("1 \v2", "number 2 (): expected 1 to 12 digits"),
    ("1 \u0663", "number 2 (): expected 1 to 12 digits"),
    ("1 4294967297", "last pixel 4294967297, expected at most 600 (30 x 20)"),
    ("1 1000000000000", "number 2 (1000000000000): expected 1 to 12 digits"),
    ("1 18446744073709551617", "number 2 (18446744073709551617): expected 1 to 12 digits"),
    ("9" * 12 + " 1", "last pixel 999999999999, expected at most 600 (30 x 20)"),
]


def is_well_formed(text):
    """The rule once more, in plain Python."""
    text = text.strip(b" \t\n\r\f")  # not \v, which strip() removes and RE2 does not
    tokens = re.split(b"[ \t\n\r\f]+", text) if text else []
    if not all(re.fullmatch(rb"[0-9]{1,12}", token) for token in tokens) or len(tokens) % 2:
        return False
    free = 1
    for start, length in zip(map(int, tokens[::2]), map(int, tokens[1::2])):
        if start < free or length < 1 or start + length - 1 > AREA:
            return False
        free = start + length
    return True


@st.composite
def run_lists(draw):
    """Sorted runs inside the mask, which may touch: a list of (0-based start, length)."""
    edges = draw(st.lists(st.integers(0, AREA), unique=True, max_size=20).map(sorted))
    return [(a, b - a) for a, b in zip(edges[::2], edges[1::2])]


@settings(max_examples=60)
@given(run_lists(), st.data())
def test_parse_gives_the_runs(runs, data):
    tokens = [str(x) for start, length in runs for x in (start + 1, length)]
    text = "".join(token + data.draw(SPACE) for token in tokens)
    assert rle.parse(text, SIZE).numpy().tolist() == [list(run) for run in runs]


def test_parse_keeps_the_shape_of_the_strings():
    runs = rle.parse([[["1 2", ""], ["3 4 8 1", " "]]], SIZE)
    assert runs.shape.as_list() == [1, 2, 2, None, 2]
    assert runs.dtype == tf.int64
    assert runs.to_list() == [[[[[0, 2]], []], [[[2, 4], [7, 1]], []]]]
    assert rle.parse(tf.zeros([0, 4], tf.string), SIZE).shape.as_list() == [0, 4, None, 2]


@pytest.mark.parametrize("text", WELL_FORMED)
def test_well_formed_strings_have_no_fault(text):
    assert rle.faults(text, SIZE).numpy() == b""


@pytest.mark.parametrize("text, sentence", FAULTS)
def test_faults_are_named(text, sentence):
    assert rle.faults(text, SIZE).numpy().decode().endswith(sentence)


def test_faults_stand_where_their_strings_do():
    texts, sentences = zip(*FAULTS)
    mixed = [[text, "1 2"] for text in texts]
    got = rle.faults(mixed, SIZE).numpy()
    assert all(a.decode().endswith(b) for a, b in zip(got[:, 0], sentences))
    assert not any(got[:, 1])


def test_without_a_size_a_mask_may_end_anywhere():
    assert rle.faults(["601 1", "1 999999999999"]).numpy().tolist() == [b"", b""]


ALMOST = st.lists(
    st.sampled_from(["1", "2", "5", "0", "600", "601", "-1", "x", "é", " ", "\n", "1" * 13])
).map(" ".join)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.one_of(st.binary(max_size=30), ALMOST.map(str.encode)))
@example(b"\x0b")
@example(b"1 2\x0b")
@example(b"\xe9 1")
def test_every_string_is_either_well_formed_or_has_a_fault(text):
    fault = rle.faults(text, SIZE).numpy().decode()
    assert (fault == "") == is_well_formed(text)
    if fault:
        escaped = re.sub(r"([\\\"'])", r"\\\1", fault)  # as errors of TensorFlow show it
        with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(escaped)):
            rle.parse(text, SIZE)


def decode(text, size):
    return rle.decode(text, size, (3, 2))


def coverage(text, size):
    return rle.coverage(text, size, (3, 2))


@pytest.mark.slow
@pytest.mark.parametrize("function", [rle.parse, decode, coverage, rle.to_coco_string])
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize(
    "text, index",
    [("1 0", ""), (["1 1", "", "1 0", "1 0"], "2"), ([["1 1", "1 1"], ["1 1", "1 0"]], "1, 1")],
)
def test_errors_name_the_first_string_that_is_at_fault(function, wrap, text, index):
    message = rf"rle\[{index}\]: pair 1 \(1 0\): length 0, expected at least 1"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        wrap(function)(tf.constant(text), tf.constant(SIZE))


def test_nothing_is_drawn_before_the_check():
    """Asked for the mask alone, without what only tf.function would run besides, it still fails."""
    function = tf.compat.v1.wrap_function(
        lambda text: rle.decode(text, SIZE, SIZE), [tf.TensorSpec([1], tf.string)]
    )
    mask_only = function.prune(function.inputs, function.outputs)
    assert mask_only(tf.constant(["1 2"]))[0].numpy().sum() == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"rle\[0\]: pair 2 \(1 2\): start 1"):
        mask_only(tf.constant(["1 2 1 2"]))


@pytest.mark.parametrize(
    "text",
    ["9" * 5_000_000, "1 " + "9" * 5_000_000, "1 1 " * 1_000_000, "x" * 5_000_000, " 1" * 999_999],
    ids=["digits", "long length", "overlaps", "letters", "odd"],
)
def test_megabytes_of_nonsense_give_one_short_error(text):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        rle.decode(text, SIZE, SIZE)
    assert len(error.value.message) < 400


def test_numbers_of_any_size_do_not_wrap_around():
    numbers = [str((1 << (3 * digits)) + offset) for digits in range(9, 30) for offset in range(3)]
    texts = [[f"1 {number}", f"{number} 1", f"{number} {number}"] for number in numbers]
    assert (rle.faults(texts, SIZE).numpy() != b"").all()


def test_blank_megabytes_are_an_empty_mask():
    assert not rle.decode(" " * 5_000_000, SIZE, SIZE).numpy().any()
