"""What README and docs tell their readers to run."""

import re
import shlex
import typing

from conftest import REPOSITORY

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "models/README.md"]
PAGES += sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("docs/**/*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(python tools/[^`]+)`")
# Says in a comment why no test runs the block: "# needs a GPU", "# downloads packages".
_MARK = re.compile(r"# .*\b(needs|downloads)\b")


class Block(typing.NamedTuple):
    """A fenced block, or a command within a sentence, whose kind is bash."""

    kind: str
    text: str

    @property
    def is_marked(self):
        """Whether the block says that it needs more than a test has."""
        return _MARK.search(self.text) is not None

    @property
    def lines(self):
        """Lines of bash, where those that end in a backslash are joined."""
        return [line for line in self.text.replace("\\\n", "").splitlines() if line]

    @property
    def commands(self):
        """(tool, arguments) of each `python tools/TOOL.py --flag=value ...`."""
        return [
            (tool, shlex.split(rest, comments=True))
            for line in (self.lines if self.kind == "bash" else ())
            for tool, rest in re.findall(r"python tools/(\w+)\.py(.*)", line)
        ]


def blocks(page):
    """The blocks of a page, given by its path in the repository, in their order."""
    found, text = [], (REPOSITORY / page).read_text()
    for prose, kind, code in re.findall(r"(.*?)(?:^```(\w*)\n(.*?)^```|\Z)", text, re.M | re.S):
        found += [Block("bash", inline) for inline in _INLINE.findall(prose)]
        found += [Block(kind, code)] if code else []
    return found
