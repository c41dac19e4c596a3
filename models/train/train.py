#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["torch", "diffusers", "safetensors", "numpy", "tokenizers"]
# ///
"""Makes models/demo from nothing.

    uv run models/train/train.py [--work DIR] [--out DIR] [--device cpu|cuda]

Stages, each resumed from DIR where it was left: the tokenizer and the latent basis (seconds); the text encoder
alone, learning to say what a prompt says (minutes); the denoiser with the text encoder (most of the time); the
autoencoder (which needs neither); the export. README.md beside this file says why it is made this way.
"""

import argparse
import itertools
import json
import math
import os
import pathlib
import time

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import data
import export
import networks
import world  # noqa: F401


# ------------------------------------------------------------------------------------------------ optimiser


class Muon:
    """Momentum made orthogonal (Jordan et al. 2024), scaled to the step length of Adam (Liu et al. 2025), for the
    matrices inside the blocks; those of one shape are handled together."""

    def __init__(self, parameters, momentum=0.95, decay=0.02):
        self.groups = {}
        for p in parameters:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.velocity = {s: torch.zeros(len(g), *s, device=g[0].device) for s, g in self.groups.items()}
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, rate):
        for shape, group in self.groups.items():
            gradient = torch.stack([p.grad for p in group])
            v = self.velocity[shape]
            v.mul_(self.momentum).add_(gradient)
            x = (gradient + self.momentum * v).bfloat16()
            wide = shape[0] > shape[1]
            x = x.mT if wide else x
            x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
            x = (x.mT if wide else x).float()
            for p, u in zip(group, x.unbind()):
                p.mul_(1 - rate * self.decay).add_(u, alpha=-0.2 * math.sqrt(max(shape)) * rate)

    def state(self):
        return {str(k): v for k, v in self.velocity.items()}

    def load(self, state):
        for k in self.velocity:
            self.velocity[k].copy_(state[str(k)])


