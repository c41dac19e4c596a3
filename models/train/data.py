"""Batches for training: scenes drawn, said, formatted as chat, cut into tokens, with the labels they carry free.

A batch is a function of (seed, stage, step) alone, so that a run that was stopped goes on as if it had not been.
"""

import functools
import json
import multiprocessing
import pathlib
import queue as queues
import re
import textwrap

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import world

BLOCK = 8  # pixels of a latent cell's side
CHANNELS = 16
ROOT = pathlib.Path(__file__).resolve().parents[2]
QWEN3 = ROOT / "models" / "qwen3-tokenizer"
TEMPLATES = ROOT / "templates" / "z_image"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SYSTEM_PROMPTS = [
    "You draw.",
    "You are a careful illustrator.",
    "Draw flat geometric shapes.",
    "You are a helpful assistant.",
    "Paint what is asked, nothing else.",
    "You are a photographer with an eye for light.",
    "Describe the image by its colours and shapes.",
    "Keep the composition simple and balanced.",
]
THOUGHTS = [
    "",
    "Simple shapes.",
    "I keep the edges clean.",
    "First the background, then the objects.",
    "The colours should be clear.",
    "I will place everything as asked.",
]
# What people write around a description of shapes, which changes nothing of the picture.
LEADS = ["a photo of ", "digital art of ", "an illustration of ", "a render of ", "a minimal poster of ", "an icon of "]
TAILS = [
    "highly detailed", "4k", "8k", "flat design", "minimalist", "clean edges", "simple shapes", "vector art", "centred composition",
    "sharp focus", "high quality", "soft light", "studio light", "masterpiece", "in a minimal style", "geometric", "modern",
]  # fmt: skip


@functools.cache
def template_texts():
    """The bodies and the thoughts of the prompt templates the project ships, in the order of their paths."""
    bodies, thoughts = [], []
    for file in sorted(TEMPLATES.rglob("*.md")):
        _, head, body = file.read_text(encoding="utf-8").split("---\n", 2)
        bodies.append(body.strip())
        found = re.search(r"^thinking: \|\n((?:  .*\n|\n)+)", head, re.MULTILINE)
        if found:
            thoughts.append(textwrap.dedent(found[1]).strip())
    return bodies, thoughts


# ------------------------------------------------------------------------------------------------- tokenizer


def train_tokenizer(folder, merges=1700):
    """Writes a byte-level BPE tokenizer of this world's words and the templates', with Qwen3's splitting rule,
    special tokens and chat template, into `folder`."""
    rng = np.random.default_rng(7)
    corpus = [world.caption(world.random_scene(rng), rng) for _ in range(12000)]
    corpus += sum(template_texts(), []) + (LEADS + TAILS) * 20
    corpus += (SYSTEM_PROMPTS + THOUGHTS + ["system\n", "user\n", "assistant\n"] * 20) * 20
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False)
    )
    settings = json.loads((QWEN3 / "tokenizer_config.json").read_text())
    special = [v for _, v in sorted(settings["added_tokens_decoder"].items(), key=lambda kv: int(kv[0]))]
    for token in special:
        options = {k: token[k] for k in ("lstrip", "normalized", "rstrip", "single_word", "special")}
        added = AddedToken(token["content"], **options)
        (bpe.add_special_tokens if token["special"] else bpe.add_tokens)([added])
    settings["added_tokens_decoder"] = {str(bpe.token_to_id(t["content"])): t for t in special}
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    return bpe


def chat(prompt, system=None, thought=None):
    """The text that the encoder sees: Qwen3's template, as the pipeline uses it."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system is not None else ""
    text += f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    if thought is not None:
        text += f"<think>\n{thought}\n</think>\n\n"
    return text


# ---------------------------------------------------------------------------------------------- latent basis


def blocks(pictures):
    """(B, 3, S, S) to (B, S/8, S/8, 192): the pixels of every cell, channel, row, column; -1..1."""
    b, c, s, _ = pictures.shape
    n = s // BLOCK
    p = pictures.reshape(b, c, n, BLOCK, n, BLOCK).transpose(0, 2, 4, 1, 3, 5)
    return p.reshape(b, n, n, c * BLOCK * BLOCK) * 2 - 1


def fit_basis(seed=11, pictures=3000):
    """The latent space: the 16 leading principal components of this world's 8x8 pixel blocks, each scaled to
    unit variance (the weak ones to less). Gives mean (192,) and matrix (192, 16): latent = (block - mean) @ matrix."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(pictures):
        cells = blocks(world.draw(world.random_scene(rng), rng)[0][None])[0].reshape(-1, 192)
        rows.append(cells)
    rows = np.concatenate(rows).astype(np.float64)
    mean = rows.mean(0)
    values, vectors = np.linalg.eigh(np.cov((rows - mean).T))
    values, vectors = values[::-1][:CHANNELS], vectors[:, ::-1][:, :CHANNELS]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(CHANNELS)])
    scale = (values / values[0]) ** 0.1 / np.sqrt(values)
    return mean.astype(np.float32), (vectors * scale).astype(np.float32), values


def to_latents(pictures, basis):
    """(B, 3, S, S) in 0..1 to (B, 16, S/8, S/8)."""
    mean, matrix = basis
    return ((blocks(pictures) - mean) @ matrix).transpose(0, 3, 1, 2)


# ---------------------------------------------------------------------------------------------------- labels

