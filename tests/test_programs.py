"""Programs that tests run behave as they do for a user."""

import os
import sys

import pytest
from absl import flags
from programs import ENVIRONMENT, REPOSITORY, run_program, run_tool, start_program

_SHOWS = """
import os, sys
from tensorflow.python.eager import context
assert not context.context()._initialized, "the server ran an op, whose threads are lost here"
assert "clouds_tf" not in sys.modules and __name__ == "__main__"
import clouds_tf
print(sys.argv, sys.path[0], os.getcwd(), os.environ["SHOWN"], clouds_tf.__file__)
print("tests" in "".join(sys.path))
"""


def test_a_program_has_its_arguments_and_variables(tmp_path):
    environment = {**ENVIRONMENT, "SHOWN": "x"}
    found = run_program("-c", _SHOWS, "a", 1, env=environment, cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    package = REPOSITORY / "clouds_tf" / "__init__.py"
    assert found.stdout == f"['-c', 'a', '1']  {tmp_path} x {package}\nFalse\n"
    (tmp_path / "program.py").write_text(_SHOWS)
    found = run_program(tmp_path / "program.py", "--b", env=environment, cwd="/")
    path = f"{tmp_path}/program.py"
    assert found.stdout == f"['{path}', '--b'] {tmp_path} / x {package}\nFalse\n"


@pytest.mark.parametrize(
    "code, status, errors",
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        ("print('a', flush=True); import os; os.execv('/bin/sh', ['sh', '-c', 'exit 4'])", 4, ""),
    ],
)
def test_a_program_ends_as_processes_do(code, status, errors):
    found = run_program("-c", code)
    assert (found.returncode, found.stderr) == (status, errors)


def test_an_error_of_a_program_has_its_traceback():
    found = run_program("-c", "def f():\n  raise KeyError('x')\nf()", merge=True)
    assert found.returncode == 1 and found.stderr is None
    assert found.stdout.startswith("Traceback") and found.stdout.endswith("KeyError: 'x'\n")


def test_a_running_program_takes_signals():
    code = "import time, signal; print('here', flush=True); signal.pause()"
    with start_program("-c", code) as program:
        assert program.stdout.readline() == "here\n" and program.poll() is None
        program.terminate()
        assert program.wait(60) == -15


def test_a_tool_in_this_process_leaves_nothing_behind(tmp_path):
    before = os.getcwd(), list(sys.argv)
    for count in (2, 3):
        sizes = f"--num_train={count}", "--num_test=1", "--image_size=28,42"
        found = run_tool("make_sample_data", f"--output_dir={tmp_path}/{count}", *sizes)
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.startswith(f"Wrote {count} training and 1 test image of")
    assert before == (os.getcwd(), list(sys.argv)) and "num_train" not in flags.FLAGS


def test_a_tool_fails_alike_in_this_process_and_in_its_own():
    tool = REPOSITORY / "tools" / "score.py"
    for arguments in (["--submission=/x"], ["--submission=/x", "--annotations=/x"], ["--subm"]):
        found, own = run_tool("score", *arguments), run_program(tool, *arguments)
        assert found.returncode == own.returncode == 1
        assert found.stdout == own.stdout == "" and found.stderr == own.stderr
        assert found.stderr.startswith("score.py: error: ") and found.stderr.count("\n") == 1
