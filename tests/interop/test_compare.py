# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2", "scikit-image>=0.24", "scipy", "pillow", "safetensors"]
# ///
"""`latentwire compare` against NumPy, SciPy and scikit-image: test_compare.py LATENTWIRE MODEL

Embeddings and pictures are random, from a seed that is printed (LW_SEED replays it), and of the demo
model as MODEL; the formulas here are written from their definitions, over float64.
"""

import difflib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import scipy.ndimage
import skimage.metrics
from PIL import Image
from safetensors.numpy import load_file, save_file

latentwire, model = [str(pathlib.Path(p).resolve()) for p in sys.argv[1:3]]
seed = int(os.environ.get("LW_SEED") or np.random.SeedSequence().generate_state(1)[0])
random = np.random.default_rng(seed)
print(f"seed {seed}")
BOUND = 1e-9  # the same sums in another order
# Axes move by the rounding of the data's variances over the gap between two of them.
BOUND_PCA = 1e-6


def close(what, got, want, bound=BOUND):
    """Equal to a relative bound; None is what NumPy calls nan or inf."""
    if want is None or not np.isfinite(want):
        assert got is None, f"{what}: {got}, not null"
    else:
        assert got is not None and abs(got - want) <= bound * (1 + abs(want)), f"{what}: {got}, not {want}"


def compare(*args, all_forms=True):
    """What it says of files, as JSON; it must also say it to people, and make its page."""
    if not all_forms:
        return json.loads(subprocess.check_output([latentwire, "compare", "--json", *map(str, args)]))
    with tempfile.TemporaryDirectory() as folder:
        page = f"{folder}/page.html"
        r = subprocess.run([latentwire, "compare", "--json", "--html", page, *map(str, args)], capture_output=True)
        assert r.returncode == 0, r.stderr.decode()
        assert b"</html>" in pathlib.Path(page).read_bytes()
    table = subprocess.run([latentwire, "compare", *map(str, args)], capture_output=True)
    assert table.returncode == 0 and len(table.stdout.splitlines()) > 5, table
    return json.loads(r.stdout)


def cosine(x, y):
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return x @ y / norms if norms > 0 else None


def check_file(got, x, times=10):
    """Measures of one file."""
    good = np.isfinite(x).all(axis=1)
    assert got["rows"] == len(x) and got["rows_left_out"] == np.flatnonzero(~good).tolist()
    x = x[good]
    norms = np.linalg.norm(x, axis=1)
    for name, want in {"mean": x.mean(), "std": x.std(), "min": x.min(), "max": x.max(),
                       "norm_mean": norms.mean(), "norm_min": norms.min(), "norm_max": norms.max(),
                       "std_median": np.median(x.std(axis=0))}.items():
        close(name, got[name], want)
    std = x.std(axis=0)
    order = np.argsort(-std, kind="stable")
    flagged = [int(d) for d in order if std[d] > times * np.median(std) > 0]
    assert [o["dim"] for o in got["outliers"]] == flagged
    squares = (x ** 2).sum(axis=0)
    close("outlier_share", got["outlier_share"], squares[flagged].sum() / squares.sum())
    for o in got["outliers"]:
        close("outlier std", o["std"], std[o["dim"]])
        close("outlier max", o["max_abs"], np.abs(x[:, o["dim"]]).max())


def check_pair(got, x, y, pairs):
    """Measures of one file against another; pairs: [(row of x, row of y)]."""
    pooled = [m[np.isfinite(m).all(axis=1)].mean(axis=0) for m in (x, y)]
    pairs = [(i, j) for i, j in pairs if np.isfinite(x[i]).all() and np.isfinite(y[j]).all()]
    assert [(r["a"], r["b"]) for r in got["rows"]] == pairs and got["pairs"] == len(pairs)
    x, y = np.stack([x[i] for i, _ in pairs]), np.stack([y[j] for _, j in pairs])
    d = np.abs(x - y)
    cosines = [cosine(p, q) for p, q in zip(x, y)]
    for k, r in enumerate(got["rows"]):
        close("cosine", r["cosine"], cosines[k])
        close("norm_a", r["norm_a"], np.linalg.norm(x[k]))
        close("norm_b", r["norm_b"], np.linalg.norm(y[k]))
        close("mean_abs", r["mean_abs"], d[k].mean())
        close("max_abs", r["max_abs"], d[k].max())
        assert r["max_dim"] == d[k].argmax()
    known = [c for c in cosines if c is not None]
    close("cosine_mean", got["cosine_mean"], np.mean(known))
    close("cosine_min", got["cosine_min"], np.min(known))
    close("pooled_cosine", got["pooled_cosine"], cosine(*pooled))
    close("mean_abs", got["mean_abs"], d.mean())
    close("rms_abs", got["rms_abs"], np.sqrt((d ** 2).mean()))
    close("max_abs", got["max_abs"], d.max())
    close("relative_frobenius", got["relative_frobenius"], np.linalg.norm(y - x) / np.linalg.norm(x))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = np.linalg.norm
    below = norm(x.T @ x) * norm(y.T @ y)
    close("cka", got["cka"], norm(y.T @ x) ** 2 / below if below > 0 else None)


