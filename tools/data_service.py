"""Runs one server of a tf.data service, which decodes and augments for training elsewhere.

python tools/data_service.py --port=5050                              # the dispatcher
python tools/data_service.py --dispatcher=host:5050 --host=otherhost  # each of the workers
python tools/train.py --data_service=grpc://host:5050 --records_dir=R --workdir=W
"""

import signal

import cli

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("dispatcher", None, "host:port of the dispatcher; without it, this is it.")
flags.DEFINE_integer("port", 0, "Port to listen at; 0 for any.", lower_bound=0, upper_bound=65535)
flags.DEFINE_string("host", "localhost", "Name by which training finds this worker.")


def main():
    import tensorflow as tf  # not before cli has set it up

    service = tf.data.experimental.service
    if FLAGS.dispatcher is None:
        server = service.DispatchServer(service.DispatcherConfig(port=FLAGS.port))
        print(f"Dispatcher: --data_service={server.target}", flush=True)
    else:
        server = service.WorkerServer(
            service.WorkerConfig(
                FLAGS.dispatcher, worker_address=f"{FLAGS.host}:%port%", port=FLAGS.port
            )
        )
        print(f"Worker of {FLAGS.dispatcher}", flush=True)
    signal.pause()  # not server.join(), which Ctrl-C would not end


if __name__ == "__main__":
    cli.run(main)
