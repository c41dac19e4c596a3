"""The world the demo model knows: scenes of one or two coloured shapes, as pictures and as words.

Everything here is NumPy and the standard library. A scene is what a prompt says; a drawing of it adds what
the prompt leaves open (a few pixels of position, a few percent of size, a few degrees, a shade), so that seeds
differ. What a prompt leaves unsaid has a default: a white background (grey under a white object), medium size,
the centre, the first object left of the second.
"""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np

SIZE = 128  # pixels of a side

SHAPES = {
    "circle": ["circle", "circle", "disc", "disk"],
    "square": ["square"],
    "triangle": ["triangle"],
    "star": ["star", "star", "five-pointed star"],
    "heart": ["heart"],
    "ring": ["ring", "ring", "hoop"],
    "cross": ["cross", "cross", "plus sign", "plus"],
    "crescent": ["crescent", "crescent", "moon", "crescent moon"],
    "diamond": ["diamond", "diamond", "rhombus"],
}

COLOURS = {
    "red": (0.87, 0.11, 0.13),
    "orange": (0.98, 0.55, 0.08),
    "yellow": (0.98, 0.88, 0.16),
    "green": (0.13, 0.62, 0.22),
    "cyan": (0.15, 0.82, 0.85),
    "blue": (0.13, 0.27, 0.85),
    "purple": (0.52, 0.17, 0.68),
    "pink": (0.98, 0.56, 0.76),
    "brown": (0.47, 0.29, 0.14),
    "black": (0.06, 0.06, 0.07),
    "white": (0.97, 0.97, 0.97),
    "grey": (0.55, 0.56, 0.58),
}
COLOUR_WORDS = {"cyan": ["cyan", "turquoise"], "purple": ["purple", "purple", "violet"], "grey": ["grey", "gray"]}

SIZES = {
    "small": ["small", "small", "tiny", "little"],
    "medium": ["medium", "medium-sized", "mid-sized"],
    "large": ["large", "large", "big", "huge"],
}
RADIUS_ONE = {"small": 16.0, "medium": 26.0, "large": 40.0}  # half the side of the box around a lone shape
RADIUS_TWO = {"small": 14.0, "medium": 20.0, "large": 28.0}  # the same where two share the picture

# Where a lone shape may stand, as the signs of its offset from the centre.
POSITIONS = {
    "centre": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
POSITION_WORDS = {
    "centre": ["in the centre", "in the center", "in the middle", "at the center", "centred"],
    "left": ["on the left", "on the left side", "at the left", "to the left", "at the left edge"],
    "right": ["on the right", "on the right side", "at the right", "to the right", "at the right edge"],
    "top": ["at the top", "on top", "at the top edge", "at the top of the picture"],
    "bottom": ["at the bottom", "at the bottom edge", "at the bottom of the picture"],
}
ARRANGEMENTS = ("row", "column")  # two objects: the first is on the left, or above

# Never shown in training: one colour for every shape, to see that shape and colour compose.
HELD_OUT_PAIRS = {
    ("circle", "purple"),
    ("square", "orange"),
    ("triangle", "cyan"),
    ("star", "green"),
    ("heart", "brown"),
    ("ring", "blue"),
    ("cross", "yellow"),
    ("crescent", "red"),
    ("diamond", "black"),
}


@dataclass(frozen=True)
class Thing:
    """One object: a key of SHAPES, of COLOURS and of SIZES."""

    shape: str
    colour: str
    size: str


@dataclass(frozen=True)
class Scene:
    """What a prompt says. `things` has one or two entries, in the order of the picture (left or top first);
    `place` is a key of POSITIONS for one, of ARRANGEMENTS for two."""

    background: str
    things: tuple = field(default_factory=tuple)
    place: str = "centre"

    def geometry(self):
        """Centre x, centre y and radius in pixels of every thing, as a drawing without jitter has them."""
        middle = SIZE / 2
        if len(self.things) == 1:
            radius = RADIUS_ONE[self.things[0].size]
            offset = min(34.0, middle - 4 - radius)
            sx, sy = POSITIONS[self.place]
            return [(middle + sx * offset, middle + sy * offset, radius)]
        step = [-32.0, 32.0]
        return [
            (middle + s, middle, RADIUS_TWO[t.size]) if self.place == "row" else (middle, middle + s, RADIUS_TWO[t.size])
            for s, t in zip(step, self.things)
        ]

    def held_out(self):
        """True where training must not draw this scene: a held-out pair, or one scene of sixteen by digest."""
        if any((t.shape, t.colour) in HELD_OUT_PAIRS for t in self.things):
            return True
        return hashlib.sha256(repr(self).encode()).digest()[0] % 16 == 0


def distance(shape, x, y):
    """Signed distance to the outline (negative inside) at the points x, y of a shape that fills the box
    [-1, 1] x [-1, 1]; y points down. Near the outline it is exact enough to smooth an edge with."""
    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.hypot(x, y) - 0.96
    if shape == "square":
        return np.maximum(ax, ay) - 0.86
    if shape == "triangle":
        return np.maximum(y - 0.8, (1.8 * ax - (y + 1)) / math.hypot(1.8, 1))
    if shape == "star":
        fifth = 2 * math.pi / 5
        angle = np.abs(np.mod(np.arctan2(x, -y) + fifth / 2, fifth) - fifth / 2)
        r = np.hypot(x, y)
        px, py = r * np.cos(angle), r * np.sin(angle)
        qx, qy = 0.44 * math.cos(fifth / 2), 0.44 * math.sin(fifth / 2)
        length = math.hypot(qx - 1, qy)
        return (qy * (px - 1) - (qx - 1) * py) / length
    if shape == "heart":
        h, dy = 0.58, y + 0.08
        side = np.maximum(np.abs(x + dy), np.abs(x - dy)) / math.sqrt(2) - h
        lobes = np.hypot(ax - h / math.sqrt(2), dy + h / math.sqrt(2)) - h
        return np.minimum(side, lobes)
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.72) - 0.25
    if shape == "cross":
        return np.minimum(np.maximum(ax - 0.31, ay - 0.96), np.maximum(ax - 0.96, ay - 0.31))
    if shape == "crescent":
        return np.maximum(np.hypot(x, y) - 0.96, 0.8 - np.hypot(x - 0.52, y))
    if shape == "diamond":
        return (ax + 0.72 * ay - 0.7) / math.hypot(1, 0.72)
    raise ValueError(f"no shape {shape!r}")