def check_pca(got, files):
    """Components of all rows together, by singular values."""
    x = np.concatenate([m[np.isfinite(m).all(axis=1)] for m in files])
    _, s, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    share = s ** 2 / (s ** 2).sum()
    assert got["converged"] and len(got["points"]) == len(x)
    for j in range(2):
        close("share", got["share"][j], share[j], 1e-9)
        axis = axes[j] * np.sign(axes[j][np.abs(axes[j]).argmax()])
        want = (x - x.mean(axis=0)) @ axis
        have = np.array([p[2 + j] for p in got["points"]])
        # Two variances that are nearly equal settle no axes; a random pair of them is never so near.
        assert np.abs(have - want).max() <= BOUND_PCA * s[0], (j, np.abs(have - want).max(), s[:4])
    want = [(chr(65 + f), int(i)) for f, m in enumerate(files) for i in np.flatnonzero(np.isfinite(m).all(axis=1))]
    assert [tuple(p[:2]) for p in got["points"]] == want


def check(folder, arrays, args=(), ids=None, pairs=None, times=10, all_forms=True):
    """Compare arrays through files; pairs as check_pair's, or by position."""
    paths = []
    for k, x in enumerate(arrays):
        metadata = {"latentwire": json.dumps({"token_ids": ids[k]})} if ids else None
        paths.append(folder / f"{k}.safetensors")
        save_file({"prompt_embeds": x}, paths[-1], metadata)
    got = compare(*args, *paths, all_forms=all_forms)
    arrays = [x.astype(np.float64) for x in arrays]
    for k, x in enumerate(arrays):
        check_file(got["files"][k], x, times)
        if k:
            by_position = [(i, i) for i in range(min(len(arrays[0]), len(x)))]
            check_pair(got["pairs"][k - 1], arrays[0], x, pairs or by_position)
    check_pca(got["pca"], arrays)
    return got


def embeddings(rows, dim, dtype=np.float32):
    """Rows with directions of their own, so that components are far apart."""
    return (random.normal(size=(rows, dim)) * np.linspace(3, 0.3, dim) + random.normal(size=dim)).astype(dtype)


def small(folder):
    check(folder, [embeddings(9, 7), embeddings(9, 7)])


def three_files(folder):
    check(folder, [embeddings(20, 33), embeddings(20, 33), embeddings(13, 33)])


def half_precision(folder):
    check(folder, [embeddings(12, 16, np.float16), embeddings(12, 16)])


def single_row(folder):
    x, y = embeddings(1, 5), embeddings(3, 5)
    check(folder, [x, y])


def from_the_end(folder):
    pairs = [(i, i + 6) for i in range(10)]
    check(folder, [embeddings(10, 12), embeddings(16, 12)], ["--align", "end"], pairs=pairs)


def by_tokens(folder):
    # Distinct tokens, so that the longest common subsequence is the only one.
    all_ids = random.permutation(1000)[:60].tolist()
    a = [t for t in all_ids if random.random() < 0.7]
    b = [t for t in all_ids if random.random() < 0.5]
    match = difflib.SequenceMatcher(None, a, b, autojunk=False)
    common = set(a) & set(b)
    pairs = [(a.index(t), b.index(t)) for t in all_ids if t in common]
    assert len(pairs) >= sum(m.size for m in match.get_matching_blocks())
    got = check(folder, [embeddings(len(a), 12), embeddings(len(b), 12)], ["--align", "tokens"], [a, b], pairs)
    assert got["pairs"][0]["align"] == "tokens" and got["pairs"][0]["rows"][0]["id"] == a[pairs[0][0]]


def rows_left_out(folder):
    x, y = embeddings(15, 9), embeddings(15, 9)
    x[3, 4], y[7, 0], y[8, 8], x[8, 1] = np.nan, np.inf, -np.inf, np.nan
    check(folder, [x, y])


