#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "safetensors"]
# ///
"""What encoder-svc/controls.h does to rows, computed with NumPy.

    uv run tests/tools/make_control_vectors.py tests/data/controls/rows.safetensors

For each case "N": "N.rows" [n, d] and what becomes of it: "N.weighed" with "N.weights" [n];
"N.noisy" (AMOUNT, SEED); "N.interpolate", "N.pool", "N.attention_pool" [m, d], and "N.loss" [3], their
losses in that order; "N.other" [k, d] and "N.blended" with a share of SHARE after it was interpolated to n
rows; "N.sum", 0.75 rows - 0.5 rows^2 + 2 weighed. Building and testing need none of this.
"""

import sys

import numpy as np
from safetensors.numpy import save_file

CASES = [(5, 3, 2, 9), (1, 4, 3, 2), (2, 6, 1, 1), (40, 8, 33, 7), (7, 48, 33, 50), (64, 16, 16, 64), (637, 8, 512, 20)]
AMOUNT, SEED, SHARE = 0.3, 1234, 0.35


def randn(seed, count):
    """torch.randn of the CPU generator, for counts of 16 and more (docs/numerics.md, "Noise")."""
    bits = np.random.MT19937()
    bits._legacy_seeding(np.uint32(seed))
    total = max(count, 16)
    draw = lambda n: (bits.random_raw(n) & 0xFFFFFF).astype(np.float64) / 2**24

    def transform(u):
        radius = np.sqrt(-2 * np.log(1 - u[:8]))
        return np.concatenate([radius * np.cos(2 * np.pi * u[8:]), radius * np.sin(2 * np.pi * u[8:])])

    u = draw(total)
    out = u.copy()
    for i in range(0, total - 15, 16):
        out[i : i + 16] = transform(u[i : i + 16])
    if total % 16:
        out[-16:] = transform(draw(16))
    return out[:count]


def interpolate(x, m):
    n = len(x)
    at = np.linspace(0, n - 1, m) if m > 1 else np.array([(n - 1) / 2])
    return np.stack([np.interp(at, np.arange(n), x[:, j]) for j in range(x.shape[1])], 1)


def pool(x, m, weights):
    n = len(x)
    windows = [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
    return np.stack([np.average(x[w], axis=0, weights=weights[w]) for w in windows])


def attention(x):
    mean = x.mean(0)
    cosine = x @ mean / (np.linalg.norm(x, axis=1) * np.linalg.norm(mean))
    return np.exp(cosine)


def loss(x, reduced):
    spread = ((x - x.mean(0)) ** 2).sum()
    return min(1.0, ((x - interpolate(reduced, len(x))) ** 2).sum() / spread) if spread else 0.0


def main():
    rng = np.random.default_rng(5)
    tensors = {}
    for i, (n, d, m, k) in enumerate(CASES):
        put = lambda name, v: tensors.__setitem__(f"{i}.{name}", np.ascontiguousarray(v, np.float32))
        # Rows of a text encoder share a large mean and differ in length.
        x32 = (rng.normal(size=(n, d)) * rng.uniform(0.5, 4, (n, 1)) + 3 * rng.normal(size=d)).astype(np.float32)
        other32 = rng.normal(size=(k, d)).astype(np.float32)
        weights = rng.choice([0, 0.5, 1, 1.3, 2], n).astype(np.float32)
        x, other, mean = x32.astype(float), other32.astype(float), x32.astype(float).mean(0)
        put("rows", x32)
        put("weights", weights)
        weighed = mean + weights.astype(float)[:, None] * (x - mean)
        put("weighed", weighed)
        rms = np.sqrt(((x - mean) ** 2).mean(1, keepdims=True))
        put("noisy", x + AMOUNT * rms * randn(SEED, n * d).reshape(n, d))
        reduced = [interpolate(x, m), pool(x, m, np.ones(n)), pool(x, m, attention(x))]
        for name, r in zip(("interpolate", "pool", "attention_pool"), reduced):
            put(name, r)
        put("loss", [loss(x, r.astype(np.float32).astype(float)) for r in reduced])
        put("other", other32)
        put("blended", (1 - SHARE) * x + SHARE * interpolate(other, n).astype(np.float32))
        squares = (x32 * x32).astype(np.float32)
        put("squares", squares)
        put("sum", 0.75 * x - 0.5 * squares.astype(float) + 2 * weighed.astype(np.float32))
    save_file(tensors, sys.argv[1], {"numpy": np.__version__})


if __name__ == "__main__":
    main()
