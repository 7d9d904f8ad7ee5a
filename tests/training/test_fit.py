"""Whole runs of the small network of program.py, disturbed and not."""

import itertools
import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
import types
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from program import SIZE, batches, free_ports, trainer
from programs import ENVIRONMENT, REPOSITORY, TOOLS, run_program, start_program

from clouds_tf import figures
from clouds_tf.data.records import Records
from clouds_tf.data.service import start_server
from clouds_tf.training import checkpoints, distribution, stopping
from clouds_tf.training import workdir as workdirs
from clouds_tf.training import workers
from clouds_tf.training.callbacks import Callback, Callbacks, TensorBoard, make_callback
from clouds_tf.training.checkpoints import Checkpoints
from clouds_tf.training.distribution import Feed
from clouds_tf.training.fit import fit
from clouds_tf.training.stopping import limited_wait, listening

pytestmark = pytest.mark.slow

SIZES = [3, 3, 2, 3, 2]
EPOCHS = 3
PYTHONPATH = f"{REPOSITORY}:{REPOSITORY}/tests:{REPOSITORY}/tests/training"


def training_batches(start):
    """Other images in every epoch."""
    data = batches(SIZES, start.worker, start.num_workers, seed=start.epoch)
    for epoch in range(start.epoch + 1, EPOCHS + 1):
        data = data.concatenate(batches(SIZES, start.worker, start.num_workers, seed=epoch))
    return data.skip(start.step)


def validation_batches(worker, num_workers):
    return batches([4, 3], worker, num_workers, seed=99)


def run(
    workdir,
    epochs=EPOCHS,
    training=training_batches,
    pictures=False,
    service=None,
    callbacks=(),
    **settings,
):
    """A run from the start, or from where it was; pictures take twice as long as all else."""
    of_run = trainer(len(SIZES), epochs=epochs, **settings)
    names = {"names": lambda epoch, step: [f"{epoch}_{step}.jpg"], "data_service": service}
    feed = Feed(training, validation_batches, **names)
    told = [TensorBoard(), *callbacks]
    told = Callbacks(types.SimpleNamespace(path=str(workdir)), told, chief=True)
    with mock.patch.object(figures, "AVAILABLE", pictures):
        return of_run, fit(of_run, feed, str(workdir), callbacks=told)


def _assert_same_weights(one, other):
    for left, right in zip(one.model.weights, other.model.weights):
        np.testing.assert_array_equal(left, right, err_msg=left.name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return *run(folder, average_last=2, pictures=True), folder


@pytest.mark.lanes
def test_everything_is_written(undisturbed):
    _, history, folder = undisturbed
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]
    expected = {"learning_rate", "images_per_second", "input_wait", "seconds", "presence_loss"}
    expected |= {"val_loss", "val_dice", "val_iou", "val_dice_Fish", "val_presence_recall_Sugar"}
    assert expected <= set(history[0])
    assert workdirs.read_history(str(folder)) == history
    pictures = {"curves.png", "predictions.png"}
    assert {"history.csv", "checkpoints", "tensorboard", *pictures} == {
        path.name for path in folder.iterdir()
    }
    for picture in pictures:
        assert tf.io.decode_png((folder / picture).read_bytes()).shape[0] > 100


@pytest.mark.lanes
def test_tensorboard_has_a_number_per_class_and_pictures(undisturbed):
    _, history, folder = undisturbed
    (path,) = (folder / "tensorboard" / "held_out").iterdir()
    values = {}
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            values.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor)
    assert values["dice_Sugar"] == {row["epoch"]: row["val_dice_Sugar"] for row in history}
    assert sorted(values["predictions"]) == [1, 2, 3]
    assert int(values["predictions"][1][0]) > 100  # pixels wide


@pytest.mark.lanes
def test_a_finished_run_is_left_alone(undisturbed):
    of_run, _, folder = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again, rows = run(folder, average_last=2)
    assert len(rows) == 3
    _assert_same_weights(of_run, again)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def _child(*arguments):
    """Runs a function of this file in a process of its own, which may be harmed."""
    environment = {**ENVIRONMENT, "PYTHONPATH": PYTHONPATH}
    return run_program(__file__, *arguments, env=environment, merge=True)


class Told(Callback):
    """Sends this process a signal in the second epoch."""

    def __init__(self, number):
        self._number = number

    def on_step(self, run, step, loss):
        if step == len(SIZES) + 1:
            os.kill(os.getpid(), self._number)


