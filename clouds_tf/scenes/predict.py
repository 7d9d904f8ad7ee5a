"""Runs a SavedModel over georeferenced scenes of any size; resumable."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from clouds_tf import files
from clouds_tf.data.runners import Runner
from clouds_tf.messages import counted, short_repr
from clouds_tf.prediction import engine as engines
from clouds_tf.prediction import stretch as stretches
from clouds_tf.prediction.likeness import known, unlike_warning
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.progress import Progress, shown
from clouds_tf.scenes import exclude, read
from clouds_tf.scenes.jobs import Job, Options
from clouds_tf.scenes.network import Network
from clouds_tf.scenes.read import open_scene
from clouds_tf.scenes.results import SCENES_CSV, Results, write_files
from clouds_tf.scenes.scene import stem
from clouds_tf.scenes.tiles import Tile

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class ScenesResult:
    """Summary of a call to `predict_scenes`.

    Attributes:
        num_scenes: number of scenes of this shard.
        num_predicted: number of scenes that this call predicted; others were predicted earlier.
        num_windows: number of windows of the scenes that this call predicted.
        failed: the reason for each scene that could not be predicted, with its file.
        warnings: remarks on the results, such as scenes of unusual resolution.
        skipped: names of files that are not scenes.
        path: scenes.csv; None for one shard of several.
        curves: the brightness curves that --stretch applied, in one line; "" for none.
    """

    num_scenes: int
    num_predicted: int
    num_windows: int
    failed: tuple[str, ...]
    warnings: tuple[str, ...]
    skipped: tuple[str, ...]
    path: str | None
    curves: str = ""

    __repr__ = short_repr


def predict_scenes(
    saved_model: str | Predictor,
    scenes: str,
    output_dir: str,
    options: Options = Options(),
    *,
    shard: tuple[int, int] = (0, 1),
    on_error: str = "skip",
    engine: str = "tensorflow",
    runner: Runner = Runner(),
    progress: Progress | bool = True,
) -> ScenesResult:
    """Predicts scenes, and writes files for each scene and a table for all.

    Another call predicts missing and changed scenes; the files are those of a single call.

    Args:
        saved_model: the folder of a version that `serving.export` wrote, or a Predictor of it.
        scenes: a folder, a file, or a pattern with * or ?; see `read.open_scene`.
        output_dir: the folder of the results, and of scenes.csv.
        options: scale, overlap and formats.
        shard: (i, n): predicts every n-th scene from the i-th on; scenes.csv is written if n is 1.
        on_error: "skip" continues after a scene that cannot be predicted, "fail" raises.
        engine: "tensorflow", or "openvino" on the CPU.
        runner: runner of the predictions; each local process loads the model.
        progress: called with (done, total) scenes; True shows a bar in a terminal or notebook.

    Raises:
        FileNotFoundError, ValueError: there is no SavedModel or no scene, an optional package is
            missing, output_dir has results of another model, or another process writes into it;
            or, with "fail", a scene cannot be predicted.
    """
    if on_error not in ("skip", "fail"):
        raise ValueError(f"on_error: got {on_error!r}, expected skip or fail")
    engines.require(engine)
    paths, skipped, twins = read.find(scenes)
    _check_packages(paths, options)
    exclude.require_files(options.land, options.ignore)
    if options.reading.variable and not any(path.lower().endswith(read.ARRAYS) for path in paths):
        raise ValueError(f"variable: {scenes} has no NetCDF or zarr, which have variables")
    if os.path.abspath(output_dir) == os.path.abspath(os.path.dirname(paths[0])):
        raise ValueError(f"{output_dir}: has the scenes themselves; use another folder")
    _raise_if(on_error == "fail", *twins.values())
    files.check_output(os.path.join(output_dir, SCENES_CSV))
    predictor = saved_model
    if not isinstance(predictor, Predictor):
        predictor = Predictor.open(predictor, engine)
    stretches.check(options.reading.stretch, predictor.metadata.dataset)
    if options.min_likeness and predictor.metadata.likeness is None:
        raise ValueError(
            f"min_likeness: {predictor.path} has no likeness; evaluate and export again"
        )
    warnings = [predictor.warning] if predictor.warning else []
    results = Results(output_dir, predictor.identity, options)
    mine = [path for path in paths if path not in twins][shard[0] :: shard[1]]
    is_whole = shard[1] == 1
    with results.open(alone=is_whole, redo=False):
        if is_whole:
            results.remove_gone(mine)
        todo = [path for path in mine if not results.has(path)]
        tell, before = shown(progress, "scene"), len(mine) - len(todo)
        # Closed here, as the garbage collector might close it in another thread.
        steps = _run(predictor, todo, results, runner)
        with contextlib.closing(steps):
            for done, error in steps:
                _raise_if(on_error == "fail", error)
                tell(before + done, len(mine))
        result = _result(results, mine, todo, warnings)
        _raise_if(on_error == "fail", *result.failed)
        return dataclasses.replace(
            result,
            num_scenes=len(mine) + len(twins),
            failed=(*result.failed, *twins.values()),
            skipped=tuple(skipped),
            path=results.write_csv() if is_whole else None,
        )


def _run(
    predictor: Predictor, todo: list[str], results: Results, runner: Runner
) -> Generator[tuple[int, str], None, None]:
    """Predicts scenes; yields the number of finished ones, and the error of the last one, or ""."""
    yield 0, ""
    if runner == Runner():
        errors = _predict_group(todo, predictor, results)
        with contextlib.closing(errors):
            yield from enumerate(errors, start=1)
        return
    size = results.options.batch_size
    groups = [todo[i : i + size] for i in range(0, len(todo), size)]
    # The predictor is not the first, as Dask would call a tuple that begins with a function.
    jobs = [(group, predictor, results) for group in groups]
    runner.run(_predict_whole_group, jobs, len(jobs))
    yield len(todo), ""


def _result(
    results: Results, paths: list[str], todo: list[str], warnings: list[str]
) -> ScenesResult:
    """Summary of these scenes, read back from the results."""
    options = results.options
    num_predicted = num_windows = num_left_out = 0
    failed, warnings, curves, new = [], list(warnings), [], set(todo)
    likeness = {}
    for path in paths:
        piece = results.read(stem(path))
        if piece is None or piece.error:
            failed.append(piece.error if piece else f"{path}: was not predicted")
            continue
        curves.append(piece.value.get("curve", ""))
        if piece.value["warning"]:
            warnings.append(piece.value["warning"])
        likeness[path] = piece.value.get("likeness")
        num_left_out += piece.value.get("left_out", False)
        if path in new:
            num_predicted += 1
            num_windows += piece.value["num_windows"]
    line = stretches.summary(options.reading.stretch, curves, "scene")
    if num_left_out:
        left_out = counted(num_left_out, "scene")
        warnings.append(f"left out {left_out} with a likeness below {options.min_likeness:g}")
    warnings += filter(None, [unlike_warning(likeness, "scene")])
    return ScenesResult(
        len(paths), num_predicted, num_windows, tuple(failed), tuple(warnings), (), None, line
    )


def _check_packages(paths: list[str], options: Options) -> None:
    read.require_packages(paths)
    if "geoparquet" in options.formats:
        files.require("pyarrow", "parquet", "GeoParquet")
    if "picture" in options.formats:
        files.require("matplotlib", "plots", "a picture")


def _raise_if(condition: bool, *errors: str) -> None:
    for error in errors:
        if condition and error:
            raise ValueError(error)


@dataclasses.dataclass(frozen=True)
class _Event:
    """One step of processing a group of scenes.

    Attributes:
        path: path of the scene.
        job: its Job; None if it could not be opened.
        part: an input of the network; None at the end of the scene.
        error: why the scene failed, or None.
    """

    path: str
    job: Job | None = None
    part: Tile | bytes | None = None
    error: Exception | None = None


def _predict_group(
    paths: Sequence[str], predictor: Predictor, results: Results
) -> Generator[str, None, None]:
    """Predicts scenes one after the other.

    Yields, when the result of a scene is stored, the reason why it failed, or "".
    """
    if not paths:
        return
    options = results.options
    model = Network(predictor, options.batch_size)
    batches = _ahead(_batches(_events(paths, model, options), options.batch_size))
    # Scenes are read, predicted and written concurrently.
    answered = _ahead((batch, _predict(model, batch)) for batch in batches)
    with contextlib.closing(batches), contextlib.closing(answered):
        for batch, answers in answered:
            for event in batch:
                if event.part is None:
                    yield _finish(event, results)
                else:
                    assert event.job is not None
                    event.job.add(event.part, *next(answers))


def _predict_whole_group(paths: Sequence[str], predictor: Predictor, results: Results) -> None:
    """Predicts a group of scenes as a job of a `Runner`."""
    for _ in _predict_group(paths, predictor, results):
        pass


def _finish(event: _Event, results: Results) -> str:
    """Writes the files of a scene, or records why it failed; returns that reason, or ""."""
    name, source = stem(event.path), results.source(event.path)
    try:
        if event.error is not None:
            raise event.error
        assert event.job is not None
        prediction = event.job.finish()
        left_out = prediction.likeness < results.options.min_likeness  # False for NaN
        names = {} if left_out else results.file_names(event.path)
        with results.piece(name, source, list(names.values())) as piece:
            piece.value = {
                "path": event.path,
                "rows": write_files(prediction, results.folder, names),
                "num_windows": event.job.num_windows,
                "warning": event.job.warning,
                "curve": event.job.curve.about,
                "likeness": known(prediction.likeness),
                "left_out": bool(left_out),
            }
    except Exception as error:  # from any library, about this scene alone
        line = (str(error).strip().splitlines() or [""])[0]
        if not isinstance(error, (ValueError, OSError)):
            line = f"{type(error).__name__}: {line}"
        line = line if line.startswith(event.path) else f"{event.path}: {line}"
        results.fail(name, source, line)
        return line
    return ""


def _events(
    paths: Sequence[str], model: Network, options: Options
) -> Generator[_Event, None, None]:
    """Reads scenes: yields an event for each window, and one at the end of each scene."""
    for path in paths:
        job = None
        try:
            with open_scene(path, options.reading) as scene:
                job = Job(scene, model, options)
                for part in job.parts():
                    yield _Event(path, job, part)
            yield _Event(path, job)
        except Exception as error:  # from any library; the next scene may work
            yield _Event(path, job, error=error)


def _batches(events: Iterable[_Event], size: int) -> Generator[list[_Event], None, None]:
    """Groups the events of each scene, with at most `size` windows in a group.

    The windows of a scene are never in a call of the network with those of another scene, so that
    its results do not depend on which scenes were predicted before, to the last bit.
    """
    batch: list[_Event] = []
    for event in events:
        batch.append(event)
        if event.part is None or len(batch) == size:
            yield batch
            batch = []


def _ahead(items: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """Yields items while a thread prepares the next one."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            future = pool.submit(next, items, None)
            while (item := future.result()) is not None:
                future = pool.submit(next, items, None)
                yield item
        finally:  # in the same thread, to which the environment of GDAL belongs
            pool.submit(items.close).result()


def _predict(model: Network, batch: Sequence[_Event]) -> Iterator[tuple[Any, Any, float]]:
    """Probabilities, masks and likeness of each window of a batch, in order."""
    parts = [event.part for event in batch if event.part is not None]
    if not parts:
        return iter(())
    if isinstance(parts[0], bytes):
        answers = model.predict_file(parts[0])
    else:
        answers = model.predict_tiles(parts)  # type: ignore
    return zip(answers.probabilities, answers.masks, map(float, answers.likeness))
