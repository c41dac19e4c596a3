#!/usr/bin/env python3
"""First inputs for the fuzz targets of common/ and of pictures: one small file for each thing a parser looks at.

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


def png(*chunks, width=1, height=1, colour=2, pixels=b"\0\1\2\3"):
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    idat = chunk(b"IDAT", zlib.compress(pixels))
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


def fm(yaml, body=b"Body.\n"):
    return b"---\n" + yaml + b"---\n\n" + body


def frontmatter():
    return {
        "good": fm(b"name: rim-light\ndescription: \"Light: from behind\"\ntags: [light, portrait]\nthinking: |\n"
                   b"  First.\n\n  Second.\nvariables:\n  lamp: a bulb\n  colour: \"\"\nextends: base\n",
                   b"Light it with {{lamp}}.\n"),
        "empty": b"",
        "body-only": b"Just a body.\n",
        "no-entries": fm(b""),
        "comment-only": fm(b"# nothing\n"),
        "not-closed": b"---\nname: x\n",
        "mark-alone": b"---",
        "alias": fm(b"a: &x b\nc: *x\n"),
        "alias-bomb": fm(b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
        "merge-key": fm(b"<<: *x\n"),
        "tag": fm(b"a: !!binary aGk=\n"),
        "directive": fm(b"%YAML 1.1\n--- a: b\n"),
        "two-documents": fm(b"a: b\n...\nc: d\n"),
        "sequence": fm(b"- a\n"),
        "deep-flow": fm(b"a: " + b"[" * 3000 + b"\n"),
        "deep-block": fm(b"".join(b" " * i + b"a:\n" for i in range(100))),
        "duplicate": fm(b"a: b\na: c\n"),
        "duplicate-inside": fm(b"a:\n  b: c\n  b: d\n"),
        "complex-key": fm(b"? [a, b]\n: c\n"),
        "open-quote": fm(b'a: "b\n'),
        "open-list": fm(b"a: [b, c\n"),
        "tab": fm(b"a:\n\tb: c\n"),
        "escape-zero": fm(b'a: "b\\0c"\n'),
        "escape-surrogate": fm(b'a: "\\ud800"\n'),
        "escape-large": fm(b'a: "\\U00110000"\n'),
        "fold": fm(b"a: >+2\n   b\n\n   c\n"),
        "bad-utf8": fm(b"a: b\xff\n"),
        "zero-byte": fm(b"a: b\0\n"),
        "byte-order-mark": b"\xef\xbb\xbf" + fm(b"a: b\n"),
        "crlf": b"---\r\na: b\r\n---\r\n",
        "next-line": fm(b"a: b\xc2\x85c: d\n"),
        "many-keys": fm(b"".join(b"k%d: v\n" % i for i in range(65))),
        "many-items": fm(b"a: [" + b"x, " * 65 + b"x]\n"),
        "long": fm(b"a: b\n" * 4000),
        "question-marks": fm(b"?" * 3000 + b"\n"),
        "colons": fm(b"a:" * 3000 + b"\n"),
    }


def manifest(**changes):
    stage = {"model_id": "tiny", "weights_digest": "0" * 64, "backend": "ref", "precision": "f32"}
    m = {"manifest": 1, "version": "0.1.0", "prompt": "a red circle", "negative_prompt": "blur", "layer": -2,
         "max_tokens": 512, "n_tokens": 3, "token_ids": [1, 2, 3], "truncated": False, "text_digest": "0" * 64,
         "width": 16, "height": 16, "steps": 2, "seed": 7, "guidance": 1.5, "cfg_normalization": 0.0,
         "cfg_truncation": 1.0, "shift": 3.0, "sigmas": [1.0, 0.5, 0.0], "tile": 0,
         "stages": {"encode": stage, "denoise": stage, "decode": stage}}
    m.update(changes)
    return json.dumps({k: v for k, v in m.items() if v is not None}, separators=(",", ":")).encode()


def picture():
    def text(m, kind=b"tEXt", gap=b"\0"):
        return chunk(kind, b"latentwire" + gap + m)

    good = manifest()
    rows = bytes(16 * (1 + 16 * 3))
    square = {"width": 16, "height": 16, "pixels": rows}
    bomb = zlib.compress(good[:-1] + b" " * (1 << 22) + b"}", 9)
    return {
        # The text of a manifest alone.
        "empty": b"",
        "manifest": good,
        "array": b"[]",
        "cut": good[:100],
        "twice": b'{"manifest":1,"manifest":1}',
        "deep": b'{"manifest":1,"x":' + b"[" * 3000,
        "not-utf8": b'{"manifest":1,"prompt":"\xff"}',
        "zero-byte": b'{"manifest":1,"prompt":"a\\u0000b"}',
        "escapes": manifest(prompt="\x1b]0;owned\x07 \u009b31m \u202e", version="\x1b[2J"),
        "later-format": manifest(manifest=2),
        "no-format": manifest(manifest=None),
        "no-seed": manifest(seed=None),
        "no-stages": manifest(stages=None),
        "latents": manifest(stages={"decode": {}}),
        "embeddings": manifest(stages={"denoise": {}, "decode": {}}),
        "from-picture": manifest(stages={"encode_image": {}, "decode": {}}),
        "stages-array": manifest(stages=[]),
        "stage-text": manifest(stages={"encode": "x"}),
        "digest-number": manifest(stages={"encode": {"weights_digest": 1}}),
        "seed-text": manifest(seed="7"),
        "seed-huge": b'{"manifest":1,"seed":99999999999999999999}',
        "seed-negative": manifest(seed=-1),
        "steps-real": manifest(steps=2.0),
        "steps-zero": manifest(steps=0),
        "steps-beside-sigmas": manifest(steps=9),
        "guidance-text": manifest(guidance="x"),
        "guidance-huge": b'{"manifest":1,"guidance":1e999}',
        "layer-far": manifest(layer=99999),
        "size-huge": manifest(width=1 << 62, height=1 << 62),
        "size-large": manifest(width=16384, height=16384),
        "size-negative": manifest(width=-16),
        "sigmas-many": manifest(sigmas=[0] * 300),
        "sigmas-text": manifest(sigmas=["1"]),
        "ids-many": manifest(token_ids=[1] * 1025),
        "ids-negative": manifest(token_ids=[-1]),
        "path": manifest(template="../../etc/passwd", prompt="../../etc/passwd"),
        "long-prompt": manifest(prompt="a" * 32769),
        "report": b'{"manifest":1,"workers":[{"role":"encoder","state":"idle","model":"m","weights_digest":"1"},'
                  b'{"role":7},7],"stages":{"encode":{"weights_digest":"2"}}}',
        # Files.
        "picture": png(text(good), **square),
        "foreign": png(**square),
        "other-size": png(text(good)),
        "twice-png": png(text(good), text(good), **square),
        "ztxt": png(text(zlib.compress(good), b"zTXt", b"\0\0"), **square),
        "ztxt-bomb": png(text(bomb, b"zTXt", b"\0\0"), **square),
        "itxt-bomb": png(text(bomb, b"iTXt", b"\0\1\0\0\0"), **square),
        "many-texts": png(*[chunk(b"tEXt", b"k\0v")] * 2000, text(good), **square),
        "pixel-bomb": png(text(good), width=16, height=16, pixels=bytes(1 << 24)),
        "pixels-cut": png(text(good), width=16, height=16, pixels=rows[:-1]),
        "side-huge": png(text(good), width=1 << 30, height=1),
        "side-zero": png(text(good), width=0, height=1),
        "alpha": png(text(good), width=16, height=16, colour=6, pixels=bytes(16 * (1 + 16 * 4))),
        "file-cut": png(text(good), **square)[:-20],
    }


def main():
    root = pathlib.Path(sys.argv[1])
    for target, files in (("safetensors", safetensors()), ("png_texts", png_texts()), ("frontmatter", frontmatter()),
                          ("picture", picture())):
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