def stop(workdir, number, service=None):
    """A run that is told to stop; its handler of the signal is gone at the end."""
    number = int(number)
    before = signal.getsignal(number)
    try:
        run(workdir, average_last=2, service=service, callbacks=[Told(number)])
    finally:
        assert signal.getsignal(number) == before


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_between_two_steps_and_the_same_command_goes_on(
    undisturbed, tmp_path, monkeypatch, number, status
):
    of_run, history, _ = undisturbed
    stopped = _child("stop", tmp_path, int(number))
    assert stopped.returncode == status, stopped.stdout
    pattern = r"Stopped in epoch 2 after step (\d); the same command resumes"
    (step,) = re.findall(pattern, stopped.stdout)
    assert len(workdirs.read_history(str(tmp_path))) == 1
    seconds = itertools.count()
    clock = types.SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("clouds_tf.training.fit.time", clock)
    resumed, rows = run(tmp_path, average_last=2)
    _assert_same_weights(of_run, resumed)
    for name in ("loss", "dice", "val_loss"):
        assert [row[name] for row in rows] == pytest.approx([row[name] for row in history])
    # Images from before it was stopped are not counted: two looks at the clock a step, one before.
    left = SIZES[int(step) :]
    assert rows[1]["images_per_second"] == pytest.approx(sum(left) / (2 * len(left) + 1), abs=0.01)


def interrupted_twice():
    with listening() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.requested.is_set() and request.status == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_interrupt_stops_at_once():
    found = _child("interrupted_twice")
    assert found.returncode == 0, found.stdout
    assert "Ctrl-C again stops at once" in found.stdout


def test_batches_of_a_service_have_no_order_to_resume_in(tmp_path):
    """The checkpoint of the last epoch stays, and the epoch is done again."""
    stopped = _child("stop", tmp_path, int(signal.SIGTERM), "grpc://h:1")
    assert "the same command resumes at the start of epoch 2" in stopped.stdout
    again = trainer(len(SIZES), epochs=EPOCHS)
    Checkpoints(str(tmp_path), again.model, again).restore_last([{"val_dice": 0.0}])
    assert (again.epoch.numpy(), again.epoch_step.numpy()) == (1, 0)


def waiting(limit):
    stopping.WAIT_LIMIT = float(limit)
    with listening() as request, limited_wait(request, "no batches from grpc://h:1"):
        time.sleep(60)


def test_a_service_that_sends_nothing_ends_the_run():
    found = _child("waiting", 0.3)
    assert found.returncode == 1 and "error: no batches from grpc://h:1" in found.stdout


def served(workdir, records_dir, address):
    """A run that a data service feeds; from the second epoch on it does not wait for long."""
    write_history = workdirs.write_history

    def note(*arguments):
        stopping.WAIT_LIMIT = 1.0
        write_history(*arguments)

    def training(start):
        return Records.open(records_dir).training_batches(
            [0, 1, 2], SIZE, 2, 40, start=start, data_service=address
        )

    workdirs.write_history = note
    feed = Feed(training, validation_batches, lambda epoch, step: [], data_service=address)
    with mock.patch.object(figures, "AVAILABLE", False):
        fit(trainer(6, epochs=40), feed, workdir)


def test_a_killed_worker_of_a_service_ends_the_run(records_dir, tmp_path):
    dispatcher, address = start_server(None)
    place = address.partition("://")[2]
    kept, _ = start_server(place)
    environment = {**ENVIRONMENT, "PYTHONPATH": PYTHONPATH}
    with start_program(f"{TOOLS}/data_service.py", f"--dispatcher={place}") as lost:
        assert lost.stdout.readline() == f"Worker of {place}\n"
        arguments = "served", tmp_path, records_dir, address
        with start_program(__file__, *arguments, env=environment, merge=True) as training:
            while not workdirs.read_history(str(tmp_path)):
                assert training.poll() is None, training.communicate()[0]
                time.sleep(0.1)
            lost.kill()
            output, _ = training.communicate()
    del kept, dispatcher
    assert training.returncode == 1, output
    assert f"error: no batches from the data service at {address}; check its workers" in output
    assert "the same command resumes" in output


def test_images_that_cannot_be_read_are_named(tmp_path):
    def missing(start):
        found = tf.data.Dataset.range(1).map(lambda _: tf.io.read_file("/none/a"))
        return tf.data.Dataset.zip((training_batches(start), found)).map(lambda batch, _: batch)

    message = "epoch 1, step 1: an image cannot be read after 5 tries: /none/a; No such file"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, training=missing)


