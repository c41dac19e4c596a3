#!/usr/bin/env python3
"""Folders of experiments for tests of the report and the contact sheet, without any model:

    make_report.py DIR              2 x 3 x 2 cells, one failed and one missing (tests/data/report)
    make_report.py --hostile DIR    1000 cells whose names and prompts try to break out of the page
    make_report.py --large N DIR    N cells of 512 x 512 pixels of noise

The same command gives the same bytes.
"""

import argparse
import hashlib
import json
import math
import pathlib
import random
import struct
import zlib


def png(rows, texts=()):
    """Bytes of a PNG; rows: a list of lists of (r, g, b)."""
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))

    raw = b"".join(b"\0" + bytes(v for p in row for v in p) for row in rows)
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
            + b"".join(chunk(b"tEXt", k.encode() + b"\0" + t.encode("ascii")) for k, t in texts)
            + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def drawing(width, height, seed, shape, colour, back):
    """A coloured shape on a ground that grows darker downwards."""
    rng = random.Random(seed)
    cx, cy = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6)
    r = min(width, height) * rng.uniform(0.22, 0.34)
    rows = []
    for y in range(height):
        shade = 1 - 0.25 * y / height
        row = []
        for x in range(width):
            dx, dy = abs(x - cx), abs(y - cy)
            inside = {"circle": math.hypot(dx, dy) < r, "square": max(dx, dy) < r * 0.9,
                      "triangle": y - cy > -r and dx < (y - cy + r) / 2 < r}[shape]
            row.append(tuple(round(c * shade) for c in (colour if inside else back)))
        rows.append(row)
    return rows


def brighter(rows, by, x0, y0, x1, y1):
    """The red of a box raised by a number: a difference that can be told exactly."""
    return [[(p[0] + by, p[1], p[2]) if x0 <= x < x1 and y0 <= y < y1 else p
             for x, p in enumerate(row)] for y, row in enumerate(rows)]


def measures(rows, base=None):
    flat = [p for row in rows for p in row]
    light = [(0.299 * r + 0.587 * g + 0.114 * b) / 255 for r, g, b in flat]
    mean = sum(light) / len(light)
    # Colourfulness and sharpness are stand-ins here: the report shows whatever it finds.
    out = {"luminance": mean,
           "contrast": math.sqrt(sum((v - mean) ** 2 for v in light) / len(light)),
           "colourfulness": sum(max(p) - min(p) for p in flat) / len(flat),
           "sharpness": sum(abs(a - b) for a, b in zip(light, light[1:])) * 100}
    if base:
        d = [abs(a - b) for p, q in zip(flat, (p for row in base for p in row))
             for a, b in zip(p, q)]
        square = sum(v * v for v in d) / len(d)
        out["psnr_db"] = 10 * math.log10(255 * 255 / square) if square else None
        out["ssim"] = 1 - square / 65025
        out["mean_abs"] = sum(d) / len(d)
    return out


