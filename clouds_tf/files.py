"""Files that appear whole or not at all."""

import contextlib
import os

import tensorflow as tf


@contextlib.contextmanager
def written_whole(path):
    """Gives a temporary path beside `path`, which becomes `path` when the block ends without error.

    Works for files and for folders, locally and wherever tf.io.gfile does. The temporary name keeps
    the ending of `path`, for writers that look at it.

    Args:
        path: where the file or folder will stand; an older file there is replaced.

    Yields:
        The path to write to. It is removed when the block raises.
    """
    path = path.rstrip("/")
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{os.getpid()}.{name}")
    if folder:
        tf.io.gfile.makedirs(folder)
    try:
        yield temporary
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.isdir(temporary):
            tf.io.gfile.rmtree(temporary)
        elif tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise


def write_text(path, text):
    """Writes a text file, whole or not at all."""
    with written_whole(path) as temporary, tf.io.gfile.GFile(temporary, "w") as file:
        file.write(text)


def read_text(path):
    """Reads a text file; FileNotFoundError names the path if there is none."""
    try:
        with tf.io.gfile.GFile(path) as file:
            return file.read()
    except tf.errors.NotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
