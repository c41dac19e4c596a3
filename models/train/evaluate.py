# /// script
# requires-python = ">=3.9"
# dependencies = ["numpy>=1.22", "pillow>=9"]
# ///
"""Draws held-out prompts with the real services and says how many pictures show what was asked for.

    uv run models/train/evaluate.py [--count 100] [--json models/demo/score.json] [--save DIR]
    uv run models/train/evaluate.py --count 24 --against models/demo/score.json

The seed of prompt i is i. The exit code is 1 where a share is below --need-single or --need-double, or, with
--against, below what that file states by more than chance explains, or where shuffled pairs pass.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import score
import services
import world

SHUFFLED_AT_MOST = 0.1  # the share of pictures that may pass for another prompt's


def is_unseen(scene):
    """True where the scene has a colour that its shape never had in training."""
    return any((t.shape, t.colour) in world.HELD_OUT_PAIRS for t in scene.things)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    services.add_options(p)
    p.add_argument("--count", type=int, default=100, help="prompts of each kind (default: 100)")
    p.add_argument("--seed", type=int, default=2026, help="of the choice of prompts")
    p.add_argument("--jobs", type=int, default=4, help="pictures asked for at once")
    p.add_argument("--threads", type=int, default=0, help="threads of each service; 0 = all cores")
    p.add_argument("--precision", default="auto", help="of encoder and denoiser: f32, int8 (default: as the files are)")
    p.add_argument("--templates", action="store_true", help="draw each prompt under one of the prompt templates in turn")
    p.add_argument("--need-single", type=float, default=0.0, metavar="SHARE")
    p.add_argument("--need-double", type=float, default=0.0, metavar="SHARE")
    p.add_argument("--against", type=Path, metavar="FILE", help="the shares that an earlier --json stated")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the shares here")
    p.add_argument("--save", type=Path, metavar="DIR", help="keep the pictures and prompts.txt here")
    a = p.parse_args()
    if a.count < 2:
        p.error("--count is at least 2")

    pairs = world.test_prompts(a.count, a.seed)
    prompts, scenes = [t for t, _ in pairs], [s for _, s in pairs]
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.save or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with services.Services(a.build, a.model, a.threads, a.precision) as running:
            templates = running.templates() if a.templates else [None]
            start = time.monotonic()
            paths = running.draw_all(prompts, folder, jobs=a.jobs, templates=templates)
            seconds = time.monotonic() - start
        pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    verdicts = [score.judge(picture, scene) for picture, scene in zip(pictures, scenes)]
    if a.save:
        lines = [f"{i:03} {'ok  ' if v.all else 'FAIL'} {t}\n" for i, (v, t) in enumerate(zip(verdicts, prompts))]
        (a.save / "prompts.txt").write_text("".join(lines))

    n = a.count
    rows = {"single": range(n), "double": range(n, 2 * n)}
    for kind in list(rows):
        rows[kind + ", unseen pair"] = [i for i in rows[kind] if is_unseen(scenes[i])]
    shares = {k: {"n": len(r), **score.share([verdicts[i] for i in r])} for k, r in rows.items()}
    moved = {"single": [(i + 1) % n for i in range(n)], "double": [n + (i + 1) % n for i in range(n)]}
    shuffled = [score.judge(pictures[i], scenes[j]) for k in moved for i, j in zip(rows[k], moved[k])]
    shares["shuffled"] = {"n": len(shuffled), **score.share(shuffled)}

    columns = ("n", *score.ATTRIBUTES)
    print(f"{'':20}" + "".join(f"{c:>11}" for c in columns))
    for name, row in shares.items():
        print(f"{name:20}{row['n']:11}" + "".join(f"{row[c]:11.3f}" for c in score.ATTRIBUTES))
    print(f"{2 * n} pictures in {seconds:.1f} s")
    if a.json:
        a.json.write_text(json.dumps({"seed": a.seed, "shares": shares}, indent=1) + "\n")

    need = {"single": a.need_single, "double": a.need_double}
    if a.against:
        stated = json.loads(a.against.read_text())["shares"]
        need = {k: max(need[k], lowest(stated[k]["all"], n)) for k in need}
    bad = [k for k in need if shares[k]["all"] < need[k]]
    for kind in bad:
        print(f"{kind}: {shares[kind]['all']:.3f} is below {need[kind]:.3f}", file=sys.stderr)
    if shares["shuffled"]["all"] > SHUFFLED_AT_MOST:
        print("pictures pass for the prompts of others: the judge or the prompts are broken", file=sys.stderr)
        bad.append("shuffled")
    return 1 if bad else 0


def lowest(stated, n):
    """The least share of n pictures that agrees with a stated one: three standard deviations below, and one
    picture, so that a stated 1.0 has some slack too."""
    return stated - 3 * math.sqrt(stated * (1 - stated) / n) - 1 / n


if __name__ == "__main__":
    sys.exit(main())
