import dataclasses
import json
import os
import subprocess
import sys
from typing import Optional, Tuple

import pytest
from absl import flags
from programs import run_tool
from shared_fixtures import REPOSITORY

from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.geo import Extent, parse_extent
from clouds_tf.messages import about_the_data
from clouds_tf.settings import CheckedSettings, setting

sys.path.insert(0, str(REPOSITORY / "tools"))
import cli  # noqa: E402

SIZE = cli.DEFINE_size("a_size_of_test_cli", (320, 480), "A size.")


@pytest.mark.parametrize("text, size", [("1400,2100", (1400, 2100)), (" 1, 2", (1, 2))])
def test_a_size_is_read_as_height_and_width(text, size):
    flags.FLAGS(["test", f"--a_size_of_test_cli={text}"])
    assert SIZE.value == size
    assert (
        flags.FLAGS["a_size_of_test_cli"].serialize() == f"--a_size_of_test_cli={size[0]},{size[1]}"
    )


@pytest.mark.parametrize("text", ["320x480", "320", "1,2,3", "0,5", "-1,5", "a,b", ""])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(flags.IllegalFlagValueError, match="expected height,width such as 320,480"):
        flags.FLAGS(["test", f"--a_size_of_test_cli={text}"])


def test_numbers_are_separated_by_commas():
    assert cli.numbers("folds", "0,2") == (0, 2)
    assert cli.numbers("value_range", "0.5, 2", float) == (0.5, 2)
    with pytest.raises(ValueError, match="--folds: got 0;2, expected comma-separated numbers"):
        cli.numbers("folds", "0;2")


@pytest.mark.parametrize(
    "message, line",
    [
        ("a.jpg; No such file", "a.jpg; No such file"),
        ("{{function_node __wrapped__X}} Input is empty. [Op:DecodeJpeg]", "Input is empty."),
        (
            "Graph execution error:\n\nDetected at node X defined at (most recent call last):\n"
            "<stack traces unavailable>\ncycle_length must be 2\n\t [[{{node X}}]]",
            "cycle_length must be 2",
        ),
        (
            "Graph execution error:\n\n2 root error(s) found.\n  (0) INVALID_ARGUMENT:  bad depth\n"
            "\t [[{{node X}}]]\n  (1) CANCELLED: other",
            "bad depth",
        ),
        (
            "{{function_node __wrapped__IteratorGetNext}} assertion failed: [R/a.tfrecord: damaged]"
            "\n\t [[{{node Assert}}]] [Op:IteratorGetNext]",
            "R/a.tfrecord: damaged",
        ),
    ],
)
def test_an_error_of_tensorflow_becomes_one_line(message, line):
    assert about_the_data(message) == line


def test_an_interpreter_without_the_packages_is_told_in_one_line():
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-S", REPOSITORY / "tools" / "make_tfrecords.py"],  # no site-packages
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert len(found.stderr.splitlines()) == 1
    assert "lacks absl, tensorflow" in found.stderr
    assert "source .venv/bin/activate" in found.stderr


@pytest.mark.parametrize("program, frozen", [("predict", "1"), ("train", None), ("export", None)])
def test_weights_are_frozen_only_where_they_never_change(program, frozen):
    name = "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"
    code = f"import os, sys; sys.argv = ['{program}.py']; import cli; "
    code += f"print(os.environ.get('{name}'))"
    # At another level of messages, cli leaves the import of TensorFlow to the program.
    environment = {k: v for k, v in os.environ.items() if k != name} | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    command = [sys.executable, "-c", code]
    found = subprocess.check_output(command, env=environment, cwd=REPOSITORY / "tools", text=True)
    assert found == f"{frozen}\n"


