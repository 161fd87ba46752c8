"""A chain over the images of a cytometer: segmentation, then features of every object.

``python cells.py ENGINE DELAY`` computes it in this folder, with so many seconds more
for each image.
"""

import os
import sys
import time
from typing import ClassVar

import h5py
import numpy as np
import param
import scipy.ndimage
import scipy.spatial

import resumable as rs

FILE = "cytoshot-test-data.rtdc"
FEATURES = ("area_um", "deform", "bright_avg", "bright_bc_avg", "pos_x", "pos_y")


class Segment(rs.Process):
    """Numbers the objects that are darker than the background."""

    version = 1
    threshold = param.Integer(-6, doc="grey values below the background")
    pixels = param.Integer(12, bounds=(3, None), doc="least size of an object")

    def outputs(self):
        return {"labels": rs.Output(self.spectrum_shape, "i2")}

    def unit_computation(self, image, image_bg):
        time.sleep(float(os.environ.get("CELLS_DELAY", 0)))
        dark = image.astype(int) - image_bg < self.threshold
        found, count = scipy.ndimage.label(dark)
        labels = np.zeros(image.shape, "i2")
        for number in range(1, count + 1):
            one = scipy.ndimage.binary_fill_holes(found == number)
            if one.sum() >= self.pixels and min(np.ptp(np.nonzero(one), axis=1)) > 0:
                labels[one] = labels.max() + 1
        return labels


class Features(rs.Process):
    """Area, deformation and centre of the convex hull of an object, its brightness."""

    version = 1
    outputs: ClassVar = {name: rs.Output(ragged=True) for name in FEATURES}
    pixel_um = param.Number(0.2645)

    def unit_computation(self, labels, image, image_bg):
        rows = [
            self.of_object(labels == number, image, image_bg)
            for number in range(1, labels.max() + 1)
        ]
        return dict(zip(FEATURES, np.reshape(rows, (-1, len(FEATURES))).T, strict=True))

    def of_object(self, mask, image, image_bg):
        y, x = np.nonzero(mask)
        hull = scipy.spatial.ConvexHull(np.c_[x, y])
        (x0, y0) = np.c_[x, y][hull.vertices].T.astype(float)
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        cross = x0 * y1 - x1 * y0
        return (
            hull.volume * self.pixel_um**2,
            1 - 2 * np.sqrt(np.pi * hull.volume) / hull.area,
            image[mask].mean(),
            (image.astype(int) - image_bg)[mask].mean(),
            ((x0 + x1) * cross).sum() / (6 * hull.volume) * self.pixel_um,
            ((y0 + y1) * cross).sum() / (6 * hull.volume) * self.pixel_um,
        )


def chain(keep, **parameters):
    """Return the chain on the file of this folder."""
    inputs = {"image_bg": "::/events/image_bg"}
    segment = Segment(f"{FILE}::/events/image", inputs=inputs)
    return rs.Chain(segment, Features(**parameters), keep=keep)


def plain_loop():
    """Return what the chain keeps, by two functions in a loop."""
    with h5py.File(FILE) as file:
        images, grounds = file["events/image"][...], file["events/image_bg"][...]
    segment, features = chain("Features")._processes
    labels = [
        segment.unit_computation(*pair) for pair in zip(images, grounds, strict=True)
    ]
    found = [
        features.unit_computation(*three)
        for three in zip(labels, images, grounds, strict=True)
    ]
    return labels, {name: [one[name] for one in found] for name in FEATURES}


if __name__ == "__main__":
    # Where the workers that will be started find it.
    os.environ["CELLS_DELAY"] = sys.argv[2]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    chain(("Segment", "Features")).compute(
        engine=sys.argv[1], workers=2, checkpoint=0.02, progress=False
    )
