import functools
import json
import os
import shutil
import threading

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from programs import start_program
from shared_fixtures import real_data

from clouds_tf.data import (
    annotations,
    batching,
    examples,
    input_pipeline,
    records,
    records_info,
    shards,
)
from clouds_tf.data.examples import _ENCODED_KEY
from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS

pytestmark = pytest.mark.slow

CLASS_NAMES = CLOUDS.class_names

SIZE = (28, 42)


def _full_decode(rle, height=1400, width=2100):
    """The usual numpy way, at full size."""
    mask = np.zeros(height * width, np.uint8)
    numbers = np.array(rle.split(), dtype=int)
    for start, length in zip(numbers[::2] - 1, numbers[1::2]):
        mask[start : start + length] = 1
    return mask.reshape(width, height).T


def _nearest(mask, size):
    rows = ((np.arange(size[0]) + 0.5) * mask.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * mask.shape[1] / size[1]).astype(int)
    return mask[np.ix_(rows, columns)]


def _keys(batches):
    """One number per image, the same for all its mirror images."""
    return [int(np.sum(image)) for images, _ in batches for image in images]


def _training(records_dir, folds=(0, 1, 2), batch_size=5, epochs=1, **arguments):
    return input_pipeline.training_batches(
        records_dir, list(folds), SIZE, batch_size, epochs, **arguments
    )


@functools.lru_cache(maxsize=None)
def _shown(records_dir, **arguments):
    """All batches of a training as numpy; each takes a second, mostly to trace."""
    return list(_training(records_dir, **arguments).as_numpy_iterator())


@functools.lru_cache(maxsize=None)
def _held_out(records_dir, *folds):
    """Images and masks of folds, as validation shows them."""
    batches = Records.open(records_dir).held_out_batches(list(folds), SIZE, 12)
    return [np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator())]


def _write_one_shard(data_dir, records_dir):
    shards.write_records(
        str(data_dir), str(records_dir), CLOUDS, num_shards=1, num_folds=2, num_workers=1
    )


def test_folds_are_split(records_dir):
    assert Records.open(records_dir).split(1) == ([0, 2], [1])
    for fold in (-1, 3):
        with pytest.raises(ValueError, match=f"fold: got {fold}, expected 0 to 2"):
            Records.open(records_dir).split(fold)


