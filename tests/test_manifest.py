"""Properties of manifests: whatever happens in between, a finished run leaves what it should."""

import contextlib
import itertools
import json
import os
import pickle
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clouds_tf import files, locks
from clouds_tf.manifest import Manifest, checksum, file_identity

_FOLDERS = (f"ram://manifest-{i}" for i in itertools.count())
_KEYS = st.sampled_from(["a", "b", "c/d", ".e", "f.g%"])


class Killed(BaseException):
    """Ends a process: nothing that it would still do is done."""


@contextlib.contextmanager
def killed_after(number_of_writes):
    """Lets a number of changes of the storage pass; from then on, each one raises Killed.

    Yields a list that is empty unless it has come to that.
    """
    names = ("rename", "remove", "rmtree", "makedirs")
    before = {name: getattr(tf.io.gfile, name) for name in names}
    left = itertools.count(number_of_writes, -1)
    dead = []

    def guard(function):
        def guarded(*args, **kwargs):
            if dead or next(left) <= 0:
                dead.append(True)
                raise Killed
            return function(*args, **kwargs)

        return guarded

    for name in names:
        setattr(tf.io.gfile, name, guard(before[name]))
    try:
        yield dead
    except Killed:
        pass
    finally:
        for name in names:
            setattr(tf.io.gfile, name, before[name])


def _read(folder):
    """Contents of the files of a folder, without the manifest's own."""
    return {
        name: files.read_text(f"{folder}/{name}")
        for name in tf.io.gfile.listdir(folder)
        if not tf.io.gfile.isdir(f"{folder}/{name}")
    }


def _end_leases(folder):
    """Removes the lease of a killed process, as time does."""
    for name in tf.io.gfile.listdir(f"{folder}/manifest"):
        if name.endswith(".lease"):
            tf.io.gfile.remove(f"{folder}/manifest/{name}")


class Runs(RuleBasedStateMachine):
    """Inputs change, are renamed, fail and go, settings change, and processes are killed."""

    def __init__(self):
        super().__init__()
        self.folder = next(_FOLDERS)
        self.inputs = {}  # key -> (content, whether it can be read)
        self.setting = 0
        self.changes = itertools.count(1)

    @rule(keys=st.sets(_KEYS, min_size=2), broken=st.sets(_KEYS, max_size=2))
    def change(self, keys, broken):
        self.inputs.update({key: (next(self.changes), key not in broken) for key in sorted(keys)})

    @precondition(lambda self: self.inputs)
    @rule(data=st.data(), new=_KEYS)
    def rename(self, data, new):
        self.inputs[new] = self.inputs.pop(data.draw(st.sampled_from(sorted(self.inputs))))

    @precondition(lambda self: self.inputs)
    @rule(data=st.data())
    def remove(self, data):
        del self.inputs[data.draw(st.sampled_from(sorted(self.inputs)))]

    @rule()
    def change_settings(self):
        self.setting += 1

    @precondition(lambda self: self.inputs)
    @rule(number_of_writes=st.integers(0, 60), data=st.data())
    def run_and_die(self, number_of_writes, data):
        self.change(data.draw(st.sets(_KEYS)), ())
        with killed_after(number_of_writes):
            self.work()
        if tf.io.gfile.isdir(f"{self.folder}/manifest"):
            _end_leases(self.folder)

    @precondition(lambda self: self.inputs)
    @rule()
    def run(self):
        self.work()
        readable = {key: content for key, (content, whole) in self.inputs.items() if whole}
        names = {
            key: [f"{key.replace('/', '_')}{i}" for i in range(content % 3)]
            for key, content in readable.items()
        }
        assert _read(self.folder) == {
            name: f"{readable[key]} {self.setting}" for key in names for name in names[key]
        }
        found = {piece.key: piece for piece in self.manifest().pieces()}
        assert list(found) == sorted(self.inputs)
        assert {key: p.value for key, p in found.items() if not p.error} == readable
        assert {key for key, p in found.items() if p.error} == self.inputs.keys() - readable.keys()
        with self.manifest().open():
            for key, content in readable.items():
                assert self.manifest().is_done(key, str(content))

    def manifest(self):
        return Manifest(self.folder, {"setting": self.setting})

    def work(self):
        manifest = self.manifest()
        with manifest.open():
            manifest.prune(self.inputs.__contains__)
            for key, (content, readable) in self.inputs.items():
                if manifest.is_done(key, str(content)):
                    continue
                if not readable:
                    manifest.fail(key, str(content), "cannot be read")
                    continue
                names = [f"{key.replace('/', '_')}{i}" for i in range(content % 3)]
                with manifest.piece(key, str(content), names) as piece:
                    for name in names:
                        files.write_text(f"{self.folder}/{name}", f"{content} {self.setting}")
                    piece.value = content

    @invariant()
    def what_is_listed_is_there_and_whole(self):
        """Even between a kill and the next run: readers see no piece whose files are others'."""
        for piece in self.manifest().pieces():
            assert not (piece.error and piece.files)
            for name in piece.files:
                assert files.read_text(f"{self.folder}/{name}") == f"{piece.source} {self.setting}"


