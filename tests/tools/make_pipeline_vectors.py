# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "diffusers", "transformers", "safetensors", "numpy", "pillow", "accelerate"]
# ///
"""Whole-pipeline vectors from diffusers' ZImagePipeline (CPU, f32).

Runs the tiny model of tests/data/spec/pipeline_tiny through the real pipeline with settings that the
first two cases do not cover and writes tests/data/pipeline/: cases.json and one PNG a picture. Only
the committed files are needed to build and test; run this (`uv run tests/tools/make_pipeline_vectors.py`)
to make them again.
"""
import hashlib
import json
import pathlib

import diffusers
import numpy
import torch
import transformers
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1] / "data"
MODEL = ROOT / "spec" / "pipeline_tiny" / "model"
OUT = ROOT / "pipeline"

LONG = " ".join(f"lantern number {i} above the misty mountain, red and silver;" for i in range(60))
CASES = {
    "c": dict(prompt="silver lantern above a quiet harbour", negative_prompt="noise", height=48, width=96,
              steps=6, guidance=4.0, cfg_normalization=1.0, cfg_truncation=0.7, seed=123),
    "d": dict(prompt="a garden", negative_prompt=None, height=64, width=64, steps=3, guidance=0.0,
              cfg_normalization=0.0, cfg_truncation=1.0, seed=4294967290, n=3),
    "e": dict(prompt=LONG, negative_prompt=None, height=32, width=112, steps=2, guidance=0.0,
              cfg_normalization=0.0, cfg_truncation=1.0, seed=5),
    "f": dict(prompt="x", negative_prompt="", height=112, width=32, steps=5, guidance=2.5,
              cfg_normalization=0.5, cfg_truncation=1.0, seed=99, n=2),
    "g": dict(prompt="", negative_prompt=None, height=16, width=16, steps=1, guidance=0.0,
              cfg_normalization=0.0, cfg_truncation=1.0, seed=0),
    "h": dict(prompt="wooden teapot \u2014 \u96ea\u5c71, e\u0301t\u00e9", negative_prompt=LONG, height=80, width=48, steps=9,
              guidance=1.0, cfg_normalization=0.0, cfg_truncation=0.1, seed=31337),
}


def main():
    torch.set_num_threads(1)
    pipe = diffusers.ZImagePipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    # The first generation of vectors must come out again, or the versions are not comparable.
    spec = json.loads((ROOT / "spec/pipeline_tiny/cases.json").read_text())["cases"]["a"]
    image = pipe(prompt=spec["prompt"], height=spec["height"], width=spec["width"],
                 num_inference_steps=spec["num_inference_steps"], guidance_scale=0.0,
                 generator=torch.Generator("cpu").manual_seed(spec["seed"])).images[0]
    expected = numpy.asarray(Image.open(ROOT / "spec/pipeline_tiny/a/expected.png"), dtype=int)
    off = numpy.abs(numpy.asarray(image, dtype=int) - expected).max()
    assert off <= 1, f"case a differs by {off}"

    OUT.mkdir(exist_ok=True)
    out = {
        "about": "cases of diffusers' ZImagePipeline on spec/pipeline_tiny/model; picture i of a case has its own "
                 "generator with seed + i; keys are the pipeline's arguments",
        "made_with": {"torch": torch.__version__, "diffusers": diffusers.__version__,
                      "transformers": transformers.__version__, "numpy": numpy.__version__},
        "cases": {},
    }
    for name, c in CASES.items():
        n = c.setdefault("n", 1)
        images = pipe(prompt=c["prompt"], negative_prompt=c["negative_prompt"], height=c["height"],
                      width=c["width"], num_inference_steps=c["steps"], guidance_scale=c["guidance"],
                      cfg_normalization=c["cfg_normalization"], cfg_truncation=c["cfg_truncation"],
                      num_images_per_prompt=n,
                      generator=[torch.Generator("cpu").manual_seed(c["seed"] + i) for i in range(n)]).images
        c["png"], c["rgb_sha256"] = [], []
        for i, image in enumerate(images):
            path = OUT / f"{name}{i}.png"
            image.save(path)
            c["png"].append(path.name)
            c["rgb_sha256"].append(hashlib.sha256(numpy.asarray(image).tobytes()).hexdigest())
        values = numpy.stack([numpy.asarray(i) for i in images])
        print(name, values.shape, "mean", values.mean().round(1), "std", values.std().round(1),
              "clipped", ((values == 0) | (values == 255)).mean().round(3))
        out["cases"][name] = c
    (OUT / "cases.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
