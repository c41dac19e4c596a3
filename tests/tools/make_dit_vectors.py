#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "diffusers", "transformers", "safetensors", "numpy"]
# ///
"""Golden vectors of the denoiser, from diffusers' ZImageTransformer2DModel and its scheduler.

    uv run tests/tools/make_dit_vectors.py [OUTDIR]

Writes OUTDIR/cases.json (configurations, tensor names and shapes, inputs by tag) and
OUTDIR/vectors.safetensors (outputs, schedules). Weights and inputs follow the deterministic value rule of
tests/data/spec/README.md, so they are not stored. Building and testing need none of this.
"""

import json
import math
import pathlib
import sys

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from safetensors.numpy import save_file

SPREAD = 3.0  # of matrices, over sqrt(fan)

# A case is a batch: (rows, columns of latents, caption rows, t) of each sample; diffusers pads and masks it.
MODELS = [
    dict(name="axes", why="24 channels a head in three equal axes, 16 latent channels", dim=96, heads=4,
         axes=[8, 8, 8], layers=2, refiners=1, cap=40, channels=16,
         cases=[[(8, 12, 1, 0.0)], [(6, 14, 31, 0.3571), (6, 14, 64, 0.3571)]]),
    dict(name="long", why="a caption of 700 rows, two refiners, 4 latent channels", dim=60, heads=3,
         axes=[4, 8, 8], layers=3, refiners=2, cap=20, channels=4,
         cases=[[(10, 6, 700, 0.7)], [(2, 30, 33, 0.9), (16, 4, 5, 0.1), (8, 8, 96, 0.5)]]),
    dict(name="wide", why="wider than the 256 of the time embedding; a head of 64", dim=320, heads=5,
         axes=[16, 24, 24], layers=1, refiners=1, cap=72, channels=16,
         cases=[[(10, 10, 17, 0.0454545915)]]),
    dict(name="single", why="one head, odd widths, 8 latent channels, one token", dim=36, heads=1,
         axes=[12, 12, 12], layers=1, refiners=2, cap=9, channels=8,
         cases=[[(2, 2, 1, 1.0)], [(18, 2, 32, 0.25)]]),
]
STEPS = [*range(1, 51), 100, 200]
SHIFTS = [3.0, 6.0]


def values(tag, shape):
    """The deterministic value rule, in [-0.5, 0.5)."""
    k = np.arange(math.prod(shape), dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    u = (k * np.uint64(2654435761) + np.uint64(tag * 40503 + 12345)) & mask
    u = u ^ (u >> np.uint64(15))
    u = (u * np.uint64(2246822519)) & mask
    u = u ^ (u >> np.uint64(13))
    return ((u >> np.uint64(8)).astype(np.float64) / 16777216 - 0.5).reshape(shape)


def weight(name, tag, shape):
    v = values(tag, shape)
    if name.endswith("pad_token"):
        return v
    if len(shape) == 1:
        return 1 + 0.4 * v if name.endswith("weight") else 0.2 * v
    return v * SPREAD / math.sqrt(math.prod(shape[1:]))


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                       pathlib.Path(__file__).resolve().parents[1] / "data" / "dit")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    doc = {"about": "ZImageTransformer2DModel of diffusers, f32, CPU; outputs are not negated; the latents of a "
                    "sample are values(tag) * 3, its caption values(tag + 1) * 4",
           "made_with": {"torch": torch.__version__, "diffusers": diffusers.__version__,
                         "numpy": np.__version__},
           "models": [], "steps": STEPS, "shifts": SHIFTS}
    vectors, tag = {}, 20000
    for spec in MODELS:
        config = dict(all_patch_size=[2], all_f_patch_size=[1], in_channels=spec["channels"], dim=spec["dim"],
                      n_layers=spec["layers"], n_refiner_layers=spec["refiners"], n_heads=spec["heads"],
                      n_kv_heads=spec["heads"], norm_eps=1e-5, qk_norm=True, cap_feat_dim=spec["cap"],
                      rope_theta=256.0, t_scale=1000.0, axes_dims=spec["axes"], axes_lens=[1536, 512, 512])
        model = ZImageTransformer2DModel(**config).eval()
        state = model.state_dict()
        shapes = {n: list(state[n].shape) for n in sorted(state)}
        tag0 = tag
        model.load_state_dict({n: torch.from_numpy(weight(n, tag0 + i, s).astype(np.float32))
                               for i, (n, s) in enumerate(shapes.items())})
        tag += len(shapes) + 100
        cases = []
        for c, samples in enumerate(spec["cases"]):
            x, caps, t = [], [], []
            described = []
            for s, (h, w, n, time) in enumerate(samples):
                x.append(torch.from_numpy(
                    (values(tag, (spec["channels"], 1, h, w)) * 3).astype(np.float32)))
                caps.append(torch.from_numpy((values(tag + 1, (n, spec["cap"])) * 4).astype(np.float32)))
                t.append(time)
                described.append(dict(tag=tag, h=h, w=w, caption_rows=n, t=float(np.float32(time)),
                                      output=f"{spec['name']}.{c}.{s}"))
                tag += 2
            with torch.no_grad():
                y = model(x, torch.tensor(t, dtype=torch.float32), caps, return_dict=False)[0]
            for d, v in zip(described, y):
                vectors[d["output"]] = v.numpy().reshape(spec["channels"], d["h"], d["w"]).copy()
                print(d["output"], vectors[d["output"]].shape, "std", vectors[d["output"]].std())
            cases.append(described)
        doc["models"].append(dict(name=spec["name"], why=spec["why"], config=config, tag0=tag0,
                                  tensor_shapes=shapes, cases=cases))
    for shift in SHIFTS:
        for n in STEPS:
            s = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift,
                                                use_dynamic_shifting=False)
            # The pipeline's own sigmas: linspace(1, 1/N, N).
            s.set_timesteps(sigmas=torch.linspace(1.0, 1.0 / n, n).tolist(), mu=1.15)
            vectors[f"schedule.{shift:.0f}.{n}"] = s.sigmas.numpy().astype(np.float32)
            vectors[f"time.{shift:.0f}.{n}"] = ((1000 - s.timesteps.float()) / 1000).numpy()
    save_file(vectors, out / "vectors.safetensors")
    (out / "cases.json").write_text(json.dumps(doc, indent=1) + "\n")


if __name__ == "__main__":
    main()