@given(num_examples=st.integers(1, 500), batch_size=st.integers(1, 100))
def test_batches_are_few_and_even(num_examples, batch_size):
    sizes = [end - start for start, end in batching.slices(num_examples, batch_size)]
    assert sum(sizes) == num_examples and len(sizes) == -(-num_examples // batch_size)
    assert 1 <= min(sizes) and max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1


@given(
    num_examples=st.integers(1, 200), batch_size=st.integers(1, 50), num_workers=st.integers(1, 6)
)
def test_the_slices_of_all_workers_are_the_batches(num_examples, batch_size, num_workers):
    sizes = [end - start for start, end in batching.slices(num_examples, batch_size)]
    if min(sizes) < num_workers:
        with pytest.raises(ValueError, match=f"batch_size: got {batch_size}, which divides"):
            batching.slices(num_examples, batch_size, 0, num_workers)
        return
    parts = [
        batching.slices(num_examples, batch_size, worker, num_workers)
        for worker in range(num_workers)
    ]
    shown = [i for batch in zip(*parts) for start, end in batch for i in range(start, end)]
    assert shown == list(range(num_examples))
    for size, batch in zip(sizes, zip(*parts)):
        lengths = [end - start for start, end in batch]
        assert sum(lengths) == size and max(lengths) - min(lengths) <= 1


def _assert_parts_make_up(whole, make, num_workers):
    parts = [
        list(make(worker=i, num_workers=num_workers).as_numpy_iterator())
        for i in range(num_workers)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    for expected, *batch in zip(whole, *parts):
        for one, several in zip(expected, zip(*batch)):
            np.testing.assert_array_equal(np.concatenate(several), one)


@pytest.mark.lanes
@pytest.mark.parametrize(
    "num_workers, arguments",
    [(2, {}), (2, {"mix": "cutmix", "cache": "memory"}), (3, {"mix": "mixup"})],
)
def test_workers_together_see_what_one_sees_in_batches_that_are_not_repeated(
    records_dir, num_workers, arguments
):
    arguments = {"epochs": 2, "batch_size": 7, "seed": 5, **arguments}
    make = functools.partial(_training, records_dir, **arguments)
    whole = list(make().as_numpy_iterator())
    _assert_parts_make_up(whole, make, num_workers)
    assert len({images.tobytes() for images, _ in whole}) == len(whole) == 4


def test_workers_together_validate_what_one_does(records_dir):
    make = functools.partial(Records.open(records_dir).held_out_batches, [0, 2], SIZE, 5)
    _assert_parts_make_up(list(make().as_numpy_iterator()), make, 2)


def test_a_worker_decodes_its_own_examples_alone(data_dir, tmp_path):
    """Not one of the others: theirs are no JPEGs here."""
    _write_one_shard(data_dir, tmp_path)
    path = next(tmp_path.glob("*.tfrecord"))
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, record in enumerate(records):
            example = tf.train.Example.FromString(record)
            encoded = example.features.feature[_ENCODED_KEY].bytes_list.value
            encoded[0] = encoded[0] if i % 4 < 2 else b"x" * len(encoded[0])
            writer.write(example.SerializeToString(deterministic=True))
    for worker in range(2):
        batches = Records.open(str(tmp_path)).held_out_batches(
            [0, 1], SIZE, 4, worker=worker, num_workers=2
        )
        if worker == 0:
            assert [len(images) for images, _ in batches] == [2, 2, 2]
        else:
            with pytest.raises(tf.errors.InvalidArgumentError):
                next(iter(batches))


@pytest.fixture
def damaged_dir(records_dir, tmp_path):
    """A copy of the records with a byte changed in the last record of one shard, and its path."""
    folder = shutil.copytree(records_dir, tmp_path / "records")
    path = sorted(folder.glob("*.tfrecord"))[2]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    return str(folder), path


def _batch_makers(records_dir):
    return (
        lambda: _training(records_dir),
        lambda: _training(records_dir, cache="memory"),
        lambda: Records.open(records_dir).held_out_batches([0, 1, 2], SIZE, 5),
    )


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(records_info, "_PAUSE", 0.01)


def test_a_corrupted_shard_is_named_when_it_is_read(damaged_dir, no_pause):
    folder, path = damaged_dir
    for make in _batch_makers(folder):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=f"{path}: damaged: no whole record"
        ):
            list(make())


def test_a_truncated_shard_is_named(damaged_dir):
    """Truncated between two records, it could be read without an error."""
    folder, path = damaged_dir
    length = path.stat().st_size
    whole = next(iter(tf.data.TFRecordDataset(str(path))))
    os.truncate(path, 16 + len(whole.numpy()))  # a record has 16 bytes of length and checksums
    assert len(list(tf.data.TFRecordDataset(str(path)))) == 1
    for make in _batch_makers(folder):
        with pytest.raises(ValueError, match=f"{path}: has .* bytes, expected {length}"):
            make()


def test_a_shard_that_is_truncated_later_is_named(damaged_dir, no_pause):
    folder, path = damaged_dir
    datasets = [make() for make in _batch_makers(folder)]
    os.truncate(path, 0)
    for dataset in datasets:
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=f"{path}: damaged: no whole record"
        ):
            list(dataset)


def test_a_worker_too_many_is_refused(records_dir):
    with pytest.raises(ValueError, match="worker: got 2, expected 0 to 1"):
        _training(records_dir, worker=2, num_workers=2)


