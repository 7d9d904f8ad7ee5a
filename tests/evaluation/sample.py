"""Records of small masks, and models for them that are no U-Nets."""

import dataclasses
import tempfile

import pytest
import stubs

from clouds_tf.data import sample_data, shards
from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS
from clouds_tf.evaluation.held_out import Member
from clouds_tf.prediction.engine import as_network

SMALL = dataclasses.replace(CLOUDS, mask_size=(140, 210), submission_size=(70, 105))


@pytest.fixture(scope="session")
def small_records(once):
    """12 images with masks of 70x105 in 3 folds."""

    def write(folder):
        with tempfile.TemporaryDirectory() as data:
            sample_data.write_sample_data(data, num_train=12, num_test=1, seed=1, dataset=SMALL)
            shards.write_records(data, folder, SMALL, num_shards=3, num_folds=3, num_workers=1)

    return Records.open(once("small_records", write))


def member(image_size, seed=0):
    """A Member for images of (height, width)."""
    return Member(as_network(stubs.network(seed=seed), image_size), image_size)