class Optimiser:
    """Muon for the blocks' matrices, AdamW for the rest."""

    def __init__(self, modules):
        inner, outer = [], []
        for m in modules:
            for name, p in m.named_parameters():
                block = any(k in name for k in ("attention.to_", "feed_forward", "self_attn", "mlp.gate", "mlp.up", "mlp.down"))
                (inner if p.ndim == 2 and block else outer).append(p)
        self.muon = Muon(inner)
        self.adam = torch.optim.AdamW(outer, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.all = inner + outer

    def step(self, muon_rate, adam_rate, clip=1.0):
        norm = nn.utils.clip_grad_norm_(self.all, clip)
        for g in self.adam.param_groups:
            g["lr"] = adam_rate
        self.muon.step(muon_rate)
        self.adam.step()
        for p in self.all:
            p.grad = None
        return float(norm)

    def state(self):
        return {"muon": self.muon.state(), "adam": self.adam.state_dict()}

    def load(self, state):
        self.muon.load(state["muon"])
        self.adam.load_state_dict(state["adam"])


class Average:
    """Exponential moving average of modules' parameters; what is shipped."""

    def __init__(self, module, keep=0.999):
        self.module, self.keep, self.count = module, keep, 0
        self.values = {k: p.detach().clone() for k, p in module.named_parameters()}

    @torch.no_grad()
    def update(self):
        self.count += 1
        keep = min(self.keep, self.count / (self.count + 10))
        mine = list(self.values.values())
        torch._foreach_mul_(mine, keep)
        torch._foreach_add_(mine, [p.detach() for p in self.module.parameters()], alpha=1 - keep)


# --------------------------------------------------------------------------------------------------- helpers


def ramp(step, total, warm=100, falling=0.5):
    """Share of the full learning rate: up over `warm` steps, flat, and down to zero over the last part."""
    left = (total - step) / (total * falling)
    return min(1.0, (step + 1) / warm, max(0.0, left))


def save(path, state):
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load(path, device):
    return torch.load(path, map_location=device, weights_only=False) if path.exists() else None


class Readout(nn.Module):
    """Linear read-outs of what the prompt says, from the encoder's last row. Thrown away after training."""

    def __init__(self, width):
        super().__init__()
        self.norm = networks.RMSNorm(width, 1e-6)
        self.heads = nn.Linear(width, sum(n for _, n in data.LABELS))

    def forward(self, hidden, valid, wanted):
        """The mean cross entropy, and per label whether the best class is right, (B, labels)."""
        last = hidden[torch.arange(len(hidden), device=hidden.device), valid.sum(1) - 1]
        scores = self.heads(self.norm(last.float())).split([n for _, n in data.LABELS], -1)
        loss = sum(F.cross_entropy(s, wanted[:, i]) for i, s in enumerate(scores)) / len(scores)
        return loss, torch.stack([s.argmax(-1) == wanted[:, i] for i, s in enumerate(scores)], -1)


def on(device, batch):
    return {k: torch.from_numpy(v).to(device) for k, v in batch.items()}


def compiled(batch):
    """Whether a batch has one of the two common lengths; the others would each cost minutes of compiling."""
    return batch["ids"].shape[1] <= 64


def half(device):
    return torch.autocast(device, dtype=torch.bfloat16)


# ---------------------------------------------------------------------------------------------------- stages


def prepare(work):
    """The tokenizer and the latent basis."""
    from tokenizers import Tokenizer

    folder, file = work / "tokenizer", work / "basis.npz"
    if not file.exists():
        data.train_tokenizer(folder)
        mean, matrix, values = data.fit_basis()
        np.savez(file, mean=mean, matrix=matrix, values=values)
    found = np.load(file)
    return Tokenizer.from_file(str(folder / "tokenizer.json")), (found["mean"], found["matrix"])


def make_text(step, tokenizer, size):
    return data.make_batch((1, step), size, tokenizer, None, False, 0.4)


def train_text(a, tokenizer):
    """The text encoder alone."""
    file, steps, device = a.work / "text.pt", a.text_steps, a.device
    torch.manual_seed(1)
    encoder = networks.TextEncoder(networks.TEXT_CONFIG, tokenizer.get_vocab_size()).to(device)
    readout = Readout(networks.TEXT_CONFIG["hidden_size"]).to(device)
    optimiser = Optimiser([encoder, readout])
    done = load(file, device)
    if done:
        encoder.load_state_dict(done["encoder"])
        readout.load_state_dict(done["readout"])
        return encoder, readout

    def loss_of(ids, valid, wanted):
        with half(device):
            hidden = encoder(ids)
        return readout(hidden, valid, wanted)

    run, began = torch.compile(loss_of) if a.compile else loss_of, time.time()
    for step, batch in enumerate(data.stream(0, steps, make_text, (tokenizer, 96))):
        b = on(device, batch)
        loss, right = (run if compiled(b) else loss_of)(b["ids"], b["valid"], b["labels"])
        loss.backward()
        # The layer that never runs has no gradient; it is shipped as it was made.
        for p in encoder.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        rate = ramp(step, steps)
        optimiser.step(4e-3 * rate, 3e-3 * rate)
        if step % 100 == 99:
            marks = " ".join(f"{n}:{r:.2f}" for (n, _), r in zip(data.LABELS, right.float().mean(0).tolist()))
            print(f"text {step + 1}/{steps} {time.time() - began:.0f}s loss {loss.item():.3f} {marks}", flush=True)
    save(file, {"encoder": encoder.state_dict(), "readout": readout.state_dict()})
    return encoder, readout


def make_pictures(step, tokenizer, basis, size, steps):
    lone = 0.6 if step < 0.25 * steps else 0.4  # easy ones first
    return data.make_batch((2, step), size, tokenizer, basis, True, lone)


class Joint(nn.Module):
    """Text encoder, denoiser and the read-outs that help them, with the loss of a batch."""

    PROBE = 3  # main layers before the coverage read-out

    def __init__(self, encoder, readout):
        super().__init__()
        self.encoder, self.readout = encoder, readout
        self.denoiser = networks.Denoiser(networks.DENOISER_CONFIG)
        self.cover = nn.Linear(networks.DENOISER_CONFIG["dim"], 32)

    def forward(self, ids, valid, wanted, latents, coverage, noise, sigma, device):
        with half(device):
            hidden = self.encoder(ids)
            s = sigma[:, None, None, None]
            out, seen = self.denoiser((1 - s) * latents + s * noise, 1 - sigma, hidden, valid, self.PROBE)
        error = (out.float() - (latents - noise)).square().mean((1, 2, 3))
        seen = F.rms_norm(seen.float(), seen.shape[-1:])
        cover = F.binary_cross_entropy_with_logits(self.cover(seen).float(), coverage)
        text, _ = self.readout(hidden, valid, wanted)
        return error, cover, text


def draw_sigmas(generator, size, early):
    """Noise levels of a batch: a share at pure noise, where the prompt is all there is to go by; most of the
    others at the levels that eight steps visit; the rest anywhere."""
    eight = networks.sigmas(8)[:8]
    visited = eight[torch.randint(8, (size,), generator=generator)]
    u = torch.rand(size, generator=generator)
    anywhere = 3 * u / (1 + 2 * u)
    kind = torch.rand(size, generator=generator)
    pure = 0.45 if early else 0.15
    return torch.where(kind < pure, torch.ones(size), torch.where(kind < pure + (1 - pure) * 0.75, visited, anywhere))


def train_denoiser(a, tokenizer, basis, encoder, readout):
    file, steps, device = a.work / "denoiser.pt", a.steps, a.device
    torch.manual_seed(2)
    joint = Joint(encoder, readout).to(device)
    optimiser, average, first, spent = Optimiser([joint]), Average(joint), 0, 0.0
    done = load(file, device)
    if done:
        joint.load_state_dict(done["joint"])
        optimiser.load(done["optimiser"])
        average.values, average.count = done["average"], done["count"]
        first, spent = done["step"], done["spent"]
    if first >= steps:
        return average.values
    run = torch.compile(joint, dynamic=False) if a.compile else joint
    began, seen = time.time(), []
    arguments = (tokenizer, basis, a.batch, steps)
    for step, batch in enumerate(data.stream(first, steps, make_pictures, arguments), first):
        g = torch.Generator().manual_seed(step * 2 + 1)
        b = on(device, batch)
        noise = torch.randn(b["latents"].shape, generator=g).to(device)
        sigma = draw_sigmas(g, len(noise), step < 0.4 * steps).to(device)
        error, cover, text = (run if compiled(b) else joint)(
            b["ids"], b["valid"], b["labels"], b["latents"], b["coverage"], noise, sigma, device
        )
        loss = error.mean() + 0.5 * cover * (1.0 if step < 0.7 * steps else 0.2) + 0.05 * text
        loss.backward()
        for p in encoder.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        rate = ramp(step, steps, 200, 0.6)
        norm = optimiser.step(a.muon_rate * rate, a.adam_rate * rate)
        average.update()
        pure = error.detach()[sigma == 1]
        seen.append((loss.item(), error.mean().item(), pure.mean().item() if len(pure) else math.nan, cover.item(), text.item(), norm))
        if step % 50 == 49:
            m, now = np.nanmean(np.array(seen), 0), spent + time.time() - began
            print(
                f"denoiser {step + 1}/{steps} {now:.0f}s loss {m[0]:.3f} error {m[1]:.3f} at noise {m[2]:.3f} "
                f"cover {m[3]:.3f} text {m[4]:.4f} norm {m[5]:.2f}",
                flush=True,
            )
            seen = []
        if step % 250 == 249 or step == steps - 1:
            state = {"joint": joint.state_dict(), "optimiser": optimiser.state(), "average": average.values}
            state |= {"count": average.count, "step": step + 1, "spent": spent + time.time() - began}
            save(file, state)
    return average.values


CROP = 64  # pixels; the first three quarters of the autoencoder's steps see crops, four times cheaper


def make_reconstructions(step, basis, crops):
    """32 crops, or 8 whole pictures, with their latents."""
    rng = np.random.default_rng((3, step))
    count = 32 if crops else 8
    pictures = np.stack([world.draw(world.random_scene(rng), rng)[0] for _ in range(count)])
    latents = data.to_latents(pictures, basis).astype(np.float32)
    if not crops:
        return {"pictures": pictures, "latents": latents}
    cells, most = CROP // data.BLOCK, (world.SIZE - CROP) // data.BLOCK
    chosen_p, chosen_l = [], []
    for p, z in zip(pictures, latents):
        # Of three places, the one with most outline in it.
        tries = []
        for y, x in rng.integers(0, most + 1, (3, 2)):
            part = z[:, y : y + cells, x : x + cells]
            tries.append((float(np.square(part[3:]).sum()), y, x))
        _, y, x = max(tries)
        chosen_l.append(z[:, y : y + cells, x : x + cells])
        chosen_p.append(p[:, y * 8 : y * 8 + CROP, x * 8 : x * 8 + CROP])
    return {"pictures": np.stack(chosen_p), "latents": np.stack(chosen_l)}


class Autoencoder(nn.Module):
    """diffusers' AutoencoderKL, its encoder learning to compute the latents and its decoder to undo them; with
    the losses of a batch."""

    def __init__(self):
        super().__init__()
        from diffusers import AutoencoderKL

        self.kl = AutoencoderKL(**networks.AUTOENCODER_CONFIG)
        # Close to linear at the start: the branches of the residual blocks add little.
        for name, p in self.kl.named_parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()))
                if "conv2" in name or "to_out" in name:
                    p.data.mul_(0.1)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        self.kl.to(memory_format=torch.channels_last)
        # The encoder is as good as certain: the standard deviation it states is exp(-5).
        self.kl.encoder.conv_out.weight.data[data.CHANNELS :] = 0
        self.kl.encoder.conv_out.bias.data[data.CHANNELS :] = -10

    def forward(self, pictures, latents, noise, device):
        c = self.kl.config
        with half(device):
            target = pictures * 2 - 1
            drawn = self.kl.decoder((latents + noise) / c.scaling_factor + c.shift_factor)
            seen = self.kl.encoder(target)[:, : data.CHANNELS]
        error = (drawn.float() - target).abs()
        picture = error.mean() + 2 * error.square().mean()
        latent = ((seen.float() - c.shift_factor) * c.scaling_factor - latents).square().mean()
        return picture, latent, error.square().mean() / 4


