"""Strings <-> runs."""

import tensorflow as tf

from clouds_tf.rle.runs import count_below, shift, split_size, to_ragged

# With 12 digits, more than any image needs, no sum of positions over a batch can overflow.
_PAIRS = r"(\s*\d{1,12}\s+\d{1,12}(\s|$))*\s*"
_NUMBERS = r"^(\s*\d{1,12}(\s|$))*\s*"


def faults(rle, size=None):
    """Says what is wrong with run-length encodings.

    Args:
        rle: string [...], "start length start length ...", 1-based and column-major.
        size: (height, width) of the masks, ints or int tensors; None leaves it open.

    Returns:
        String [...]: "" where the encoding is well formed, as a blank one is, otherwise a sentence
        that names its first fault.
    """
    rle = tf.convert_to_tensor(rle, tf.string)
    *_, sentences = _read(tf.reshape(rle, [-1]), size)
    return tf.reshape(sentences, tf.shape(rle))


def parse(rle, size=None):
    """Reads run-length encodings as runs.

    Args:
        rle: string [...], "start length start length ...", 1-based and column-major.
        size: (height, width) of the masks, ints or int tensors; None leaves it open.

    Returns:
        int64 RaggedTensor [..., R, 2] (a Tensor where rle is a scalar): the 0-based position of
        each run's first pixel, and the run's length in pixels.

    Raises:
        tf.errors.InvalidArgumentError: names the index of the first string that is not well formed
            and says, as `faults` does, what is wrong with it.
    """
    rle = tf.convert_to_tensor(rle, tf.string)
    start, length, row = read_runs(rle, size)
    return to_ragged(tf.stack([start, length], axis=1), row, tf.shape(rle, tf.int64))


def read_runs(rle, size=None, name="rle"):
    """Strings [...] -> start, length, row [R]; raises InvalidArgumentError as `parse` does."""
    *runs, sentences = _read(tf.reshape(rle, [-1]), size)
    return raise_faults(name, sentences, tf.shape(rle, tf.int64), runs)


def raise_faults(name, sentences, shape, tensors):
    """Passes tensors on; raises InvalidArgumentError with the first sentence that is not blank.

    Args:
        name: the argument that the sentences speak of.
        sentences: string [N].
        shape: int64 [rank], the shape of the argument, of N elements.
        tensors: list of tensors.
    """
    faulty = sentences != ""
    # tf.where takes no scalar, so every shape gets one axis more.
    index = tf.where(tf.reshape(faulty, tf.concat([[1], shape], axis=0)))[:1, 1:]
    index = tf.strings.reduce_join(tf.strings.as_string(index), axis=1, separator=", ")
    message = tf.strings.join([name, "[", index, "]: ", tf.boolean_mask(sentences, faulty)[:1]])
    check = tf.raw_ops.Assert(
        condition=tf.equal(tf.size(message), 0), data=[tf.strings.reduce_join(message)]
    )
    with tf.control_dependencies([check]):
        return [tf.identity(x) for x in tensors]


def printable(text):
    """The first token of each string, as far as it can be printed and helps to find it."""
    # \C is any byte, also one that is no UTF-8 and could not stand in an error.
    return tf.strings.regex_replace(tf.strings.substr(text, 0, 24), r"^([!-~]*)\C*", r"\1")


def write_runs(start, length, row, shape):
    """Writes sorted runs [R] as strings [*shape]; their rows count through shape."""
    numbers = tf.strings.as_string(tf.stack([start + 1, length], axis=1))
    rle = tf.strings.unsorted_segment_join(
        tf.reshape(numbers, [-1]), tf.repeat(row, 2), tf.reduce_prod(shape), separator=" "
    )
    return tf.reshape(rle, shape)


def _read(rle, size):
    """Strings [N] -> start, length, row [R] of the readable ones, and sentences [N]."""
    readable = tf.strings.regex_full_match(rle, _PAIRS)
    tokens = tf.strings.split(tf.where(readable, rle, ""))
    pairs = tf.reshape(tf.strings.to_number(tokens.values, tf.int64), [-1, 2])
    start, length = tf.unstack(pairs, axis=1)
    row = tokens.value_rowids()[::2]

    end = start + length
    least = tf.where(tf.equal(row, shift(row, -1)), shift(end, 1), 1)
    wrong = (length < 1) | (start < least)
    if size is not None:
        wrong |= end > tf.reduce_prod(split_size(size)) + 1

    def describe():
        pair = tf.where(wrong)[:, 0]
        pair = tf.boolean_mask(pair, tf.gather(row, pair) != shift(tf.gather(row, pair), -1))
        sentences = tf.tensor_scatter_nd_update(
            tf.fill(tf.shape(rle), ""),
            tf.gather(row, pair)[:, tf.newaxis],
            _describe_pairs(pair, start, length, row, least, size),
        )
        return tf.tensor_scatter_nd_update(
            sentences, tf.where(~readable), _describe_text(tf.boolean_mask(rle, ~readable))
        )

    sentences = tf.cond(
        tf.reduce_all(readable) & ~tf.reduce_any(wrong),
        lambda: tf.fill(tf.shape(rle), ""),
        describe,
    )
    return start - 1, length, row, sentences


def _describe_pairs(pair, start, length, row, least, size):
    """Says what is wrong with the runs of index pair [P] -> sentences [P]."""
    join, text = tf.strings.join, tf.strings.as_string
    number = pair - count_below(row, tf.gather(row, pair)) + 1
    start, length, least = (tf.gather(x, pair) for x in (start, length, least))
    problem = tf.where(
        length < 1,
        join(["length ", text(length), ", expected at least 1"]),
        join(["start ", text(start), ", expected at least ", text(least)]),
    )
    if size is not None:
        height, width = split_size(size)
        most = join([text(height * width), " (", text(height), " x ", text(width), ")"])
        beyond = join(["last pixel ", text(start + length - 1), ", expected at most ", most])
        problem = tf.where((length < 1) | (start < least), problem, beyond)
    return join(["pair ", text(number), " (", text(start), " ", text(length), "): ", problem])


def _describe_text(rle):
    """Says what is wrong with strings [N] that are not pairs of numbers -> sentences [N]."""
    join, text = tf.strings.join, tf.strings.as_string
    rest = tf.strings.regex_replace(rle, _NUMBERS, "", replace_global=False)
    numbers = tf.strings.split(rle).row_lengths() - tf.strings.split(rest).row_lengths()
    return tf.where(
        tf.equal(rest, ""),
        join(["odd count of numbers (", text(numbers), "), expected pairs of start and length"]),
        join(["number ", text(numbers + 1), " (", printable(rest), "): expected 1 to 12 digits"]),
    )
