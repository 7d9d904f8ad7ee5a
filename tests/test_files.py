import pytest

from clouds_tf import files


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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.json: no such file"):
        files.read_text(str(tmp_path / "nothing.json"))
