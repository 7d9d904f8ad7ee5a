"""The console command `clouds-tf TOOL --flag=value ...`, which runs the programs of this folder."""

import os
import runpy
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_NO_TOOLS = {"__init__", "cli", "command"}


def tools() -> list[str]:
    """Names of the programs, sorted."""
    names = (os.path.splitext(name) for name in os.listdir(_FOLDER))
    return sorted(stem for stem, ending in names if ending == ".py" and stem not in _NO_TOOLS)


def main() -> None:
    """Runs the program that the first argument names, as `python tools/TOOL.py` would."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in tools():
        wrong = name and not name.startswith("-")
        usage = f"usage: clouds-tf TOOL --flag=value ...\n\ntools: {', '.join(tools())}"
        print(f"clouds-tf: no tool {name!r}\n{usage}" if wrong else usage)
        sys.exit(1 if wrong else 0)
    path = os.path.join(_FOLDER, f"{name}.py")
    sys.argv = [path, *sys.argv[2:]]
    sys.path.insert(0, _FOLDER)  # where the programs find cli
    runpy.run_path(path, run_name="__main__")
