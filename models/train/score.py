# /// script
# requires-python = ">=3.9"
# dependencies = ["numpy>=1.22"]
# ///
"""Says whether a picture shows the scene of its prompt, from the pixels alone.

    uv run models/train/score.py --validate [--scenes 400]

--validate checks the judge itself on drawings whose scene is known: right pairs must pass, shuffled pairs and
wrong shapes must fail. It prints a table and exits with 1 where a figure is out of its bounds.
"""

import argparse
import sys
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np

import world

IOU_NEEDED = 0.72  # of the prompt's shape at its best fit
PLACE_SLACK = 10.0  # pixels between where a shape's box is centred and where the scene has it
NOTABLE = 40  # pixels of an extra blob that count
FRAME = 4  # width in pixels of the border that shows the background
NAMES = list(world.COLOURS)
PALETTE = np.array([world.COLOURS[c] for c in NAMES], np.float32)


@dataclass(frozen=True)
class Verdict:
    """What of the scene the picture shows. `all` is true where every other field is."""

    background: bool
    colour: bool
    shape: bool
    size: bool
    place: bool
    count: bool

    @property
    def all(self):
        return all(asdict(self).values())


ATTRIBUTES = ("background", "colour", "shape", "size", "place", "count", "all")


def nearest_colour(picture):
    """The index in PALETTE of every pixel's nearest colour. picture: (H, W, 3) uint8."""
    p = picture.astype(np.float32) / 255
    return np.stack([((p - c) ** 2).sum(-1) for c in PALETTE]).argmin(0)


def components(mask):
    """The 4-connected components of a boolean mask, largest first, as boolean masks."""
    left, found = mask.copy(), []
    for y, x in zip(*np.nonzero(mask)):
        if not left[y, x]:
            continue
        part, stack = np.zeros_like(mask), [(y, x)]
        left[y, x] = False
        while stack:
            j, i = stack.pop()
            part[j, i] = True
            for b, a in ((j - 1, i), (j + 1, i), (j, i - 1), (j, i + 1)):
                if 0 <= b < mask.shape[0] and 0 <= a < mask.shape[1] and left[b, a]:
                    left[b, a] = False
                    stack.append((b, a))
        found.append(part)
    return sorted(found, key=lambda m: -int(m.sum()))


@lru_cache(maxsize=None)
def template(shape, radius, angle, dx, dy):
    """A shape's mask in a picture of the world's size, its centre at the middle + (dx, dy)."""
    middle = world.SIZE / 2
    return world.draw_mask(shape, middle + dx, middle + dy, radius, angle) > 0.5


@lru_cache(maxsize=None)
def unit_box(shape):
    """Of a shape of radius 1: the centre of its bounding box (x, y) and the box's greater side."""
    y, x = np.nonzero(template(shape, 50.0, 0.0, 0.0, 0.0))
    middle = world.SIZE / 2
    cx, cy = (x.min() + x.max() + 1) / 2 - middle, (y.min() + y.max() + 1) / 2 - middle
    return cx / 50, cy / 50, max(x.max() - x.min() + 1, y.max() - y.min() + 1) / 50


def box(mask):
    """The bounding box of a mask: centre x, centre y, greater side."""
    y, x = np.nonzero(mask)
    return (x.min() + x.max() + 1) / 2, (y.min() + y.max() + 1) / 2, max(np.ptp(x), np.ptp(y)) + 1


def fit(mask, shape):
    """The best IoU of a blob with a shape over a little position, scale and angle, and the fit's centre and
    radius: (iou, x, y, radius). The blob is moved to the middle by whole pixels first."""
    bx, by, side = box(mask)
    ux, uy, us = unit_box(shape)
    radius = side / us
    cx, cy = bx - radius * ux, by - radius * uy
    middle = world.SIZE // 2
    sx, sy = int(round(cx)), int(round(cy))
    ys, xs = np.nonzero(mask)
    ys, xs = ys + middle - sy, xs + middle - sx
    inside = (ys >= 0) & (ys < world.SIZE) & (xs >= 0) & (xs < world.SIZE)
    area = len(ys)
    ys, xs = ys[inside], xs[inside]
    best = (0.0, cx, cy, radius)
    for angle in (-0.07, 0.0, 0.07):
        for scale in (0.94, 1.0):
            r = round(radius * scale * 4) / 4
            for dx in (-1.0, 0.0, 1.0):
                for dy in (-1.0, 0.0, 1.0):
                    t = template(shape, r, angle, dx, dy)
                    both = int(t[ys, xs].sum())
                    iou = both / (area + int(t.sum()) - both)
                    if iou > best[0]:
                        best = (iou, sx + dx, sy + dy, r)
    return best