@dataclasses.dataclass(frozen=True, repr=False)
class _Settings(CheckedSettings):
    """One field of every type."""

    a_rate: float = dataclasses.field(default=0.5, metadata={"help": "A rate.", "min": 0, "max": 1})
    a_count: Optional[int] = dataclasses.field(default=None, metadata={"help": "A.", "min": 1})
    a_switch: bool = dataclasses.field(default=False, metadata={"help": "A switch."})
    a_choice: str = dataclasses.field(default="x", metadata={"help": "A.", "choices": ("x", "y")})
    a_name: Optional[str] = dataclasses.field(default=None, metadata={"help": "A name."})
    some_texts: Tuple[str, ...] = dataclasses.field(default=("a",), metadata={"help": "Texts."})
    a_pair: Tuple[int, int] = dataclasses.field(default=(3, 4), metadata={"help": "A size."})
    a_place: Optional[Extent] = setting(None, "A place.", parse=parse_extent)


cli.DEFINE_dataclass(_Settings)


def test_a_pattern_gives_its_weight_to_all_its_models(tmp_path):
    for name in ("A/fold_0", "A/fold_1", "B"):
        (tmp_path / name).mkdir(parents=True)
    patterns = [f"{tmp_path}/A/fold_*", f"{tmp_path}/B"]
    values = flags.FlagValues()
    flags.DEFINE_string("member_weights", None, "", flag_values=values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flags, "FLAGS", values)
        for given, expected in (
            ("0.7,0.3", (0.7, 0.7, 0.3)),
            ("3,2,1", (3, 2, 1)),  # one for each model
            (None, ()),
        ):
            values([""] + [f"--member_weights={given}"] * bool(given))
            assert cli.member_weights(patterns) == expected
            values.unparse_flags()


def test_fields_of_a_dataclass_are_flags():
    flags.FLAGS(["test"])
    assert cli.dataclass_from_flags(_Settings) == _Settings()
    given = "--a_rate=0.25 --a_count=7 --a_switch --a_choice=y --a_name=n --some_texts=b,c"
    flags.FLAGS(["test", *given.split(), "--a_pair=5,6", "--a_place=170,-10,-170,10"])
    expected = _Settings(0.25, 7, True, "y", "n", ("b", "c"), (5, 6), Extent(170, -10, 190, 10))
    assert cli.dataclass_from_flags(_Settings) == expected
    assert flags.FLAGS["a_place"].serialize() == "--a_place=170.0,-10.0,190.0,10.0"


@pytest.mark.parametrize(
    "flag", ["--a_rate=2", "--a_count=0", "--a_choice=z", "--a_pair=5", "--a_place=5"]
)
def test_values_outside_the_bounds_of_a_field_are_refused(flag):
    with pytest.raises(flags.IllegalFlagValueError):
        flags.FLAGS(["test", flag])


@pytest.fixture
def dataset():
    """The flag, which programs that other tests run define as well."""
    yield cli.DEFINE_dataset()
    del flags.FLAGS.dataset


def test_a_data_set_is_read_from_json(dataset, tmp_path):
    flags.FLAGS(["test"])
    assert dataset.value == CLOUDS
    steel = Dataset(("a", "b"), (256, 1600), (256, 1600), rle_order="rows")
    path = tmp_path / "steel.json"
    path.write_text(json.dumps(steel.to_json()), encoding="utf-8-sig")  # as Windows writes it
    flags.FLAGS(["test", f"--dataset={path}"])
    assert dataset.value == steel
    flags.FLAGS(["test", flags.FLAGS["dataset"].serialize()])
    assert dataset.value == steel


def test_a_wrong_data_set_is_named_with_its_file(dataset, tmp_path):
    path = tmp_path / "steel.json"
    path.write_text(json.dumps({**CLOUDS.to_json(), "colour": "red"}))
    with pytest.raises(flags.IllegalFlagValueError, match="steel.json.*'colour'.*class_names"):
        flags.FLAGS(["test", f"--dataset={path}"])


def test_a_range_of_three_values_is_refused(tmp_path):
    paths = "--saved_model=/x", "--scenes=/x", f"--output_dir={tmp_path}"
    found = run_tool("predict_scenes", *paths, "--value_range=1,2,3")
    assert found.returncode == 1 and "value_range: got (1.0, 2.0, 3.0)" in found.stderr
    assert found.stderr.count("\n") == 1


