#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "scikit-image", "pillow", "scipy"]
# ///
"""Pictures and what NumPy, SciPy and scikit-image measure of them.

    uv run tests/tools/make_measure_vectors.py tests/data/measure

Writes NAME.png for each picture and measures.json: "pictures" (NAME -> measures of orchestrate/
measure.h) and "pairs" ("NAME NAME" -> measures; psnr_db null when equal, ssim null when a side is
below 11). Building and testing need none of this.
"""

import json
import sys
from pathlib import Path

import numpy as np
import scipy.ndimage
import skimage.metrics
from PIL import Image

GREY = np.array([0.299, 0.587, 0.114])


def of_picture(rgb):
    """Measures of one picture [height, width, 3] uint8."""
    x = rgb.astype(np.float64)
    y = x @ GREY
    rg, yb = x[..., 0] - x[..., 1], (x[..., 0] + x[..., 1]) / 2 - x[..., 2]
    edges = scipy.ndimage.laplace(y)[1:-1, 1:-1]
    return {
        "luminance": y.mean() / 255,
        "contrast": y.std() / 255,
        "colourfulness": float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())),
        "sharpness": float(edges.var()) if edges.size else 0.0,
    }


def of_pair(a, b):
    """Measures of one picture against another."""
    d = np.abs(a.astype(np.int64) - b.astype(np.int64))
    ssim = None
    if min(a.shape[:2]) >= 11:
        ssim = float(skimage.metrics.structural_similarity(
            a.astype(np.float64) @ GREY, b.astype(np.float64) @ GREY, gaussian_weights=True,
            use_sample_covariance=False, data_range=255))
    return {
        "psnr_db": float(skimage.metrics.peak_signal_noise_ratio(a, b, data_range=255)) if d.any() else None,
        "ssim": ssim,
        "mean_abs": float(d.mean()),
        "largest": int(d.max()),
        "n_differ": int(d.any(axis=-1).sum()),
    }


def main():
    folder = Path(sys.argv[1])
    random = np.random.default_rng(20)
    y, x = np.mgrid[0:31, 0:44]
    smooth = np.stack([x * 5, y * 8, (x + y) * 3], axis=-1).astype(np.uint8)
    noisy = np.clip(smooth + random.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    one = smooth.copy()
    one[17, 20, 1] += 3
    pictures = {
        "smooth": smooth,
        "noisy": noisy,
        "one": one,
        "random": random.integers(0, 256, smooth.shape, dtype=np.uint8),
        "flat": np.full_like(smooth, 77),
        "window_a": random.integers(0, 256, (11, 11, 3), dtype=np.uint8),
        "window_b": random.integers(0, 256, (11, 11, 3), dtype=np.uint8),
        "low_a": random.integers(0, 256, (2, 30, 3), dtype=np.uint8),
        "low_b": random.integers(0, 256, (2, 30, 3), dtype=np.uint8),
    }
    pairs = [("smooth", other) for other in ("smooth", "noisy", "one", "random", "flat")]
    pairs += [("random", "noisy"), ("flat", "random"), ("window_a", "window_b"), ("low_a", "low_b")]
    for name, rgb in pictures.items():
        Image.fromarray(rgb).save(folder / f"{name}.png")
    (folder / "measures.json").write_text(json.dumps({
        "pictures": {name: of_picture(rgb) for name, rgb in pictures.items()},
        "pairs": {f"{a} {b}": of_pair(pictures[a], pictures[b]) for a, b in pairs},
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
