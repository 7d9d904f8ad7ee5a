"""Writes scenes as tools/predict_scenes.py does, with another library."""

import numpy as np
import xarray

NAMES = ("Fish", "Flower", "Gravel", "Sugar")


def draw(seed, shape):
    """Random masks [4, h, w], what was observed, and probabilities in steps of 0.004."""
    rng = np.random.default_rng(seed)
    masks = rng.random((4, *shape)) < 0.4
    observed = rng.random(shape) < 0.8
    return masks, observed, rng.integers(0, 251, masks.shape)


def write_scene(path, date="2017-03-04", extent=(-10, 0, 0, 5), step=0.5, seed=0, **changed):
    """A scene of random or given `fields`; gives masks, observed, probabilities, lat, lon."""
    west, south, east, north = extent
    lon, lat = (
        np.linspace(a + step / 2, b - step / 2, round(abs(b - a) / step))
        for a, b in ((west, east), (north, south))
    )
    if north > south:
        lat = np.linspace(north - step / 2, south + step / 2, round((north - south) / step))
    masks, observed, packed = changed.get("fields") or draw(seed, (len(lat), len(lon)))
    bits = (masks * np.array([1, 2, 4, 8])[:, None, None]).sum(axis=0) * observed
    shares = np.where(observed, packed, np.nan)[None] * 0.004
    data = {
        "mask": (("time", "lat", "lon"), bits[None].astype(np.uint8)),
        "observed": (("time", "lat", "lon"), observed[None].astype(np.uint8)),
        "probability": (("time", "class", "lat", "lon"), shares),
        "calibrated_probability": (("time", "class", "lat", "lon"), shares),
        "lat_bnds": (("lat", "bnds"), np.stack([lat + step / 2, lat - step / 2], axis=1)),
        "lon_bnds": (("lon", "bnds"), np.stack([lon - step / 2, lon + step / 2], axis=1)),
    }
    coordinates = {
        "time": [np.datetime64(f"{date}T{changed.get('clock', '13:30:00')}", "ns")],
        "class": list(changed.get("names", NAMES)),
        "lat": lat,
        "lon": lon,
    }
    attributes = {"scene": path.stem, "model": changed.get("model", "abc")}
    attributes["platform"] = changed.get("platform", "unknown")
    if "likeness" in changed:
        data["likeness"] = (("time",), [float(changed["likeness"])])
    bytes_of_shares = {"dtype": "uint8", "scale_factor": 0.004, "_FillValue": 255}
    encoding = {
        "time": {"units": "seconds since 1970-01-01 00:00:00", "dtype": "int64"},
        "probability": bytes_of_shares,
        "calibrated_probability": bytes_of_shares,
    }
    dataset = xarray.Dataset(data, coordinates, attributes)
    if changed.get("uncalibrated"):
        dataset, _ = dataset.drop_vars("calibrated_probability"), encoding.popitem()
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return masks & observed, observed, packed * 0.004 * observed, lat, lon
