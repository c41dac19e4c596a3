# /// script
# requires-python = ">=3.9"
# dependencies = ["pillow>=10.1"]
# ///
"""Draws prompts with the real services and puts them on one sheet, each prompt under its picture.

    uv run models/train/contact_sheet.py -o sheet.png [--prompts FILE] [--columns 6] [--seed 1]

FILE has one prompt a line; without it, the list below.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import services

PROMPTS = [
    "a red circle on a blue background",
    "a large yellow star on black",
    "a small pink heart in the top left corner",
    "an orange ring at the bottom",
    "a huge green diamond",
    "a white crescent moon on a purple background",
    "a cyan cross on the right",
    "a tiny black triangle in the bottom right corner",
    "a red square left of a blue circle",
    "a yellow star above a green triangle",
    "a purple heart and an orange heart",
    "a big blue square next to a small red ring",
    "a white star on the left and a white circle on the right, on black",
    "a brown diamond below a pink crescent",
    "a cyan ring to the right of a purple cross on yellow",
    "a large black disc on an orange background",
    "grey background with a white heart",
    "a turquoise triangle on a brown background",
    "a purple circle",
    "a green star on a pink background",
    "a brown heart over a black cross",
    "an orange square on the left, a cyan triangle on the right",
    "a small blue ring at the top on a white background",
    "a little yellow crescent above a big red circle on blue",
]
PICTURE, MARGIN, LINE = 128, 12, 13


def wrapped(text, font, width):
    """The text in lines no wider than `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = (lines[-1] + " " + word).strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    services.add_options(p)
    p.add_argument("-o", "--output", type=Path, required=True)
    p.add_argument("--prompts", type=Path, metavar="FILE")
    p.add_argument("--columns", type=int, default=6)
    p.add_argument("--seed", type=int, default=1, help="of every picture (default: 1)")
    a = p.parse_args()
    prompts = PROMPTS
    if a.prompts:
        prompts = [line.strip() for line in a.prompts.read_text().splitlines() if line.strip()]

    font = ImageFont.load_default(11)
    labels = [wrapped(text, font, PICTURE) for text in prompts]
    cell_w, cell_h = PICTURE + MARGIN, PICTURE + MARGIN + LINE * max(map(len, labels), default=1)
    rows = -(-len(prompts) // a.columns)
    sheet = Image.new("RGB", (a.columns * cell_w + MARGIN, rows * cell_h + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    with tempfile.TemporaryDirectory() as folder, services.Services(a.build, a.model) as running:
        paths = running.draw_all(prompts, folder, seeds=[a.seed] * len(prompts))
        for i, path in enumerate(paths):
            x, y = MARGIN + i % a.columns * cell_w, MARGIN + i // a.columns * cell_h
            sheet.paste(Image.open(path), (x, y))
            pen.rectangle((x - 1, y - 1, x + PICTURE, y + PICTURE), outline=(200, 200, 200))
            for j, line in enumerate(labels[i]):
                pen.text((x, y + PICTURE + 3 + j * LINE), line, fill=(40, 40, 40), font=font)
    sheet.save(a.output, optimize=True)


if __name__ == "__main__":
    main()
