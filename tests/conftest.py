"""Fixtures and hooks of all tests, which are in shared_fixtures.py.

The process that hands out the tests to the workers of pytest-xdist runs none, so it does not import
TensorFlow, which would take 3 seconds in which no worker runs. It starts the server of programs.
"""

import gc
import os

# Python would look for cycles in all graphs a thousand times, which takes a quarter of a training.
gc.set_threshold(20_000, 50, 10)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_configure(config):
    """Loads the fixtures, but not in the process that hands out the tests."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("shared_fixtures")


def pytest_sessionstart(session):
    if not session.config.pluginmanager.has_plugin("shared_fixtures"):
        import programs

        programs.share_server()
        session.config.add_cleanup(programs.stop_server)
