"""The console command `clouds-tf` of the source; test_end_to_end.py runs it from a wheel."""

import subprocess
import sys

import pytest
from shared_fixtures import REPOSITORY

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


@pytest.mark.lanes
def test_a_shell_completes_tools_flags_choices_and_paths(tmp_path):
    (tmp_path / "records").mkdir()
    call = f"PYTHONPATH={REPOSITORY} {sys.executable} -c 'from tools.command import main; main()'"
    lines = {
        "clouds-tf evalu": "evaluate",
        "clouds-tf evaluate --record": "--records_dir=",
        "clouds-tf evaluate --engine=o": "openvino",
        f"clouds-tf evaluate --records_dir={tmp_path}/r": f"{tmp_path}/records/",
        "clouds-tf trein --re": "",
    }
    program = f'clouds-tf() {{ {call} "$@"; }}\neval "$(clouds-tf --completion)"\n'
    for line in lines:
        program += (
            f"COMP_LINE='{line}' COMP_POINT={len(line)}\n_clouds_tf\necho ${{COMPREPLY[@]}}\n"
        )
    found = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert found.stdout.splitlines() == [*lines.values()] and not found.stderr
