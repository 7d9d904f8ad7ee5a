"""Callbacks, early stopping and the best epochs' checkpoints, in runs of program.py's network."""

import csv
import importlib.machinery
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from program import batches, trainer

from clouds_tf.dataset import CLOUDS
from clouds_tf.training import Execution, Recipe
from clouds_tf.training.callbacks import Callback, Callbacks, StepsCsv, make_callback
from clouds_tf.training.checkpoints import Checkpoints
from clouds_tf.training.distribution import Feed
from clouds_tf.training.fit import fit
from clouds_tf.training.workdir import Run

SIZES = [3, 2]


class Recorder(Callback):
    """Remembers what it is told, and answers True where it is asked to."""

    def __init__(self, stop_after_step=None, stop_after_epoch=None):
        self.told, self.stops = [], (stop_after_step, stop_after_epoch)

    def on_start(self, run, step):
        self.told.append(("start", step))

    def on_step(self, run, step, loss):
        self.told.append(("step", step))
        return step == self.stops[0]

    def on_epoch_end(self, run, row):
        self.told.append(("epoch", row["epoch"]))
        return row["epoch"] == self.stops[1]

    def on_end(self, run):
        self.told.append(("end",))


def _training(start):
    data = batches(SIZES, seed=start.epoch)
    for epoch in range(start.epoch + 1, 9):
        data = data.concatenate(batches(SIZES, seed=epoch))
    return data.skip(start.step)


def _fit(folder, callbacks=(), epochs=3, keep_best=0, **settings):
    """A run of two steps an epoch; gives the trainer, the history and the lines of the report."""
    of_run = trainer(len(SIZES), epochs=epochs, **settings)
    feed = Feed(_training, lambda *_: batches([2], seed=99), lambda *_: [])
    run, lines = Run(str(folder), of_run.recipe, CLOUDS, 0, "r"), []
    told = Callbacks(run, callbacks, chief=True)
    history = fit(of_run, feed, str(folder), False, False, lines.append, told, keep_best)
    return of_run, history, lines


# The score never rises, so the run ends after four epochs, wherever it was interrupted.
PATIENT = {"epochs": 9, "monitor": "mine:constant", "patience": 3}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder, recorder = tmp_path_factory.mktemp("undisturbed"), Recorder()
    return folder, *_fit(folder, [recorder, StepsCsv()], keep_best=2, **PATIENT), recorder


@pytest.mark.slow
def test_callbacks_are_told_of_each_step_and_epoch_in_their_order(undisturbed):
    *_, lines, recorder = undisturbed
    epochs = [[("step", 2 * i + 1), ("step", 2 * i + 2), ("epoch", i + 1)] for i in range(4)]
    assert recorder.told == [("start", 0), *sum(epochs, []), ("end",)]
    assert "no better mine:constant in 3 epochs: the run ends early" in lines


@pytest.mark.slow
@pytest.mark.lanes
def test_callbacks_stop_a_run_which_is_resumed_exactly_and_ends_as_early(undisturbed, tmp_path):
    folder, straight, history, *_ = undisturbed
    _, first, lines = _fit(tmp_path, [Recorder(stop_after_epoch=1), StepsCsv()], **PATIENT)
    assert len(first) == 1 and "a callback ended the run" in "".join(lines)
    recorder = Recorder(stop_after_step=3)  # which is told during step 4
    with pytest.raises(SystemExit) as stopped:
        _fit(tmp_path, [recorder, StepsCsv()], **PATIENT)
    assert stopped.value.code == 0
    assert recorder.told[0] == ("start", 2) and recorder.told[-2:] == [("epoch", 3), ("end",)]
    resumed, second, _ = _fit(tmp_path, [StepsCsv()], **PATIENT)
    for left, right in zip(straight.model.weights, resumed.model.weights):
        np.testing.assert_array_equal(left, right)
    assert [row["val_dice"] for row in second] == [row["val_dice"] for row in history]
    assert (tmp_path / "steps.csv").read_text() == (folder / "steps.csv").read_text()
    rows = list(csv.DictReader((folder / "steps.csv").open()))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 9)]
    told = Recorder()
    assert _fit(tmp_path, [told], **PATIENT)[1] == second and not told.told


@given(st.lists(st.integers(0, 5)), st.integers(1, 4))
def test_patience_is_the_number_of_epochs_since_the_best(scores, patience):
    best, waited, over = -1, 0, False
    for score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        over = over or waited == patience
    history = [{"val_dice": score} for score in scores]
    recipe = Recipe(patience=patience)
    ends = [recipe.is_over(history[:number]) for number in range(len(history) + 1)]
    assert any(ends) == over and not Recipe().is_over(history)