def draw_mask(shape, cx, cy, radius, angle=0.0, size=SIZE):
    """The coverage (0..1) of every pixel of a size x size picture by one shape, float32, edges smoothed."""
    mask = np.zeros((size, size), np.float32)
    reach = radius * 1.3 + 2
    x0, x1 = max(0, int(cx - reach)), min(size, int(cx + reach) + 1)
    y0, y1 = max(0, int(cy - reach)), min(size, int(cy + reach) + 1)
    if x0 >= x1 or y0 >= y1:
        return mask
    x = ((np.arange(x0, x1, dtype=np.float32) + 0.5 - cx) / radius)[None, :]
    y = ((np.arange(y0, y1, dtype=np.float32) + 0.5 - cy) / radius)[:, None]
    c, s = math.cos(angle), math.sin(angle)
    d = distance(shape, c * x + s * y, c * y - s * x)
    mask[y0:y1, x0:x1] = np.clip(0.5 - d * radius, 0, 1)
    return mask


def draw(scene, rng, jitter=1.0):
    """A picture of the scene, (3, SIZE, SIZE) float32 in 0..1, and the masks of its things, (2, SIZE, SIZE).
    `jitter` 0 draws it exactly as `geometry` says."""

    def shade(colour):
        return np.clip(np.array(COLOURS[colour], np.float32) + jitter * rng.uniform(-0.012, 0.012, 3), 0, 1)

    picture = np.empty((3, SIZE, SIZE), np.float32)
    picture[:] = shade(scene.background)[:, None, None]
    masks = np.zeros((2, SIZE, SIZE), np.float32)
    for i, (thing, (cx, cy, radius)) in enumerate(zip(scene.things, scene.geometry())):
        dx, dy = jitter * rng.uniform(-2.5, 2.5, 2)
        radius *= 1 + jitter * rng.uniform(-0.04, 0.04)
        angle = jitter * rng.uniform(-0.07, 0.07)
        masks[i] = draw_mask(thing.shape, cx + dx, cy + dy, radius, angle)
        picture += masks[i] * (shade(thing.colour)[:, None, None] - picture)
    return picture, masks


def random_scene(rng, things=None):
    """Any scene of this world, held out or not. `things`: 1, 2, or None for either."""
    background = pick(rng, list(COLOURS))
    if things is None:
        things = 1 if rng.random() < 0.45 else 2
    others = [c for c in COLOURS if c != background]
    made = []
    while len(made) < things:
        thing = Thing(pick(rng, list(SHAPES)), pick(rng, others), pick(rng, list(SIZES)))
        if thing.shape not in [m.shape for m in made] or thing.colour not in [m.colour for m in made]:
            made.append(thing)
    if things == 1:
        u = rng.random()
        place = "centre" if u < 0.35 else pick(rng, list(POSITIONS)[1:5] if u < 0.75 else list(POSITIONS)[5:])
    else:
        place = pick(rng, ARRANGEMENTS)
    return Scene(background, tuple(made), place)


def pick(rng, choices):
    """One of the choices, each as likely as the others."""
    return choices[int(rng.integers(len(choices)))]


def default_background(things):
    """The background of a prompt that does not name one."""
    return "grey" if any(t.colour == "white" for t in things) else "white"


