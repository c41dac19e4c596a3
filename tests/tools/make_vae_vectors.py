#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "diffusers", "transformers", "safetensors", "numpy"]
# ///
"""Golden vectors of the autoencoder, from diffusers' AutoencoderKL with tiny configurations.

    uv run tests/tools/make_vae_vectors.py [OUTDIR]

Writes OUTDIR/cases.json (configurations, tensor names and shapes, which inputs) and
OUTDIR/vectors.safetensors (outputs only). Weights and inputs follow the deterministic value rule of
tests/data/spec/README.md, so they are not stored. Building and testing need none of this.
"""

import json
import math
import pathlib
import sys

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

# What each case is for is said in "why". `tiles` are sides in latents.
CASES = [
    dict(name="odd", why="two blocks, channels and latents that are not powers of two, one resnet",
         channels=[12, 20], groups=4, layers=1, latent=5, scaling=0.5, shift=0.1,
         latents=[1, 5, 5, 7], tiles=[]),
    dict(name="quant", why="1x1 convolutions at the latents, no attention in the middle, no shift",
         channels=[6, 12, 18], groups=3, layers=2, latent=3, scaling=0.18215, shift=None,
         quant=True, attention=False, latents=[1, 3, 7, 3], tiles=[]),
    dict(name="flux", why="the shape of the real one (four blocks, 16 latent channels), two pictures",
         channels=[8, 16, 24, 24], groups=8, layers=2, latent=16, scaling=0.3611, shift=0.1159,
         latents=[2, 16, 6, 9], tiles=[]),
    dict(name="tiled", why="tiled decoding and encoding, last tiles of several sizes",
         channels=[8, 8, 12], groups=4, layers=1, latent=4, scaling=0.3611, shift=0.1159,
         latents=[1, 4, 19, 13], tiles=[8, 12]),
    dict(name="long", why="one row of latents: tiles in one direction only, attention over one row",
         channels=[8, 12], groups=4, layers=1, latent=4, scaling=0.7, shift=-0.2,
         latents=[1, 4, 1, 21], tiles=[8]),
]


