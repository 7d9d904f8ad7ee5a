"""tf.data service: other processes read, decode and augment the images of a training."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_MakeEpoch = Callable[["tf.Tensor"], "tf.data.Dataset"]


def all_epochs(
    one_epoch: _MakeEpoch,
    in_parallel: Callable[[tf.data.Dataset], tf.data.Dataset],
    first: int,
    epochs: int,
    data_service: str | None,
) -> tf.data.Dataset:
    """The examples of all remaining epochs, from this process or from a tf.data service.

    The workers of a service share each epoch; its elements arrive in no fixed order.

    Args:
        one_epoch: a function from an epoch, int64 [], to the numbers of its examples.
        in_parallel: a function from these to the examples.
        first: the first epoch.
        epochs: the number of epochs; the last one is epochs - 1.
        data_service: grpc://host:port of the dispatcher of a service; None for this process.

    Raises:
        ValueError: nothing listens at data_service.
    """
    epochs_to_come = tf.data.Dataset.range(first, epochs)
    if not data_service:
        return in_parallel(epochs_to_come.flat_map(one_epoch))
    service = tf.data.experimental.service
    _check_listening(data_service)
    # Traced, so that the graph is built only once, not for every epoch.
    make_epoch = tf.function(lambda epoch: in_parallel(one_epoch(epoch)))
    datasets = [make_epoch(tf.constant(epoch, tf.int64)) for epoch in range(first, epochs)]
    ids = [service.register_dataset(data_service, dataset) for dataset in datasets]

    def served(epoch: tf.Tensor) -> tf.data.Dataset:
        return service.from_dataset_id(
            service.ShardingPolicy.DYNAMIC,
            data_service,
            tf.gather(ids, epoch - first),
            datasets[0].element_spec,
        )

    return epochs_to_come.flat_map(served)


def _check_listening(data_service: str) -> None:
    """Raises ValueError if nothing listens at the address; TensorFlow would wait for an hour."""
    match = re.fullmatch(r"grpc://(.+):(\d+)", data_service)
    if not match:
        raise ValueError(f"data_service: got {data_service!r}, expected grpc://host:port")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()
    except OSError as error:
        raise ValueError(f"data_service: nothing listens at {data_service}: {error}") from None


def start_server(dispatcher: str | None, host: str = "localhost", port: int = 0) -> tuple[Any, str]:
    """Starts a server of a tf.data service; it serves as long as it is referenced.

    Args:
        dispatcher: host:port of the worker's dispatcher; None starts a dispatcher.
        host: host name under which training reaches the worker.
        port: port to listen on; 0 takes a free one.

    Returns:
        The server, and the address of the dispatcher, grpc://host:port.
    """
    service = tf.data.experimental.service
    if dispatcher is None:
        server = service.DispatchServer(service.DispatcherConfig(port=port))
        return server, server.target
    config = service.WorkerConfig(dispatcher, worker_address=f"{host}:%port%", port=port)
    return service.WorkerServer(config), f"grpc://{dispatcher}"
