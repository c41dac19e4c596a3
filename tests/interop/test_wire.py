# /// script
# requires-python = ">=3.9"
# dependencies = ["msgpack>=1.0", "msgspec>=0.18"]
# ///
"""The golden bytes against Python's msgpack and msgspec: test_wire.py GOLDEN_DIR WIRETOOL"""

import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import msgpack
import msgspec

golden, wiretool = pathlib.Path(sys.argv[1]), sys.argv[2]
names = sorted(p.stem for p in golden.glob("*.bin"))


def from_json(o):
    """The header that a golden .json describes."""
    if isinstance(o, list):
        return [from_json(v) for v in o]
    if not isinstance(o, dict):
        return o
    if "$bin" in o:
        return bytes.fromhex(o["$bin"])
    if "$ext" in o:
        return msgpack.ExtType(o["$ext"][0], bytes.fromhex(o["$ext"][1]))
    return {k: from_json(v) for k, v in o.items()}


def header(name):
    return from_json(json.loads((golden / f"{name}.json").read_text()))


def read_frames(path):
    data, at, frames = path.read_bytes(), 4, []
    for _ in range(struct.unpack_from("<I", data)[0]):
        (n,) = struct.unpack_from("<I", data, at)
        frames.append(data[at + 4 : at + 4 + n])
        at += 4 + n
    assert at == len(data)
    return frames


def write_frames(path, frames):
    path.write_bytes(b"".join([struct.pack("<I", len(frames))]
                              + [struct.pack("<I", len(f)) + f for f in frames]))


def reads_what_c_wrote(name):
    assert msgpack.unpackb(read_frames(golden / f"{name}.bin")[0]) == header(name)


def writes_what_c_writes(name):
    assert msgpack.packb(header(name)) == read_frames(golden / f"{name}.bin")[0]


def longest(o, rng):
    """A legal encoding that nobody would choose: the longest forms, keys in any order."""
    if isinstance(o, bool):
        return b"\xc3" if o else b"\xc2"
    if isinstance(o, int):
        return b"\xd3" + struct.pack(">q", o) if o < 2**63 else b"\xcf" + struct.pack(">Q", o)
    if isinstance(o, float):
        return b"\xcb" + struct.pack(">d", o)
    if isinstance(o, str):
        return b"\xdb" + struct.pack(">I", len(o.encode())) + o.encode()
    if isinstance(o, msgpack.ExtType):
        return b"\xc9" + struct.pack(">Ib", len(o.data), o.code) + o.data
    if isinstance(o, bytes):
        return b"\xc6" + struct.pack(">I", len(o)) + o
    if isinstance(o, list):
        return b"\xdd" + struct.pack(">I", len(o)) + b"".join(longest(v, rng) for v in o)
    items = list(o.items())
    rng.shuffle(items)
    return b"\xdf" + struct.pack(">I", len(items)) + b"".join(
        longest(k, rng) + longest(v, rng) for k, v in items)


def c_understands_any_form(name):
    frames = read_frames(golden / f"{name}.bin")
    for seed in range(3):
        rng = random.Random(seed)
        with tempfile.TemporaryDirectory() as tmp:
            odd, out = pathlib.Path(tmp, "odd.bin"), pathlib.Path(tmp, "out.bin")
            write_frames(odd, [longest(header(name), rng)] + frames[1:])
            assert odd.read_bytes() != (golden / f"{name}.bin").read_bytes()
            subprocess.run([wiretool, "canon", odd, out], check=True)
            assert out.read_bytes() == (golden / f"{name}.bin").read_bytes()


def values_of(dtype, raw):
    """Six numbers, without a tensor library."""
    if dtype == "bfloat16":
        return [struct.unpack("<f", b"\0\0" + raw[i : i + 2])[0] for i in range(0, 12, 2)]
    if dtype.startswith("float8"):
        bits, bias = (3, 7) if dtype == "float8_e4m3fn" else (2, 15)
        return [2.0 ** ((b >> bits) - bias) * (1 + (b & ((1 << bits) - 1)) / (1 << bits))
                for b in raw]
    form = {"float32": "f", "float16": "e", "int8": "b", "uint8": "B", "int32": "i", "int64": "q"}
    return list(struct.unpack("<6" + form[dtype], raw))


def tensors_decode_as_vllm_does(name):
    """vLLM's rule: an int is an index into the frames, ext type 3 is the bytes themselves."""
    frames = read_frames(golden / f"{name}.bin")
    decoder = msgspec.msgpack.Decoder(
        ext_hook=lambda code, data: memoryview(data) if code == 3 else None)
    for dtype, shape, data in decoder.decode(frames[0]).get("tensors", {}).values():
        raw = bytes(frames[data] if isinstance(data, int) else data)
        assert shape == [2, 3] and values_of(dtype, raw) == [1, 2, 3, 4, 5, 6], (dtype, raw)


tests = [(f"{test.__name__}:{name}", test, name) for name in names for test in
         (reads_what_c_wrote, writes_what_c_writes, c_understands_any_form)]
tests += [(f"tensors_decode_as_vllm_does:{name}", tensors_decode_as_vllm_does, name)
          for name in names if name.startswith("tensor_")]
bad = 0
for label, test, name in tests:
    try:
        test(name)
        print(f"[       OK ] {label}")
    except Exception as e:
        bad += 1
        print(f"[  FAILED  ] {label}\n{type(e).__name__}: {e}")
sys.exit(1 if bad or len(tests) < 100 else 0)
