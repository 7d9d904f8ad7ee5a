"""Paths on this machine and remote ones behave alike; tf.io.gfile is the oracle."""

import os

import pytest
import tensorflow as tf

from clouds_tf import gfile


@pytest.fixture(params=["local", "remote"])
def root(request, tmp_path):
    path = str(tmp_path) if request.param == "local" else f"ram://{tmp_path}"
    tf.io.gfile.makedirs(path)
    return path


def test_files_and_folders_are_what_tensorflow_sees(root):
    folder, path = f"{root}/a/b", f"{root}/a/b/x.txt"
    gfile.makedirs(folder)
    gfile.makedirs(folder)
    with gfile.opened(path, "w") as file:
        file.write("naïve\r\n")
    with tf.io.gfile.GFile(path, "rb") as file:
        assert file.read() == "naïve\r\n".encode()
    with gfile.opened(path) as file:
        assert file.read() == "naïve\r\n"
    assert gfile.exists(path) and gfile.isdir(folder) and not gfile.isdir(path)
    assert gfile.stat(path).length == tf.io.gfile.stat(path).length == 8
    assert abs(gfile.stat(path).mtime_nsec - tf.io.gfile.stat(path).mtime_nsec) < 1e9
    gfile.copy(path, f"{folder}/y.txt")
    gfile.rename(f"{folder}/y.txt", f"{folder}/z.txt")
    assert sorted(gfile.listdir(folder)) == sorted(tf.io.gfile.listdir(folder))
    assert sorted(gfile.glob(f"{folder}/*.txt")) == sorted(tf.io.gfile.glob(f"{folder}/*.txt"))
    names = [os.path.join(place, name) for place, _, found in gfile.walk(root) for name in found]
    assert sorted(names) == [path, f"{folder}/z.txt"]
    gfile.remove(path)
    gfile.rmtree(folder)
    assert not tf.io.gfile.exists(folder) and not gfile.exists(folder)


def test_errors_are_those_of_python(root):
    for ask in (gfile.listdir, gfile.stat, gfile.remove, gfile.rmtree):
        with pytest.raises(FileNotFoundError, match="nothing"):
            ask(f"{root}/nothing")
    with pytest.raises(FileNotFoundError), gfile.opened(f"{root}/nothing") as file:
        file.read()
    for name in ("x", "y"):
        with gfile.opened(f"{root}/{name}", "wb") as file:
            file.write(name.encode())
    for move in (gfile.copy, gfile.rename):
        with pytest.raises(FileExistsError):
            move(f"{root}/x", f"{root}/y")
    gfile.rename(f"{root}/x", f"{root}/y", overwrite=True)
    with gfile.opened(f"{root}/y", "rb") as file:
        assert file.read() == b"x"
