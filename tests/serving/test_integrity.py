"""Checksums of a SavedModel: those of sha256sum, and no change goes unseen."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from clouds_tf.serving import integrity


def _write(saved_model):
    return integrity.write(str(saved_model), integrity.checksums(str(saved_model)))


@pytest.fixture
def version(tmp_path):
    """A folder E/1 with files, and its checksums beside it."""
    folder = tmp_path / "E" / "1"
    (folder / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "variables/a b"):
        (folder / name).write_text(name)
    assert _write(folder) == f"{folder}.sha256"
    return folder


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum")
def test_it_is_the_format_of_sha256sum(version):
    manifest = pathlib.Path(f"{version}.sha256")
    subprocess.run(["sha256sum", "--strict", "-c", manifest.name], cwd=version.parent, check=True)
    names = sorted(str(p.relative_to(version.parent)) for p in version.rglob("*") if p.is_file())
    command = ["sha256sum", "--binary", *names]
    written = subprocess.run(command, cwd=version.parent, capture_output=True, text=True).stdout
    assert manifest.read_text() == written.replace(" *", "  ")
    manifest.write_text(written)
    integrity.check(str(version), str(manifest))


def test_one_file_of_several_versions_or_a_folder_of_files(version, tmp_path):
    second = version.parent / "2"
    shutil.copytree(version, second)
    with pytest.raises(ValueError, match=r"E/2: not listed in .*/1\.sha256$"):
        integrity.check(str(second), f"{version}.sha256")
    apart = tmp_path / "apart"
    apart.mkdir()
    shutil.move(f"{version}.sha256", apart)
    shutil.move(_write(f"{second}/"), apart)
    both = tmp_path / "both"
    both.write_text("".join(path.read_text() for path in apart.iterdir()))
    for manifest in (apart, both):
        integrity.check(str(version), str(manifest))
        integrity.check(f"{second}/", str(manifest))
    with pytest.raises(FileNotFoundError, match=r"apart/3\.sha256: no such file"):
        integrity.check(str(version.parent / "3"), str(apart))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "saved_model.pb").write_text("x"), r"1/saved_model\.pb changed$"),
        (lambda f: (f / "variables" / "a b").unlink(), "1/variables/a b missing$"),
        (lambda f: (f / "variables" / "c").touch(), "1/variables/c not in the manifest$"),
        (
            lambda f: os.rename(f / "saved_model.pb", f / "saved_model.pbtxt"),
            r"1/saved_model\.pbtxt not in the manifest; 1/saved_model\.pb missing$",
        ),
        (shutil.rmtree, r"1/saved_model\.pb, 1/variables/a b, .* missing$"),
    ],
)
def test_changes_are_named(version, change, message):
    integrity.check(str(version), f"{version}.sha256")
    change(version)
    with pytest.raises(ValueError, match=r"E/1: not the SavedModel of .*1\.sha256: " + message):
        integrity.check(str(version), f"{version}.sha256")


@pytest.mark.parametrize("line", ["0123  1/a", "", f"{'0' * 64} 1/a", f"{'0' * 64}  1/b"])
def test_a_damaged_manifest_is_named_by_its_line(version, line):
    manifest = pathlib.Path(f"{version}.sha256")
    manifest.write_text(f"{'0' * 64}  1/b\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"{manifest}: line 2: got {line[:80]!r}, exp")):
        integrity.check(str(version), str(manifest))


@pytest.mark.slow
def test_export_writes_it(exported):
    integrity.check(exported, os.path.dirname(exported))
    integrity.check(exported, f"{exported}.sha256")
