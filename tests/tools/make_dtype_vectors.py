#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "safetensors", "numpy"]
# ///
"""Conversions between number formats as PyTorch does them on a CPU.

    uv run tests/tools/make_dtype_vectors.py tests/data/common/dtype.safetensors

"f32" holds bit patterns (as int32): every exponent with random mantissas, and the values around each
rounding tie, each overflow and each subnormal of the small formats. "bf16", "f16", "f8_e4m3" and
"f8_e5m2" hold what they become. "from_e4m3" and "from_e5m2" are all 256 codes as f32.
Building and testing need none of this.
"""

import sys

import numpy as np
import torch
from safetensors.torch import save_file


def patterns():
    rng = np.random.default_rng(20240607)
    out = [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 1, 2,
           0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F7F7FFF, 0x7F7F8000]
    for exponent in range(256):
        for sign in (0, 1):
            out += [sign << 31 | exponent << 23 | int(m) for m in rng.integers(0, 1 << 23, 4)]
    # Around ties: mantissas that end in 1000... for each number of dropped bits, and one beside.
    for drop in (13, 16, 20, 21):
        for exponent in (100, 104, 109, 110, 112, 113, 117, 120, 121, 127, 135, 141, 142):
            for upper in (0, 1, 2, 3):
                base = exponent << 23 | (upper << drop) & 0x7FFFFF | 1 << (drop - 1)
                out += [base - 1, base, base + 1, base | 1 << 31]
    for value in (448.0, 464.0, 480.0, 57344.0, 61440.0, 65504.0, 65520.0, 65536.0, 2.0**-9,
                  2.0**-10, 2.0**-16, 2.0**-17, 2.0**-24, 2.0**-25, 3 * 2.0**-25):
        bits = int(np.float32(value).view(np.uint32))
        out += [bits - 1, bits, bits + 1, bits | 1 << 31]
    return np.array(out, dtype=np.uint32)


def main():
    bits = patterns()
    x = torch.from_numpy(bits.view(np.float32).copy())
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    tensors = {
        "f32": torch.from_numpy(bits.view(np.int32).copy()),
        "bf16": x.to(torch.bfloat16),
        "f16": x.to(torch.float16),
        "f8_e4m3": x.to(torch.float8_e4m3fn),
        "f8_e5m2": x.to(torch.float8_e5m2),
        "from_e4m3": codes.view(torch.float8_e4m3fn).to(torch.float32),
        "from_e5m2": codes.view(torch.float8_e5m2).to(torch.float32),
    }
    save_file(tensors, sys.argv[1], {"torch": torch.__version__})


if __name__ == "__main__":
    main()