def rows_of_zeros(folder):
    x, y = embeddings(8, 6), embeddings(8, 6)
    x[2] = 0
    check(folder, [x, y])


def large_numbers(folder):
    check(folder, [embeddings(8, 6) * np.float32(1e30), embeddings(8, 6) * np.float32(1e30)])


def as_the_real_model(folder):
    """512 rows of 2560 with dimensions hundreds of times the rest."""
    scale = np.ones(2560, np.float32)
    scale[[4, 396, 1911]] = 300, 900, 150
    x = embeddings(512, 2560) * scale
    y = (x + random.normal(size=x.shape) * scale * 0.1).astype(np.float32)
    check(folder, [x, y], ["--outliers", "25"], times=25, all_forms=False)


def without_outliers(folder):
    x, y = embeddings(30, 20), embeddings(30, 20)
    x[:, 6] *= 500
    y[:, 11] *= 500
    for k, m in enumerate((x, y)):
        save_file({"e": m}, folder / f"{k}.safetensors")
    got = compare("--drop-outliers", folder / "0.safetensors", folder / "1.safetensors")
    assert got["dropped_dims"] == [6, 11]
    x, y = [np.delete(m, [6, 11], axis=1).astype(np.float64) for m in (x, y)]
    left = np.delete(np.arange(20), [6, 11])
    for r in got["pairs"][0]["rows"]:
        close("cosine", r["cosine"], cosine(x[r["a"]], y[r["b"]]))
        assert r["max_dim"] == left[np.abs(x - y)[r["a"]].argmax()]
    check_pca(got["pca"], [x, y])


def demo_model(folder):
    """What `latentwire encode` writes, of two prompts, another layer and with a thinking block."""
    prompt = "a red circle on a blue background"
    os.environ["LATENTWIRE_RUNTIME_DIR"] = str(folder)
    runs = {"a": [prompt], "b": ["a green square on a blue background"], "c": [prompt, "--layer", "-3"],
            "d": [prompt, "--thinking", "a plain disc"]}
    for name, args in runs.items():
        subprocess.run([latentwire, "encode", "--model", model, "-o", folder / f"{name}.safetensors", *args],
                       check=True, capture_output=True)
    paths = [folder / f"{name}.safetensors" for name in runs]
    got = compare("--tokenizer", f"{model}/tokenizer", *paths)
    arrays = [load_file(p)["prompt_embeds"].astype(np.float64) for p in paths]
    for k, x in enumerate(arrays):
        check_file(got["files"][k], x)
    for k in (1, 2):
        check_pair(got["pairs"][k - 1], arrays[0], arrays[k], [(i, i) for i in range(len(arrays[0]))])
    check_pca(got["pca"], arrays)
    assert got["files"][0]["prompt"] == prompt
    assert got["pairs"][0]["rows"][0]["text"] == "<|im_start|>"
    assert got["pairs"][2]["align"] == "tokens"
    check_pair(got["pairs"][2], arrays[0], arrays[3], [(r["a"], r["b"]) for r in got["pairs"][2]["rows"]])
    assert got["pairs"][2]["pairs"] == len(arrays[0])


GREY = np.array([0.299, 0.587, 0.114])


