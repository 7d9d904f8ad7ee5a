"""What is wrong with data, as one line; needs no TensorFlow."""

from __future__ import annotations

import re

# Lines about the graph instead of the data.
_ABOUT_THE_GRAPH = re.compile(
    r"\s*(\[\[|Graph execution error|Detected at node|File \"|<stack|\d+ root error|$)"
)
# Of the input pipeline, since TensorFlow 2.20.
_OF_THE_PIPELINE = re.compile(r"Error in user-defined function .* with iterator: [\w:\[\]]+: ")


def about_the_data(message: str) -> str:
    """Trims a message of TensorFlow to its first line about the data, without names of graph nodes.

    >>> about_the_data("{{function_node __wrapped__X}} Input is empty. [Op:DecodeJpeg]")
    'Input is empty.'

    Returns:
        The line, "" if there is none.
    """
    lines = [line for line in message.splitlines() if not _ABOUT_THE_GRAPH.match(line)]
    line = lines[0] if lines else ""
    line = re.sub(r"^.*\}\} |^\s*\(0\) [A-Z_]+: *| \[Op:.*$", "", line).strip()
    line = _OF_THE_PIPELINE.sub("", line)
    return re.sub(r"^.*assertion failed: \[(.*?)\]$", r"\1", line).replace("] [", " ")
