"""Pictures from the project's own programs: a hub, the three services, and `latentwire generate`."""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STEPS = 8
ROOT = Path(__file__).resolve().parents[2]


def add_options(parser):
    """--build and --model, as the scripts here share them."""
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="build folder (default: build)")
    parser.add_argument("--model", type=Path, default=ROOT / "models/demo", help="model folder (default: models/demo)")


class Services:
    """A hub and the three services with one model, for a `with` block. `threads` is each service's, `precision`
    that of encoder and denoiser."""

    def __init__(self, build, model, threads=0, precision="auto"):
        self.build, self.model, self.threads = Path(build).resolve(), Path(model).resolve(), threads
        self.precision = precision

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="lwt-", dir="/tmp"))  # short: a socket's path is limited
        self.front, back = (f"ipc://{self.folder}/{name}.sock" for name in ("front", "back"))
        self.cli = self.build / "orchestrate/latentwire"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("LATENTWIRE_")}
        self.env["LATENTWIRE_RUNTIME_DIR"] = str(self.folder)
        self.processes = []
        try:
            self._start("hub", [self.cli, "hub", f"--frontend={self.front}", f"--backend={back}"])
            for name in ("encoder", "dit", "vae"):
                program = self.build / f"{name}-svc/{name}-svc"
                options = ["--model", self.model, "--hub", back, "--threads", str(self.threads), "--die-with-parent"]
                options += ["--precision", self.precision] if name != "vae" else []
                self._start(name, [program, *options])
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, name, command):
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log))

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder)

    def draw(self, prompt, seed, path, template=None, size=128):
        """The PNG of one prompt and seed, under a prompt template or none, written to `path`."""
        command = [self.cli, "generate", "-q", "--hub", self.front, "--size", f"{size}x{size}", "--steps", str(STEPS)]
        command += ["--template", template, "--templates", ROOT / "templates"] if template else []
        command += ["--guidance", "0", "--seed", str(seed), "-o", path, "--", prompt]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"no picture of {prompt!r}: {done.stderr.strip()}")

    def draw_all(self, prompts, folder, seeds=None, jobs=4, templates=(None,)):
        """A picture of each prompt, `jobs` at once; the paths. The seed of prompt i is i unless given; the
        templates take turns."""
        paths = [Path(folder) / f"{i:03}.png" for i in range(len(prompts))]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(self.draw, prompts, seeds or range(len(prompts)), paths, itertools.cycle(templates)))
        return paths

    def templates(self):
        """Names of all prompt templates of the project."""
        command = [self.cli, "templates", "list", "--json", "--templates", ROOT / "templates"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True)
        return [t["name"] for t in json.loads(done.stdout)]
