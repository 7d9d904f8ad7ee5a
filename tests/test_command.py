"""The console command `clouds-tf` of the source; test_end_to_end.py runs it from a wheel."""

import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY))  # in an installed copy the module is clouds_tf.tools.command
from tools import command  # noqa: E402


@pytest.mark.parametrize("arguments, status", [((), 0), (("--help",), 0), (("trein",), 1)])
def test_it_lists_the_tools(arguments, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["clouds-tf", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == status
    output = capsys.readouterr().out
    tools = output.split("tools: ")[1].strip().split(", ")
    assert {"make_tfrecords", "train", "climatology"} <= set(tools)
    assert not {"cli", "command", "__init__"} & set(tools)
    assert ("no tool 'trein'" in output) == (status == 1)
