#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""The table of orchestrate/font.c from "fixed" 6x13 of the X Window System (Debian: xfonts-base).

    uv run tests/tools/make_font.py /usr/share/fonts/X11/misc/6x13.pcf.gz orchestrate/font.c

The font says of itself "Public domain font. Share and enjoy." Taken are ASCII, Latin-1 and the
quotation marks, dashes and the ellipsis that people type. Building and testing need none of this.
"""

import gzip
import struct
import sys

CODES = [*range(0x20, 0x7F), *range(0xA0, 0x100), 0x2013, 0x2014, 0x2018, 0x2019, 0x201C, 0x201D, 0x2026]
WIDTH, HEIGHT, ASCENT = 6, 13, 11
METRICS, BITMAPS, ENCODINGS = 4, 8, 32

HEAD = '''/*
 * Made by tests/tools/make_font.py from "fixed" 6x13 of the X Window System, which says of itself:
 * "Public domain font. Share and enjoy."
 */

#include "orchestrate/font.h"

/* clang-format off */
const lw_glyph lw_font[] = {
'''


def tables(data):
    count, = struct.unpack_from("<I", data, 4)
    for i in range(count):
        kind, form, _, offset = struct.unpack_from("<4I", data, 8 + 16 * i)
        yield kind, (form, offset)


def main():
    data = gzip.open(sys.argv[1]).read()
    at = dict(tables(data))

    form, p = at[METRICS]
    order = ">" if form & 4 else "<"
    metrics = []
    if form & 0x100:  # compressed: five bytes a glyph
        n, = struct.unpack_from(order + "H", data, p + 4)
        metrics = [[b - 128 for b in data[p + 6 + 5 * i:p + 11 + 5 * i]] for i in range(n)]
    else:
        n, = struct.unpack_from(order + "I", data, p + 4)
        metrics = [struct.unpack_from(order + "5h", data, p + 8 + 12 * i) for i in range(n)]

    form, p = at[BITMAPS]
    order, msb, pad = ">" if form & 4 else "<", form & 8, 1 << (form & 3)
    n, = struct.unpack_from(order + "I", data, p + 4)
    offsets = struct.unpack_from(f"{order}{n}I", data, p + 8)
    bits = p + 8 + 4 * n + 16
    unit = 1 << (form >> 4 & 3)
    assert pad >= unit and (msb == 0) == (order == "<") or unit == 1

    form, p = at[ENCODINGS]
    order = ">" if form & 4 else "<"
    lo2, hi2, lo1, hi1, _ = struct.unpack_from(order + "5H", data, p + 4)

    def glyph(code):
        row, col = code >> 8, code & 255
        assert lo1 <= row <= hi1 and lo2 <= col <= hi2, hex(code)
        g, = struct.unpack_from(order + "H", data, p + 14 + 2 * ((row - lo1) * (hi2 - lo2 + 1) + col - lo2))
        assert g != 0xFFFF, hex(code)
        left, right, _, ascent, descent = metrics[g]
        rows = [0] * HEIGHT
        for y in range(ascent + descent):
            byte = data[bits + offsets[g] + pad * y]
            value = byte if msb else int(f"{byte:08b}"[::-1], 2)
            assert 0 <= left and right <= WIDTH
            rows[ASCENT - ascent + y] = value >> left
        return rows

    with open(sys.argv[2], "w") as out:
        out.write(HEAD)
        for code in CODES:
            rows = ", ".join(f"0x{v:02x}" for v in glyph(code))
            out.write(f"    {{ 0x{code:04x}, {{ {rows} }} }},\n")
        out.write("};\n/* clang-format on */\n\nconst int lw_font_n_glyphs = (int)(sizeof(lw_font) / sizeof(lw_font[0]));\n")


if __name__ == "__main__":
    main()