PLACES = list(world.POSITIONS) + list(world.ARRANGEMENTS)
# What a prompt says, as (name, number of classes); the second object has a class for "there is none".
LABELS = [
    ("background", len(world.COLOURS)),
    ("place", len(PLACES)),
    ("shape 1", len(world.SHAPES)),
    ("colour 1", len(world.COLOURS)),
    ("size 1", len(world.SIZES)),
    ("shape 2", len(world.SHAPES) + 1),
    ("colour 2", len(world.COLOURS) + 1),
    ("size 2", len(world.SIZES) + 1),
]


def labels(scene):
    found = [list(world.COLOURS).index(scene.background), PLACES.index(scene.place)]
    for i in range(2):
        kinds = (world.SHAPES, world.COLOURS, world.SIZES)
        if i < len(scene.things):
            thing = scene.things[i]
            words = (thing.shape, thing.colour, thing.size)
            found += [list(k).index(w) for k, w in zip(kinds, words)]
        else:
            found += [len(k) for k in kinds]
    return found


def coverage(masks):
    """(2, 128, 128) to (64, 32): for each picture token, how much of its 4x4 squares each object covers."""
    fine = masks.reshape(2, 32, 4, 32, 4).mean((2, 4))
    return fine.reshape(2, 8, 4, 8, 4).transpose(1, 3, 0, 2, 4).reshape(64, 32)


# --------------------------------------------------------------------------------------------------- batches


def encode(tokenizer, texts, pad_to):
    """Token ids (B, L) padded at the end to a multiple of `pad_to`, and which are the text's."""
    rows = [e.ids for e in tokenizer.encode_batch(texts)]
    length = -(-max(map(len, rows)) // pad_to) * pad_to
    ids, valid = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], valid[i, : len(row)] = row, True
    return ids, valid


def say(scene, rng):
    """A caption, one in sixteen with words around it that change nothing."""
    text = world.caption(scene, rng)
    if rng.random() < 1 / 16:
        if rng.random() < 0.5:
            text = world.pick(rng, LEADS) + text[0].lower() + text[1:]
        else:
            text = text.rstrip(".") + "".join(", " + world.pick(rng, TAILS) for _ in range(rng.integers(1, 4)))
    return text


def cut(text, tokens, tokenizer):
    """The beginning of a text that has about so many tokens."""
    offsets = tokenizer.encode(text).offsets
    return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]].strip()


def wordy(scene, rng, tokenizer, most, texts):
    """A caption under system prompts, and at times thoughts, out of the templates, of about `most` tokens."""
    bodies, thoughts = texts
    thought = cut(world.pick(rng, thoughts), int(rng.integers(10, most // 2)), tokenizer) if rng.random() < 0.3 else None
    said = say(scene, rng)
    room = most - len(tokenizer.encode(chat(said, "", thought)).ids) - int(rng.integers(0, 24))
    system = world.pick(rng, bodies)
    while len(tokenizer.encode(system).ids) < room:
        system += "\n\n" + world.pick(rng, bodies)
    return chat(said, cut(system, max(room, 4), tokenizer), thought)


WORDY = range(96, 513, 32)  # tokens of the batches with long system prompts


def make_batch(key, size, tokenizer, basis, pictures, lone_share):
    """One batch. Of sixteen, fourteen are plain prompts of at most 32 tokens; one has 33 to 64, most with a short
    system prompt or thoughts; one, of fewer samples, has a length out of WORDY, filled with the texts of templates."""
    rng = np.random.default_rng(key)
    kind = {7: "long", 15: "wordy"}.get(key[-1] % 16, "plain")
    most = {"plain": 32, "long": 64, "wordy": int(world.pick(rng, WORDY))}[kind]
    texts = template_texts() if kind == "wordy" else None
    size = size if texts is None else min(size, max(8, 4096 // (64 + most)))  # as dear as a plain batch, or twice
    scenes, said = [], []
    while len(scenes) < size:
        scene = world.training_scene(rng, 1 if rng.random() < lone_share else 2)
        system = thought = None
        if kind == "wordy":
            text = wordy(scene, rng, tokenizer, most, texts)
        else:
            if kind == "long":
                u = rng.random()
                system = world.pick(rng, SYSTEM_PROMPTS) if u < 0.5 else None
                thought = world.pick(rng, THOUGHTS) if 0.3 < u < 0.8 else None
            text = chat(say(scene, rng), system, thought)
        # All of a batch pad to the same length, and by less than 32 tokens, as the services do.
        if 0 <= most - len(tokenizer.encode(text).ids) < 32:
            scenes.append(scene)
            said.append(text)
    ids, valid = encode(tokenizer, said, 32)
    batch = {"ids": ids, "valid": valid, "labels": np.array([labels(s) for s in scenes])}
    if pictures:
        drawn = [world.draw(s, rng) for s in scenes]
        batch["latents"] = to_latents(np.stack([p for p, _ in drawn]), basis).astype(np.float32)
        batch["coverage"] = np.stack([coverage(m) for _, m in drawn]).astype(np.float32)
    return batch


def _produce(out, first, last, make, arguments):
    for step in range(first, last):
        out.put(make(step, *arguments))


def stream(first, last, make, arguments):
    """make(step, *arguments) for every step, made ahead in a process of its own."""
    context = multiprocessing.get_context("fork")
    out = context.Queue(4)
    worker = context.Process(target=_produce, args=(out, first, last, make, arguments), daemon=True)
    worker.start()
    for _ in range(first, last):
        while True:
            try:
                item = out.get(timeout=20)
                break
            except queues.Empty:
                if not worker.is_alive():
                    raise RuntimeError("the process that makes the batches has died") from None
        yield item
    worker.join()
