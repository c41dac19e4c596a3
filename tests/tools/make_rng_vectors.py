#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "safetensors"]
# ///
"""Noise of PyTorch's CPU generator.

    uv run tests/tools/make_rng_vectors.py tests/data/common/rng.safetensors

Tensor "SEED_COUNT" is torch.randn(COUNT, generator=torch.Generator("cpu").manual_seed(SEED)); counts
above KEEP are stored as their first and last KEEP / 2 values ("SEED_COUNT_head", "SEED_COUNT_tail").
Building and testing need none of this.
"""

import sys

import torch
from safetensors.torch import save_file

SEEDS = [0, 1, 42, 2**32 - 1, 2**32 + 5, 2**63 - 1]
COUNTS = [16, 17, 20, 31, 32, 64, 1000, 16 * 128 * 128]
KEEP = 1000


def main():
    tensors = {}
    for seed in SEEDS:
        for count in COUNTS:
            x = torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed))
            if count <= KEEP:
                tensors[f"{seed}_{count}"] = x
            else:
                tensors[f"{seed}_{count}_head"] = x[: KEEP // 2].clone()
                tensors[f"{seed}_{count}_tail"] = x[-KEEP // 2:].clone()
    save_file(tensors, sys.argv[1], {"torch": torch.__version__})


if __name__ == "__main__":
    main()