@pytest.mark.slow
def test_the_best_epochs_are_kept(undisturbed, tmp_path):
    kept = (undisturbed[0] / "checkpoints" / "top").glob("ckpt-*.index")
    assert {path.name for path in kept} == {"ckpt-1.index", "ckpt-2.index"}  # of equal ones
    checkpoints = Checkpoints(str(tmp_path), trainer().model, num_top=1)
    for number, score in enumerate([0.5, 0.7, 0.7, 0.6, 0.8], start=1):
        checkpoints.save_top([0.5, 0.7, 0.7, 0.6, 0.8][:number])
        (path,) = (tmp_path / "checkpoints" / "top").glob("ckpt-*.index")
        assert path.name == f"ckpt-{[1, 2, 2, 2, 5][number - 1]}.index"


def of_a_user(run, row):
    return row["epoch"] == 3


def test_functions_classes_and_names_become_callbacks():
    assert make_callback("test_callbacks:of_a_user").on_epoch_end(None, {"epoch": 3})
    assert isinstance(make_callback("csv"), StepsCsv)
    assert isinstance(make_callback(Recorder), Recorder)
    assert isinstance(make_callback("test_callbacks:Recorder(stop_after_step=3)"), Recorder)
    for given_one, fault in (
        ("comet", "got 'comet', expected one of tensorboard, csv"),
        (3, "got 3"),
        ("nowhere:f", "no module 'nowhere'"),
    ):
        with pytest.raises(ValueError, match=f"^callbacks: .*{fault}"):
            make_callback(given_one)
    assert Execution(callbacks=[of_a_user]).callbacks == (of_a_user,)


def test_loggers_whose_package_is_missing_say_how_to_install_it(monkeypatch):
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=rf"callbacks: {name} needs .* '\.\[loggers\]'"):
            make_callback(name)


def _double(monkeypatch, name, **functions):
    """Puts a module in the place of a package that CI does not have."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


def _told(name, folder, epochs):
    """What a logger does in a call of `train` that has these epochs."""
    run = Run(str(folder), Recipe(), CLOUDS, 0, "r")
    callbacks = Callbacks(run, [make_callback(name)], chief=True)
    callbacks.call("on_start", 0)
    for epoch in epochs:
        callbacks.call("on_epoch_end", {"epoch": epoch, "val_dice": 0.5})
        callbacks.call("on_picture", epoch, np.zeros([2, 3, 3], np.uint8))
    callbacks.call("on_end")


# The doubles have the signatures of wandb 0.19.11 and mlflow-skinny 3.17.2, against which the same
# calls were tried by hand (WANDB_MODE=offline, MLFLOW_ALLOW_FILE_STORE=true).


def test_weights_and_biases_gets_one_run_for_all_calls(tmp_path, monkeypatch):
    calls = []

    class Double:
        def log(self, data, step=None, commit=None):
            calls.append(("log", step, sorted(data)))

        def finish(self, exit_code=None, quiet=None):
            calls.append(("finish",))

    def init(entity=None, project=None, dir=None, id=None, name=None, config=None,
             allow_val_change=None, resume=None):  # fmt: skip
        calls.append(("init", project, id, name, config["epochs"], resume))
        return Double()

    _double(monkeypatch, "wandb", init=init, Image=lambda pixels: pixels.shape)
    for epochs in ([1, 2], [3]):
        _told("wandb", tmp_path, epochs)
    number = (tmp_path / "wandb_id.txt").read_text().strip()
    start = ("init", "clouds_tf", number, tmp_path.name, 25, "allow")
    one, two, three = (
        [("log", i, ["epoch", "val_dice"]), ("log", i, ["predictions"])] for i in (1, 2, 3)
    )
    assert calls == [start, *one, *two, ("finish",), start, *three, ("finish",)]


def test_mlflow_gets_one_run_for_all_calls(tmp_path, monkeypatch):
    calls = []

    def start_run(run_id=None, experiment_id=None, run_name=None, nested=False):
        calls.append(("start", run_id, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or "the_id"))

    def log_metrics(metrics, step=None, synchronous=None):
        calls.append(("metrics", step, metrics["val_dice"]))

    _double(
        monkeypatch,
        "mlflow",
        start_run=start_run,
        log_metrics=log_metrics,
        set_experiment=lambda experiment_name=None: None,
        log_params=lambda params: calls.append(("params", params["loss"])),
        end_run=lambda status="FINISHED": calls.append(("end",)),
    )
    for epochs in ([1], [2]):
        _told("mlflow", tmp_path, epochs)
    first = [
        ("start", None, tmp_path.name),
        ("params", '"bce_dice"'),
        ("metrics", 1, 0.5),
        ("end",),
    ]
    assert calls == [*first, ("start", "the_id", None), ("metrics", 2, 0.5), ("end",)]
    assert (tmp_path / "mlflow_id.txt").read_text() == "the_id\n"
