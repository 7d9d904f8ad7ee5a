"""Dynamic batching: one call of the network for the images of many requests.

Each image is decoded separately, before it joins a batch, so that a bad image cannot make other
requests fail. Decoding, network and post-processing run in separate threads: while the network
computes a batch, the next one is decoded and the previous one is encoded.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Union

import numpy as np
import tensorflow as tf

from clouds_tf.data.preprocessing import encode_image
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.prediction.untrusted import LARGEST_IMAGES, image_size, why_unreadable
from clouds_tf.server.errors import RequestError
from clouds_tf.server.metrics import Metrics
from clouds_tf.server.settings import ServerSettings

# Outputs of an image by name: arrays without a dimension for the batch.
Output = dict[str, Any]
# JPEG or PNG bytes, or uint8 [H, W, 3].
Image = Union[bytes, np.ndarray]

PROBABILITIES = "probabilities"


class Workers:
    """Threads and limits on images and pixels, which all versions of a model share.

    Create it in the event loop that uses it.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.decoding = ThreadPoolExecutor(os.cpu_count(), "decode")
        self.network, self.answering = (ThreadPoolExecutor(1, x) for x in ("network", "answer"))
        self._images, self._pixels = 0, 0
        self._turn = asyncio.Lock()
        self.seconds_per_image = 0.0  # running mean for the network

    async def run(
        self, pool: ThreadPoolExecutor, function: Callable[..., Any], *args: object
    ) -> Any:
        """Calls a function in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(pool, function, *args)

    def refuse(self, sentence: str) -> RequestError:
        """Counts a request whose images cannot be predicted; returns the error to raise."""
        self.metrics.images.labels("refused").inc()
        return RequestError(400, sentence)

    @contextlib.contextmanager
    def admit(self, number: int) -> Iterator[None]:
        """Context that counts images as in progress; RequestError if there would be too many."""
        limit = self.settings.max_images
        if number > limit:
            raise self.refuse(f"got {number} images, expected at most {limit} in a request")
        if self._images + number > limit:
            seconds = max(1, math.ceil(self._images * self.seconds_per_image))
            sentence = f"too many images in progress; try again in {seconds} s"
            raise RequestError(503, sentence, seconds)
        self._images += number
        try:
            yield
        finally:
            self._images -= number

    @contextlib.asynccontextmanager
    async def decoding_pixels(self, number: int) -> Any:
        """Context for decoding an image; first waits until its pixels are within the limit."""
        async with self._turn:  # in order, since otherwise a large image might wait forever
            while self._pixels and self._pixels + number > self.settings.max_pixels:
                await asyncio.sleep(0.002)
            self._pixels += number
        try:
            yield
        finally:
            self._pixels -= number

    def batch_size(self) -> int:
        """Number of images that the next call of the network should have."""
        return max(1, min(self.settings.max_batch, -(-self._images // 2)))

    def close(self) -> None:
        """Ends the threads once their work is done."""
        for pool in (self.decoding, self.network, self.answering):
            pool.shutdown(wait=False)


@dataclasses.dataclass(eq=False)
class _Item:
    """A decoded image that waits for the network."""

    images: tuple[np.ndarray, ...]  # uint8 [h, w, 3] for each network
    likeness: float
    names: frozenset[str]  # requested outputs
    output: Any  # an asyncio.Future of an Output
    arrived: float = dataclasses.field(default_factory=time.perf_counter)


class Batcher:
    """The queue of one loaded version of a model.

    Args:
        predictor: the version; `Batcher` loads its stages.

    Raises:
        ValueError: the SavedModel is damaged or too old.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self._stages, self._users = predictor, predictor.load_stages(), 0
        self._channels = predictor.metadata.dataset.channels

    def warm_up(self, max_batch: int) -> None:
        """Runs all stages on batches of 1, 2, 4, ... images: the first of each size is slow."""
        stages, shape = self._stages, (*self.predictor.metadata.dataset.mask_size, self._channels)
        images, likeness = stages.read_bytes([encode_image(np.zeros(shape, np.uint8))])
        size = 1
        while size <= max_batch:
            batch = [tf.repeat(image, size, axis=0) for image in images]
            stages.answer(*stages.run_networks(batch), tf.repeat(likeness, size))
            size *= 2

    def start(self, workers: Workers) -> None:
        """Starts to process the queue, in the running event loop."""
        self._workers, self._metrics = workers, workers.metrics
        self._queue: collections.deque[_Item] = collections.deque()
        self._arrived = asyncio.Event()
        self._answering: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answering.set_result(None)
        self._task = asyncio.create_task(self._run())

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Context of a request; `close` waits for its end."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    async def close(self) -> None:
        """Stops once no request is in progress."""
        while self._users:
            await asyncio.sleep(0.02)
        self._task.cancel()

    async def predict(self, images: Sequence[Image], names: frozenset[str]) -> list[Output]:
        """Predicts the images of one request.

        Args:
            images: N images.
            names: requested outputs of the signature from_pixels.

        Returns:
            N outputs.

        Raises:
            RequestError: an image or the number of images is not accepted, or too many images are
                in progress.
        """
        workers = self._workers
        with workers.admit(len(images)):
            pixels = await workers.run(workers.decoding, self._count_pixels, images)
            limit = LARGEST_IMAGES * self.predictor.metadata.max_image_pixels
            if sum(pixels) > limit:
                raise workers.refuse(
                    f"got {sum(pixels):,} pixels in all images, expected at most {limit:,}"
                )
            places = [_place(i, images) for i in range(len(images))]
            decoded = await _all([self._decode(*x) for x in zip(images, pixels, places)])
            loop = asyncio.get_running_loop()
            items = [_Item(x, likeness, names, loop.create_future()) for x, likeness in decoded]
            self._queue.extend(items)
            self._metrics.queue.inc(len(items))
            self._arrived.set()
            outputs = await asyncio.gather(*(item.output for item in items))
        class_names = self.predictor.metadata.dataset.class_names
        for item, output in zip(items, outputs):
            self._metrics.observe_answer(class_names, item.likeness, output.get("presence", ()))
        return outputs

    async def _decode(self, image: Image, pixels: int, place: str) -> tuple[Any, float]:
        workers = self._workers
        async with workers.decoding_pixels(pixels):
            return await workers.run(workers.decoding, self._read, image, place)

    def _count_pixels(self, images: Sequence[Image]) -> list[int]:
        """Pixels of each image according to its header; RequestError if one has no header."""
        found, expected = [], self._channels
        for i, image in enumerate(images):
            if isinstance(image, np.ndarray):
                height, width, got = image.shape
                if got != expected:
                    reason = f"got {got} channels, expected {expected}, in image_bytes"
                    raise self._workers.refuse(_place(i, images) + reason)
            else:
                try:
                    height, width = image_size(image, expected)
                except tf.errors.InvalidArgumentError:
                    reason = why_unreadable(image)
                    raise self._workers.refuse(_place(i, images) + reason) from None
            found.append(height * width)
        return found

    def _read(self, image: Image, place: str) -> tuple[tuple[np.ndarray, ...], float]:
        """First stage: the input of each network, and the likeness."""
        limit = self.predictor.metadata.max_image_pixels
        with self._metrics.timed("decode"):
            if isinstance(image, np.ndarray):
                images, likeness = self._stages.read_pixels(tf.constant(image[np.newaxis]))
            else:
                try:
                    images, likeness = self._stages.read_bytes(tf.constant([image]))
                except tf.errors.InvalidArgumentError:
                    reason = why_unreadable(image, limit, self._channels)
                    raise self._workers.refuse(place + reason) from None
        # No slices of tensors: TensorFlow 2.15 leaks 48 bytes for each one on Python 3.11.
        return tuple(x.numpy()[0] for x in images), float(likeness.numpy()[0])

    async def _run(self) -> None:
        """Computes one batch after another until it is cancelled."""
        while True:
            batch = await self._next_batch()
            if batch:
                await self._compute(batch)

    async def _next_batch(self) -> list[_Item]:
        """The next images, without those of cancelled requests.

        At most half of the images in progress, so that the others are decoded or encoded while the
        network computes. If all clients waited for the same batch, the network would be idle
        after it.
        """
        workers, wait = self._workers, self._workers.settings.max_wait_ms / 1e3
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        while len(self._queue) < (most := workers.batch_size()):
            left = self._queue[0].arrived + wait - time.perf_counter()
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except asyncio.TimeoutError:
                break
        batch = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        self._metrics.queue.dec(len(batch))
        return [item for item in batch if not item.output.done()]

    async def _compute(self, batch: list[_Item]) -> None:
        """Second stage; starts the third one once the previous batch has finished it."""
        workers, start = self._workers, time.perf_counter()
        for item in batch:
            self._metrics.latency.labels("queue").observe(start - item.arrived)
        try:
            images = [item.images for item in batch]
            outputs = await workers.run(workers.network, self._run_networks, images)
            seconds = (time.perf_counter() - start) / len(batch)
            workers.seconds_per_image += 0.1 * (seconds - workers.seconds_per_image)
            await self._answering
            self._answering = asyncio.create_task(self._finish(batch, *outputs))
        except Exception as error:
            if len(batch) == 1:
                _settle(batch, [error])
            else:  # such as too little memory; single images may still work
                for item in batch:
                    await self._compute([item])

    def _run_networks(self, images: Sequence[tuple[np.ndarray, ...]]) -> tuple[Any, Any]:
        self._metrics.batch_size.observe(len(images))
        with self._metrics.timed("network"):
            stacked = [tf.constant(np.stack(column)) for column in zip(*images)]
            return self._stages.run_networks(stacked)

    async def _finish(
        self, batch: list[_Item], probabilities: tf.Tensor, presence: tf.Tensor
    ) -> None:
        """Third stage: sets the output of each image."""
        run, pool = self._workers.run, self._workers.answering
        try:
            _settle(batch, await run(pool, self._answer, probabilities, presence, batch))
        except Exception as error:
            _settle(batch, [error] * len(batch))

    def _answer(
        self, probabilities: tf.Tensor, presence: tf.Tensor, batch: list[_Item]
    ) -> list[Output]:
        with self._metrics.timed("postprocessing"):
            likeness = tf.constant([item.likeness for item in batch])
            answer = self._stages.answer(probabilities, presence, likeness)
            answer[PROBABILITIES] = probabilities
            wanted = frozenset().union(*(item.names for item in batch))
            columns = {name: answer[name].numpy() for name in wanted}  # each a copy
            # Copies, since slices would keep the whole batch in memory.
            return [
                {name: np.array(columns[name][i]) for name in item.names}
                for i, item in enumerate(batch)
            ]


def _settle(batch: Sequence[_Item], outputs: Sequence[Output | Exception]) -> None:
    """Sets the output or error of each image that a client still waits for."""
    for item, output in zip(batch, outputs):
        if item.output.done():
            continue
        if isinstance(output, Exception):
            item.output.set_exception(output)
        else:
            item.output.set_result(output)


def _place(index: int, images: Sequence[Image]) -> str:
    return f"image {index + 1} of {len(images)}: " if len(images) > 1 else ""


async def _all(coroutines: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Results of coroutines, in order; if one raises, the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
