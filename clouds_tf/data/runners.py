"""Runs jobs in this process, in several, or in an Apache Beam pipeline."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

# Runners that Beam does not know by their short name.
_BEAM_RUNNERS = {"dask": "apache_beam.runners.dask.dask_runner.DaskRunner"}


def run(
    function: Callable[..., Any], jobs: Iterable[Sequence[Any]], num_workers: int
) -> Iterator[Any]:
    """Yields function(*job) for every job, as they finish, from num_workers processes.

    Args:
        function: a function of a module, as processes import it.
        jobs: the arguments of each call.
        num_workers: number of processes; 1 calls in this one, in order.

    Raises:
        ValueError: a worker process was killed. Errors of a job are raised as they are.
    """
    if num_workers == 1:
        yield from (function(*job) for job in jobs)
        return
    # TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=_end_with_parent
    ) as executor:
        try:
            futures = [executor.submit(function, *job) for job in jobs]
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool:
            raise ValueError(
                "a worker process was killed, perhaps for lack of memory; the same command "
                "continues where it stopped, with less memory if --num_workers is lower"
            ) from None
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def run_in_beam(
    function: Callable[..., Any],
    jobs: Iterable[Sequence[Any]],
    runner: str,
    beam_options: Iterable[str],
) -> None:
    """Calls function(*job) for every job in an Apache Beam pipeline.

    Args:
        function: a function of a module, which workers import.
        jobs: the arguments of each call; they travel with the pipeline, so they should be small.
        runner: name of a Beam runner, such as "direct", "dask" or "dataflow".
        beam_options: options of that runner, such as ["--project=P"].

    Raises:
        ValueError: Apache Beam is not installed.
    """
    try:
        import apache_beam as beam
    except ImportError:
        raise ValueError(
            f"runner: {runner} needs Apache Beam: in the folder of clouds_tf, run "
            "pip install -e '.[beam]'"
        ) from None
    options = beam.options.pipeline_options.PipelineOptions(
        list(beam_options), runner=_BEAM_RUNNERS.get(runner, f"{runner.title()}Runner")
    )
    with beam.Pipeline(options=options) as pipeline:
        # Without the reshuffle, one worker would take all jobs.
        pipeline | beam.Create(jobs) | beam.Reshuffle() | beam.MapTuple(function)


def _end_with_parent() -> None:
    """Exits this worker process when its parent dies; by itself it would wait for jobs forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
