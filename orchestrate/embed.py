#!/usr/bin/env python3
"""A text file as a C string, for pages that carry their style sheet and their script:

    embed.py SYMBOL INPUT OUTPUT.c      const char SYMBOL[] holds the file, zero-terminated
"""

import pathlib
import sys


def literal(line):
    """One line of UTF-8 as a C string literal; octal escapes end after three digits, so that what
    follows cannot become part of them."""
    out = []
    for byte in line:
        if byte in b'"\\':
            out.append("\\" + chr(byte))
        elif 32 <= byte < 127 and byte != ord("?"):  # "??" would be a trigraph
            out.append(chr(byte))
        else:
            out.append(f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def main(symbol, source, target):
    data = pathlib.Path(source).read_bytes()
    if b"\0" in data:
        sys.exit(f"{source} holds a zero byte: it cannot be a C string")
    lines = "\n".join("    " + literal(line) for line in data.splitlines(keepends=True))
    pathlib.Path(target).write_text(
        f'/* Made from {pathlib.Path(source).name} by embed.py. */\n'
        f'#include "orchestrate/embedded.h"\n\n'
        f'const char {symbol}[] =\n{lines or "    " + literal(b"")};\n')


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