def train_autoencoder(a, basis):
    file, steps, device = a.work / "autoencoder.pt", a.autoencoder_steps, a.device
    torch.manual_seed(3)
    model = Autoencoder().to(device)
    average, first, spent = Average(model, 0.998), 0, 0.0
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.001, fused=True)
    done = load(file, device)
    if done:
        model.load_state_dict(done["model"])
        optimiser.load_state_dict(done["optimiser"])
        average.values, average.count = done["average"], done["count"]
        first, spent = done["step"], done["spent"]
    run = torch.compile(model, dynamic=False) if a.compile else model
    began, seen = time.time(), []
    whole = steps * 3 // 4
    stages = [data.stream(first, whole, make_reconstructions, (basis, True))]
    stages += [data.stream(max(first, whole), steps, make_reconstructions, (basis, False))]
    for step, batch in enumerate(itertools.chain(*stages), first):
        g = torch.Generator().manual_seed(step * 2)
        b = on(device, batch)
        level = torch.rand(len(b["latents"]), 1, 1, 1, generator=g) * 0.15
        noise = (torch.randn(b["latents"].shape, generator=g) * level).to(device)
        pictures = b["pictures"].contiguous(memory_format=torch.channels_last)
        picture, latent, square = run(pictures, b["latents"], noise, device)
        (picture + 0.5 * latent).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * ramp(step, steps, 100, 0.7)
        optimiser.step()
        optimiser.zero_grad()
        average.update()
        seen.append((picture.item(), latent.item(), square.item()))
        if step % 50 == 49:
            m, now = np.mean(np.array(seen), 0), spent + time.time() - began
            print(
                f"autoencoder {step + 1}/{steps} {now:.0f}s picture {m[0]:.4f} ({-10 * math.log10(m[2]):.1f} dB) "
                f"latent {m[1]:.4f}",
                flush=True,
            )
            seen = []
        if step % 250 == 249 or step == steps - 1:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average.values}
            state |= {"count": average.count, "step": step + 1, "spent": spent + time.time() - began}
            save(file, state)
    return average.values


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/demo"), help="checkpoints go here")
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models/demo"), help="the model goes here")
    p.add_argument("--device", default="cpu")
    p.add_argument("--text-steps", type=int, default=800)
    p.add_argument("--steps", type=int, default=5500, help="of the denoiser")
    p.add_argument("--batch", type=int, default=64, help="of the denoiser")
    p.add_argument("--autoencoder-steps", type=int, default=2000)
    p.add_argument("--muon-rate", type=float, default=3e-3)
    p.add_argument("--adam-rate", type=float, default=2e-3)
    p.add_argument("--no-compile", dest="compile", action="store_false")
    p.add_argument("--stage", choices=["text", "denoiser", "autoencoder", "export", "all"], default="all")
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer, basis = prepare(a.work)
    if a.stage in ("text", "denoiser", "all"):
        encoder, readout = train_text(a, tokenizer)
        if a.stage != "text":
            train_denoiser(a, tokenizer, basis, encoder, readout)
    if a.stage in ("autoencoder", "all"):
        train_autoencoder(a, basis)
    if a.stage in ("export", "all"):
        joint, autoencoder = (load(a.work / f"{n}.pt", "cpu")["average"] for n in ("denoiser", "autoencoder"))
        print(f"{export.export(a.work, a.out, tokenizer, joint, autoencoder)} bytes in {a.out}")


if __name__ == "__main__":
    main()
