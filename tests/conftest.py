"""Loads shared_fixtures.py, the fixtures and hooks of all tests.

The controller of pytest-xdist runs no tests, so it does not import TensorFlow: for these 3 seconds
its workers would wait. It starts the server of programs that they share.
"""

import gc
import os

# Python would look for cycles in all graphs a thousand times, which takes a quarter of a training.
gc.set_threshold(20_000, 50, 10)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_configure(config):
    """Loads the fixtures, except in the controller of pytest-xdist."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("shared_fixtures")


def pytest_sessionstart(session):
    if not session.config.pluginmanager.has_plugin("shared_fixtures"):
        import programs

        programs.share_server()
        session.config.add_cleanup(programs.stop_server)