def test_pictures_that_cannot_be_written_do_not_end_a_run(tmp_path, capsys, monkeypatch):
    def fail(figure, path):
        raise OSError(f"{path}: no space left")

    monkeypatch.setattr(figures, "save", fail)
    _, history = run(tmp_path, epochs=2, pictures=True)
    assert len(history) == 2
    assert "pictures were not written: " in capsys.readouterr().err


@pytest.mark.lanes
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(undisturbed):
    """Here in a workdir that is remote."""
    of_run, history, _ = undisturbed
    for epochs in (1, EPOCHS):
        resumed, rows = run("ram://bucket/run", epochs, average_last=2, pictures=epochs == 1)
    _assert_same_weights(of_run, resumed)
    assert [row["val_loss"] for row in rows] == [row["val_loss"] for row in history]
    assert float(resumed.best_score) == float(of_run.best_score)
    assert tf.io.gfile.exists("ram://bucket/run/predictions.png")


def test_lines_within_an_epoch(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("clouds_tf.progress.SILENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    run(tmp_path, epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training from epoch 1 of 1, 5 steps each, on 1 CPU; 576 parameters"
    pattern = r"epoch   1, step \d of 5: loss \d\.\d{4}, [\d.]+ images/s, \d+ s left in the epoch"
    assert [bool(re.fullmatch(pattern, line)) for line in lines[1:5]] == [True] * 4


@pytest.mark.lanes
def test_the_best_weights_are_kept_with_their_average(tmp_path):
    of_run, history = run(tmp_path)
    scores = [row["val_dice"] for row in history]
    assert of_run.best_score.numpy() == max(scores)  # not rounded
    checkpoints.restore_best(of_run.model, str(tmp_path))
    held_out = distribution.distribute_batches(of_run.strategy, validation_batches)
    assert of_run.validate(held_out)["val_dice"] == pytest.approx(max(scores), abs=1e-6)


def test_a_loss_that_is_not_finite_is_told_with_its_files(tmp_path):
    message = r"loss is (nan|inf) in epoch 1, step 2 \(0_1.jpg\), at learning rate 1e\+38; the la"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, learning_rate=1e38)


def save_on_a_full_disk(workdir):
    """Resumes a run and saves where no file can have more than 2 kB."""
    of_run, _ = run(workdir, epochs=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    Checkpoints(workdir, of_run.model, of_run).save_last()


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_good_one(tmp_path):
    of_run, _ = run(tmp_path, epochs=1)
    found = _child("save_on_a_full_disk", tmp_path)
    assert found.returncode == 1
    assert re.search("checkpoint was not written .*the one before it is kept", found.stdout)
    again, history = run(tmp_path, epochs=1)
    assert len(history) == 1
    _assert_same_weights(of_run, again)


def test_a_run_without_its_last_checkpoint_is_not_begun_again(undisturbed, tmp_path):
    for harm, message in (
        ("checkpoints/last", "checkpoints/last: no checkpoint to resume from, but history.csv has"),
        ("checkpoints/last/*.index", "checkpoints/last: no checkpoint to resume from"),
        ("history.csv", r"history.csv: has 0 epochs, but the checkpoint has 3"),
    ):
        folder = tmp_path / harm.replace("/", "_").replace("*", "")
        shutil.copytree(undisturbed[2], folder)
        for path in folder.glob(harm):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        before = sorted(path for path in folder.rglob("*"))
        with pytest.raises(ValueError, match=message):
            run(folder, epochs=5, average_last=2)
        assert sorted(path for path in folder.rglob("*")) == before


@pytest.mark.parametrize("num_steps", [1, 12])
def test_a_trace_is_written(tmp_path, num_steps):
    feed = Feed(lambda *_: batches([2] * num_steps), validation_batches, lambda epoch, step: [])
    with mock.patch.object(figures, "AVAILABLE", False):
        fit(trainer(num_steps), feed, str(tmp_path), profile=True)
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))


def test_outside_of_the_main_thread_nobody_listens_for_signals(tmp_path):
    rows = []
    thread = threading.Thread(target=lambda: rows.extend(run(tmp_path, epochs=1)[1]))
    thread.start()
    thread.join()
    assert len(rows) == 1


def _start_worker(index, ports, *arguments, program=__file__):
    workers = [f"localhost:{port}" for port in ports]
    task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
    environment = {**ENVIRONMENT, "TF_CONFIG": json.dumps(task), "PYTHONPATH": PYTHONPATH}
    return start_program(program, *arguments, env=environment, merge=True)


class KilledOnce(Callback):
    """Kills this process in the second epoch, unless an earlier one was."""

    def __init__(self, workdir, steps):
        self._mark, self._step = f"{workdir}.killed", steps + 1

    def on_step(self, run, step, loss):
        if step == self._step and not os.path.exists(self._mark):
            open(self._mark, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)