@pytest.mark.parametrize("then", ["change", "remove", "settings"])
def test_a_kill_at_any_moment_leaves_nothing_behind(then):
    for number_of_writes in itertools.count():
        runs = Runs()
        runs.inputs = {"a": (2, True), "b": (5, False)}
        runs.run()
        runs.inputs = {"a": (4, True), "b": (8, True)}
        with killed_after(number_of_writes) as killed:
            runs.work()
        _end_leases(runs.folder)
        runs.what_is_listed_is_there_and_whole()
        if then == "settings":
            runs.change_settings()
        else:
            runs.inputs = {"b": (3, True)} if then == "change" else {}
        runs.run()
        assert set(tf.io.gfile.listdir(f"{runs.folder}/manifest")) == {"settings"} | {
            f"{key}.json" for key in runs.inputs
        }
        if not killed:
            break
    assert number_of_writes > 10


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    return str(tmp_path / "results") if request.param == "local" else next(_FOLDERS)


def _make(manifest, key, text="x", source="1"):
    with manifest.piece(key, source, [f"{key}.txt"]) as piece:
        files.write_text(f"{manifest.folder}/{key}.txt", text)
        piece.value = {"text": text}


def test_a_piece_is_done_until_its_input_settings_or_files_change(folder):
    manifest = Manifest(folder, {"model": "E/1"})
    with manifest.open():
        assert not manifest.is_done("a", "1")
        _make(manifest, "a")
        assert manifest.is_done("a", "1") and not manifest.is_done("a", "2")
        assert not Manifest(folder, {"model": "E/2"}).is_done("a", "1")
        assert pickle.loads(pickle.dumps(manifest)).read("a").value == {"text": "x"}
        files.write_text(f"{folder}/a.txt", "truncated or longer")
        assert not manifest.is_done("a", "1")
        tf.io.gfile.remove(f"{folder}/a.txt")
        assert not manifest.is_done("a", "1")


def test_pieces_of_other_settings_are_refused_by_name_or_removed(folder):
    with Manifest(folder, {"model": "E/1", "overlap": 0.25}).open():
        _make(Manifest(folder, {"model": "E/1", "overlap": 0.25}), "a")
    other = Manifest(folder, {"model": "E/2", "overlap": 0.25})
    with pytest.raises(ValueError, match=f"{folder}: .*model E/1, got E/2; choose"):
        with other.open(redo=False):
            raise AssertionError
    assert _read(folder) == {"a.txt": "x"}
    with other.open(alone=False):
        assert _read(folder) == {} and not list(other.pieces())


def test_entries_without_settings_are_refused(folder):
    manifest = Manifest(folder, {"model": "E/1"})
    with manifest.open():
        _make(manifest, "a")
    tf.io.gfile.remove(f"{folder}/manifest/settings")
    with pytest.raises(ValueError, match="unknown settings"):
        with manifest.open(redo=False):
            raise AssertionError


def test_what_raises_leaves_no_file_and_is_not_done(folder):
    manifest = Manifest(folder, {})
    with manifest.open():
        _make(manifest, "a")
        with pytest.raises(RuntimeError, match="in the middle"):
            with manifest.piece("a", "2", ["a.txt", "b.txt"]):
                files.write_text(f"{folder}/b.txt", "half")
                raise RuntimeError("in the middle")
        assert _read(folder) == {} and manifest.read("a") is None


