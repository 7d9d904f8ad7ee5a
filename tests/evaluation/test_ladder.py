import dataclasses

import numpy as np
import pytest

from clouds_tf.evaluation.held_out import EDGES, Counts
from clouds_tf.evaluation.ladder import as_text, columns, ladder, select
from clouds_tf.evaluation.search import GRIDS, Grid, search
from clouds_tf.prediction.postprocessing import Rule

BOXES = Rule(fill="boxes")
NAMES = ("Fish", "Flower", "Gravel", "Sugar")


def _counts(seed, num_images=12):
    """Areas that fall with the threshold; the second refinement hits more of the truth."""
    rng = np.random.default_rng(seed)
    histograms = rng.integers(0, 800, (num_images, 4, 2, len(EDGES) + 1))
    histograms[rng.random((num_images, 4)) < 0.4, 1] = 0  # absent
    presence = np.float32(rng.random((num_images, 4)))
    counts = Counts(histograms, None, None, presence, np.arange(num_images) % 3)
    areas = counts.areas
    hit = np.minimum(areas, counts.truths[..., None]) // 2
    intersections = np.stack([hit, 2 * hit], axis=3)
    return dataclasses.replace(
        counts, mask_areas=np.stack([areas] * 2, axis=3), intersections=intersections
    )


def test_a_grid_sees_its_own_refinements_only():
    counts = _counts(0)
    grid = Grid(refinements=(BOXES, Rule()))
    found = select(counts, [Rule(), BOXES], grid)
    np.testing.assert_array_equal(found.intersections, counts.intersections[..., ::-1])
    assert select(counts, [Rule(), BOXES], Grid()).mask_areas.shape[3] == 1


def test_every_rung_is_a_search_of_its_own():
    counts = {"none": _counts(0), "flips": _counts(1)}
    rungs = ladder(counts, [Rule(), BOXES], ["area", "boxes"])
    assert [(rung.prediction, rung.search) for rung in rungs] == [
        ("none", "blank"),
        *((way, name) for way in counts for name in ("plain", "area", "boxes")),
    ]
    found = {
        (way, name): search(select(some, [Rule(), BOXES], GRIDS[name]), GRIDS[name])
        for way, some in counts.items()
        for name in ("area", "boxes")
    }
    base = found["none", "area"].cross_fitted
    for rung in rungs:
        result = found[rung.prediction, {"boxes": "boxes"}.get(rung.search, "area")]
        honest, tuned = {
            "blank": (result.all_blank, result.all_blank),
            "plain": (result.plain, result.plain),
        }.get(rung.search, (result.cross_fitted, result.tuned))
        assert rung.dice == pytest.approx((*honest.mean(axis=0), honest.mean()))
        assert rung.gain == pytest.approx(honest.mean() - base.mean())
        assert rung.interval[0] <= rung.gain <= rung.interval[1]
        assert rung.tuned == pytest.approx(tuned.mean())
    assert rungs[2].gain == 0
    lines = as_text(rungs, NAMES).splitlines()
    assert lines[0].split() == columns(NAMES)
    assert [line.split() for line in lines[1:]] == [rung.cells() for rung in rungs]