def test_training_and_held_out_images_make_up_all(records_dir):
    held_out = _keys([_held_out(records_dir, 1)])
    everything = sorted(_keys([_held_out(records_dir, 0, 1, 2)]))
    assert len(set(everything)) == 12 and len(held_out) == 4
    folds, _ = Records.open(records_dir).split(1)
    seen = _keys(_training(records_dir, folds))
    assert len(seen) == Records.open(records_dir).info.count(folds)
    assert sorted(seen + held_out) == everything


@pytest.mark.lanes
def test_every_epoch_shows_every_image_once_in_a_new_order(records_dir):
    assert Records.open(records_dir).steps_per_epoch([0, 1, 2], 5) == 3
    batches = _shown(records_dir, epochs=4)
    assert [len(images) for images, _ in batches] == [4, 4, 4] * 4
    keys = _keys(batches)
    epochs = [keys[i : i + 12] for i in range(0, 48, 12)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1


def test_flips_change_from_epoch_to_epoch_and_move_the_mask_too(records_dir):
    def by_key(epoch):
        batches = _shown(records_dir, epochs=4)[3 * epoch : 3 * epoch + 3]
        pairs = [pair for batch in batches for pair in zip(*batch)]
        return {int(image.sum()): (image, mask) for image, mask in pairs}

    first, second = by_key(0), by_key(1)
    changed = 0
    for key, (image, mask) in first.items():
        other_image, other_mask = second[key]
        mirrors = [
            (down, across)
            for down in (1, -1)
            for across in (1, -1)
            if (image[::down, ::across] == other_image).all()
        ]
        assert len(mirrors) == 1
        down, across = mirrors[0]
        np.testing.assert_array_equal(mask[::down, ::across], other_mask)
        changed += (down, across) != (1, 1)
    assert changed > 0


def test_the_order_of_an_epoch_is_drawn_over_all_images():
    """Neither the epoch before nor the order in the shards says where an image comes."""
    count = 5546
    epochs = [records._order(count, 0, tf.constant(epoch)).numpy() for epoch in range(4)]
    places = np.array([np.argsort(order) for order in epochs])
    correlations = np.corrcoef([*places, np.arange(count)])
    assert np.abs(correlations - np.eye(5)).max() < 0.05
    assert (np.sort(epochs, axis=1) == np.arange(count)).all()


def test_another_seed_gives_another_order(records_dir):
    first_epoch = _shown(records_dir, epochs=4)[:3]  # of seed 0
    assert _keys(first_epoch) != _keys(_training(records_dir, seed=1))


def test_records_of_earlier_versions_have_no_offsets(records_dir, tmp_path):
    folder = shutil.copytree(records_dir, tmp_path / "records")
    info = json.loads((folder / "dataset_info.json").read_text())
    for shard in info["shards"]:
        assert len(shard.pop("offsets").split()) == shard["num_examples"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    expected, found = (_keys(_training(path, [0, 2])) for path in (records_dir, str(folder)))
    assert found == expected


def test_a_shard_that_cannot_be_opened_is_named(records_dir, tmp_path, monkeypatch):
    """After a few tries; with ignore_errors it would be tried for ever."""
    monkeypatch.setattr(records_info, "_PAUSE", 0.1)
    folder = shutil.copytree(records_dir, tmp_path / "records")
    batches = _training(str(folder), batch_size=12)
    path = sorted(folder.glob("*.tfrecord"))[2]
    hidden = path.rename(tmp_path / "hidden")
    with pytest.raises(tf.errors.NotFoundError, match=f"{path}; No such file"):
        list(batches)
    # An outage ends while a record is read.
    timer = threading.Timer(0.3, lambda: hidden.rename(path))
    timer.start()
    assert len(next(iter(batches))[0]) == 12
    timer.join()


def test_augmentation_can_be_left_out(records_dir):
    expected, _ = _held_out(records_dir, 0, 1, 2)
    unchanged = _training(records_dir, augmentation="none")
    shown = np.concatenate([images for images, _ in unchanged.as_numpy_iterator()])
    assert sorted(x.tobytes() for x in shown) == sorted(x.tobytes() for x in expected)


@pytest.mark.lanes
def test_masks_are_those_of_the_csv(data_dir, records_dir):
    table = annotations.read_csv(str(data_dir / "train.csv"), CLOUDS).set_index("filename")
    for size in (SIZE, (350, 525)):
        dataset = Records.open(records_dir).held_out_batches([0], SIZE, 2, mask_size=size)
        assert dataset.element_spec == (
            tf.TensorSpec([None, *SIZE, 3], tf.uint8),
            tf.TensorSpec([None, *size, 4], tf.uint8),
        )
        found = sorted(m.tobytes() for _, masks in dataset.as_numpy_iterator() for m in masks)
        expected = []
        for shard in Records.open(records_dir).info.shards:
            for record in tf.data.TFRecordDataset(f"{records_dir}/{shard.file}"):
                parsed = examples.parse_example(record)
                if parsed["fold"] == 0:
                    row = table.loc[parsed["filename"].numpy().decode()]
                    masks = [_nearest(_full_decode(row[name]), size) for name in CLASS_NAMES]
                    expected.append(np.stack(masks, axis=-1).tobytes())
        assert found == sorted(expected)


def test_native_images_with_their_masks(tmp_path):
    folder = real_data("clouds_native")
    _write_one_shard(folder, tmp_path)
    table = annotations.read_csv(str(folder / "train.csv"), CLOUDS).set_index("filename")
    dataset = Records.open(str(tmp_path)).held_out_batches([0, 1], (320, 480), 2, (320, 480))
    ((images, masks),) = dataset.as_numpy_iterator()
    for filename, row in table.iterrows():
        full = cv2.imread(str(folder / "train_images" / filename))[..., ::-1]
        small = cv2.resize(full, (480, 320), interpolation=cv2.INTER_AREA).astype(int)
        index = int(np.argmin([np.abs(image - small).mean() for image in images]))
        assert np.abs(images[index] - small).mean() < 6
        for i, name in enumerate(CLASS_NAMES):
            expected = _nearest(_full_decode(row[name]), (320, 480))
            np.testing.assert_array_equal(masks[index, ..., i], expected)


@pytest.mark.lanes
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_cache_changes_nothing(records_dir, tmp_path, cache):
    arguments = {"epochs": 3, "augmentation": "baseline", "batch_size": 12}
    plain = _shown(records_dir, **arguments)
    for _ in range(2 if cache == "disk" else 1):  # then, what is on disk is there already
        batches = _training(records_dir, **arguments, cache=cache, cache_dir=str(tmp_path))
        cached = list(batches.as_numpy_iterator())
        assert len(cached) == len(plain) == 3
        for one, other in zip(plain, cached):
            for expected, found in zip(one, other):
                np.testing.assert_array_equal(found, expected)
    assert bool(list(tmp_path.iterdir())) == (cache == "disk")


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_an_image_in_a_cache_is_decoded_once(records_dir, tmp_path, monkeypatch, cache):
    """Also by each of two workers, none of which sees a whole epoch."""
    count, load = tf.Variable(0), records.load_example

    def counted(*args, **kwargs):
        with tf.control_dependencies([count.assign_add(1)]):
            return {name: tf.identity(x) for name, x in load(*args, **kwargs).items()}

    monkeypatch.setattr(records, "load_example", counted)
    monkeypatch.setattr(records, "_PARALLEL_READS", 1)  # or epochs of 12 images would overlap
    decoded = []
    for worker in (0, 1, 1):
        count.assign(0)
        arguments = {"cache": cache, "cache_dir": str(tmp_path), "num_workers": 2}
        batches = _training(records_dir, epochs=8, batch_size=4, worker=worker, **arguments)
        assert sum(len(images) for images, _ in batches) == 8 * 6
        decoded.append(count.numpy())
    again = {"none": 48, "memory": 12, "disk": 0}[cache]
    assert decoded == [48 if cache == "none" else 12] * 2 + [again]


def test_a_cache_belongs_to_records_folds_and_size(records_dir, tmp_path):
    def shapes(folds, size):
        batches = input_pipeline.training_batches(
            records_dir, folds, size, 12, 1, cache="disk", cache_dir=str(tmp_path)
        )
        return [images.shape for images, _ in batches]

    assert shapes([0, 1, 2], (28, 42)) == [(12, 28, 42, 3)]
    assert shapes([0, 1, 2], (28, 4)) == [(12, 28, 4, 3)]
    assert shapes([0, 1], (28, 42)) == [(8, 28, 42, 3)]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cache_of_a_killed_run_is_completed(records_dir, tmp_path):
    """SIGKILL in the middle of the first epoch; as long as that run lives, another is refused."""
    folder = str(tmp_path)
    code = f"""
import time
from clouds_tf.data import input_pipeline

arguments = {records_dir!r}, [0, 1, 2], {SIZE}, 3, 1
batches = input_pipeline.training_batches(*arguments, cache="disk", cache_dir={folder!r})
next(iter(batches))
print("caching", flush=True)
time.sleep(600)
"""
    child = start_program("-c", code)
    try:
        assert child.stdout.readline() == "caching\n"
        written = sorted(tmp_path.glob("*/*-0"))
        os.truncate(written[0], 100)  # as if killed while it was written
        os.remove(written[1])
        with pytest.raises(ValueError, match="cache_dir: another run is filling .*; wait until"):
            _training(records_dir, cache="disk", cache_dir=folder)
    finally:
        child.kill()
        child.communicate()
    cached = _training(records_dir, cache="disk", cache_dir=folder)
    assert sorted(_keys(cached)) == sorted(_keys(_shown(records_dir, epochs=4)[:3]))


def test_a_cache_on_disk_needs_a_folder(records_dir):
    for folder, got in ((None, "nothing"), ("gs://bucket/cache", "gs://bucket/cache")):
        with pytest.raises(ValueError, match=f"cache_dir: got {got}, expected a folder"):
            _training(records_dir, cache="disk", cache_dir=folder)


@pytest.fixture
def data_service():
    """The address of a tf.data service of two workers in this process."""
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [
        service.WorkerServer(service.WorkerConfig(address, heartbeat_interval_ms=100))
        for _ in range(2)
    ]
    yield dispatcher.target
    del workers


@pytest.mark.lanes
def test_a_data_service_shows_the_same_images_in_each_epoch(records_dir, data_service):
    arguments = {"batch_size": 5, "epochs": 3, "initial_epoch": 1, "augmentation": "baseline"}

    def epochs(**more):
        batches = list(_training(records_dir, **arguments, **more).as_numpy_iterator())
        assert [len(images) for images, _ in batches] == [4] * 6
        pairs = [image.tobytes() + mask.tobytes() for b in batches for image, mask in zip(*b)]
        return [sorted(pairs[i : i + 12]) for i in (0, 12)]

    assert epochs(data_service=data_service) == epochs()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"data_service": "localhost:5050"}, "got 'localhost:5050', expected grpc://host:port"),
        ({"data_service": "grpc://localhost:1"}, "nothing listens at grpc://localhost:1: "),
        ({"data_service": "grpc://h:1", "cache": "memory"}, "expected no cache and 1 worker"),
        ({"data_service": "grpc://h:1", "num_workers": 2}, "expected no cache and 1 worker"),
    ],
)
def test_a_data_service_that_cannot_work_is_refused(records_dir, arguments, message):
    with pytest.raises(ValueError, match=f"^data_service: .*{message}"):
        _training(records_dir, **arguments)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_the_files_of_a_batch_are_named(records_dir, cache):
    # The images of an epoch differ, so a batch is known by them.
    images, _ = _held_out(records_dir, 0, 1, 2)
    named = {image.tobytes(): index for index, image in enumerate(images)}
    everything = list(
        tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(records_dir + "/*.tfrecord")))
    )
    names = [examples.parse_example(record)["filename"].numpy().decode() for record in everything]
    batches = input_pipeline.training_batches(
        records_dir, [0, 1, 2], SIZE, 5, 2, seed=3, augmentation="none", cache=cache
    )
    for number, (images, _) in enumerate(batches):
        epoch, step = divmod(number, 3)
        found = Records.open(records_dir).batch_names([0, 1, 2], 5, 3, epoch, step)
        assert found == [names[named[image.numpy().tobytes()]] for image in images]


