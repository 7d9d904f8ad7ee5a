"""Where jobs run: in this process, in several, or in an Apache Beam pipeline."""

import concurrent.futures
import multiprocessing
import os
import threading


def run(function, jobs, num_workers):
    """Yields function(*job) for every job, as they finish, from num_workers processes."""
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
                "a worker process was killed, perhaps for want of memory; the same command goes on "
                "where it stopped, with less memory if --num_workers is lower"
            ) from None
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def run_in_beam(function, jobs, runner, beam_options):
    """Calls function(*job) for every job in an Apache Beam pipeline; jobs should be small."""
    try:
        import apache_beam as beam
    except ImportError:
        raise ValueError(
            f"runner: {runner} needs Apache Beam: in the folder of clouds_tf, run "
            "pip install -e '.[beam]'"
        ) from None
    options = beam.options.pipeline_options.PipelineOptions(
        list(beam_options), runner=f"{runner.title()}Runner"
    )
    with beam.Pipeline(options=options) as pipeline:
        # Without the reshuffle, one worker would take all jobs.
        pipeline | beam.Create(jobs) | beam.Reshuffle() | beam.MapTuple(function)


def _end_with_parent():
    """Lets a process end when the one that started it is killed; by itself it would wait on."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
