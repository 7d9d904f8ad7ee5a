import os
import pathlib

import pytest
import tensorflow as tf

from clouds_tf import files
from clouds_tf.prediction.metadata import read_metadata
from clouds_tf.prediction.predictor import Predictor

pytestmark = pytest.mark.lanes


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with files.written_whole(str(path)) as temporary:
        with open(temporary, "w") as file:
            file.write("a")
        assert not path.exists()
        assert temporary.endswith(".txt")
    assert path.read_text() == "a"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"):
        with files.written_whole(str(path)) as temporary:
            with open(temporary, "w") as file:
                file.write("half")
            raise RuntimeError("in the middle")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "folder"
    with files.written_whole(f"{path}/") as temporary:
        files.write_text(f"{temporary}/x.txt", "a")
        assert not path.exists()
    assert (path / "x.txt").read_text() == "a"


def test_a_folder_that_fails_is_removed(tmp_path):
    with pytest.raises(RuntimeError):
        with files.written_whole(str(tmp_path / "folder")) as temporary:
            files.write_text(f"{temporary}/x.txt", "a")
            raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_remote_folder_appears_with_all_its_files_or_not_at_all(monkeypatch):
    names = ["variables/index", "fingerprint.pb", "saved_model.pb"]

    def write():
        with files.written_whole("ram://whole/new/1/") as temporary:
            for name in reversed(names):
                files.write_text(f"{temporary}/{name}", name)
            assert files.list_names("ram://whole/new") in ([], ["1"])

    copied, copy = [], tf.io.gfile.copy

    def fail_at_the_last(source, target):
        if source.endswith("saved_model.pb"):
            raise OSError("in the middle")
        copied.append(target)
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile, "copy", fail_at_the_last)
        with pytest.raises(OSError, match="in the middle"):
            write()
    paths = [f"ram://whole/new/1/{name}" for name in names]
    assert copied == paths[:2] and files.list_names("ram://whole/new") == []
    write()
    assert [files.read_text(path) for path in paths] == names
    assert files.list_names("ram://whole/new") == ["1"]
    with pytest.raises(FileExistsError, match="whole/new/1: already exists"):
        write()
    assert [files.read_text(path) for path in paths] == names


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.json: no such file"):
        files.read_text(str(tmp_path / "nothing.json"))


def test_two_writers_of_one_file_do_not_share_a_temporary_name(tmp_path):
    path = str(tmp_path / "a.txt")
    with files.written_whole(path) as one, files.written_whole(path) as other:
        assert one != other
        for temporary in (one, other):
            assert files.is_unfinished(os.path.basename(temporary))
            pathlib.Path(temporary).write_text("x")
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["a.txt", ".gitignore", "clouds-00000-of-00004.tfrecord"])
def test_other_names_are_no_leftovers(name):
    assert not files.is_unfinished(name)
    assert files.is_unfinished(f".123.{name}")  # of earlier versions


def test_an_output_is_checked_before_the_work(tmp_path):
    files.check_output(str(tmp_path / "new" / "a.csv"))
    assert os.listdir(tmp_path / "new") == []
    with pytest.raises(ValueError, match="new: is a folder, expected the name of a file"):
        files.check_output(str(tmp_path / "new"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/a.csv: cannot be written: "):
        files.check_output(str(tmp_path / "file" / "a.csv"))


def test_patterns_become_paths_and_an_existing_path_wins(tmp_path):
    for name in ("fold_0", "fold_1", "fold_[01]"):
        (tmp_path / name).mkdir()
    folds = [f"{tmp_path}/fold_0", f"{tmp_path}/fold_1"]
    assert files.expand([f"{tmp_path}/fold_?", "not a pattern"]) == [*folds, "not a pattern"]
    assert files.expand([f"{tmp_path}/fold_[01]"]) == [f"{tmp_path}/fold_[01]"]
    assert files.expand([f"{tmp_path}/*_[1]"]) == folds[1:]
    with pytest.raises(FileNotFoundError, match=r"W_\*: no such file or folder"):
        files.expand([f"{tmp_path}/W_*"])


def test_paths_from_which_tensorflow_loads_nothing_are_refused(tmp_path):
    """Their checkpoints are written, but not found again."""
    for name in ("a[1]", "a\\b"):
        prefix = tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / name / "c"))
        with pytest.raises(tf.errors.NotFoundError):
            tf.train.Checkpoint(v=tf.Variable(0.0)).read(prefix)
        for load in (files.check_loadable, read_metadata, Predictor.open):
            with pytest.raises(ValueError, match="cannot load a path with"):
                load(str(tmp_path / name))
    files.check_loadable("a*{b}?")


def test_a_path_given_twice_is_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    files.check_distinct([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(ValueError, match="a: given 3 times, expected once"):
        files.check_distinct([f"{tmp_path}/{name}" for name in ("b", "a", "a/", "link")])


def test_a_missing_package_is_named_with_its_extra():
    files.require("numpy", "plots", "a picture")
    with pytest.raises(ValueError, match=r"a picture needs .* no_such.* -e '.\[plots\]'"):
        files.require("no_such", "plots", "a picture")


def test_libraries_that_write_locally_reach_remote_paths():
    with files.written_whole("ram://b/new/a.bin") as local:
        pathlib.Path(local).write_text("x")
        assert not tf.io.gfile.exists("ram://b/new/a.bin")
    with files.local_copy("ram://b/new/a.bin") as local:
        assert pathlib.Path(local).read_text() == "x" and local.endswith("/a.bin")
    with pytest.raises(RuntimeError), files.written_whole("ram://b/new/b.bin"):
        raise RuntimeError
    assert tf.io.gfile.listdir("ram://b/new") == ["a.bin"]
    with pytest.raises(ValueError, match="scenes: got gs://b/x, expected a path on this machine"):
        files.require_local("gs://b/x", "scenes")
    files.require_local("b/x", "scenes")


def test_a_key_that_comes_twice_is_named():
    assert files.parse_json('{"a": {"b": 1}, "c": [2]}') == {"a": {"b": 1}, "c": [2]}
    with pytest.raises(ValueError, match="two values for 'b'"):
        files.parse_json('{"a": {"b": 1, "b": 2}}')