def caption(scene, rng):
    """One of many ways to say the scene. Every way says enough to draw it, given the defaults."""
    maybe = lambda chance: rng.random() < chance  # noqa: E731
    colour_word = lambda c: pick(rng, COLOUR_WORDS.get(c, [c]))  # noqa: E731

    def phrase(thing):
        size = None if thing.size == "medium" and maybe(0.75) else pick(rng, SIZES[thing.size])
        colour, shape = colour_word(thing.colour), pick(rng, SHAPES[thing.shape])
        filler = pick(rng, ["simple", "plain", "flat", "solid", "bright", "nice"]) if maybe(0.05) else None
        u = rng.random()
        if u < 0.86:
            words = [size, filler, colour, shape]
        elif u < 0.91 and size:
            words = [colour, size, shape]
        elif u < 0.96:
            words = [size, filler, shape, pick(rng, ["in", "coloured", "colored", "painted"]), colour]
        else:
            words = [size, shape, "that is", colour]
        text = " ".join(w for w in words if w)
        u = rng.random()
        if u < 0.68:
            return ("an " if text[0] in "aeiou" else "a ") + text
        return text if u < 0.86 else "one " + text if u < 0.92 else "the " + text

    def single():
        thing = phrase(scene.things[0])
        if scene.place == "centre" and maybe(0.7):
            return thing
        if scene.place in POSITION_WORDS:
            where = pick(rng, POSITION_WORDS[scene.place])
        else:
            vertical, side = scene.place.split()
            if maybe(0.4):
                vertical = {"top": "upper", "bottom": "lower"}[vertical]
            join = pick(rng, [" ", " ", "-"])
            where = pick(rng, ["in the {} corner", "at the {}", "in the {}", "on the {}"]).format(vertical + join + side)
        u = rng.random()
        if u < 0.75:
            return f"{thing} {where}"
        return f"{thing}, {where}" if u < 0.85 else f"{where} {thing}" if u < 0.93 else f"{where}, {thing}"

    def double():
        a, b = phrase(scene.things[0]), phrase(scene.things[1])
        if scene.place == "row":
            return pick(
                rng,
                [
                    f"{a} left of {b}",
                    f"{a} to the left of {b}",
                    f"{a} on the left of {b}",
                    f"{b} right of {a}",
                    f"{b} to the right of {a}",
                    f"{b} on the right of {a}",
                    f"{a} and {b}",
                    f"{a} next to {b}",
                    f"{a} beside {b}",
                    f"{a} on the left and {b} on the right",
                    f"{a} on the left, {b} on the right",
                    f"on the left {a}, on the right {b}",
                    f"{b} on the right and {a} on the left",
                    f"{a} with {b} to its right",
                ],
            )
        return pick(
            rng,
            [
                f"{a} above {b}",
                f"{a} over {b}",
                f"{a} on top of {b}",
                f"{b} below {a}",
                f"{b} under {a}",
                f"{b} beneath {a}",
                f"{b} underneath {a}",
                f"{a} at the top and {b} at the bottom",
                f"{a} at the top, {b} at the bottom",
                f"{b} at the bottom and {a} at the top",
                f"{a} with {b} below it",
            ],
        )

    text = single() if len(scene.things) == 1 else double()
    leading = False
    if scene.background != default_background(scene.things) or maybe(0.3):
        ground = colour_word(scene.background)
        u = rng.random()
        if u < 0.80:
            text += " " + pick(
                rng,
                [
                    "on a {} background",
                    "on a {} background",
                    "on a {} background",
                    "against a {} background",
                    "with a {} background",
                    "on {} background",
                    "on {}",
                    "over a {} background",
                    "on a {} canvas",
                    "in front of a {} background",
                    "against {}",
                ],
            ).format(ground)
            if ground[0] in "aeiou":
                text = text.replace(f" a {ground} ", f" an {ground} ")
        elif u < 0.87:
            text += f", {ground} background"
        elif u < 0.94:
            leading, text = True, f"{ground} background with {text}"
        else:
            leading, text = True, f"on a {ground} background, {text}"
    if not leading and maybe(0.2):
        text = (
            pick(rng, ["draw", "paint", "show me", "a picture of", "an image of", "a drawing of", "please draw", "picture of"])
            + " "
            + text
        )
    u = rng.random()
    if u < 0.25:
        text = text[0].upper() + text[1:]
    elif u < 0.255:
        text = text.upper()
    if maybe(0.15):
        text += "."
    return text


def training_scene(rng, things=None):
    """A scene that training may see."""
    while True:
        scene = random_scene(rng, things)
        if not scene.held_out():
            return scene


def test_prompts(count_each, seed):
    """`count_each` prompts of one object, then as many of two, with their scenes: [(prompt, scene)]. No scene
    among them was trained on, and every fourth has a colour its shape never had in training."""
    rng = np.random.default_rng(seed)
    found = []
    for things in (1, 2):
        for i in range(count_each):
            while True:
                scene = random_scene(rng, things)
                unseen_pair = any((t.shape, t.colour) in HELD_OUT_PAIRS for t in scene.things)
                if scene.held_out() and unseen_pair == (i % 4 == 3):
                    break
            found.append((caption(scene, rng), scene))
    return found
