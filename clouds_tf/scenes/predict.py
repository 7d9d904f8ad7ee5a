"""Runs a SavedModel over georeferenced scenes of any size; resumable."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from clouds_tf import figures, files
from clouds_tf.data import runners
from clouds_tf.figures.scenes import scene_maps
from clouds_tf.prediction import engine as engines
from clouds_tf.prediction import loading
from clouds_tf.scenes import cards, masks, network, read
from clouds_tf.scenes.cards import Card
from clouds_tf.scenes.jobs import Frame, Job, Options
from clouds_tf.scenes.network import Network
from clouds_tf.scenes.read import open_scene
from clouds_tf.scenes.tiles import Tile

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class ScenesResult:
    """What `predict_scenes` did.

    Attributes:
        num_scenes: scenes of this shard.
        num_predicted: those that were predicted now; the others had been before.
        num_windows: windows of the scenes that were predicted now.
        failed: the reason for each scene that could not be predicted; each names its file.
        warnings: what a reader of the results should know.
        skipped: names of files that are no scenes.
        path: scenes.csv; None for one shard of several.
    """

    num_scenes: int
    num_predicted: int
    num_windows: int
    failed: tuple[str, ...]
    warnings: tuple[str, ...]
    skipped: tuple[str, ...]
    path: str | None


def predict_scenes(
    saved_model: str,
    scenes: str,
    output_dir: str,
    options: Options = Options(),
    *,
    shard: tuple[int, int] = (0, 1),
    on_error: str = "skip",
    engine: str = "tensorflow",
    runner: str = "local",
    beam_options: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScenesResult:
    """Predicts scenes, and writes files for each and a row for each scene and class.

    Called again, it predicts what is missing or has changed; the bytes are those of one call.

    Args:
        saved_model: the folder of a version that `serving.export` wrote, such as E/1.
        scenes: a folder, a file, or a pattern with * or ?; see `read.open_scene`.
        output_dir: the folder of the results, and of scenes.csv.
        options: scale, overlap and formats.
        shard: (i, n): predicts every n-th scene from the i-th on; scenes.csv is written if n is 1.
        on_error: "skip" goes on after a scene that cannot be predicted, "fail" raises.
        engine: "tensorflow", or "openvino" on the CPU.
        runner: "local" for this process, or an Apache Beam runner, such as "direct" or "dask".
        beam_options: options of that runner, such as ["--project=P"].
        progress: called with the number of scenes done and of all.

    Returns:
        A ScenesResult.

    Raises:
        FileNotFoundError, ValueError: there is no SavedModel or no scene, an optional package is
            missing, output_dir holds results of another model; or, under "fail", the reason why a
            scene cannot be predicted.
    """
    if on_error not in ("skip", "fail"):
        raise ValueError(f"on_error: got {on_error!r}, expected skip or fail")
    engines.require(engine)
    paths, skipped, twins = read.find(scenes)
    paths = [path for path in paths if path not in twins]
    _check_packages(paths, options)
    if os.path.abspath(output_dir) == os.path.abspath(os.path.dirname(paths[0])):
        raise ValueError(f"{output_dir}: holds the scenes themselves; take another folder")
    files.check_output(os.path.join(output_dir, cards.SCENES_CSV))
    fingerprint, warnings = loading.fingerprint(saved_model), []
    if engine != "tensorflow":  # which may not work here; a folder holds scenes of one engine
        model = network.load(saved_model, options.batch_size, engine)
        fingerprint, warnings = model.fingerprint, [model.warning] if model.warning else []
    cards.check_settings(output_dir, fingerprint, options)
    mine = paths[shard[0] :: shard[1]]
    cards.remove_leftovers(output_dir, {read.stem(path) for path in mine})
    todo = [p for p in mine if not cards.is_done(p, output_dir, fingerprint, options)]
    for done, card in _run(saved_model, todo, output_dir, options, engine, runner, beam_options):
        _raise_if(on_error == "fail", card)
        progress(len(mine) - len(todo) + done, len(mine))
    result = _result(output_dir, mine, todo, skipped, warnings)
    _raise_if(on_error == "fail", *result.failed)
    path = cards.write_csv(output_dir) if shard[1] == 1 else None
    return dataclasses.replace(result, path=path)


def _run(
    saved_model: str,
    todo: list[str],
    output_dir: str,
    options: Options,
    engine: str,
    runner: str,
    beam_options: Sequence[str],
) -> Iterator[tuple[int, str | None]]:
    """Predicts scenes; yields how many are done, and the error of the last one."""
    yield 0, None
    if runner == "local":
        cards_done = predict_group(saved_model, todo, output_dir, options, engine)
        for i, card in enumerate(cards_done):
            yield i + 1, card.error
        return
    size = options.batch_size
    groups = [todo[i : i + size] for i in range(0, len(todo), size)]
    jobs = [(saved_model, group, output_dir, options, engine) for group in groups]
    runners.run_in_beam(_predict_whole_group, jobs, runner, beam_options)
    yield len(todo), None


def _result(
    output_dir: str, paths: list[str], todo: list[str], skipped: list[str], warnings: list[str]
) -> ScenesResult:
    """What the cards of scenes say."""
    found = {path: cards.read_card(output_dir, read.stem(path)) for path in paths}
    new = [found[path] for path in todo]
    warnings = warnings + [card.warning for card in found.values() if card and card.warning]
    return ScenesResult(
        num_scenes=len(paths),
        num_predicted=sum(card is not None and card.error is None for card in new),
        num_windows=sum(card.num_windows for card in new if card),
        failed=tuple(card.error for card in found.values() if card and card.error),
        warnings=tuple(warnings),
        skipped=tuple(skipped),
        path=None,
    )


def _check_packages(paths: list[str], options: Options) -> None:
    read.require_packages(paths)
    if "geoparquet" in options.formats:
        files.require("pyarrow", "parquet", "GeoParquet")
    if "picture" in options.formats:
        files.require("matplotlib", "plots", "a picture")


def _raise_if(condition: bool, *errors: str | None) -> None:
    for error in errors:
        if condition and error is not None:
            raise ValueError(error)


@dataclasses.dataclass(frozen=True)
class _Event:
    """What happens next on the way through a group of scenes.

    Attributes:
        path: of the scene.
        job: its Job; None where it could not be opened.
        part: what the network has to see; None at the end of the scene.
        error: why the scene failed, or None.
    """

    path: str
    job: Job | None = None
    part: Tile | Frame | None = None
    error: str | None = None


def predict_group(
    saved_model: str,
    paths: Sequence[str],
    output_dir: str,
    options: Options,
    engine: str = "tensorflow",
) -> Iterator[Card]:
    """Predicts scenes one after the other, with windows of several in a batch.

    Args:
        saved_model: the folder of a version.
        paths: of scenes.
        output_dir: the folder of the results.
        options: scale, overlap and formats.
        engine: "tensorflow", or "openvino" on the CPU.

    Yields:
        The Card of each scene, when its files and the card have been written.
    """
    if not paths:
        return
    model = network.load(saved_model, options.batch_size, engine)
    batches = _ahead(_batches(_events(paths, model, options), options.batch_size))
    # Scenes are read, predicted and written at the same time.
    for batch, answers in _ahead((batch, _predict(model, batch)) for batch in batches):
        for event in batch:
            if event.part is not None:
                assert event.job is not None
                event.job.add(event.part, *next(answers))
                continue
            made_from = cards.made_from(event.path, model.fingerprint, options)
            name = read.stem(event.path)
            if event.job is None or event.error:
                card = Card(name, made_from, error=event.error)
            else:
                prediction = event.job.finish()
                rows = _write(prediction, output_dir, options)
                size, warning = event.job.num_windows, event.job.warning
                card = Card(name, made_from, rows, size, warning)
            cards.write_card(output_dir, card)
            yield card


def _predict_whole_group(
    saved_model: str, paths: Sequence[str], output_dir: str, options: Options, engine: str
) -> None:
    """A job of a pipeline."""
    for _ in predict_group(saved_model, paths, output_dir, options, engine):
        pass


def _events(paths: Sequence[str], model: Network, options: Options) -> Iterator[_Event]:
    """Reads scenes: an event for each window of each, and one at its end."""
    for path in paths:
        job = None
        try:
            with open_scene(path, options.reading) as scene:
                job = Job(scene, model, options)
                for part in job.parts():
                    yield _Event(path, job, part)
            yield _Event(path, job)
        except (ValueError, OSError) as error:
            yield _Event(path, job, error=str(error))


def _batches(events: Iterable[_Event], size: int) -> Iterator[list[_Event]]:
    """Groups events so that each group has at most `size` windows, of one kind."""
    batch: list[_Event] = []
    kind, count = None, 0
    for event in events:
        if event.part is not None:
            if count == size or kind not in (None, type(event.part)):
                yield batch
                batch, count = [], 0
            kind, count = type(event.part), count + 1
        batch.append(event)
    if batch:
        yield batch


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Yields items while a thread prepares the next one."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, items, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, items, None)
            yield item


def _predict(model: Network, batch: Sequence[_Event]) -> Iterator[tuple[Any, Any]]:
    """Probabilities and presence of each window of a batch, in order."""
    parts = [event.part for event in batch if event.part is not None]
    if not parts:
        return iter(())
    if isinstance(parts[0], Frame):
        answers = model.predict_files([part.content for part in parts])  # type: ignore
    else:
        answers = model.predict_tiles([part.pixels for part in parts])  # type: ignore
    return zip(answers.probabilities, answers.present)


def draw(*predictions: masks.Prediction, num_columns: int = 1) -> Any:
    """Draws scenes with their masks, coordinates on the axes: a matplotlib Figure."""
    return scene_maps(
        [
            {
                "title": f"{prediction.name}\n{prediction.date:%Y-%m-%d} {prediction.platform}",
                "image": prediction.image,
                "masks": prediction.masks & prediction.observed,
                "observed": prediction.observed,
                "extent": prediction.grid.extent,
                "class_names": prediction.class_names,
            }
            for prediction in predictions
        ],
        num_columns,
    )


def _write(
    prediction: masks.Prediction, output_dir: str, options: Options
) -> tuple[tuple[Any, ...], ...]:
    """Writes all files of a scene; gives its rows of scenes.csv."""
    from clouds_tf.scenes import geoparquet, write

    found = masks.objects_of(prediction)
    writers: dict[str, Callable[[str], None]] = {
        "netcdf": lambda path: write.write_netcdf(path, prediction),
        "cog": lambda path: write.write_cog(path, prediction, path + ".scratch"),
        "geojson": lambda path: write.write_geojson(path, write.features(prediction, found)),
        "geoparquet": lambda path: geoparquet.write_geoparquet(
            path, write.features(prediction, found)
        ),
        "picture": lambda path: figures.save(draw(prediction), path),
    }
    with tempfile.TemporaryDirectory() as folder:
        for key, path in cards.outputs(output_dir, prediction.name, options).items():
            local = os.path.join(folder, os.path.basename(path))
            writers[key](local)
            with files.written_whole(path) as temporary:
                tf.io.gfile.copy(local, temporary)
    areas = masks.measure(prediction, [len(objects) for objects, _ in found])
    return cards.rows(prediction, areas)
