"""Packs land polygons of Natural Earth (public domain) for clouds_tf/geo/land.npz.

npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
python tools/make_land.py --topojson=package/land-50m.json --output=clouds_tf/geo/land.npz
"""

import cli

import numpy as np
from absl import flags

from clouds_tf import files
from clouds_tf.geo.land import STEP

FLAGS = flags.FLAGS
flags.DEFINE_string("topojson", None, "TopoJSON file with the object `land`.", required=True)
flags.DEFINE_string("output", None, "File to write (.npz).", required=True)


def _unwrapped(ring: np.ndarray) -> np.ndarray:
    """A ring without jumps at 180 degrees; one around the South Pole is closed along 90 S."""
    lon = np.unwrap(ring[:, 0], period=360)
    lon -= 360 * np.floor(((lon.min() + lon.max()) / 2 + 180) / 360)
    ring = np.stack([lon, ring[:, 1]], axis=1)
    if abs(lon[-1] - lon[0]) > 180:
        ring = np.concatenate([ring, [[lon[-1], -90], [lon[0], -90]], ring[:1]])
    return ring


def main() -> None:
    cli.check_inputs("topojson")
    world = files.parse_json(files.read_text(FLAGS.topojson))
    scale, offset = (np.array(world["transform"][key]) for key in ("scale", "translate"))
    arcs = [np.cumsum(arc, axis=0) * scale + offset for arc in world["arcs"]]
    rings: list[np.ndarray] = []
    polygons: list[int] = []
    for shape in world["objects"]["land"]["geometries"]:
        for number, polygon in enumerate(shape["arcs"], start=len(set(polygons))):
            for numbers in polygon:
                parts = [arcs[i] if i >= 0 else arcs[~i][::-1] for i in numbers]
                ring = np.concatenate([part[:-1] for part in parts] + [parts[0][:1]])
                if ring[:, 1].max() < -89:  # the edge of the map below Antarctica
                    continue
                rings.append(np.rint(_unwrapped(ring) / STEP).astype(np.int32))
                polygons.append(number)
    with files.written_whole(FLAGS.output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            # Differences, by columns, take half the space of the points themselves.
            steps=np.concatenate([np.diff(ring, axis=0, prepend=0) for ring in rings]).T,
            lengths=np.array([len(ring) for ring in rings], np.int32),
            polygons=np.array(polygons, np.int32),
        )
    print(f"Wrote {len(rings)} rings of {max(polygons) + 1} polygons to {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
