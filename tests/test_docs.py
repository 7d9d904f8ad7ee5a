"""README and docs are true to the tree: links, anchors, versions, fields; and the site builds."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from pages import FENCE, PAGES, blocks
from shared_fixtures import ENVIRONMENT, REPOSITORY

import clouds_tf
from clouds_tf import rle
from clouds_tf.dataset import Dataset

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def _broken_links(page):
    """The links of a page to files or headings that are not there."""
    for link in _LINK.findall(FENCE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not re.match(r"https?:", link):
            if not target.exists() or (anchor and anchor not in _anchors(target)):
                yield link


def test_links_lead_somewhere(tmp_path):
    assert not {page: found for page in PAGES if (found := list(_broken_links(REPOSITORY / page)))}
    (tmp_path / "page.md").write_text("# A b\n[x](page.md#a-b) [y](#c) [z](none.md) [w](https://x)")
    assert list(_broken_links(tmp_path / "page.md")) == ["#c", "none.md"]


def test_the_readme_is_short_and_starts_with_a_command():
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert any(line.startswith("bash tools/demo.sh") for line in lines[:20])


def test_one_version_is_named_everywhere():
    assert f"\nversion: {clouds_tf.__version__}\n" in (REPOSITORY / "CITATION.cff").read_text()
    changes = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[([\d.]+)\]", changes, re.MULTILINE)[0] == clouds_tf.__version__


def test_the_checks_before_a_commit_are_those_of_ci():
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text()
    checks = re.findall(r"python\" (-m .*)", (REPOSITORY / "tools" / "test.sh").read_text())
    *checks, tests = [check.replace(" .", "") for check in checks]
    assert len(checks) == 3 and tests.startswith("-m pytest")
    for check in checks:
        assert f"entry: python {check}" in hooks


def test_the_data_set_in_the_docs_is_one():
    page = "docs/own_data_set.md"
    (text,) = [block.text for block in blocks(page) if block.kind == "json"]
    assert Dataset.from_json(json.loads(text)).num_classes == 3
    section = (REPOSITORY / page).read_text().split("\n## A description\n")[1].split("\n## ")[0]
    shown = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert shown == [field.name for field in dataclasses.fields(Dataset)]


def test_the_lines_on_run_length_encoding_run():
    (block,) = blocks("docs/rle.md")
    masks = np.ones((2, 4, 6, 8), np.uint8)
    names = {"masks": masks, "a": rle.encode(masks[0]), "b": rle.encode(masks[1])}
    # Each line by itself, since each shows one call.
    for line in block.text.splitlines():
        exec(line, names)
    strings = names["rle"].decode(names["strings"], (1400, 2100), (350, 525))
    assert strings.shape == (2, 350, 525)


@pytest.mark.nightly
def test_the_site_builds_without_warnings(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(build, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flags = (tmp_path / "flags.html").read_text()
    assert "--records_dir" in flags and "Images per global batch, over all devices." in flags
    index = (tmp_path / "index.html").read_text()
    assert f"clouds_tf {clouds_tf.__version__}" in index
    # Search works in pages opened as files, and asks nobody for a script.
    assert 'src="js/iframe-worker.js"' in index and "unpkg" not in index
    assert (tmp_path / "search" / "search_index.js").is_file()
    assert 'id="clouds_tf.rle.masks.decode"' in (tmp_path / "api" / "rle.html").read_text()
