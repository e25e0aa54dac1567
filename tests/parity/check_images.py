#!/usr/bin/env python3
"""Compares our picture code with Pillow 12, torch and the Hugging Face processor on drawn pictures.

  check_images.py PROBE [--cases N] [--seed S] [--fixture FOLDER_OF_make_qwen2_5_vl.py]

PROBE is the media_probe program of the build. Resizing, PNG and patches must agree to the last bit; JPEG and WebP
within the stated number of levels, since Pillow carries newer decoders. Exit status 77: a reference package is missing."""
import argparse
import io
import math
import os
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

warnings.simplefilter("ignore")
try:
    import numpy as np
    import PIL
    import torch
    from PIL import Image
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
    from transformers.image_transforms import convert_to_rgb
except ImportError as e:
    print("skipped: a reference package is missing:", e)
    sys.exit(77)
if int(PIL.__version__.split(".")[0]) >= 13:
    sys.exit("Pillow %s resizes some pictures in another order; the references were made with 12" % PIL.__version__)

ap = argparse.ArgumentParser()
ap.add_argument("probe")
ap.add_argument("--cases", type=int, default=60)
ap.add_argument("--seed", type=int, default=0)
ap.add_argument("--fixture", default=None)
args = ap.parse_args()
rng = np.random.default_rng(args.seed)
program = os.path.abspath(args.probe)
fixture = os.path.abspath(args.fixture) if args.fixture else None
folder = tempfile.TemporaryDirectory()
os.chdir(folder.name)
probe = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
failures = []


def ask(*fields):
    probe.stdin.write("\t".join(str(f) for f in fields) + "\n")
    probe.stdin.flush()
    status, _, text = probe.stdout.readline().rstrip("\n").partition(" ")
    return status == "ok", text


def check(good, *what):
    if not good:
        failures.append(" ".join(str(w) for w in what))


def save(name, data):
    with open(name, "wb") as f:
        f.write(data)
    return name


