"""Programs that tests run: those of tools/ in this process, others in a process of their own.

A process of its own is forked from a server that has imported TensorFlow, which takes 5 seconds
otherwise. The server has run no op, so that no thread is lost by the fork. It has not imported
clouds_tf, which each program does.
"""

import contextlib
import gc
import io
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from multiprocessing import forkserver
from unittest import mock

from absl import app, logging
from absl.testing import flagsaver

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TOOLS = str(REPOSITORY / "tools")
# That of programs which a test starts.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
ENVIRONMENT.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

sys.path.append(TOOLS)  # where the programs find cli

# What takes long to import and is not ours; a package that is missing is left out.
_HEAVY = ["tensorflow", "pandas", "h5py", "matplotlib.figure", "safetensors", "tqdm", "jinja2"]
_HEAVY += ["keras.api._v2.keras" if sys.version_info < (3, 12) else "tf_keras"]
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(_HEAVY)
# The workers of pytest-xdist share one, whose address is in this environment variable.
_SHARED = "CLOUDS_TF_TESTS_SERVER"
if _SHARED in os.environ:
    forkserver._forkserver._forkserver_address = os.environ[_SHARED]
    forkserver._forkserver._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)
    forkserver._forkserver.ensure_running = lambda: None


def run_tool(tool, *arguments):
    """Runs a program of tools/ in this process; gives its subprocess.CompletedProcess.

    Its flags are its own, and gone afterwards. For what only a process shows, such as environment
    variables that are read once, use `run_program(f"{TOOLS}/{tool}.py", ...)`.
    """
    command = [f"{TOOLS}/{tool}.py", *map(str, arguments)]
    output, errors = io.StringIO(), io.StringIO()
    with left_as_it_was(), mock.patch.object(sys, "argv", list(command)):
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            os.chdir(REPOSITORY.parent)
            status = exit_status(lambda: runpy.run_path(command[0], run_name="__main__"))
    return subprocess.CompletedProcess(command, status, output.getvalue(), errors.getvalue())


@contextlib.contextmanager
def left_as_it_was():
    """Context that restores flags, levels of logging and the working folder."""
    app.define_help_flags()
    loggers = [logging.logging.getLogger(name) for name in (None, "tensorflow", "absl")]
    before = [(x, x.level, list(x.handlers), x.propagate) for x in loggers]
    folder, modules = os.getcwd(), set(sys.modules)
    try:
        with flagsaver.flagsaver():
            yield
    finally:
        os.chdir(folder)
        for logger, level, handlers, propagate in before:
            logger.level, logger.handlers, logger.propagate = level, handlers, propagate
        for name in set(sys.modules) - modules:
            if name.startswith("benchmarks."):  # it defined flags, which are gone
                del sys.modules[name]


def exit_status(program):
    """The exit status that a process would have, after the lines that it would write."""
    try:
        program()
    except SystemExit as ended:
        if not isinstance(ended.code, (int, type(None))):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run_program(*arguments, timeout=300, **how):
    """Runs `python ARGUMENTS` in a process of its own; gives its subprocess.CompletedProcess.

    Args:
        arguments: path of a program or "-c" and code, then its arguments.
        timeout: seconds after which it is killed.
        how: as `start_program` has it.
    """
    with start_program(*arguments, **how) as program:
        output, errors = program.communicate(timeout)
    return subprocess.CompletedProcess(arguments, program.returncode, output, errors)


def start_program(*arguments, env=None, cwd=REPOSITORY.parent, merge=False, tiny=False):
    """Starts `python ARGUMENTS` in a process of its own; gives a `Program`.

    Args:
        arguments: path of a program or "-c" and code, then its arguments.
        env: all of its environment variables; ENVIRONMENT by default.
        cwd: its working folder.
        merge: whether its errors go to its output.
        tiny: whether it runs tiny.py first.
    """
    return Program(list(map(str, arguments)), dict(env or ENVIRONMENT), str(cwd), merge, tiny)


class Program:
    """A running program; as far as it goes, a subprocess.Popen of text.

    Attributes:
        pid: its process.
        stdout: what it writes.
    """

    def __init__(self, arguments, environment, folder, merge, tiny):
        self._errors = None if merge else tempfile.NamedTemporaryFile("r")
        reader, writer = _SERVER.Pipe(duplex=False)
        errors = self._errors and self._errors.name
        self._process = _SERVER.Process(
            target=_become, args=(arguments, environment, folder, writer, errors, tiny)
        )
        # The server lives as long as this process, and forgets the variables of the first program.
        with mock.patch.dict(os.environ, ENVIRONMENT):
            self._process.start()
        writer.close()
        self.pid = self._process.pid
        self.stdout = os.fdopen(os.dup(reader.fileno()), errors="replace")
        reader.close()

    def poll(self):
        """Gives the exit status, -signal if one ended it, or None while it runs."""
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout=None):
        """Waits for the end; gives the exit status."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("program", timeout)
        return self.returncode

    def communicate(self, timeout=300):
        """Waits for the end; gives output and errors, None if these are merged."""
        killer = threading.Timer(timeout, self.kill)
        killer.start()
        output = self.stdout.read()
        self.wait()
        killer.cancel()
        return output, self._errors and self._errors.read()

    def send_signal(self, number):
        """Sends a signal."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.kill()
        self.wait()
        self.stdout.close()


def share_server():
    """Starts a server for the workers of pytest-xdist that this process will start."""
    with mock.patch.dict(os.environ, ENVIRONMENT):
        forkserver.ensure_running()
    os.environ[_SHARED] = forkserver._forkserver._forkserver_address


def stop_server():
    """Waits for the end of the server, so that its CPU seconds count as those of this process."""
    forkserver._forkserver._stop()


def _become(arguments, environment, folder, writer, errors, tiny):
    """Makes a fork of the server what the interpreter makes of itself with such arguments."""
    gc.freeze()  # what the server has imported
    gc.set_threshold(20_000, 50, 10)  # as conftest.py does
    os.dup2(writer.fileno(), 1)
    writer.close()
    errors = os.open(errors, os.O_WRONLY | os.O_APPEND) if errors else 1
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    path, *rest = arguments
    is_code = path == "-c"
    ours = str(REPOSITORY)
    first = ["" if is_code else os.path.dirname(path)]
    first += filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    # The path of this process holds folders of tests and tools.
    sys.path[:] = first + [p for p in sys.path if p and p not in first and not _is_below(p, ours)]
    if tiny:
        runpy.run_path(f"{ours}/tests/tiny.py")
    sys.argv[:] = ["-c", *rest[1:]] if is_code else [path, *rest]
    if is_code:
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        program = compile(rest[0], "<string>", "exec")
        sys.exit(exit_status(lambda: exec(program, vars(main))))
    sys.exit(exit_status(lambda: runpy.run_path(path, run_name="__main__")))


def _is_below(path, folder):
    """Whether a path is that of our source, which a program finds by PYTHONPATH alone."""
    return path == folder or path.startswith((f"{folder}/tests", f"{folder}/tools"))