class Folder:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        (self.path / "cells").mkdir(parents=True, exist_ok=True)
        self.cells = []

    def add(self, at, settings, rows=None, base=None, status="done", error=None, data=None):
        text = json.dumps([at, settings], sort_keys=True)
        cell = {"id": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), "at": at,
                "settings": settings, "status": status}
        if error is not None:
            cell["error"] = error
        if status == "done":
            manifest = {"manifest": 1, "version": "0.1.0", "stages": {
                "encode": {"model_id": "demo/text_encoder", "weights_digest": "ab" * 32,
                           "backend": "onednn", "precision": "bf16"},
                "denoise": {"model_id": "demo/transformer", "weights_digest": "cd" * 32,
                            "backend": "onednn", "precision": "bf16"},
                "decode": {"model_id": "demo/vae", "weights_digest": "ef" * 32,
                           "backend": "onednn", "precision": "f32"}}}
            flat = bytes(v for row in rows for p in row for v in p)
            cell.update(file=f"cells/{cell['id']}.png", width=len(rows[0]), height=len(rows),
                        n_tokens=20 + len(settings["prompt"]) // 4,
                        text_digest=hashlib.blake2b(text.encode()).hexdigest()[:64],
                        pixels_digest=hashlib.blake2b(flat, digest_size=32).hexdigest(),
                        seconds=round(0.4 + len(self.cells) * 0.013, 3),
                        measures={k: v if v is None else round(v, 5)
                                  for k, v in measures(rows, base).items()})
            (self.path / cell["file"]).write_bytes(
                data or png(rows, [("latentwire", json.dumps(manifest, sort_keys=True))]))
        self.cells.append(cell)

    def write(self, axes, baseline, **about):
        about = {"latentwire_experiment": 1, **about, "version": "0.1.0", "axes": axes,
                 "baseline": baseline, "cells": self.cells}
        (self.path / "results.json").write_text(
            json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        names = [a["name"] for a in axes]
        lines = [",".join(["id", *names, "status"])]
        for c in self.cells:
            values = [c["id"], *(c["at"][n] for n in names), c["status"]]
            lines.append(",".join('"' + v.replace('"', '""') + '"' for v in values))
        (self.path / "results.csv").write_text("\n".join(lines) + "\n")


PROMPTS = {
    "red-circle": ("a red circle on a blue background", "circle", (206, 52, 44), (38, 74, 150)),
    "green-square": ("a green square on a yellow background, seen from straight above in even "
                     "light", "square", (48, 140, 72), (226, 196, 84)),
    "white-triangle": ("a white triangle on a grey background", "triangle", (240, 240, 236),
                       (104, 110, 118)),
}


def small(path):
    folder = Folder(path)
    for think in ("off", "on"):
        for name, (prompt, shape, colour, back) in PROMPTS.items():
            for seed in ("1", "2"):
                at = {"think": think, "prompt": name, "seed": seed}
                settings = {"prompt": prompt, "seed": seed, "think": think == "on",
                            "size": "48x40", "steps": 8, "negative": ""}
                base = drawing(48, 40, name + seed, shape, colour, back)
                rows = base
                # red-circle 1: a box of 16 x 8 is 40 redder; green-square 1: equal.
                if think == "on" and (name, seed) == ("red-circle", "1"):
                    rows = brighter(base, 40, 4, 4, 20, 12)
                elif think == "on" and (name, seed) != ("green-square", "1"):
                    rows = drawing(48, 40, name + seed + "on", shape, colour, back)
                if (think, name, seed) == ("on", "white-triangle", "1"):
                    folder.add(at, settings, status="failed",
                               error="resource_exhausted: the denoiser ran out of memory at step "
                                     "3 of 8; use a smaller --size")
                elif (think, name, seed) == ("on", "white-triangle", "2"):
                    folder.add(at, settings, status="missing")
                else:
                    folder.add(at, settings, rows, base if think == "on" else None)
    folder.write([{"name": "think", "title": "Thinking", "values": ["off", "on"]},
                  {"name": "prompt", "values": list(PROMPTS)},
                  {"name": "seed", "title": "Seed", "values": ["1", "2"]}],
                 {"think": "off"}, name="000-fixture", title="Does an empty think block matter?",
                 description="Shapes on a ground, drawn by a script: two seeds for each prompt.",
                 question="How much does the picture change when the think block is there?")


HOSTILE = ["</script><img src=x onerror=\"document.title='broken'\">", "<!--<script>",
           "\" onmouseover=\"document.title='broken'", "'><svg onload=alert(1)>", "__proto__",
           "constructor", "a\u2028b\u2029c", "javascript:alert(1)", "${document.title='broken'}",
           "very-" * 80 + "long", "\u65e5\u672c\u8a9e\u306e\u30d7\u30ed\u30f3\u30d7\u30c8",
           "\u0645\u0631\u062d\u0628\u0627 \u202eabc", "e\u0301\u0301\u0301\u0301\u0301", "",
           " ", "&lt;b&gt;&amp;", "{{7*7}}", "\U0001f600", "</template></style></title>", "%00\\"]


def hostile(path):
    folder = Folder(path)
    values = [HOSTILE, [str(i) for i in range(10)], ["off", "</script><b>", HOSTILE[9], "null",
                                                     "toString"]]
    names = ["prompt", "seed", "<img src=x onerror=alert(1)>"]
    for i, a in enumerate(values[0]):
        for b in values[1]:
            for c in values[2]:
                at = dict(zip(names, (a, b, c)))
                settings = {"prompt": a, "seed": b, "x</script>": HOSTILE[int(b)], "__proto__": "y"}
                if b == "9":
                    folder.add(at, settings, status="failed", error=HOSTILE[i])
                else:
                    colour = tuple(hashlib.md5((a + b + c).encode()).digest()[:3])
                    folder.add(at, settings, [[colour] * 8 for _ in range(8)])
    folder.write([{"name": n, "title": n, "values": v} for n, v in zip(names, values)],
                 {names[2]: "off"}, name="hostile</script>", title=HOSTILE[0] + HOSTILE[18],
                 description=HOSTILE[1] + HOSTILE[6], question=HOSTILE[3])


def large(path, n):
    folder = Folder(path)
    rng = random.Random(5)
    for i in range(n):
        rows = [[(v >> 16, v >> 8 & 255, v & 255) for v in (rng.getrandbits(24)
                                                            for _ in range(512))]
                for _ in range(512)]
        folder.add({"seed": str(i)}, {"prompt": "noise", "seed": str(i)}, rows)
    folder.write([{"name": "seed", "values": [str(i) for i in range(n)]}], None, name="large")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--hostile", action="store_true")
    kind.add_argument("--large", type=int, metavar="N")
    parser.add_argument("dir")
    args = parser.parse_args()
    if args.hostile:
        hostile(args.dir)
    elif args.large:
        large(args.dir, args.large)
    else:
        small(args.dir)


if __name__ == "__main__":
    main()
