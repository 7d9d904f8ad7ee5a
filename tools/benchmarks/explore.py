"""Suite explore: the statistics of a folder, compared with a usual program in pandas and numpy."""

import os
import time

import cv2
import numpy as np
import pandas as pd
from absl import flags
from benchmarks import DATA, Ratio, numpy_decode, show
from scipy import ndimage

from clouds_tf.data import annotations
from clouds_tf.dataset import CLOUDS, TRAIN_CSV, TRAIN_IMAGES
from clouds_tf.exploration import statistics

flags.DEFINE_string(
    "data_dir", str(DATA / "clouds_small"), "Folder with train.csv and train_images/."
)
flags.DEFINE_integer("max_images", None, "Measure only the first images.", lower_bound=1)

_NUM_PARTS = 4  # of the peer's work
COMPARED = ["area", "runs", "components", "largest_component", "top", "left", "bottom", "right"]


def usual_statistics(table, images_dir):
    """Every mask drawn at full size, one after the other."""
    records = []
    covered = np.zeros((CLOUDS.num_classes, *statistics.GRID))
    for record in table.to_dict("records"):
        image = cv2.imread(os.path.join(images_dir, record["filename"]))
        seen = image.max(axis=2) > 20
        of_image = {"brightness": image[seen].mean(), "gap": 1 - seen.mean()}
        for i, name in enumerate(CLOUDS.class_names):
            mask, num_runs = numpy_decode(record[name]), len(record[name].split()) // 2
            labels, count = ndimage.label(mask, np.ones((3, 3)))
            areas = np.bincount(labels.ravel(), minlength=2)[1:]
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1] if count else [None] * 4
            covered[i] += cv2.resize(
                mask.astype(np.float32), statistics.GRID[::-1], interpolation=cv2.INTER_AREA
            )
            records.append(
                [record["filename"], name, mask.sum(), num_runs, count, areas.max(), *box]
                + list(of_image.values())
            )
    columns = ["filename", "class", *COMPARED, *of_image]
    return pd.DataFrame(records, columns=columns), covered


def check_equal(ours, members, rows):
    """Checks that both ways found the same in some images."""
    first = CLOUDS.num_classes * members[0]
    ours = ours.rows.iloc[first : first + len(rows)]
    for column in COMPARED:
        a, b = (frame[column].fillna(-1).to_numpy(dtype=int) for frame in (ours, rows))
        np.testing.assert_array_equal(a, b, err_msg=column)
    # Ours looks at images of another size.
    np.testing.assert_allclose(ours["brightness"], rows["brightness"], atol=3)
    np.testing.assert_allclose(ours["gap"], rows["gap"], atol=0.02)


def main() -> None:
    data_dir = flags.FLAGS.data_dir
    images_dir = os.path.join(data_dir, TRAIN_IMAGES)
    table = annotations.read_csv(os.path.join(data_dir, TRAIN_CSV), CLOUDS)
    table = table.head(flags.FLAGS.max_images or len(table))
    # The peer takes minutes: ours runs before, between and after its parts, to meet the same noise.
    times, peer, average = [], 0.0, np.float64(0)
    for members in [*np.array_split(np.arange(len(table)), _NUM_PARTS), None]:
        start = time.perf_counter()
        found = statistics.measure(table, images_dir, CLOUDS)
        times.append(time.perf_counter() - start)
        if members is not None:
            start = time.perf_counter()
            rows, covered = usual_statistics(table.iloc[members], images_dir)
            peer += time.perf_counter() - start
            check_equal(found, members, rows)
            average += covered / len(table)
    np.testing.assert_allclose(found.average_masks, average, atol=1e-4)
    ours = float(np.mean(times))
    task, peer_name = f"statistics of {4 * len(table)} rows", "pandas + numpy + scipy"
    show([Ratio(task, peer_name, ours, peer, "s", 10)])
    print(
        f"ours is the mean of {len(times)} runs ({min(times):.1f} to {max(times):.1f} s), "
        "between the parts of the peer"
    )
