"""Stages of chains."""

import warnings

import numpy as np

import resumable as rs

POSITIONS = 40


def compute(chain, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rs.ResumableWarning)
        return chain.compute(**{"engine": "serial", "progress": False, **options})


def bits(parts):
    return [(np.asarray(part).dtype.str, np.asarray(part).tobytes()) for part in parts]
