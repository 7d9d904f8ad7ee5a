"""What each step of post-processing and prediction is worth."""

from clouds_tf.evaluation.score import intervals
from clouds_tf.evaluation.search import GRIDS, search
from clouds_tf.schema import CLASS_NAMES

COLUMNS = ("prediction", "search", *CLASS_NAMES, "mean", "gain", "from", "to", "tuned")


def select(counts, refinements, grid):
    """Leaves of Counts, whose refinements are given, those of a Grid."""
    index = [refinements.index(refinement) for refinement in grid.refinements]
    return counts._replace(
        mask_areas=counts.mask_areas[..., index], intersections=counts.intersections[..., index]
    )


def ladder(counts, refinements, names, seed=0):
    """Searches several grids on several predictions of the same images.

    Args:
        counts: a dict of name -> Counts of N images, such as without flips and with them.
        refinements: those of the Counts.
        names: the keys of GRIDS to search.
        seed: as `search` takes it.

    Returns:
        Rows of COLUMNS: the cross-fitted Dice of each class and of all; what it gains over the
        first search of the first prediction, with the ends of a bootstrap interval of that; and
        the optimistic score. Above them, a row of each prediction cut at 1/2.
    """
    found = []
    for prediction, some in counts.items():
        results = [search(select(some, refinements, GRIDS[n]), GRIDS[n], seed) for n in names]
        plain = results[0]["scores"]["plain"]
        found.append((prediction, "plain", plain, plain))
        for name, result in zip(names, results):
            scores = result["scores"]
            found.append((prediction, name, scores["cross_fitted"], scores["tuned"]))
    base = found[1][2]
    rows = []
    for prediction, name, honest, tuned in found:
        low, high = intervals(honest - base)[:, -1]
        numbers = (*honest.mean(axis=0), honest.mean(), (honest - base).mean(), low, high)
        rows.append([prediction, name, *(f"{x:.4f}" for x in (*numbers, tuned.mean()))])
    return rows


def as_text(rows):
    """The rows of `ladder` as a table."""
    return "\n".join(
        f"{row[0]:<12}{row[1]:<14}" + "".join(f"{cell:>9}" for cell in row[2:])
        for row in (COLUMNS, *rows)
    )
