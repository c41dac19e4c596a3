#!/usr/bin/env python3
"""First inputs for the fuzz targets of common/: one small file for each thing a parser looks at.

    python3 tests/tools/make_fuzz_corpus.py tests/fuzz/corpus

Inputs that a fuzzer found are added beside these by hand, under a short name that says what broke.
"""

import json
import pathlib
import struct
import sys
import zlib


def st(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def t(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors():
    one = {"a": t("F32", [2], 0, 8)}
    good = {"__metadata__": {"format": "pt"}, "b": t("F32", [2, 3], 0, 24), "a": t("BF16", [5], 24, 34),
            "none": t("I64", [0, 7], 24, 24), "scalar": t("U8", [], 34, 35)}
    return {
        "good": st(good, bytes(35)),
        "empty": b"",
        "no-tensors": st(b"{}"),
        "padded": st(b"{}      "),
        "fp8": st({"w": t("F8_E4M3", [2, 2], 0, 4), "v": t("F8_E5M2", [1], 4, 5)}, bytes(5)),
        "short-length": b"\x02\0\0",
        "length-over-file": st(one, bytes(8), 1000),
        "length-4gib": st(one, bytes(8), 1 << 32),
        "length-all-ones": st(one, bytes(8), (1 << 64) - 1),
        "truncated-data": st(one, bytes(7)),
        "trailing-data": st(one, bytes(9)),
        "overlap": st({"a": t("F32", [2], 0, 8), "b": t("F32", [2], 4, 12)}, bytes(12)),
        "gap": st({"a": t("F32", [2], 0, 8), "b": t("F32", [2], 9, 17)}, bytes(17)),
        "negative-shape": st({"a": t("F32", [-2], 0, 8)}, bytes(8)),
        "negative-offset": st({"a": t("F32", [2], -8, 0)}, bytes(8)),
        "overflow-shape": st({"a": t("F32", [1 << 32, 1 << 32], 0, 0)}),
        "zero-hides-overflow": st({"a": t("F32", [1 << 62, 1 << 62, 0], 0, 0)}),
        "huge-integer": st(b'{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,0]}}'),
        "rank-9": st({"a": t("F32", [1] * 9, 0, 4)}, bytes(4)),
        "other-dtype": st({"a": t("F64", [1], 0, 8)}, bytes(8)),
        "unknown-dtype": st({"a": t("Q4_K", [1], 0, 8)}, bytes(8)),
        "duplicate-name": st(b'{"a":' + json.dumps(one["a"]).encode() + b',"a":'
                             + json.dumps(one["a"]).encode() + b"}", bytes(8)),
        "empty-name": st({"": t("F32", [2], 0, 8)}, bytes(8)),
        "control-name": st({"a\n": t("F32", [2], 0, 8)}, bytes(8)),
        "bad-utf8-name": st(b'{"\xff":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4)),
        "nul-name": st(b'{"a\\u0000":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4)),
        "deep": st(b'{"a":' + b"[" * 3000),
        "commas": st(b'{"a":[' + b"," * 3000),
        "open-string": st(b'{"aaaaaaaa'),
        "open-escape": st(b'{"a\\'),
        "not-an-object": st(b"[1]"),
        "metadata-number": st(b'{"__metadata__":{"a":1}}'),
        "metadata-array": st(b'{"__metadata__":[]}'),
        "float-shape": st(b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', bytes(8)),
    }


def chunk(kind, data, crc=None):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body) if crc is None else crc)


def png(*chunks):
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    idat = chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
    return b"\x89PNG\r\n\x1a\n" + ihdr + b"".join(chunks) + idat + chunk(b"IEND", b"")


def png_texts():
    utf8 = "Grüße 美".encode()
    return {
        "empty": b"",
        "signature": b"\x89PNG\r\n\x1a\n",
        "no-text": png(),
        "text": png(chunk(b"tEXt", b"prompt\0a red circle")),
        "latin1": png(chunk(b"tEXt", b"prompt\0Gr\xfc\xdfe")),
        "itxt": png(chunk(b"iTXt", b"prompt\0\0\0\0\0" + utf8)),
        "itxt-language": png(chunk(b"iTXt", b"prompt\0\0\0de\0Eingabe\0" + utf8)),
        "itxt-compressed": png(chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(utf8))),
        "itxt-bad-utf8": png(chunk(b"iTXt", b"prompt\0\0\0\0\0\xff")),
        "itxt-cut": png(chunk(b"iTXt", b"prompt\0\0")),
        "itxt-no-end": png(chunk(b"iTXt", b"prompt\0\0\0de")),
        "ztxt": png(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"x"))),
        "no-keyword": png(chunk(b"tEXt", b"\0x")),
        "no-separator": png(chunk(b"tEXt", b"prompt")),
        "long-keyword": png(chunk(b"tEXt", b"k" * 80 + b"\0x")),
        "zero-in-text": png(chunk(b"tEXt", b"k\0a\0b")),
        "empty-text": png(chunk(b"tEXt", b"k\0")),
        "wrong-crc": png(chunk(b"tEXt", b"k\0v", 0)),
        "length-over-file": png()[:33] + b"\xff\xff\xff\xfftEXt",
        "length-4gib": png()[:33] + b"\xff\xff\xff\xf4tEXt" + bytes(16),
        "no-end": png(chunk(b"tEXt", b"k\0v"))[:-12],
        "many": png(*[chunk(b"tEXt", b"k\0v")] * 1030),
    }


def main():
    root = pathlib.Path(sys.argv[1])
    for target, files in (("safetensors", safetensors()), ("png_texts", png_texts())):
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
