"""The text encoder and the denoiser of the demo model, in PyTorch, written to train fast in batches.

Parameter names and arithmetic are those of transformers' Qwen3 and diffusers' ZImageTransformer2DModel, so a
state dict saved here is a checkpoint for them and for the services; check.py compares the three. The autoencoder
is diffusers' AutoencoderKL itself.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

TEXT_CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "max_position_embeddings": 4096,
    "max_window_layers": 4,
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
}

DENOISER_CONFIG = {
    "_class_name": "ZImageTransformer2DModel",
    "_diffusers_version": "0.36.0",
    "all_f_patch_size": [1],
    "all_patch_size": [2],
    "axes_dims": [8, 12, 12],
    "axes_lens": [1536, 512, 512],
    "cap_feat_dim": 128,
    "dim": 192,
    "in_channels": 16,
    "n_heads": 6,
    "n_kv_heads": 6,
    "n_layers": 5,
    "n_refiner_layers": 1,
    "norm_eps": 1e-05,
    "qk_norm": True,
    "rope_theta": 256.0,
    "t_scale": 1000.0,
}

AUTOENCODER_CONFIG = {
    "act_fn": "silu",
    "block_out_channels": [16, 16, 32, 48],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 1,
    "mid_block_add_attention": True,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 128,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}

SCHEDULER_CONFIG = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": False,
}

PAD_TO = 32  # the denoiser pads captions and pictures to multiples of this many tokens


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def attend(q, k, v, causal=False):
    """Softmax attention, (B, heads, N, head). Written out: the fused one trains four times slower on a CPU at
    these sizes."""
    scores = (q @ k.mT).float() / math.sqrt(q.shape[-1])
    if causal:
        n = q.shape[2]
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1), -math.inf)
    return scores.softmax(-1).to(v.dtype) @ v


# ---------------------------------------------------------------------------------------------- text encoder


def rotate_halves(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class TextAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.head = c["hidden_size"], c["head_dim"]
        self.heads, self.kv = c["num_attention_heads"], c["num_key_value_heads"]
        self.q_proj = nn.Linear(d, self.heads * self.head, bias=False)
        self.k_proj = nn.Linear(d, self.kv * self.head, bias=False)
        self.v_proj = nn.Linear(d, self.kv * self.head, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head, d, bias=False)
        self.q_norm = RMSNorm(self.head, c["rms_norm_eps"])
        self.k_norm = RMSNorm(self.head, c["rms_norm_eps"])

    def forward(self, x, cos, sin):
        b, n, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, n, self.heads, self.head)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, n, self.kv, self.head)).transpose(1, 2)
        v = self.v_proj(x).view(b, n, self.kv, self.head).transpose(1, 2)
        q, k = rotate_halves(q, cos, sin).to(v.dtype), rotate_halves(k, cos, sin).to(v.dtype)
        repeat = self.heads // self.kv
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = attend(q, k, v, causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, n, -1))


class TextLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, m = c["hidden_size"], c["intermediate_size"]
        self.input_layernorm = RMSNorm(d, c["rms_norm_eps"])
        self.self_attn = TextAttention(c)
        self.post_attention_layernorm = RMSNorm(d, c["rms_norm_eps"])
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(d, m, bias=False),
                "up_proj": nn.Linear(d, m, bias=False),
                "down_proj": nn.Linear(m, d, bias=False),
            }
        )

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))


class TextEncoder(nn.Module):
    """Qwen3 without its head. forward(ids (B, N)) gives hidden_states[-2], (B, N, hidden_size): the last layer
    and the final norm are in the checkpoint, as the architecture has them, and never run."""

    def __init__(self, config, vocabulary):
        super().__init__()
        self.config = dict(config, vocab_size=vocabulary)
        d = config["hidden_size"]
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(vocabulary, d),
                "layers": nn.ModuleList(TextLayer(config) for _ in range(config["num_hidden_layers"])),
                "norm": RMSNorm(d, config["rms_norm_eps"]),
            }
        )
        nn.init.normal_(self.model["embed_tokens"].weight, std=0.5)
        for name, p in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(p, std=0.3 / math.sqrt(p.shape[1]))
            elif p.ndim == 2 and "proj" in name:
                nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]))
        half = config["head_dim"] // 2
        rate = config["rope_theta"] ** (-torch.arange(half).float() / half)
        angle = torch.arange(512).float()[:, None] * rate[None, :]
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids):
        n = ids.shape[1]
        x = self.model["embed_tokens"](ids)
        for layer in self.model["layers"][:-1]:
            x = layer(x, self.cos[:n], self.sin[:n])
        return x


# -------------------------------------------------------------------------------------------------- denoiser


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim, bias=False)])
        self.norm_q = RMSNorm(dim // heads, 1e-5)
        self.norm_k = RMSNorm(dim // heads, 1e-5)

    def forward(self, x, cos, sin):
        b, n, d = x.shape
        shape = (b, n, self.heads, d // self.heads)

        def rotate(y):
            even, odd = y[..., 0::2], y[..., 1::2]
            return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(y.dtype)

        q = rotate(self.norm_q(self.to_q(x).view(shape))).transpose(1, 2)
        k = rotate(self.norm_k(self.to_k(x).view(shape))).transpose(1, 2)
        v = self.to_v(x).view(shape).transpose(1, 2)
        y = attend(q, k, v)
        return self.to_out[0](y.transpose(1, 2).reshape(b, n, d))


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        hidden = int(dim / 3 * 8)
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, dim, heads, eps, modulation):
        super().__init__()
        self.attention = Attention(dim, heads)
        self.feed_forward = FeedForward(dim)
        self.attention_norm1, self.attention_norm2 = RMSNorm(dim, eps), RMSNorm(dim, eps)
        self.ffn_norm1, self.ffn_norm2 = RMSNorm(dim, eps), RMSNorm(dim, eps)
        self.adaLN_modulation = nn.ModuleList([nn.Linear(min(dim, 256), 4 * dim)]) if modulation else None

    def forward(self, x, cos, sin, c=None):
        if self.adaLN_modulation is None:
            x = x + self.attention_norm2(self.attention(self.attention_norm1(x), cos, sin))
            return x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        a, ga, m, gm = self.adaLN_modulation[0](c)[:, None, :].chunk(4, -1)
        x = x + ga.tanh() * self.attention_norm2(self.attention(self.attention_norm1(x) * (1 + a), cos, sin))
        return x + gm.tanh() * self.ffn_norm2(self.feed_forward(self.ffn_norm1(x) * (1 + m)))


class FinalLayer(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.linear = nn.Linear(dim, out)
        self.adaLN_modulation = nn.ModuleList([nn.SiLU(), nn.Linear(min(dim, 256), dim)])

    def forward(self, x, c):
        scale = 1 + self.adaLN_modulation[1](F.silu(c))[:, None, :]
        return self.linear(F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale)


class Denoiser(nn.Module):
    """S3-DiT. A batch holds captions that pad to the same length, and pictures of one size whose token count is
    a multiple of 32; so nothing is masked, as in a run of one picture."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        dim, heads, eps = config["dim"], config["n_heads"], config["norm_eps"]
        refiners, c = config["n_refiner_layers"], min(dim, 256)
        patch = 4 * config["in_channels"]
        self.all_x_embedder = nn.ModuleDict({"2-1": nn.Linear(patch, dim)})
        self.all_final_layer = nn.ModuleDict({"2-1": FinalLayer(dim, patch)})
        self.noise_refiner = nn.ModuleList(Block(dim, heads, eps, True) for _ in range(refiners))
        self.context_refiner = nn.ModuleList(Block(dim, heads, eps, False) for _ in range(refiners))
        self.t_embedder = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(256, 1024), nn.SiLU(), nn.Linear(1024, c))})
        self.cap_embedder = nn.Sequential(RMSNorm(config["cap_feat_dim"], eps), nn.Linear(config["cap_feat_dim"], dim))
        self.x_pad_token = nn.Parameter(torch.zeros(1, dim))
        self.cap_pad_token = nn.Parameter(torch.randn(1, dim))
        self.layers = nn.ModuleList(Block(dim, heads, eps, True) for _ in range(config["n_layers"]))
        self.initialise()

    def initialise(self):
        for name, p in self.named_parameters():
            if p.ndim != 2 or "pad_token" in name:
                continue
            if "adaLN_modulation" in name:
                nn.init.zeros_(p)
            elif "t_embedder" in name:
                nn.init.normal_(p, std=1.4 / math.sqrt(p.shape[1]))
            else:
                nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]))
        # The block adds norm2(...) times tanh(gate): a third of full strength to begin with.
        for block in [*self.noise_refiner, *self.layers]:
            bias = block.adaLN_modulation[0].bias.data.view(4, -1)
            bias.zero_()
            bias[1].fill_(0.4)
            bias[3].fill_(0.4)
        nn.init.zeros_(self.all_final_layer["2-1"].adaLN_modulation[1].bias)
        nn.init.normal_(self.all_final_layer["2-1"].linear.weight, std=0.02)
        nn.init.zeros_(self.all_final_layer["2-1"].linear.bias)
        # At sigma 1 the tokens are noise alone. A common part gives every query a direction that does not
        # depend on the noise, so that the rotary phases against the caption tell a token where it is.
        nn.init.normal_(self.all_x_embedder["2-1"].bias, std=0.7)
        nn.init.normal_(self.all_x_embedder["2-1"].weight, std=0.7 / math.sqrt(64))

    def angles(self, positions):
        """cos and sin, (N, 1, head / 2), of integer positions (N, 3)."""
        parts = []
        for axis, width in enumerate(self.config["axes_dims"]):
            rate = 1.0 / self.config["rope_theta"] ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
            parts.append(positions[:, axis : axis + 1].double() * rate[None, :])
        angle = torch.cat(parts, -1).to(torch.float32)[:, None, :]
        return angle.cos(), angle.sin()

    def positions(self, caption, rows, columns):
        """Integer positions of caption tokens (pads too) and of picture tokens, (L, 3) and (rows*columns, 3)."""
        zero = torch.zeros(caption, dtype=torch.long)
        text = torch.stack([torch.arange(1, caption + 1), zero, zero], -1)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        picture = torch.stack([torch.full_like(y, caption + 1), y, x], -1).reshape(-1, 3)
        return text, picture

    def embed_time(self, t):
        half = torch.exp(-math.log(10000) * torch.arange(128, device=t.device, dtype=torch.float32) / 128)
        a = (t.float() * self.config["t_scale"])[:, None] * half[None, :]
        return self.t_embedder["mlp"](torch.cat([a.cos(), a.sin()], -1))

    def forward(self, z, t, caption, valid, probe=None):
        """z (B, 16, H, W), t (B,) = 1 - sigma, caption (B, L, cap_feat_dim) with L a multiple of 32, valid (B, L)
        true where a token is the caption's. Gives the model's output, (B, 16, H, W): it estimates x0 - noise.
        With `probe`, also the picture tokens after that many main layers."""
        b, ch, h, w = z.shape
        rows, columns, length = h // 2, w // 2, caption.shape[1]
        c = self.embed_time(t)
        where_text, where_picture = self.positions(length, rows, columns)
        tc, ts = (a.to(z.device) for a in self.angles(where_text))
        pc, ps = (a.to(z.device) for a in self.angles(where_picture))

        x = z.view(b, ch, rows, 2, columns, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, rows * columns, 4 * ch)
        x = self.all_x_embedder["2-1"](x).float()
        for block in self.noise_refiner:
            x = block(x, pc, ps, c)
        y = torch.where(valid[..., None], self.cap_embedder(caption).float(), self.cap_pad_token)
        for block in self.context_refiner:
            y = block(y, tc, ts)

        u, cos, sin, seen = torch.cat([x, y], 1), torch.cat([pc, tc]), torch.cat([ps, ts]), None
        for i, block in enumerate(self.layers):
            u = block(u, cos, sin, c)
            if probe == i + 1:
                seen = u[:, : rows * columns]
        o = self.all_final_layer["2-1"](u, c)[:, : rows * columns]
        o = o.view(b, rows, columns, 2, 2, ch).permute(0, 5, 1, 3, 2, 4).reshape(b, ch, h, w)
        return o if probe is None else (o, seen)


def sigmas(steps, shift=3.0):
    """The noise levels of the sampler, (steps + 1,): FlowMatchEuler with a shift, ending on 0."""
    even = 1 - torch.arange(steps + 1).float() / steps
    return shift * even / (1 + (shift - 1) * even)
