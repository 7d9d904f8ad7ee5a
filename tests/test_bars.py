import io
import re
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from tqdm.notebook import tqdm_notebook

from clouds_tf import progress
from clouds_tf.evaluation.search import SearchResult
from clouds_tf.messages import warnings_only
from clouds_tf.serving.prediction import PredictionResult


def _show(isatty, monkeypatch, tell):
    """What is written to stderr while `tell` counts to 4, twice."""
    written = io.StringIO()
    written.isatty = lambda: isatty
    monkeypatch.setattr(sys, "stderr", written)
    for done in (0, 1, 3, 4, 4, 2, 4):
        tell(done, 4)
    return written.getvalue()


def test_a_bar_in_a_terminal_and_nothing_in_a_pipe(monkeypatch):
    found = _show(True, monkeypatch, progress.shown(True, "image"))
    assert [text for text in re.findall(r"(\d)/4", found) if text == "4"] and "image" in found
    assert _show(False, monkeypatch, progress.shown(True, "image")) == ""
    assert _show(True, monkeypatch, progress.shown(False, "image")) == ""
    calls = []
    _show(True, monkeypatch, progress.shown(lambda *call: calls.append(call), "image"))
    assert calls[:2] == [(0, 4), (1, 4)]


def test_a_bar_in_a_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert "4/4" in _show(False, monkeypatch, progress.shown(True, "image"))
    assert issubclass(tqdm_notebook, progress.tqdm) or progress.tqdm.__module__.startswith("tqdm")


@pytest.mark.parametrize("patience, silence, lines", [(10, 60, 0), (0, 60, 2), (0, 0, 7)])
def test_lines_after_ten_seconds_of_each_part_and_then_one_a_minute(
    monkeypatch, patience, silence, lines
):
    monkeypatch.setattr(progress, "PATIENCE", patience)
    monkeypatch.setattr(progress, "SILENCE", silence)
    found = _show(False, monkeypatch, progress.Lines("image")).splitlines()
    assert len(found) == lines
    if lines == 7:
        assert re.fullmatch(r"image 3 of 4: [\d.e+]+ images/s, 0 s left", found[2])


def test_a_line_is_written_at_once(monkeypatch):
    class File(io.StringIO):
        flushed = ""

        def flush(self):
            self.flushed = self.getvalue()

    monkeypatch.setattr(sys, "stdout", File())
    progress.say("epoch 1")
    assert sys.stdout.flushed == "epoch 1\n"


def test_results_are_short():
    array, remarks = np.zeros([900, 4]), ("a.jpg: damaged",) * 900
    shown = repr(SearchResult((), *[array] * 6))
    assert "plain=float64[900, 4]" in shown and len(shown) < 400
    shown = repr(PredictionResult("s.csv", 900, unreadable=remarks))
    assert "output='s.csv'" in shown and "unreadable=(900 items)" in shown and len(shown) < 200


def test_lines_of_tensorflow_below_a_warning_are_left_out(caplog):
    logger = tf.get_logger()
    with caplog.at_level("INFO", "tensorflow"):
        with warnings_only():
            logger.info("assets"), logger.warning("careful")
        assert logger.level == 20
    assert [record.message for record in caplog.records] == ["careful"]
