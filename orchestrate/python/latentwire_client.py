# /// script
# requires-python = ">=3.9"
# dependencies = ["msgpack>=1.0", "pyzmq>=24"]
# ///
"""A client of a running hub, as docs/protocol.md describes it. With --hub ENDPOINT each:
uv run latentwire_client.py "a red circle" -o out.png  (or: --to prompt_embeds -o e.safetensors)
uv run latentwire_client.py --latents latents.safetensors -o out.png"""

import argparse, json, os, sys, time, zlib
from pathlib import Path
import msgpack, zmq

ST_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Client:
    def __init__(self, endpoint, keys=None, key_name="client"):
        self.sock = zmq.Context.instance().socket(zmq.DEALER)
        self.sock.immediate, self.sock.linger = 1, 1000
        names = {"server": "hub.public", "public": key_name + ".public", "secret": key_name + ".secret"}
        for option, name in names.items() if keys else ():  # CURVE
            setattr(self.sock, f"curve_{option}key", Path(keys, name).read_bytes().strip())
        self.sock.connect(endpoint)
        if not self.sock.poll(5000, zmq.POLLOUT):
            raise TimeoutError(f"no hub at {endpoint}")
        self.beat, self.silence, self.next_beat = 1.0, 10.0, time.monotonic() + 1
        self.send("hello", minor_min=0, minor_max=0, role="client", instance=os.urandom(16))
        hub, _ = self.receive("welcome")
        self.beat, self.silence = hub["hb_ms"] / 1000, hub["hb_ms"] * hub["hb_misses"] / 1000

    def send(self, kind, tensors={}, **fields):
        refs = {name: [t[0], t[1], i] for i, (name, t) in enumerate(tensors.items(), 1)}
        header = {"v": 1, "type": kind, **fields, "tensors": refs}
        self.sock.send_multipart([msgpack.packb(header), *(t[2] for t in tensors.values())])

    def receive(self, *wanted):
        """The next message of a wanted type, and its tensors: {name: (dtype, shape, bytes)}."""
        heard = time.monotonic()
        while time.monotonic() < heard + self.silence:
            if time.monotonic() >= self.next_beat:
                self.next_beat = time.monotonic() + self.beat
                self.send("heartbeat")
            if not self.sock.poll(int(self.beat * 250)):
                continue
            heard, frames = time.monotonic(), self.sock.recv_multipart()
            header = msgpack.unpackb(frames[0])
            if header["type"] == "error":
                sys.exit(f"{header['code']}: {header['message']}")
            if header["type"] in wanted:  # the bytes are in a frame, or inside as ext type 3
                find = lambda ref: frames[ref] if isinstance(ref, int) else ref.data
                tensors = header.get("tensors", {}).items()
                return header, {name: (t[0], t[1], find(t[2])) for name, t in tensors}
        raise TimeoutError("the hub is silent")

    def run(self, tensors={}, **request):
        self.send("submit", tensors, id=os.urandom(16), **request)
        while (message := self.receive("progress", "result", "cancelled"))[0]["type"] == "progress":
            print("{op} {step}/{total}".format_map({"total": "?", **message[0]}), file=sys.stderr)
        return message


def write_png(path, height, width, rgb):
    big = lambda n: n.to_bytes(4, "big")
    rows = b"".join(b"\0" + rgb[i : i + width * 3] for i in range(0, len(rgb), width * 3))
    size = big(width) + big(height) + b"\x08\x02\0\0\0"
    chunks = (b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    coded = [big(len(data)) + kind + data + big(zlib.crc32(kind + data)) for kind, data in chunks]
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(coded))


def write_safetensors(path, name, dtype, shape, raw):
    text = json.dumps({name: dict(dtype=ST_NAMES[dtype], shape=shape, data_offsets=[0, len(raw)])})
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text.encode() + raw)


def read_safetensors(path, name):
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    entry = json.loads(data[8:start])[name]
    dtype = next(d for d, st in ST_NAMES.items() if st == entry["dtype"])
    return dtype, entry["shape"], data[start:][slice(*entry["data_offsets"])]


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("prompt", nargs="?", default="")
    p.add_argument("-o", "--out", required=True)
    p.add_argument("--hub", required=True, metavar="ENDPOINT", help="the hub's frontend")
    p.add_argument("--keys", metavar="DIR", help="CURVE keys, for a hub on tcp")
    p.add_argument("--to", default="image", choices=["prompt_embeds", "latents", "image"])
    p.add_argument("--latents", metavar="FILE", help="decode these instead of a prompt")
    p.add_argument("--request", type=json.loads, default={}, help='such as {"seed": 7, "steps": 4}')
    a = p.parse_args()
    given = {"latents": read_safetensors(a.latents, "latents")} if a.latents else {}
    entry = {"from": "latents"} if given else {"from": "prompt", "prompt": a.prompt}
    tensor = Client(a.hub, a.keys).run(given, to=a.to, **entry, **a.request)[1][a.to]
    if a.to == "image":
        write_png(a.out, *tensor[1][1:3], tensor[2])
    else:
        write_safetensors(a.out, a.to, *tensor)