def judge(picture, scene):
    """The Verdict on a picture, (SIZE, SIZE, 3) uint8, given the world.Scene that its prompt says."""
    labels = nearest_colour(picture)
    frame = np.ones(labels.shape, bool)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    ground = int(np.bincount(labels[frame], minlength=len(NAMES)).argmax())
    p = picture.astype(np.float32) / 255
    wanted = scene.geometry()
    blobs = [b for b in components(far_from(p, PALETTE[ground])) if b.sum() >= NOTABLE]
    background = NAMES[ground] == scene.background
    if len(blobs) < len(wanted):
        return Verdict(background, False, False, False, False, False)
    parts = pair(blobs[: len(wanted)], scene)
    count = len(blobs) == len(wanted)
    colour = shape = size = place = True
    radii = world.RADIUS_ONE if len(wanted) == 1 else world.RADIUS_TWO
    for part, thing, (x, y, _) in zip(parts, scene.things, wanted):
        core = erode(part)
        seen = labels[core if core.sum() >= 12 else part]
        colour &= NAMES[int(np.bincount(seen, minlength=len(NAMES)).argmax())] == thing.colour
        fits = {s: fit(part, s) for s in world.SHAPES}
        best = max(fits, key=lambda s: fits[s][0])
        shape &= best == thing.shape and fits[best][0] >= IOU_NEEDED
        _, fx, fy, radius = fits[best]
        size &= min(radii, key=lambda k: abs(np.log(radii[k] / radius))) == thing.size
        place &= abs(fx - x) <= PLACE_SLACK and abs(fy - y) <= PLACE_SLACK
    return Verdict(background, bool(colour), bool(shape), bool(size), bool(place), count)


def far_from(p, colour):
    """Where a picture (H, W, 3) in 0..1 is not the background's colour. Half of the smallest distance between
    two colours of the palette from it is the edge: noise stays below, a smoothed outline is cut near its middle."""
    d = np.sqrt(((p - colour) ** 2).sum(-1))
    others = np.sqrt(((PALETTE - colour) ** 2).sum(-1))
    return d > others[others > 0].min() * 0.5


def erode(mask):
    """The mask without the pixels at its edge."""
    m = mask.copy()
    m[1:] &= mask[:-1]
    m[:-1] &= mask[1:]
    m[:, 1:] &= mask[:, :-1]
    m[:, :-1] &= mask[:, 1:]
    return m


def pair(blobs, scene):
    """The blobs in the order of the scene's things: left to right, or top to bottom."""
    if len(blobs) == 1:
        return blobs
    axis = 0 if scene.place == "row" else 1
    return sorted(blobs, key=lambda b: box(b)[axis])


def as_bytes(picture):
    """A (3, H, W) picture in 0..1 as (H, W, 3) uint8."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def spoil(picture, rng):
    """A drawing with a slight blur and gaussian noise of sigma 0.03."""
    for axis in (1, 2):
        picture = 0.25 * np.roll(picture, 1, axis) + 0.5 * picture + 0.25 * np.roll(picture, -1, axis)
    return picture + rng.normal(0, 0.03, picture.shape)


def share(verdicts):
    """Per attribute, the share of the verdicts that have it."""
    return {a: float(np.mean([getattr(v, a) for v in verdicts])) if verdicts else 0.0 for a in ATTRIBUTES}


def validate(n):
    """Judge drawings whose scene is known, print the shares, and return whether all are within bounds."""
    rng = np.random.default_rng(1)
    scenes = [world.random_scene(rng, 1 + i % 2) for i in range(n)]
    clean = [world.draw(s, rng)[0] for s in scenes]
    sets = {
        "clean": [judge(as_bytes(p), s) for p, s in zip(clean, scenes)],
        "noise, blur": [judge(as_bytes(spoil(p, rng)), s) for p, s in zip(clean, scenes)],
        "shuffled": [judge(as_bytes(p), s) for p, s in zip(clean, scenes[2:] + scenes[:2])],
    }
    print(f"{'':12}" + "".join(f"{a:>12}" for a in ATTRIBUTES))
    for name, verdicts in sets.items():
        print(f"{name:12}" + "".join(f"{x:12.3f}" for x in share(verdicts).values()))
    wrong = 0
    for drawn in world.SHAPES:
        for size in world.SIZES:
            scene = world.Scene("white", (world.Thing(drawn, "red", size),))
            picture = as_bytes(world.draw(scene, rng)[0])
            for said in world.SHAPES:
                thing = replace(scene.things[0], shape=said)
                if judge(picture, replace(scene, things=(thing,))).shape != (said == drawn):
                    print(f"a {size} {drawn} judged as a {said} is wrong")
                    wrong += 1
    print(f"shapes against shapes: {wrong} wrong of {len(world.SHAPES) ** 2 * len(world.SIZES)}")
    good = [share(sets[k])["all"] >= 0.995 for k in ("clean", "noise, blur")]
    return all(good) and share(sets["shuffled"])["all"] <= 0.01 and wrong == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validate", action="store_true", required=True, help="check the judge on known drawings")
    parser.add_argument("--scenes", type=int, default=400)
    sys.exit(0 if validate(parser.parse_args().scenes) else 1)
