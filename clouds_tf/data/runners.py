"""Runs jobs in this process, in several, or in an Apache Beam pipeline."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from clouds_tf import files
from clouds_tf.progress import Progress
from clouds_tf.settings import CheckedSettings, setting

# Beam runners whose class name does not follow from their short name.
_BEAM_RUNNERS = {"dask": "apache_beam.runners.dask.dask_runner.DaskRunner"}


@dataclasses.dataclass(frozen=True, repr=False)
class Runner(CheckedSettings):
    """Runner of many jobs; its fields are flags of the tools that have them.

    Raises:
        ValueError: an unknown runner, fewer than one worker, or options without a Beam runner.
    """

    runner: str = setting(
        "local",
        "Runner of the jobs: local processes, or an Apache Beam runner.",
        choices=("local", "direct", "dask", "flink", "spark", "dataflow"),
    )
    num_workers: int = setting(
        1, "Number of local worker processes; 1 runs in this process.", min=1
    )
    beam_options: tuple[str, ...] = setting(
        (), "Options of the Beam runner, such as --project=P,--region=R."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam_options and self.runner == "local":
            raise ValueError("beam_options: got runner local, expected a runner of Apache Beam")

    def run(
        self,
        function: Callable[..., Any],
        jobs: Iterable[Sequence[Any]],
        total: int,
        progress: Progress = lambda done, total: None,
    ) -> int:
        """Calls function(*job) for every job.

        Args:
            function: a module-level function, which workers import.
            jobs: the arguments of each call.
            total: number of jobs, for the progress.
            progress: called with (jobs done, total), unless Beam runs them.

        Returns:
            The number of jobs.
        """
        if self.runner != "local":
            jobs = list(jobs)
            run_in_beam(function, jobs, self.runner, self.beam_options)
            return len(jobs)
        done = 0
        for _ in run(function, jobs, self.num_workers):
            done += 1
            progress(done, total)
        return done


def run(
    function: Callable[..., Any], jobs: Iterable[Sequence[Any]], num_workers: int
) -> Iterator[Any]:
    """Runs function(*job) for every job in num_workers processes; yields results as they finish.

    The function must be a module-level one, which the processes import. With one worker, it runs in
    this process, in the order of the jobs.

    Raises:
        ValueError: a worker process was killed. Errors of a job are raised unchanged.
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

    The function must be a module-level one, which the workers import. Jobs are part of the
    pipeline, so they should be small. `runner` is the name of a Beam runner, such as "direct",
    "dask" or "dataflow".

    Raises:
        ValueError: Apache Beam is not installed.
    """
    files.require("apache_beam", "beam", f"runner: {runner}")
    import apache_beam as beam

    options = beam.options.pipeline_options.PipelineOptions(
        list(beam_options), runner=_BEAM_RUNNERS.get(runner, f"{runner.title()}Runner")
    )
    with beam.Pipeline(options=options) as pipeline:
        # Without the reshuffle, one worker would run all jobs.
        pipeline | beam.Create(jobs) | beam.Reshuffle() | beam.MapTuple(function)


def _end_with_parent() -> None:
    """Exits this worker process when its parent dies; it would otherwise wait for jobs forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
