import numpy as np
import pytest

from clouds_tf.evaluation.held_out import THRESHOLDS, Counts
from clouds_tf.evaluation.ladder import COLUMNS, as_text, ladder, select
from clouds_tf.evaluation.search import AREA_GRID, GRIDS, search
from clouds_tf.inference.postprocessing import Rule

HOLES = Rule(fill="holes")


def _counts(seed, num_images=12):
    """Areas that fall with the threshold; the second refinement hits more of the truth."""
    rng = np.random.default_rng(seed)
    shape = (num_images, 4, len(THRESHOLDS))
    areas = -np.sort(-rng.integers(0, 40000, shape), axis=2)
    truths = rng.integers(0, 40000, shape[:2]) * (rng.random(shape[:2]) < 0.6)
    hit = np.minimum(areas, truths[..., None]) // 2
    intersections = np.stack([hit, 2 * hit], axis=3)
    presence = np.float32(rng.random(shape[:2]))
    folds = np.arange(num_images) % 3
    return Counts(areas, np.stack([areas] * 2, axis=3), intersections, truths, presence, folds)


def test_a_grid_sees_its_own_refinements_only():
    counts = _counts(0)
    grid = AREA_GRID._replace(refinements=(HOLES, Rule()))
    found = select(counts, [Rule(), HOLES], grid)
    np.testing.assert_array_equal(found.intersections, counts.intersections[..., ::-1])
    assert select(counts, [Rule(), HOLES], AREA_GRID).mask_areas.shape[3] == 1


def test_every_rung_is_a_search_of_its_own():
    counts = {"none": _counts(0), "flips": _counts(1)}
    rows = ladder(counts, [Rule(), HOLES], ["area", "holes"])
    assert [row[:2] for row in rows] == [
        [way, name] for way in counts for name in ("plain", "area", "holes")
    ]
    found = {
        (way, name): search(select(some, [Rule(), HOLES], GRIDS[name]), GRIDS[name])["scores"]
        for way, some in counts.items()
        for name in ("area", "holes")
    }
    base = found["none", "area"]["cross_fitted"]
    for row in rows:
        cells = dict(zip(COLUMNS, row))
        name = "area" if cells["search"] == "plain" else cells["search"]
        scores = found[cells["prediction"], name]
        honest = scores["plain" if cells["search"] == "plain" else "cross_fitted"]
        assert float(cells["Gravel"]) == pytest.approx(honest[:, 2].mean(), abs=6e-5)
        assert float(cells["mean"]) == pytest.approx(honest.mean(), abs=6e-5)
        assert float(cells["gain"]) == pytest.approx(honest.mean() - base.mean(), abs=6e-5)
        assert float(cells["from"]) <= float(cells["gain"]) <= float(cells["to"])
        if cells["search"] != "plain":
            assert float(cells["tuned"]) == pytest.approx(scores["tuned"].mean(), abs=6e-5)
    assert float(dict(zip(COLUMNS, rows[1]))["gain"]) == 0
    lines = as_text(rows).splitlines()
    assert lines[0].split() == list(COLUMNS) and [line.split() for line in lines[1:]] == rows
