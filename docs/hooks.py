"""Generates pages of the site when it is built; mkdocs calls the functions on_*.

flags.md has the flags of every program, api/ROOM.md the docstrings of a room. README, changelog and
recipes are outside docs/ and become pages under other names.
"""

import importlib
import pathlib
import posixpath
import re
import runpy
import sys

import griffe
from absl import flags
from mkdocs.structure.files import File

import clouds_tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Files outside docs/ and their names on the site.
OUTSIDE = {
    "README.md": "index.md",
    "models/README.md": "model_card.md",
    "deploy/README.md": "deploy.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "deploy/Dockerfile": "dockerfile.txt",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "citation.txt",
    "LICENSE": "license.txt",
    **{
        name: name
        for pattern in ("recipes/*.txt", "recipes/datasets/*.json")
        for name in (path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
    },
}
_FROM_OUTSIDE = {site: path for path, site in OUTSIDE.items()}
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def tools():
    """Paths of the programs that have flags."""
    return sorted(path for path in ROOT.glob("tools/*.py") if "cli.run(main)" in path.read_text())


def flag_row(flag):
    """One row of a table of flags, from an absl flag."""
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    choices = getattr(flag.parser, "enum_values", None)
    meaning, kind = flag.help, flag.parser.syntactic_help
    if choices:  # absl puts them before the help
        meaning = meaning.partition(">: ")[2]
        kind = "one of " + ", ".join(f"`{choice}`" for choice in choices)
    default = "" if flag.default is None else flag.default_as_str.strip("'")
    if default.startswith("{"):  # a data set; the help says which
        default = ""
    cells = [f"`{name}`", meaning + (f" ({kind})" if kind else ""), default and f"`{default}`"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def flags_of_a_program(path):
    """A section on one program: its docstring and a table of its flags."""
    name = f"flags_of_{path.stem}"
    module = runpy.run_path(str(path), run_name=name)
    defined = sorted(flags.FLAGS.flags_by_module_dict()[name], key=lambda flag: flag.name)
    rows = [flag_row(flag) for flag in defined]
    for flag in defined:  # two programs may define flags of one name
        delattr(flags.FLAGS, flag.name)
    title, _, description = module["__doc__"].strip().partition("\n")
    usage = f"```\n{description.strip()}\n```\n\n" if description.strip() else ""
    table = "\n".join(["| flag | meaning | default |", "|---|---|---|", *rows])
    return f"## {path.stem}\n\n{title}\n\n{usage}{table}\n"


def flags_page():
    """The page on the flags of all programs."""
    text = (
        "# Flags\n\nEach program is run as `python tools/TOOL.py`, or as `clouds-tf TOOL` where the"
        " package is installed. `--flagfile=FILE` reads flags from a file, `--verbosity=1` shows"
        " tracebacks.\n\n"
    )
    sys.path.insert(0, str(ROOT / "tools"))  # where the programs find cli
    return text + "\n".join(map(flags_of_a_program, tools()))


def api_page(room):
    """The page on one room: a section for each of its modules."""
    folder = ROOT / "clouds_tf" / room
    if not folder.is_dir():
        return f"# {room}\n\n::: clouds_tf.{room}\n"
    package = importlib.import_module(f"clouds_tf.{room}")
    text = f"# {room}\n\n{package.__doc__}\n\n"
    names = [(name, getattr(package, name)) for name in getattr(package, "__all__", ())]
    names = [(name, value) for name, value in names if hasattr(value, "__module__")]
    if names:
        links = ", ".join(f"[{name}][{value.__module__}.{name}]" for name, value in names)
        text += f"`clouds_tf.{room}` itself has {links}.\n\n"
    for name, value in names:
        if value.__module__ == package.__name__:
            text += f"::: {package.__name__}.{name}\n\n"
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__":
            text += f"::: {'.'.join(parts)}\n\n"
        elif path.parent != folder:  # a package inside the room; its names stand in its modules
            text += f"::: {'.'.join(parts[:-1])}\n    options: {{members: false}}\n\n"
    return text


def rooms():
    """Names of the packages and modules of clouds_tf."""
    folder = ROOT / "clouds_tf"
    paths = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    names = {path.parent.name if path.name == "__init__.py" else path.stem for path in paths}
    return sorted(names - {"clouds_tf"})


def on_config(config):
    """Shows the version at the foot of each page."""
    config["copyright"] = f"clouds_tf {clouds_tf.__version__}"
    return config


def on_files(files, config):
    """Adds the pages that are made here."""
    pages = {site: (ROOT / path).read_text() for site, path in _FROM_OUTSIDE.items()}
    pages["flags.md"] = flags_page()
    pages.update({f"api/{room}.md": api_page(room) for room in rooms()})
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Makes links that lead out of docs/, or into it from outside, links of the site."""
    on_site = f"docs/{page.file.src_uri}"
    source = _FROM_OUTSIDE.get(page.file.src_uri, on_site)

    def link(match):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        path = f"docs/{OUTSIDE[path]}" if path in OUTSIDE else path
        return posixpath.relpath(path, posixpath.dirname(on_site))

    # A table on GitHub needs the backslash of "|" in code, where Markdown elsewhere shows it.
    markdown = re.sub(r"`[^`\n]+`", lambda code: code[0].replace("\\|", "|"), markdown)
    return _LINK.sub(link, markdown)


class Doctests(griffe.Extension):
    """Shows the examples in docstrings as code."""

    def on_instance(self, *, obj, **kwargs):
        """Puts a fence around each of them."""
        if obj.docstring:
            text = re.sub(r"(?m)^>>> .*(\n.+)*", r"```pycon\n\g<0>\n```", obj.docstring.value)
            obj.docstring.value = text