def check_pictures(folder, pictures, args=()):
    paths = []
    for k, rgb in enumerate(pictures):
        paths.append(folder / f"{k}.png")
        Image.fromarray(rgb).save(paths[-1])
    got = compare(*args, *paths)
    for f, rgb in zip(got["files"], pictures):
        x = rgb.astype(np.float64)
        y, rg, yb = x @ GREY, x[..., 0] - x[..., 1], (x[..., 0] + x[..., 1]) / 2 - x[..., 2]
        close("luminance", f["luminance"], y.mean() / 255)
        close("contrast", f["contrast"], y.std() / 255)
        close("colourfulness", f["colourfulness"],
              np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
        close("sharpness", f["sharpness"], scipy.ndimage.laplace(y)[1:-1, 1:-1].var())
    for p, rgb in zip(got["pairs"], pictures[1:]):
        first = pictures[0]
        d = np.abs(first.astype(int) - rgb.astype(int))
        close("psnr_db", p["psnr_db"],
              skimage.metrics.peak_signal_noise_ratio(first, rgb, data_range=255) if d.any() else None)
        close("ssim", p["ssim"], skimage.metrics.structural_similarity(
            first @ GREY, rgb @ GREY, gaussian_weights=True, use_sample_covariance=False, data_range=255))
        close("mean_abs", p["mean_abs"], d.mean())
        assert p["largest"] == d.max() and p["pixels_differ"] == d.any(axis=-1).sum()
    return got


def random_pictures(folder):
    for _ in range(4):
        height, width = random.integers(11, 90, 2)
        first = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        noise = np.clip(first + random.normal(0, 9, first.shape), 0, 255).astype(np.uint8)
        check_pictures(folder, [first, noise, random.integers(0, 256, first.shape, dtype=np.uint8), first])


def smooth_pictures(folder):
    y, x = np.mgrid[0:128, 0:160]
    first = np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)
    check_pictures(folder, [first, np.roll(first, 3, axis=1), first // 2])


def difference_picture(folder):
    first = random.integers(0, 200, (20, 30, 3), dtype=np.uint8)
    other = first.copy()
    other[4:9, 10:20] += 25
    other[0, 0] += 50
    got = check_pictures(folder, [first, other], ["--diff", folder / "d.png"])
    assert got["gain"] == 255 / 50
    shown = np.asarray(Image.open(folder / "d.png"))
    levels = np.abs(first.astype(int) - other.astype(int)).max(axis=-1)
    colours = {level: np.unique(shown[levels == level], axis=0) for level in (0, 25, 50)}
    assert all(len(c) == 1 for c in colours.values())
    assert colours[0].tolist() == [[0x44, 0x01, 0x54]] and colours[50].tolist() == [[0xfd, 0xe7, 0x25]]


def refusals(folder):
    """Files that cannot be compared: an exit code of the table and a message that names them."""
    save_file({"prompt_embeds": embeddings(4, 6)}, folder / "six.safetensors")
    save_file({"prompt_embeds": embeddings(4, 5)}, folder / "five.safetensors")
    save_file({"prompt_embeds": embeddings(4, 5).astype(np.float64)}, folder / "f64.safetensors")
    save_file({"prompt_embeds": np.zeros((0, 6), np.float32)}, folder / "empty.safetensors")
    save_file({"prompt_embeds": np.full((2, 6), np.nan, np.float32)}, folder / "nan.safetensors")
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / "a.png")
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(folder / "b.png")
    (folder / "text").write_text("not a file of ours")
    (folder / "short").write_text("x")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:40])
    six = "six.safetensors"
    for args, code, words in [
        ([six, "five.safetensors"], 3, ["6 dimensions", "five.safetensors 5"]),
        ([six, "f64.safetensors"], 13, ["f64.safetensors", "prompt_embeds"]),
        ([six, "empty.safetensors"], 3, ["empty"]),
        ([six, "nan.safetensors"], 3, ["every row"]),
        ([six, "a.png"], 2, ["a picture", "a safetensors file"]),
        (["a.png", "b.png"], 3, ["9 x 8", "8 x 9"]),
        (["a.png", "cut.png"], 4, ["cut.png"]),
        ([six, "text"], 4, ["text is neither"]),
        ([six, "short"], 4, ["short is neither"]),
        ([six, "nowhere"], 7, ["nowhere"]),
        ([six, "."], None, []),
        ([six], 2, ["2 to 16 files"]),
        ([six] * 17, 2, ["2 to 16 files"]),
        (["--diff", "d.png", six, six], 2, ["--diff is for pictures"]),
        (["--align", "end", "a.png", "a.png"], 2, ["--align is for embeddings"]),
        (["--align", "tokens", six, six], 2, ["--align start or end"]),
        (["--tensor", "x", six, six], 7, ['no tensor "x"']),
    ]:
        r = subprocess.run([latentwire, "compare", *args], cwd=folder, capture_output=True)
        said = r.stderr.decode()
        assert r.returncode == code or (code is None and 0 < r.returncode < 128), (args, r)
        assert all(w in said for w in words), (args, said)
        assert said.startswith("latentwire: error: ") and r.stdout == b"", (args, r)


tests = [small, three_files, half_precision, single_row, from_the_end, by_tokens, rows_left_out, rows_of_zeros,
         large_numbers, as_the_real_model, without_outliers, demo_model, random_pictures, smooth_pictures,
         difference_picture, refusals]
bad = 0
for test in tests:
    try:
        with tempfile.TemporaryDirectory(prefix="lw") as name:
            test(pathlib.Path(name))
        print(f"[       OK ] {test.__name__}")
    except Exception as e:
        bad += 1
        print(f"[  FAILED  ] {test.__name__}\n{type(e).__name__}: {e}")
sys.exit(1 if bad else 0)
