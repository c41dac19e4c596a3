# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "transformers", "safetensors", "numpy"]
# ///
"""Hidden states of tiny Qwen3 models from transformers (CPU, f32).

Four configurations with odd sizes, prompts of 1 to 700 tokens, every hidden state. Weights and ids
come from the value rule of tests/data/spec/README.md, so the C test makes the same models and no
weights are committed. Writes tests/data/qwen3/: cases.json and one safetensors file a configuration
with, for each length n:
    rows_n  [R] int32       which rows of the hidden states are stored
    state_n [L+1, R, D]     these rows, index 0 embeddings, L after the final norm
    proj_n  [L+1, n]        every row times w, w[j] = value(77, j): a change in any row shows here
    std_n   [L+1]           standard deviation of each whole hidden state
Only the committed files are needed to build and test; run this
(`uv run tests/tools/make_qwen3_vectors.py`) to make them again.
"""
import json
import pathlib

import numpy
import torch
import transformers
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "qwen3"
LENGTHS = [1, 2, 17, 77, 300, 700]
TAG_WEIGHTS, TAG_IDS, TAG_PROJ = 7000, 9100, 77
N_ROWS = 8

CONFIGS = {
    "grouped": dict(hidden_size=36, num_attention_heads=6, num_key_value_heads=2, head_dim=8,
                    intermediate_size=52, num_hidden_layers=2, vocab_size=97, tie_word_embeddings=True),
    "one_kv": dict(hidden_size=40, num_attention_heads=3, num_key_value_heads=1, head_dim=10,
                   intermediate_size=70, num_hidden_layers=5, vocab_size=131, rope_theta=10000.0,
                   rms_norm_eps=1e-5, tie_word_embeddings=True),
    "untied": dict(hidden_size=72, num_attention_heads=4, num_key_value_heads=4, head_dim=24,
                   intermediate_size=100, num_hidden_layers=3, vocab_size=211, tie_word_embeddings=False),
    "head128": dict(hidden_size=20, num_attention_heads=2, num_key_value_heads=1, head_dim=128,
                    intermediate_size=33, num_hidden_layers=2, vocab_size=59, tie_word_embeddings=True),
}


def value(tag, n):
    """The value rule for elements 0..n-1, in [-0.5, 0.5)."""
    k = numpy.arange(n, dtype=numpy.uint64)
    mask = numpy.uint64(0xFFFFFFFF)
    u = (k * numpy.uint64(2654435761) + numpy.uint64(tag * 40503 + 12345)) & mask
    u ^= u >> numpy.uint64(15)
    u = (u * numpy.uint64(2246822519)) & mask
    u ^= u >> numpy.uint64(13)
    return (u >> numpy.uint64(8)).astype(numpy.float64) / 16777216 - 0.5


def fill(model):
    names = sorted(name for name, _ in model.named_parameters())
    parameters = dict(model.named_parameters())
    for i, name in enumerate(names):
        p = parameters[name]
        v = value(TAG_WEIGHTS + i, p.numel())
        v = 1 + 0.4 * v if p.dim() == 1 else v * 3.0 / numpy.sqrt(float(p.shape[1]))
        p.data.copy_(torch.from_numpy(v.astype(numpy.float32)).reshape(p.shape))


def main():
    torch.set_num_threads(1)
    assert abs(value(0, 4)[3] - 0.2779748) < 1e-7 and abs(value(9001, 1)[0] + 0.008527219) < 1e-8
    OUT.mkdir(exist_ok=True)
    cases = {}
    for name, settings in CONFIGS.items():
        settings = dict(rope_theta=1e6, rms_norm_eps=1e-6) | settings
        theta = settings.pop("rope_theta")
        config = transformers.Qwen3Config(
            **settings, hidden_act="silu", attention_bias=False, attn_implementation="eager",
            rope_parameters={"rope_type": "default", "rope_theta": theta})
        model = transformers.Qwen3Model(config).eval()
        fill(model)
        out, worst = {}, 0.0
        for n in LENGTHS:
            ids = numpy.floor((value(TAG_IDS + n, n) + 0.5) * config.vocab_size).astype(numpy.int64)
            with torch.no_grad():
                run = lambda m: m(torch.from_numpy(ids)[None], output_hidden_states=True).hidden_states
                states = torch.stack([h[0] for h in run(model.float())]).numpy()
                exact = torch.stack([h[0] for h in run(model.double())]).numpy()
                model.float()
            std = exact.std(axis=(1, 2))
            worst = max(worst, float((numpy.abs(states - exact).max(axis=(1, 2)) / std).max()))
            rows = sorted({i * (n - 1) // (N_ROWS - 1) for i in range(N_ROWS)})
            w = value(TAG_PROJ, config.hidden_size)
            out[f"rows_{n}"] = numpy.array(rows, dtype=numpy.int32)
            out[f"state_{n}"] = numpy.ascontiguousarray(states[:, rows])
            out[f"proj_{n}"] = (states.astype(numpy.float64) @ w).astype(numpy.float32)
            out[f"std_{n}"] = std.astype(numpy.float32)
        save_file(out, OUT / f"{name}.safetensors")
        written = {k: v for k, v in json.loads(config.to_json_string(use_diff=False)).items()
                   if k in settings or k in ("model_type", "hidden_act", "attention_bias", "rope_parameters",
                                             "rope_scaling", "layer_types", "use_sliding_window")}
        cases[name] = {"config": written, "lengths": LENGTHS, "f32_against_f64_in_std": worst}
        print(name, f"transformers' own f32 run differs from f64 by {worst:.1e} of std")
    (OUT / "cases.json").write_text(json.dumps({
        "about": "hidden states of transformers' Qwen3Model, see tests/tools/make_qwen3_vectors.py",
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__,
                      "numpy": numpy.__version__},
        "tags": {"weights": TAG_WEIGHTS, "ids": TAG_IDS, "proj": TAG_PROJ},
        "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
