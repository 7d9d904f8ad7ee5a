"""The console command `clouds-tf TOOL --flag=value ...`, which runs the programs of this folder.

For completion of tools, flags, choices and paths in bash and zsh: source <(clouds-tf --completion)
"""

from __future__ import annotations

import glob
import importlib
import os
import runpy
import sys
from collections.abc import Iterator
from typing import Any

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_NO_TOOLS = {"__init__", "cli", "command"}
_COMPLETION = r"""
if [[ -n ${ZSH_VERSION-} ]]; then autoload -U +X bashcompinit && bashcompinit; fi
_clouds_tf() {
    local IFS=$'\n' line=${COMP_LINE:0:$COMP_POINT}
    COMPREPLY=($(clouds-tf --complete "$line"))
    # To bash, the word that is completed starts after the equals sign.
    [[ -n ${BASH_VERSION-} && ${line##* } == *=* ]] && COMPREPLY=("${COMPREPLY[@]#*=}")
}
complete -o nospace -F _clouds_tf clouds-tf
"""


def tools() -> list[str]:
    """Names of the programs, sorted."""
    names = (os.path.splitext(name) for name in os.listdir(_FOLDER))
    return sorted(stem for stem, ending in names if ending == ".py" and stem not in _NO_TOOLS)


def complete(line: str) -> list[str]:
    """Lists the completions of the last word of a command line."""
    words = line.split(" ")
    if len(words) < 3:
        return [name for name in tools() if name.startswith(words[-1])]
    if words[1] not in tools():
        return []
    name, equals, value = words[-1].partition("=")
    options = _flags_of(words[1])
    flag = options.get(name[2:])
    if equals:
        choices = getattr(getattr(flag, "parser", None), "enum_values", None) or [
            path + "/" * os.path.isdir(path) for path in sorted(glob.glob(f"{glob.escape(value)}*"))
        ]
        return [f"{name}={choice}" for choice in choices if choice.startswith(value)]
    return sorted(word for word in _spellings(options) if word.startswith(name))


def _spellings(options: dict[str, Any]) -> Iterator[str]:
    for name, flag in options.items():
        yield f"--{name}" + "=" * (not flag.boolean)
        if flag.boolean:
            yield f"--no{name}"


def _flags_of(tool: str) -> dict[str, Any]:
    """The flags that a program defines, by name."""
    from absl import flags

    sys.argv = [os.path.join(_FOLDER, f"{tool}.py")]
    sys.path.insert(0, _FOLDER)  # where the programs find cli
    importlib.import_module("cli")  # and with it the flags of absl, which are not listed
    before = {*flags.FLAGS}
    runpy.run_path(sys.argv[0])
    return {name: flags.FLAGS[name] for name in {*flags.FLAGS} - before}


def main() -> None:
    """Runs the program named by the first argument, like `python tools/TOOL.py`."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name == "--completion":
        print(_COMPLETION)
        return
    if name == "--complete":
        print(*complete(sys.argv[2]), sep="\n")
        return
    if name not in tools():
        wrong = name and not name.startswith("-")
        usage = f"usage: clouds-tf TOOL --flag=value ...\n\ntools: {', '.join(tools())}"
        print(f"clouds-tf: no tool {name!r}\n{usage}" if wrong else usage)
        sys.exit(1 if wrong else 0)
    path = os.path.join(_FOLDER, f"{name}.py")
    sys.argv = [path, *sys.argv[2:]]
    sys.path.insert(0, _FOLDER)  # where the programs find cli
    runpy.run_path(path, run_name="__main__")
