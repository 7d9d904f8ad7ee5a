"""Serves a SavedModel over HTTP, with a page to try it.

python tools/serve.py --saved_model=E

Then open http://127.0.0.1:8501/. New versions in E are loaded while the server runs. On SIGTERM,
it answers the accepted requests and exits.
"""

import cli

from absl import flags

from clouds_tf import server

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "saved_model",
    None,
    "Folder of the versions that export wrote, such as E, or one of them, such as E/1.",
    required=True,
)
cli.DEFINE_dataclass(server.ServerSettings)


def main() -> None:
    cli.check_inputs("saved_model manifest images_dir onnx onnxruntime_web")
    server.serve(FLAGS.saved_model, cli.dataclass_from_flags(server.ServerSettings))


if __name__ == "__main__":
    cli.run(main)
