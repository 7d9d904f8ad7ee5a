"""Draws what each augmentation makes of one image and its masks.

python tools/show_augmentation.py --records_dir=R --output=augmentation.png
"""

import cli

import numpy as np
from absl import flags

from clouds_tf import figures
from clouds_tf.data import augmentation, input_pipeline, records_info

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of shards, of make_tfrecords.", required=True)
flags.DEFINE_string("output", "augmentation.png", "The picture.")
cli.DEFINE_size("image_size", (320, 480), "Size of the images.")
flags.DEFINE_integer("seed", 0, "Seed of the augmentations.", lower_bound=0)
flags.DEFINE_integer("num_columns", 3, "How often each one is shown.", lower_bound=1)


def main():
    size, dataset = FLAGS.image_size, records_info.read_info(FLAGS.records_dir).dataset
    images, masks = next(
        iter(input_pipeline.validation_batches(FLAGS.records_dir, [0], size, 2, mask_size=size))
    )
    example = {"image": images[0], "mask": masks[0]}
    still = augmentation.affine_places(size, [0, 0], strength=0.0)

    def warped(places):
        return augmentation.warp(example, places)

    steps = {
        "none": lambda seed: example,
        "flips": lambda seed: augmentation.flips(example, seed),
        "affine_places": lambda seed: warped(augmentation.affine_places(size, seed)),
        "bend": lambda seed: warped(augmentation.bend(still, seed)),
        "cutout": lambda seed: warped(augmentation.cutout(still, seed)),
        "photometric": lambda seed: {
            **example,
            "image": augmentation.photometric(example["image"], seed),
        },
        "baseline": lambda seed: augmentation.baseline(example, seed),
        "strong": lambda seed: augmentation.strong(example, seed),
        **{
            name: lambda seed, mix=mix: dict(
                zip(example, (np.uint8(np.rint(x[0])) for x in mix(images, masks, seed)))
            )
            for name, mix in augmentation.MIXES.items()
            if name != "none"
        },
    }
    shown = [
        (*map(np.asarray, step([FLAGS.seed, column]).values()), name)
        for name, step in steps.items()
        for column in range(FLAGS.num_columns)
    ]
    figure = figures.overlays(*zip(*shown), dataset.class_names, FLAGS.num_columns)
    figures.save(figure, FLAGS.output)
    print(f"Wrote {len(steps)} augmentations to {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
