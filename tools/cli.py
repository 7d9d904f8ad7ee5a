"""What all the programs in this folder share: sizes as flags, and errors as one line."""

import os
import re
import sys

# TensorFlow reads these when it is imported, so they stand before everything else.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from absl import app, flags, logging  # noqa: E402

# Size flags belong to the program that defines them, so that its --help shows them.
flags.disclaim_key_flags()


class _SizeParser(flags.ArgumentParser):
    """Reads "H,W" as a tuple of two positive whole numbers (height, width)."""

    def parse(self, argument):
        if isinstance(argument, tuple):
            return argument
        parts = argument.split(",")
        if len(parts) != 2 or not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
            raise ValueError(f"got {argument!r}, expected height,width such as 320,480")
        return int(parts[0]), int(parts[1])

    def flag_type(self):
        return "height,width"


class _SizeSerializer(flags.ArgumentSerializer):
    def serialize(self, value):
        return f"{value[0]},{value[1]}"


def DEFINE_size(name, default, help):  # noqa: N802 (absl spells its definers like this)
    """A flag `--name=height,width` whose value is a tuple, or None."""
    return flags.DEFINE(_SizeParser(), name, default, help, serializer=_SizeSerializer())


def _parse_flags(argv):
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(" ".join(str(error).split("\n")))


def _fail(message):
    print(f"{os.path.basename(sys.argv[0])}: error: {message}", file=sys.stderr)
    sys.exit(1)


# Lines of a TensorFlow error that speak of the graph instead of the data.
_ABOUT_THE_GRAPH = re.compile(
    r"\s*(\[\[|Graph execution error|Detected at node|File \"|<stack|\d+ root error|$)"
)


def _first_line(error):
    """The part of a TensorFlow error that speaks of the data, without the names of graph nodes."""
    lines = [line for line in error.message.splitlines() if not _ABOUT_THE_GRAPH.match(line)]
    line = lines[0] if lines else type(error).__name__
    line = re.sub(r"^.*\}\} |^\s*\(0\) [A-Z_]+: *| \[Op:.*$", "", line)
    return re.sub(r"^assertion failed: \[(.*)\]$", r"\1", line)


def run(main):
    """Runs `main(argv)`; what is wrong with the input ends it with one line and exit status 1.

    With --verbosity=1 the traceback is shown too.
    """

    def guarded(argv):
        import tensorflow as tf

        debugging = logging.get_verbosity() >= logging.DEBUG
        if not debugging:
            tf.get_logger().setLevel("WARNING")
            logging.set_verbosity(logging.WARNING)
        try:
            if len(argv) > 1:
                raise ValueError(f"unexpected argument {argv[1]!r}, expected only --flag=value")
            main()
        except (ValueError, OSError, tf.errors.OpError) as error:
            if debugging:
                raise
            _fail(_first_line(error) if isinstance(error, tf.errors.OpError) else error)
        except KeyboardInterrupt:
            _fail("interrupted")

    app.run(guarded, flags_parser=_parse_flags)