def _fit_in_cluster(workdir, steps, last_epoch=None, callbacks=(), **settings):
    """A run that a callback of the chief ends after an epoch."""
    cluster = distribution.strategy("multi_worker")
    with cluster.scope():
        of_cluster = trainer(steps, **settings)
    feed = Feed(
        lambda start: batches([8] * steps, start.worker, start.num_workers).repeat(),
        validation_batches,
        lambda epoch, step: [],
    )
    end = make_callback(lambda run, row: row["epoch"] == last_epoch)
    told = Callbacks(None, [end, *callbacks], chief=distribution.is_chief(cluster))
    with mock.patch.object(figures, "AVAILABLE", False):
        fit(of_cluster, feed, workdir, callbacks=told)


def work(workdir):
    """One of the workers of a run that outlives the loss of its chief.

    Checkpoints of epochs, which the chief writes and both read at the end, appear late.
    """
    save_epoch = Checkpoints.save_epoch

    def save_late(self, epoch):
        if self._chief:
            time.sleep(1)
        save_epoch(self, epoch)

    Checkpoints.save_epoch = save_late
    settings = {"last_epoch": 3, "epochs": 5, "average_last": 2}
    with workers.restarting("multi_worker"):
        _fit_in_cluster(workdir, 2, callbacks=[KilledOnce(workdir, 2)], **settings)


def work_with_a_failing_chief(workdir):
    """A worker; the chief cannot write its history."""

    def fail(*_):
        raise ValueError("no space left")

    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0:
        workdirs.write_history = fail
    with workers.restarting("multi_worker"):
        _fit_in_cluster(workdir, 2, epochs=1)


def test_a_worker_is_killed_and_started_again_and_the_job_goes_on(tmp_path):
    """It ends with the mean of the same epochs on both, however late the chief writes them."""
    ports, workdir = free_ports(2), tmp_path / "W"
    chief, other = (_start_worker(index, ports, "work", workdir) for index in range(2))
    output, _ = chief.communicate(timeout=200)
    assert chief.returncode == -signal.SIGKILL, output
    assert [row["epoch"] for row in workdirs.read_history(str(workdir))] == [1]
    chief = _start_worker(0, ports, "work", workdir)
    outputs = [process.communicate(timeout=300)[0] for process in (chief, other)]
    assert chief.returncode == other.returncode == 0, outputs
    assert "A worker was lost; restarting" in outputs[1]
    assert "mean of the last 2 epochs' weights" in outputs[0]
    assert "a callback ended the run" in outputs[0]  # on both, with three epochs of five
    assert [row["epoch"] for row in workdirs.read_history(str(workdir))] == [1, 2, 3]


def test_what_fails_on_the_chief_alone_ends_all_workers(tmp_path):
    ports = free_ports(2)
    both = [_start_worker(i, ports, "work_with_a_failing_chief", tmp_path) for i in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [1, 1], outputs
    assert "no space left" in outputs[0]
    assert "worker 0 failed: no space left" in outputs[1]


def test_workers_of_other_settings_all_end_before_any_work(records_dir, tmp_path):
    ports, workdir = free_ports(2), tmp_path / "W"
    flags = "--distribute=multi_worker", f"--records_dir={records_dir}", f"--workdir={workdir}"
    both = [
        _start_worker(i, ports, *flags, f"--learning_rate={rate}", program=f"{TOOLS}/train.py")
        for i, rate in enumerate((0.01, 0.5))
    ]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [1, 1], outputs
    message = "error: workers: worker 0 has learning_rate=0.01, but worker 1 has learning_rate=0.5"
    assert message in outputs[0] and message in outputs[1]
    assert not workdir.exists()


def test_what_one_worker_cannot_find_ends_all_workers(records_dir, tmp_path):
    ports, workdir = free_ports(2), tmp_path / "W"
    flags = "--distribute=multi_worker", f"--records_dir={records_dir}", f"--workdir={workdir}"
    both = [
        _start_worker(i, ports, *flags, f"--callbacks={callbacks}", program=f"{TOOLS}/train.py")
        for i, callbacks in enumerate(("nowhere:f", "csv"))
    ]
    outputs = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [1, 1], outputs
    assert "error: callbacks: nowhere:f: no module 'nowhere'" in outputs[0]
    assert "error: worker 0 failed: callbacks: nowhere:f: no module 'nowhere'" in outputs[1]
    assert not workdir.exists()


if __name__ == "__main__":  # a child of the tests above
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    globals()[sys.argv[1]](*sys.argv[2:])