def test_a_failed_piece_says_why_and_has_no_files(folder):
    manifest = Manifest(folder, {})
    with manifest.open():
        _make(manifest, "a")
        manifest.fail("a", "2", "truncated")
    assert manifest.read("a").error == "truncated" and not _read(folder)
    assert not manifest.is_done("a", "2")  # it is tried again


@pytest.mark.parametrize("name", ["../b", "/b", "a/../../b", "", ".", "gs://b/c", "a//b"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    (tmp_path / "b").write_text("precious")
    manifest = Manifest(str(tmp_path / "results"), {})
    with manifest.open():
        with pytest.raises(ValueError, match="expected one inside"):
            with manifest.piece("a", "1", [name]):
                pass
        _make(manifest, "a")
        entry = tmp_path / "results" / "manifest" / "a.json"
        entry.write_text(json.dumps({**json.loads(entry.read_text()), "files": {name: 1}}))
        with pytest.raises(ValueError, match="expected one inside"):
            manifest.drop("a")
    assert (tmp_path / "b").read_text() == "precious"


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"key": 1}', "null", "{"])
def test_damaged_entries_are_done_again(folder, damage):
    manifest = Manifest(folder, {})
    with manifest.open():
        _make(manifest, "a")
        files.write_text(f"{folder}/manifest/a.json", damage)
        assert manifest.read("a") is None and not list(manifest.pieces())
        _make(manifest, "a", "y")
        assert manifest.is_done("a", "1")


def test_processes_share_a_folder_or_the_second_is_told(folder):
    manifest, other = Manifest(folder, {"model": 1}), Manifest(folder, {"model": 2})
    with manifest.open(alone=False), manifest.open(alone=False):
        for refused in (manifest.open(), other.open(alone=False)):
            with pytest.raises(ValueError, match="another process"), refused:
                raise AssertionError
    with manifest.open():
        with pytest.raises(ValueError, match="another process"), manifest.open(alone=False):
            raise AssertionError
    with manifest.open():
        manifest.remove()
    with manifest.open():
        pass


@pytest.mark.slow
def test_a_killed_process_frees_a_local_folder_at_once(tmp_path):
    program = (
        "import sys, time; from clouds_tf import locks\n"
        "with locks.reserved(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process"), locks.reserved(str(tmp_path)):
            raise AssertionError
        process.kill()
    with locks.reserved(str(tmp_path)):
        pass


def test_a_remote_lease_that_is_not_renewed_runs_out():
    folder = next(_FOLDERS)
    tf.io.gfile.makedirs(folder)
    for seconds, held in ((10, True), (1000, False)):
        files.write_text(f"{folder}/alone-0.lease", str(time.time() - seconds))
        with contextlib.ExitStack() as stack:
            if held:
                stack.enter_context(pytest.raises(ValueError, match="another process"))
            stack.enter_context(locks.reserved(folder))
    assert not tf.io.gfile.listdir(folder)


def test_a_lease_is_renewed(monkeypatch):
    monkeypatch.setattr(locks, "_HEARTBEAT", 0.01)
    folder = next(_FOLDERS)
    tf.io.gfile.makedirs(folder)
    with locks.reserved(folder):
        (name,) = tf.io.gfile.listdir(folder)
        before, end = files.read_text(f"{folder}/{name}"), time.time() + 30
        while files.read_text(f"{folder}/{name}") == before:
            assert time.time() < end


def test_the_identity_of_a_file_or_folder_changes_with_any_file(tmp_path):
    (tmp_path / "a.zarr" / "mask").mkdir(parents=True)
    chunk = tmp_path / "a.zarr" / "mask" / "0.0"
    chunk.write_text("1")
    found = []
    for text, nanoseconds in (("1", 10**18), ("22", 10**18), ("22", 10**18 + 1000)):
        chunk.write_text(text)
        os.utime(chunk, ns=(nanoseconds, nanoseconds))
        found += [file_identity(str(tmp_path / "a.zarr")), file_identity(str(chunk))]
    assert len(set(found)) == 6
    with pytest.raises(FileNotFoundError, match="nothing: no such"):
        file_identity(str(tmp_path / "nothing"))
    assert checksum({"a": 1}) != checksum({"a": 2})