@pytest.mark.lanes
@pytest.mark.parametrize("more", [{}, {"mix": "mixup", "cache": "memory"}])
def test_a_resumed_run_sees_what_an_undisturbed_one_sees(records_dir, more):
    arguments = {"epochs": 3, "batch_size": 7, "seed": 7, **more}
    tf.random.set_seed(1)
    whole = list(_training(records_dir, **arguments).as_numpy_iterator())
    tf.random.set_seed(2)
    resumed = _training(records_dir, **arguments, initial_epoch=1, initial_step=1)
    rest = list(resumed.as_numpy_iterator())
    assert [len(images) for images, _ in whole] == [6] * 6 and len(rest) == 3
    for expected, found in zip(whole[3:], rest):
        for one, other in zip(expected, found):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 0}, "batch_size: got 0, expected at least 1"),
        ({"augmentation": "foo"}, "augmentation: got 'foo', expected one of baseline, flips, "),
        ({"mix": "foo"}, "mix: got 'foo', expected one of none, mixup, cutmix"),
        ({"cache": "tape"}, "cache: got 'tape', expected one of none, memory, disk"),
        ({"epochs": 0}, "epochs: got 0, expected at least 1"),
        ({"initial_epoch": 2}, "epoch: got 2, expected 0 to 1"),
        ({"initial_step": 4}, "step: got 4, expected 0 to 3"),
        ({"folds": ()}, "folds: got folds without images"),
        ({"folds": (0, 3)}, r"folds: got \[0, 3\], expected some of 0 to 2, each once"),
        ({"folds": (1, 1)}, r"folds: got \[1, 1\], expected some of 0 to 2, each once"),
        ({"data_service": "grpc://h:1", "initial_step": 1}, "data_service: .*in no fixed order"),
    ],
)
def test_impossible_arguments_are_named(records_dir, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        _training(records_dir, **arguments)
    if "batch_size" in arguments:
        with pytest.raises(ValueError, match=message):
            Records.open(records_dir).held_out_batches([0], SIZE, **arguments)


@pytest.mark.parametrize("size", [(0, 4), (4,)])
def test_impossible_sizes_are_named(records_dir, size):
    with pytest.raises(ValueError, match=r"^image_size: got .*, expected \(height, width\)"):
        input_pipeline.training_batches(records_dir, [0], size, 4, 1)
    with pytest.raises(ValueError, match=r"^mask_size: got .*, expected \(height, width\)"):
        Records.open(records_dir).held_out_batches([0], SIZE, 4, mask_size=size)


def test_the_first_held_out_files_are_those_of_the_first_batch(records_dir, data_dir):
    names = Records.open(records_dir).first_names([1], 2)
    images, _ = next(iter(Records.open(records_dir).held_out_batches([1], (140, 210), 2)))
    for name, image in zip(names, images):
        encoded = (data_dir / "train_images" / name).read_bytes()
        expected = tf.io.decode_jpeg(encoded, 3).numpy().astype(float)
        assert abs(image.numpy() - expected).mean() < 2  # chroma is upsampled in another way
    assert len(set(names)) == len(images) == 2