def picture(w, h, channels=3):
    y, x = np.mgrid[0:h, 0:w]
    kind = rng.integers(3)
    if kind == 0:
        a = rng.integers(0, 256, (h, w, channels))
    elif kind == 1:
        a = np.stack([127 + 120 * np.sin(x / (3 + c) + c) * np.cos(y / (5 + c)) for c in range(channels)], -1)
    else:
        a = np.repeat(((x // 3 + y // 2) % 2 * 255)[..., None], channels, -1)
    return np.ascontiguousarray(np.clip(a, 0, 255).astype(np.uint8))


# ---------------------------------------------------------------- resizing
def compare_resize():
    sizes = [(640, 480, 588, 448), (7, 1, 3, 9), (1, 1, 28, 28), (2, 700, 2, 308), (3, 500, 9, 28), (3, 500, 9, 600),
             (1000, 4, 56, 8), (64, 64, 64, 20), (64, 64, 20, 64), (50, 40, 50, 40), (3, 301, 28, 300)]
    sizes += [tuple(int(2 ** v) for v in rng.uniform(0, 9.3, 4)) for _ in range(args.cases)]
    count = refused = 0
    for w, h, tw, th in sizes:
        for channels in (3, int(rng.choice([1, 4]))):
            a = picture(w, h, channels)
            save("in.raw", a.tobytes())
            for name, pil in (("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR), ("nearest", Image.NEAREST)):
                bands = [Image.fromarray(np.ascontiguousarray(a[..., c])).resize((tw, th), pil) for c in range(channels)]
                want = {"pillow": np.stack([np.asarray(b) for b in bands], -1)}
                if name != "nearest":
                    t = torch.from_numpy(a).permute(2, 0, 1)[None].contiguous()
                    try:
                        want["torch"] = torch.nn.functional.interpolate(
                            t, (th, tw), mode=name, antialias=True, align_corners=False)[0].permute(1, 2, 0).numpy()
                    except RuntimeError:  # an internal check of torch 2.13 fails where a side is 1
                        refused += 1
                        check(min(w, h, tw, th) == 1, "torch refused", (w, h, tw, th))
                for precision, expected in want.items():
                    for simd in ("portable", "avx2", "avx512"):
                        ok, text = ask("resize", "in.raw", w, h, channels, tw, th, name, precision, simd, "out.raw")
                        if text == "absent":
                            continue
                        got = np.fromfile("out.raw", np.uint8).reshape(th, tw, channels) if ok else None
                        bad = int((got != expected).sum()) if ok else text
                        check(bad == 0, "resize", (w, h, tw, th), channels, name, precision, simd, "differs:", bad)
                        count += 1
    print("resize: %d comparisons, all bytes equal; torch itself refused %d" % (count, refused) if not failures else "resize: differences")


# ---------------------------------------------------------------- decoding
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, bits, color, rows, extra=b""):
    raw = b"".join(b"\0" + r for r in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, color, 0, 0, 0)) + extra
            + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def png_files():
    """every colour type and depth, with and without transparency"""
    w, h = 37, 11
    for color, channels in ((0, 1), (2, 3), (3, 1), (4, 2), (6, 4)):
        for bits in {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(color, (8, 16)):
            row_bytes = (w * channels * bits + 7) // 8
            rows = [rng.integers(0, 256, row_bytes).astype(np.uint8).tobytes() for _ in range(h)]
            first = rows[0][:6]
            for transparent in (False, True):
                extra = b""
                if color == 3:
                    colors = max(2, 2 ** bits - 1)  # the last index has no colour
                    extra = chunk(b"PLTE", rng.integers(0, 256, 3 * colors).astype(np.uint8).tobytes())
                    if transparent:
                        extra += chunk(b"tRNS", rng.integers(0, 256, colors // 2 + 1).astype(np.uint8).tobytes())
                elif transparent and color == 0:
                    key = struct.unpack(">H", first[:2])[0] if bits == 16 else first[0] >> (8 - bits)
                    extra = chunk(b"tRNS", struct.pack(">H", key))
                elif transparent and color == 2:
                    key = struct.unpack(">3H", first) if bits == 16 else tuple(first[:3])
                    extra = chunk(b"tRNS", struct.pack(">3H", *key))
                elif transparent:
                    continue
                yield "png colour %d, %d bits%s" % (color, bits, ", tRNS" * transparent), png(w, h, bits, color, rows, extra)
    for mode in ("RGB", "RGBA", "L", "P"):
        im = Image.fromarray(picture(45, 33, 4)).convert(mode)
        buffer = io.BytesIO()
        im.save(buffer, "PNG", optimize=True)
        yield "png saved as " + mode, buffer.getvalue()


def lossy_files():
    """JPEG and WebP in the variants that are met, with the levels by which decoders may part"""
    for w, h in ((64, 48), (61, 290), (1, 1), (17, 9)):
        a = Image.fromarray(picture(w, h))
        for subsampling in (0, 1, 2):
            for progressive in (False, True):
                buffer = io.BytesIO()
                a.save(buffer, "JPEG", quality=int(rng.integers(30, 98)), subsampling=subsampling, progressive=progressive)
                yield "jpeg %dx%d subsampling %d progressive %d" % (w, h, subsampling, progressive), buffer.getvalue(), 1
        for mode in ("L", "CMYK"):
            buffer = io.BytesIO()
            a.convert(mode).save(buffer, "JPEG", quality=90)
            yield "jpeg " + mode, buffer.getvalue(), 1
        for lossless in (False, True):
            for mode in ("RGB", "RGBA"):
                buffer = io.BytesIO()
                Image.fromarray(picture(w, h, 4)).convert(mode).save(buffer, "WEBP", lossless=lossless, exact=True)
                yield "webp %s lossless %d" % (mode, lossless), buffer.getvalue(), 0 if lossless else 1
    buffer = io.BytesIO()
    frames = [Image.fromarray(picture(40, 30, 4)) for _ in range(3)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True, exact=True)
    yield "webp animation", buffer.getvalue(), 0


def compare_decode():
    files = [(n, d, 0) for n, d in png_files()] + list(lossy_files())
    worst, total, parted = 0, 0, 0
    for name, data, allowed in files:
        save("in.img", data)
        for alpha in ("drop", "white"):
            im = Image.open(io.BytesIO(data))
            want = np.asarray(im.convert("RGB") if alpha == "drop" else convert_to_rgb(im, return_numpy=True))
            ok, text = ask("decode", "in.img", alpha, "out.raw")
            if not ok:
                check(False, name, alpha, text)
                continue
            got = np.fromfile("out.raw", np.uint8).reshape(want.shape)
            diff = np.abs(got.astype(int) - want.astype(int))
            if allowed:
                worst, total, parted = max(worst, int(diff.max())), total + diff.size, parted + int((diff > 0).sum())
            check(diff.max() <= allowed, name, alpha, "differs by", diff.max(), "in", int((diff > allowed).sum()), "values")
    print("decode: %d files; lossy ones part from Pillow by at most %d level(s), in %d of %d values"
          % (len(files), worst, parted, total))


def compare_alpha_table():
    """all 65 536 pairs of value and alpha"""
    v, a = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([v, v[:, ::-1], 255 - v, a], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(buffer, "PNG")
    save("in.img", buffer.getvalue())
    want = convert_to_rgb(Image.open(io.BytesIO(buffer.getvalue())), return_numpy=True)
    ok, text = ask("decode", "in.img", "white", "out.raw")
    check(ok and (np.fromfile("out.raw", np.uint8) == want.ravel()).all(), "alpha on white", text)


# ---------------------------------------------------------------- patches
def patches_by_torch(a, limits):
    """the "fast" path: integer weights, rescaling folded into mean and std"""
    h, w = smart_resize(a.shape[0], a.shape[1], 28, *limits)
    t = torch.from_numpy(a).permute(2, 0, 1)[None].contiguous()
    t = torch.nn.functional.interpolate(t, (h, w), mode="bicubic", antialias=True) if (h, w) != a.shape[:2] else t
    mean = torch.tensor(Qwen2VLImageProcessorPil.image_mean) * 255.0
    std = torch.tensor(Qwen2VLImageProcessorPil.image_std) * 255.0
    x = (t[0].float() - mean[:, None, None]) / std[:, None, None]
    x = x.reshape(3, h // 28, 2, 14, w // 28, 2, 14).permute(1, 4, 2, 5, 0, 3, 6)
    x = x[:, :, :, :, :, None].expand(*x.shape[:5], 2, 14, 14)
    return x.reshape(h * w // 196, 1176).numpy()


def pre_resized(im, suite, least, most):
    """what LLaMA-Factory and MindSpeed-MM do first; docs/spec/qwen2_5_vl.md, 4.4"""
    method = Image.NEAREST if suite == "mindspeed" else None
    if im.width * im.height > most:
        f = math.sqrt(most / (im.width * im.height))
        im = im.resize((int(im.width * f), int(im.height * f)), method)
    if im.width * im.height < least:
        f = math.sqrt(least / (im.width * im.height))
        im = im.resize((int(im.width * f), int(im.height * f)), method)
    im = im.convert("RGB")
    if min(im.width, im.height) < 28:
        im = im.resize((max(im.width, 28), max(im.height, 28)))
    if im.width / im.height > 200:
        im = im.resize((im.height * 180, im.height))
    if im.height / im.width > 200:
        im = im.resize((im.width, im.width * 180))
    return im


def compare_patches():
    limits = (3136, 50000)
    sizes = [(180, 100), (61, 290), (30, 40), (400, 300), (56, 56), (10, 1900), (1500, 9)]
    count = 0
    for w, h in sizes:
        for mode in ("RGB", "RGBA", "L", "P", "LA", "1"):
            im = Image.fromarray(picture(w, h, 4)).convert(mode)
            buffer = io.BytesIO()
            im.save(buffer, "PNG")
            save("in.png", buffer.getvalue())
            im = Image.open(io.BytesIO(buffer.getvalue()))
            processor = Qwen2VLImageProcessorPil(min_pixels=limits[0], max_pixels=limits[1])
            cases = {"pillow": processor([convert_to_rgb(im, return_numpy=False)], return_tensors="np")["pixel_values"],
                     "torch": patches_by_torch(np.asarray(convert_to_rgb(im, return_numpy=True)), limits)}
            for suite in ("llamafactory", "mindspeed"):
                for pre in ((1024, 589824), (20000, 30000), (100, 4000)):
                    done = pre_resized(im, suite, *pre)
                    cases["%s %d %d" % (suite, *pre)] = processor([done], return_tensors="np")["pixel_values"]
            for name, want in cases.items():
                if " " in name:
                    suite, least, most = name.split()
                    options = ["pre=" + suite, "pre_min=" + least, "pre_max=" + most]
                else:
                    options = ["resize=" + name]
                ok, text = ask("image", "in.png", "out.raw", "min=%d" % limits[0], "max=%d" % limits[1], *options)
                got = np.fromfile("out.raw", np.float32) if ok else np.zeros(0, np.float32)
                same = got.size == want.size and np.array_equal(got, want.astype(np.float32).ravel())
                check(same, "patches", (w, h), mode, name, text)
                count += 1
    print("patches: %d pictures compared bit by bit" % count)


def compare_pre_resize_aspect():
    for w, h in ((30000, 40), (40, 30000), (9000, 30)):
        buffer = io.BytesIO()
        im = Image.fromarray(picture(w, h))
        im.save(buffer, "PNG")
        save("in.png", buffer.getvalue())
        want = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=200704)(
            [pre_resized(im, "llamafactory", 1024, 2 ** 21)], return_tensors="np")["pixel_values"]
        ok, text = ask("image", "in.png", "out.raw", "min=3136", "max=200704", "pre=llamafactory", "pre_min=1024",
                       "pre_max=%d" % 2 ** 21)
        same = ok and np.array_equal(np.fromfile("out.raw", np.float32), want.ravel())
        check(same, "very long picture", (w, h), text)


def compare_smart_resize():
    for _ in range(20000):
        w, h = (int(2 ** v) for v in rng.uniform(0, 13, 2))
        least, most = [(3136, 1003520), (3136, 12845056), (4 * 784, 16384), (100352, 602112)][rng.integers(4)]
        try:
            want = smart_resize(h, w, 28, least, most)
        except ValueError:
            want = None
        ok, text = ask("smart", w, h, least, most)
        check(ok == (want is not None) and (not ok or text == "%d %d" % want[::-1]), "smart_resize", (w, h), least, most,
              text, "wanted", want)
    print("smart_resize: 20000 sizes")


# ---------------------------------------------------------------- video
def chosen(rule, total, fps, duration, want_fps, least, most):
    if rule == "llamafactory":
        n = max(1, math.floor(duration * want_fps))
        n = min(total, most, n)
        i = np.linspace(0, total - 1, n).astype(np.int32).tolist()
        return i + i[-1:] * (len(i) % 2), n / duration
    most = math.floor(min(most, total) / 2) * 2
    n = min(max(total / fps * want_fps, least), most, total)
    n = math.floor(n / 2) * 2
    if n == 0:
        return None, 0
    if rule == "transformers":
        i = torch.arange(0, total, total / n).int().tolist()
    else:
        i = torch.linspace(0, total - 1, n).round().long().tolist()
    return i, n / total * fps


def compare_sampling():
    odd = 0
    for k in range(6000):
        rule = ("transformers", "qwen_vl_utils", "llamafactory")[k % 3]
        total = int(2 ** rng.uniform(0, 13))
        fps = float(rng.choice([24, 25, 30, 29.97, 23.976, 60, 10, 1.2]))
        want_fps = float(rng.choice([1, 2, 0.5, 4, 60]))
        least, most = [(4, 768), (4, 64), (2, 33), (8, 128)][rng.integers(4)]
        indices, rate = chosen(rule, total, fps, total / fps, want_fps, least, most)
        ok, text = ask("choose", rule, total, fps, repr(total / fps), want_fps, least, most)
        if indices is None:
            check(not ok, "sampling", rule, total, "should fail")
            continue
        got = text.split() if ok else ["0"]
        if rule == "transformers" and len(indices) > len(got) - 1:
            odd += 1  # torch.arange's end, rounded: one index too many, behind the last frame
            check(indices[-1] >= total or indices[-1] == indices[-2], "arange", total, indices[-2:])
            indices = indices[:-1]
        check(ok and [int(i) for i in got[1:]] == indices and abs(float(got[0]) - rate) < 1e-4, "sampling", rule, total, fps,
              want_fps, least, most, text[:80], "wanted", rate, indices[:8])
    print("sampling: 6000 clips; torch.arange gave one index too many for %d" % odd)


def compare_video_pictures():
    names, frames = [], []
    for i in range(5):
        a = picture(180, 100)
        buffer = io.BytesIO()
        Image.fromarray(a).save(buffer, "PNG")
        names.append(save("frame%d.png" % i, buffer.getvalue()))
        frames.append(a)
    h, w = smart_resize(100, 180, 28, 3136, 50000)
    out = [np.asarray(Image.fromarray(f).resize((w, h), Image.BICUBIC)) for f in frames + frames[-1:]]
    x = np.stack(out).astype(np.float64) * (1 / 255)
    p = Qwen2VLImageProcessorPil
    x = (x.astype(np.float32) - np.float32(p.image_mean)) / np.float32(p.image_std)
    x = x.reshape(3, 2, h // 28, 2, 14, w // 28, 2, 14, 3).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, 1176)
    ok, text = ask("video", "|".join(names), "out.raw", "min=3136", "max=50000", "resize=pillow")
    check(ok and np.array_equal(np.fromfile("out.raw", np.float32), x.ravel()), "video patches", text)


def compare_fixture():
    """pixels of the whole-model fixture: one file of pixel rows for all pictures, one for the video"""
    from safetensors import safe_open
    from safetensors.numpy import load_file
    pictures = load_file(os.path.join(fixture, "images.safetensors"))
    with safe_open(os.path.join(fixture, "expected.safetensors"), "np") as f:
        want = {k: f.get_tensor(k) for k in ("pixel_values.pil", "pixel_values_videos.pil")}
    limits = ["min=3136", "max=%d" % (784 * 40), "resize=pillow"]
    rows = []
    for name in sorted(n for n in pictures if n.startswith("image")):
        Image.fromarray(pictures[name]).save("in.png")
        ok, text = ask("image", "in.png", "out.raw", *limits)
        rows.append(np.fromfile("out.raw", np.float32) if ok else np.zeros(0, np.float32))
    expected = want["pixel_values.pil"].ravel()
    got = np.concatenate(rows)
    check(got.size == expected.size and np.array_equal(got, expected), "fixture pictures", got.size, expected.size)
    names = []
    for i, frame in enumerate(pictures["video"]):
        names.append("frame%d.png" % i)
        Image.fromarray(frame).save(names[-1])
    ok, text = ask("video", "|".join(names), "out.raw", *limits)
    got, expected = np.fromfile("out.raw", np.float32), want["pixel_values_videos.pil"].ravel()
    # the generator divides by 255 in float32 where the processor multiplies in float64
    check(ok and got.size == expected.size and np.abs(got - expected).max() < 1e-6, "fixture video", text)
    print("fixture: %d picture values bit by bit, video within %g" % (sum(r.size for r in rows), np.abs(got - expected).max()))


if fixture:
    compare_fixture()
compare_resize()
compare_decode()
compare_alpha_table()
compare_patches()
compare_pre_resize_aspect()
compare_smart_resize()
compare_sampling()
compare_video_pictures()
probe.stdin.close()
for f in failures[:40]:
    print("DIFFERS", f)
print("%d failures" % len(failures))
sys.exit(bool(failures))
