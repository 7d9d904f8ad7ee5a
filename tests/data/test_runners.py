import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from shared_fixtures import ENVIRONMENT

from clouds_tf.data import runners


@pytest.mark.parametrize("num_workers", [1, 2])
def test_jobs_run_in_this_process_or_in_others(num_workers):
    found = sorted(runners.run(divmod, [(7, 2), (9, 4), (5, 5)], num_workers))
    assert found == [(1, 0), (2, 1), (3, 1)]


def test_an_error_of_a_job_comes_through():
    with pytest.raises(ZeroDivisionError):
        list(runners.run(divmod, [(7, 0)], 2))


def test_a_killed_worker_is_one_line():
    with pytest.raises(ValueError, match="a worker process was killed, .*same command continues"):
        list(runners.run(os._exit, [(1,)], 2))


_PARENT = """
import time
from clouds_tf.data import runners

if __name__ == "__main__":
    list(runners.run(time.sleep, [(600,), (600,)], 2))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], env=ENVIRONMENT)
    children = pathlib.Path(f"/proc/{parent.pid}/task/{parent.pid}/children")

    def wait(condition):
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert condition()

    def sleeping(pid):
        """Whether a worker has started its job: it waits, with the thread that watches over it."""
        folder = pathlib.Path(f"/proc/{pid}")
        return folder.exists() and b"spawn_main" in (folder / "cmdline").read_bytes()

    wait(lambda: sum(map(sleeping, children.read_text().split())) == 2)
    workers = [pid for pid in children.read_text().split() if sleeping(pid)]
    # The watching thread is there once the interpreter has started more than its own.
    wait(lambda: all(len(os.listdir(f"/proc/{pid}/task")) > 1 for pid in workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait(lambda: not any(map(sleeping, workers)))


def test_a_runner_is_checked():
    assert runners.Runner("direct", beam_options=["--a=b"]).beam_options == ("--a=b",)
    for wrong, message in (
        ({"runner": "slurm"}, "runner: got 'slurm', expected one of local, direct, dask"),
        ({"num_workers": 0}, "num_workers: got 0, expected at least 1"),
        ({"beam_options": ("--project=P",)}, "beam_options: got runner local"),
    ):
        with pytest.raises(ValueError, match=message):
            runners.Runner(**wrong)
