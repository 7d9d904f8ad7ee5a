"""Runs one server of a tf.data service, which decodes and augments for training elsewhere.

python tools/data_service.py --port=5050                              # the dispatcher
python tools/data_service.py --dispatcher=host:5050 --host=otherhost  # each of the workers
python tools/train.py --data_service=grpc://host:5050 --records_dir=R --workdir=W
"""

import signal

import cli

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("dispatcher", None, "host:port of the dispatcher; default: be the dispatcher.")
flags.DEFINE_integer(
    "port", 0, "Port to listen at; 0 takes any free one.", lower_bound=0, upper_bound=65535
)
flags.DEFINE_string("host", "localhost", "Host name under which training reaches this worker.")


def main() -> None:
    cli.refuse_unused(("host", "--dispatcher", FLAGS.dispatcher))
    from clouds_tf.data import service  # not before cli has set TensorFlow up

    server, target = service.start_server(FLAGS.dispatcher, FLAGS.host, FLAGS.port)
    if FLAGS.dispatcher is None:
        print(f"Dispatcher: --data_service={target}", flush=True)
    else:
        print(f"Worker of {FLAGS.dispatcher}", flush=True)
    signal.pause()  # not server.join(), which Ctrl-C would not end
    del server


if __name__ == "__main__":
    cli.run(main)
