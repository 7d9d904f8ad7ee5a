"""What README and docs tell their readers to run; and a parser of reports."""

import html.parser
import re
import shlex
import typing

from shared_fixtures import REPOSITORY

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
PAGES += ["deploy/README.md", "models/README.md"]
PAGES += sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("docs/**/*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(python tools/[^`]+)`")
_VOID = {"meta", "link", "img", "source", "br"}
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


class Parser(html.parser.HTMLParser):
    """Keeps all tags with their attributes, and notes what is closed out of turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def text(self, tag):
        return [text for name, text in self.texts if name == tag]
