"""dcnum's segmenter and feature functions as stages of a chain."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import scipy.ndimage
from dcnum.feat.feat_brightness import brightness_features
from dcnum.feat.feat_contour import moments_based_features, volume_from_contours
from dcnum.feat.feat_texture import haralick_texture_features
from dcnum.segm.segm_thresh import SegmentThresh
from dcnum.segm.segmenter import STRUCTURING_ELEMENT

import resumable as rs

Array = np.ndarray[Any, np.dtype[Any]]

FRAME = (80, 400)
FEATURES = (
    *("area_msd", "area_ratio", "area_um", "area_um_raw", "aspect", "bg_med"),
    *("bright_avg", "bright_bc_avg", "bright_bc_sd", "bright_perc_10"),
    *("bright_perc_90", "bright_sd", "deform", "deform_raw", "eccentr_prnc"),
    *("inert_ratio_cvx", "inert_ratio_prnc", "inert_ratio_raw", "per_ratio"),
    *("per_um_raw", "pos_x", "pos_y", "size_x", "size_y", "tilt", "volume"),
    *(
        f"tex_{name}_{kind}"
        for name in ("asm", "con", "cor", "den", "ent", "f12", "f13", "idm", "sen")
        for kind in ("avg", "ptp")
    ),
    *("tex_sva_avg", "tex_sva_ptp", "tex_var_avg", "tex_var_ptp"),
)
LEAST_PIXELS = 10
"""dcnum: what has no more is no event."""
THRESHOLD = -6


class Segment(rs.Process):
    """Labels of the objects, as dcnum's ``thresh`` makes them."""

    version = 1

    def outputs(self) -> dict[str, rs.Output]:
        return {"labels": rs.Output(self.spectrum_shape, "u2")}

    def setup(self) -> None:
        self._segmenter = SegmentThresh(thresh=THRESHOLD)

    def unit_computation(self, image: Array, image_bg: Array) -> Array:
        corrected = np.array(image, dtype=np.int16) - np.array(image_bg, dtype=np.int16)
        mask = self._segmenter.segment_algorithm_wrapper()(corrected)
        labels, _ = scipy.ndimage.label(mask, structure=STRUCTURING_ELEMENT)
        labels = self._segmenter.process_labels(labels, **self._segmenter.kwargs_mask)
        return np.asarray(labels, "u2")


class Features(rs.Process):
    """All features that dcnum computes of an object by default, and its mask."""

    version = 1
    outputs: ClassVar = {
        "mask": rs.Output(FRAME, "?", ragged=True, compression="zstd"),
        **{name: rs.Output(ragged=True, compression="zstd") for name in FEATURES},
    }

    def unit_computation(
        self, labels: Array, image: Array, image_bg: Array
    ) -> dict[str, Any]:
        found = self.of_frame(labels, image, image_bg)
        return found or {name: [] for name in self.outputs}

    def of_frame(
        self, labels: Array, image: Array, image_bg: Array
    ) -> dict[str, Array]:
        """Return the features of all objects of a frame, nothing if it has none."""
        masks = [labels == number for number in range(1, labels.max() + 1)]
        kept = [mask for mask in masks if mask.sum() > LEAST_PIXELS]
        if not kept:
            return {}
        mask = np.array(kept)
        frame, ground = image[np.newaxis], image_bg[np.newaxis]
        corrected = np.array(frame, np.int16) - np.array(ground, np.int16)
        found = {
            "mask": mask,
            **moments_based_features(mask, pixel_size=0.2645, ret_contour=True),
            **brightness_features(
                mask=mask, image=frame, image_bg=ground, image_corr=corrected
            ),
            **haralick_texture_features(mask=mask, image=frame, image_corr=corrected),
        }
        found |= volume_from_contours(
            contour=found.pop("contour"),
            pos_x=found["pos_x"],
            pos_y=found["pos_y"],
            pixel_size=0.2645,
        )
        valid = found.pop("valid")
        return {name: np.asarray(values)[valid] for name, values in found.items()}
