"""Fixtures and hooks of all tests, which are in fixtures.py.

The process that hands out the tests to the workers of pytest-xdist runs none, so it does not import
TensorFlow, which would take 3 seconds in which no worker runs. It starts the server of programs.
"""

import gc
import os
import sys

# Python would look for cycles in all graphs a thousand times, which takes a quarter of a training.
gc.set_threshold(20_000, 50, 10)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if "-n" not in sys.argv or "PYTEST_XDIST_WORKER" in os.environ:
    from fixtures import *  # noqa: E402, F401, F403
else:
    import programs  # noqa: E402

    def pytest_sessionstart():
        programs.share_server()

    def pytest_sessionfinish():
        programs.stop_server()
