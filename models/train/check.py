#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow", "tokenizers"]
# ///
"""Draws with the demo model three times over and compares: diffusers' ZImagePipeline (with transformers' Qwen3),
the networks of this folder, and the three services.

    uv run models/train/check.py [--model models/demo] [--build build]
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from diffusers import ZImagePipeline
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer

import data
import networks
import world


def by_diffusers(pipe, prompt, seed):
    generator = torch.Generator().manual_seed(seed)
    made = pipe(prompt, height=world.SIZE, width=world.SIZE, num_inference_steps=8, guidance_scale=0.0, generator=generator)
    return np.asarray(made.images[0])


@torch.no_grad()
def by_networks(model, tokenizer, vae, prompt, seed):
    ids, valid = data.encode(tokenizer, [data.chat(prompt)], networks.PAD_TO)
    encoder, denoiser = model
    caption, valid = encoder(torch.from_numpy(ids)), torch.from_numpy(valid)
    cells = world.SIZE // data.BLOCK
    x = torch.randn(1, data.CHANNELS, cells, cells, generator=torch.Generator().manual_seed(seed))
    levels = networks.sigmas(8)
    for now, then in zip(levels[:-1], levels[1:]):
        x = x - (then - now) * denoiser(x, 1 - now[None], caption, valid)
    picture = vae.decode(x / vae.config.scaling_factor + vae.config.shift_factor).sample[0]
    return (picture.permute(1, 2, 0).clamp(-1, 1) * 127.5 + 127.5).round().numpy().astype(np.uint8)


def by_services(build, model, prompt, seed, folder):
    file = folder / f"{seed}.png"
    command = [build / "orchestrate/latentwire", "generate", "--model", model, "--seed", str(seed), "-o", file, prompt]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return np.asarray(Image.open(file).convert("RGB"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=pathlib.Path, default=pathlib.Path("models/demo"))
    p.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    p.add_argument("--count", type=int, default=6, help="prompts of each kind")
    a = p.parse_args()

    pipe = ZImagePipeline.from_pretrained(str(a.model), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    tokenizer = Tokenizer.from_file(str(a.model / "tokenizer/tokenizer.json"))
    encoder = networks.TextEncoder(networks.TEXT_CONFIG, tokenizer.get_vocab_size())
    denoiser = networks.Denoiser(networks.DENOISER_CONFIG)
    for network, file in ((encoder, "text_encoder/model"), (denoiser, "transformer/diffusion_pytorch_model")):
        network.load_state_dict({k: v.float() for k, v in load_file(a.model / f"{file}.safetensors").items()})

    worst = {"networks": 0, "services": 0}
    with tempfile.TemporaryDirectory() as folder:
        for seed, (prompt, _) in enumerate(world.test_prompts(a.count, 99)):
            reference = by_diffusers(pipe, prompt, seed).astype(int)
            ours = by_networks((encoder, denoiser), tokenizer, pipe.vae, prompt, seed)
            theirs = by_services(a.build, a.model, prompt, seed, pathlib.Path(folder))
            for name, picture in (("networks", ours), ("services", theirs)):
                worst[name] = max(worst[name], int(np.abs(picture.astype(int) - reference).max()))
            print(f"{prompt}: networks {worst['networks']}, services {worst['services']} of 255 so far", flush=True)
    print(f"largest difference to diffusers: networks {worst['networks']}, services {worst['services']} of 255")
    sys.exit(max(worst.values()) > 1)


if __name__ == "__main__":
    main()