def values(tag, shape):
    """The deterministic value rule, in [-0.5, 0.5)."""
    n = math.prod(shape)
    k = np.arange(n, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    u = (k * np.uint64(2654435761) + np.uint64(tag * 40503 + 12345)) & mask
    u = u ^ (u >> np.uint64(15))
    u = (u * np.uint64(2246822519)) & mask
    u = u ^ (u >> np.uint64(13))
    return ((u >> np.uint64(8)).astype(np.float64) / 16777216 - 0.5).reshape(shape)


def weight(name, tag, shape):
    v = values(tag, shape)
    if len(shape) == 1:
        v = 1 + 0.4 * v if name.endswith("weight") else 0.2 * v
    else:
        v = v * 2.5 / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(v.astype(np.float32))


def build(case, tag0):
    n = len(case["channels"])
    config = dict(
        in_channels=3, out_channels=3, block_out_channels=case["channels"],
        down_block_types=["DownEncoderBlock2D"] * n, up_block_types=["UpDecoderBlock2D"] * n,
        layers_per_block=case["layers"], latent_channels=case["latent"],
        norm_num_groups=case["groups"], act_fn="silu", sample_size=1024,
        scaling_factor=case["scaling"], shift_factor=case["shift"],
        use_quant_conv=case.get("quant", False), use_post_quant_conv=case.get("quant", False),
        mid_block_add_attention=case.get("attention", True), force_upcast=True)
    vae = AutoencoderKL(**config).eval()
    shapes = {k: list(v.shape) for k, v in sorted(vae.state_dict().items())}
    vae.load_state_dict({k: weight(k, tag0 + i, s) for i, (k, s) in enumerate(shapes.items())})
    return vae, config, shapes


def set_tile(vae, side, n_blocks):
    vae.enable_tiling()
    vae.tile_latent_min_size = side
    vae.tile_sample_min_size = side * 2 ** (n_blocks - 1)


def encoded(vae, case, picture, tag):
    """Latents as the pipelines make them: mode, and sampled with one generator a picture."""
    shift = case["shift"] or 0.0
    dist = vae.encode(picture).latent_dist
    out = {f"{tag}moments": dist.parameters, f"{tag}mode": (dist.mode() - shift) * case["scaling"]}
    noise = torch.cat([torch.randn((1, *dist.mean.shape[1:]),
                                   generator=torch.Generator("cpu").manual_seed(case["seed"] + i))
                       for i in range(dist.mean.shape[0])])
    out[f"{tag}sampled"] = ((dist.mean + dist.std * noise) - shift) * case["scaling"]
    return out


@torch.inference_mode()
def run(case, index):
    tag0, down = 20000 + 1000 * index, 2 ** (len(case["channels"]) - 1)
    vae, config, shapes = build(case, tag0)
    b, c, h, w = case["latents"]
    case["seed"] = 1234 + index
    latents = torch.from_numpy((values(tag0 + 900, [b, c, h, w]) * 4).astype(np.float32))
    rgb = np.floor((values(tag0 + 901, [b, h * down, w * down, 3]) + 0.5) * 256).astype(np.uint8)
    picture = torch.from_numpy(rgb).float().permute(0, 3, 1, 2) / 255.0 * 2.0 - 1.0

    out = {}
    for side in [0] + case["tiles"]:
        tag = f"tile{side}." if side else ""
        if side:
            set_tile(vae, side, len(case["channels"]))
        image = vae.decode(latents / case["scaling"] + (case["shift"] or 0.0)).sample
        pixels = (image * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        out[f"{tag}decoded"] = image
        out[f"{tag}rgb"] = torch.from_numpy((pixels * 255).round().astype(np.uint8))
        out.update(encoded(vae, case, picture, tag))
        print(f"{case['name']:6} tile {side:2}: decoded {tuple(image.shape)} std {image.std():.3f}, "
              f"moments std {out[tag + 'moments'].std():.3f}")
    meta = dict(name=case["name"], why=case["why"], config=config, tag0=tag0,
                latents=dict(shape=[b, c, h, w], tag=tag0 + 900, scale=4),
                image=dict(shape=list(rgb.shape), tag=tag0 + 901), seed=case["seed"],
                tiles=case["tiles"], tensor_shapes=shapes)
    return meta, {f"{case['name']}.{k}": v.contiguous() for k, v in out.items()}


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/vae")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    metas, tensors = [], {}
    for index, case in enumerate(CASES):
        meta, t = run(case, index)
        metas.append(meta)
        tensors.update(t)
    about = {
        "weights": "tensor names in ascending byte order, the i-th has tag tag0 + i; value rule of "
                   "tests/data/spec/README.md with a = 2.5",
        "latents": "value(tag, k) * scale, [n, channels, h, w], diffusion space",
        "image": "floor((value(tag, k) + 0.5) * 256), [n, height, width, 3] uint8",
        "decoded": "AutoencoderKL.decode(latents / scaling_factor + shift_factor), [n, 3, H, W]",
        "rgb": "decoded as the image processor turns it into bytes, [n, H, W, 3]",
        "moments": "mean and log variance of the encoded image, [n, 2 channels, h, w]",
        "mode": "(mean - shift_factor) * scaling_factor",
        "sampled": "the same of mean + std * noise; picture i has the noise of CPU seed seed + i",
        "tileN": "the same with tiling on and tiles of N latents",
    }
    made_with = {"torch": torch.__version__, "diffusers": diffusers.__version__,
                 "numpy": np.__version__}
    cases = ",\n".join(json.dumps(m) for m in metas)  # one line a case: the shapes are long
    (out / "cases.json").write_text(f'{{"about": {json.dumps(about, indent=1)},\n"made_with": '
                                    f'{json.dumps(made_with)},\n"cases": [\n{cases}\n]}}\n')
    save_file(tensors, out / "vectors.safetensors")


if __name__ == "__main__":
    main()
