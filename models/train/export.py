"""Writes what was trained as a Hugging Face model folder, in bf16."""

import json
import shutil

import torch
from safetensors.torch import save_file

import networks
import world

INDEX = {
    "_class_name": "ZImagePipeline",
    "_diffusers_version": "0.36.0",
    "latentwire": {"size": [world.SIZE, world.SIZE], "steps": 8},
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3ForCausalLM"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "ZImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def part(values, prefix):
    """The tensors of one network out of an average's, without the prefix."""
    return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}


def write(folder, config, file, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("scheduler_config.json" if file is None else "config.json")).write_text(json.dumps(config, indent=2) + "\n")
    if file is not None:
        rounded = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in sorted(tensors.items())}
        save_file(rounded, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)


def export(work, out, tokenizer, joint, autoencoder):
    """`joint` and `autoencoder` are the averaged parameters of train.Joint and train.Autoencoder, by name."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    text = dict(
        networks.TEXT_CONFIG,
        vocab_size=tokenizer.get_vocab_size(),
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
    )
    write(out / "text_encoder", dict(sorted(text.items())), "model.safetensors", part(joint, "encoder."))
    shape = "diffusion_pytorch_model.safetensors"
    write(out / "transformer", networks.DENOISER_CONFIG, shape, part(joint, "denoiser."))
    kl = {"_class_name": "AutoencoderKL", "_diffusers_version": "0.36.0", **networks.AUTOENCODER_CONFIG}
    write(out / "vae", kl, shape, part(autoencoder, "kl."))
    write(out / "scheduler", networks.SCHEDULER_CONFIG, None, None)
    (out / "tokenizer").mkdir(exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(work / "tokenizer" / file, out / "tokenizer" / file)
    return sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