PREDICT = "predict --saved_model=M --images_dir=I --output=s.csv"
SCENES = "predict_scenes --saved_model=M --scenes=S --output_dir=o"
TRAIN = "train --records_dir=R --workdir=W"
RECORDS, CLIMATOLOGY = "make_tfrecords --output_dir=R", "climatology --output=c.nc"


@pytest.mark.parametrize(
    "line, flag, need",
    [
        (f"{PREDICT} --engine=openvino --num_devices=2", "num_devices", "--engine=tensorflow"),
        (f"{PREDICT} --shard=0/2 --table=t.csv", "table", "the merge"),
        (f"{PREDICT} --shard=1/2 --picture=p.png", "picture", "the merge"),
        (f"{SCENES} --runner=direct --num_workers=2", "num_workers", "--runner=local"),
        (f"{RECORDS} --verify --data_dir=D", "data_dir", "a run without --verify"),
        (f"{RECORDS} --verify --num_folds=3", "num_folds", "a run without --verify"),
        (f"{RECORDS} --data_dir=D --folds_csv=f.csv --num_folds=3", "num_folds", "new folds"),
        (f"{RECORDS} --data_dir=D --jpeg_quality=90", "jpeg_quality", "--image_size"),
        (f"{RECORDS} --data_dir=D --runner=direct --num_workers=4", "num_workers", "--runner"),
        (
            "evaluate --records_dir=R --output=p.json --engine=openvino --precision=float16",
            "precision",
            "--engine=tensorflow",
        ),
        ("data_service --host=there", "host", "--dispatcher"),
        (f"{TRAIN} --weight_decay=0", "weight_decay", "--optimizer=adamw"),
        (f"{TRAIN} --init_weights=w --encoder_weights=e", "encoder_weights", "a model that"),
        (f"{TRAIN} --allow_seen_images", "allow_seen_images", "--init_checkpoint"),
        (
            f"{TRAIN} --freeze_encoder --encoder_learning_rate_factor=2",
            "encoder_learning_rate_factor",
            "an encoder that learns",
        ),
        (f"{TRAIN} --num_devices=2", "num_devices", "--distribute=mirrored"),
        (f"{TRAIN} --cache_dir=c", "cache_dir", "--cache=disk"),
        (f"{CLIMATOLOGY} --days_dir=D --cell=1", "cell", "--boxes or --scenes_dir"),
        (f"{CLIMATOLOGY} --days_dir=D --extent=0,0,5,5", "extent", "--boxes or --scenes_dir"),
        (f"{CLIMATOLOGY} --days_dir=D --on_error=skip", "on_error", "--boxes or --scenes_dir"),
        (f"{CLIMATOLOGY} --boxes=B --measure=expected", "measure", "--scenes_dir"),
        (f"{CLIMATOLOGY} --boxes=B --objects=o.parquet", "objects", "--scenes_dir"),
        (f"{CLIMATOLOGY} --scenes_dir=S --agreement=a.csv", "agreement", "--boxes"),
        (f"{CLIMATOLOGY} --boxes=B --by=year --each_year", "each_year", "--by=month"),
        (f"{CLIMATOLOGY} --boxes=B --colors=field", "colors", "--pictures_dir"),
        (f"{CLIMATOLOGY} --boxes=B --layout=c3ontext --region=a:0,0,1,1", "region", "--layout=cf"),
        (f"{CLIMATOLOGY} --boxes=B --num_resamples=0 --seed=3", "seed", "--num_resamples"),
        (f"{CLIMATOLOGY} --boxes=B --layout=c3ontext --seed=3", "seed", "--layout=cf"),
        (f"{CLIMATOLOGY} --boxes=B --runner=direct --num_workers=2", "num_workers", "--runner"),
        ("benchmark scaling --records_dir=R --num_images=9", "num_images", "drawn images"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(line, flag, need):
    found = run_tool(*line.split())
    assert found.returncode == 1
    assert f"--{flag}: has no effect here, it needs {need}" in found.stderr
