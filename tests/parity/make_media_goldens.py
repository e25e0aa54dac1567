#!/usr/bin/env python3
"""Writes tests/data/golden/media.json: small picture files with the pixels that Pillow 12 reads from them, resized
pictures of Pillow and torch, and numbers of the hub's Qwen2-VL processor. Bytes are hexadecimal.

  make_media_goldens.py tests/data/golden/media.json"""
import io
import json
import struct
import sys
import warnings
import zlib

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from transformers.image_transforms import convert_to_rgb
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

warnings.simplefilter("ignore")
assert int(PIL.__version__.split(".")[0]) < 13, "Pillow 13 resizes some pictures in another order"
rng = np.random.default_rng(7)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, bits, color, extra=b""):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    rows = [rng.integers(0, 256, (w * channels * bits + 7) // 8).astype(np.uint8).tobytes() for _ in range(h)]
    if extra == "key":
        values = rows[0][:channels * bits // 8] if bits >= 8 else bytes([rows[0][0] >> (8 - bits)])
        extra = chunk(b"tRNS", values if bits == 16 else b"".join(b"\0" + bytes([v]) for v in values))
    raw = b"".join(b"\0" + r for r in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, color, 0, 0, 0)) + extra
            + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


noise = Image.fromarray(rng.integers(0, 256, (9, 17, 4)).astype(np.uint8), "RGBA")
palette = chunk(b"PLTE", bytes(range(9, 54)))
interlaced = Image.fromarray(rng.integers(0, 256, (9, 17, 3)).astype(np.uint8))
exif = Image.Exif()
exif[0x0112] = 6  # a quarter turn, to be ignored
files = {
    "png grey 1": png(13, 3, 1, 0), "png grey 2": png(13, 3, 2, 0), "png grey 4": png(13, 3, 4, 0),
    "png grey 8": png(5, 3, 8, 0), "png grey 16": png(5, 3, 16, 0), "png grey 1 key": png(13, 3, 1, 0, "key"),
    "png grey 2 key": png(13, 3, 2, 0, "key"), "png grey 8 key": png(5, 3, 8, 0, "key"),
    "png grey 16 key": png(5, 3, 16, 0, "key"), "png rgb 8": png(5, 3, 8, 2), "png rgb 16": png(5, 3, 16, 2),
    "png rgb 8 key": png(5, 3, 8, 2, "key"), "png rgb 16 key": png(5, 3, 16, 2, "key"),
    "png palette 1": png(13, 3, 1, 3, palette), "png palette 2": png(13, 3, 2, 3, palette),
    "png palette 4": png(13, 3, 4, 3, palette), "png palette 8, colours missing": png(13, 3, 8, 3, palette),
    "png palette 4 tRNS": png(13, 3, 4, 3, palette + chunk(b"tRNS", bytes([0, 70, 255, 200]))),
    "png grey alpha 8": png(5, 3, 8, 4), "png grey alpha 16": png(5, 3, 16, 4), "png rgba 8": png(5, 3, 8, 6),
    "png rgba 16": png(5, 3, 16, 6),
    "jpeg 4:2:0": saved(noise.convert("RGB"), "JPEG", quality=80), "jpeg 4:4:4": saved(noise.convert("RGB"), "JPEG", subsampling=0),
    "jpeg progressive": saved(noise.convert("RGB"), "JPEG", progressive=True), "jpeg grey": saved(noise.convert("L"), "JPEG"),
    "jpeg cmyk": saved(noise.convert("CMYK"), "JPEG"), "jpeg turned by exif": saved(noise.convert("RGB"), "JPEG", exif=exif),
    "webp": saved(noise.convert("RGB"), "WEBP"), "webp alpha": saved(noise, "WEBP", exact=True),
    "webp lossless": saved(noise.convert("RGB"), "WEBP", lossless=True),
    "webp lossless alpha": saved(noise, "WEBP", lossless=True, exact=True),
    "webp animation": saved(noise, "WEBP", save_all=True, append_images=[noise.rotate(180)], lossless=True, exact=True)}
out = {"made_by": "Pillow %s, torch %s, transformers %s" % (PIL.__version__, torch.__version__, transformers.__version__),
       "files": [], "resizes": [], "patches": []}
for name, data in files.items():
    image = Image.open(io.BytesIO(data))
    out["files"].append({"name": name, "file": data.hex(), "width": image.width, "height": image.height,
                         "drop": image.convert("RGB").tobytes().hex(),
                         "white": convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True).tobytes().hex()})

for w, h, tw, th in ((13, 7, 28, 3), (40, 30, 11, 23), (3, 17, 9, 5), (16, 12, 16, 5), (5, 4, 13, 4), (2, 211, 5, 9)):
    a = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
    a[: h // 2] = (a[: h // 2] > 127) * 255  # overshoot is clamped
    t = torch.from_numpy(a).permute(2, 0, 1)[None].contiguous()
    case = {"from": [w, h], "to": [tw, th], "pixels": a.tobytes().hex()}
    for name, method in (("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR), ("nearest", Image.NEAREST)):
        case[name + " pillow"] = Image.fromarray(a).resize((tw, th), method).tobytes().hex()
        if name != "nearest":
            r = torch.nn.functional.interpolate(t, (th, tw), mode=name, antialias=True)[0].permute(1, 2, 0).contiguous()
            case[name + " torch"] = r.numpy().tobytes().hex()
    out["resizes"].append(case)

for w, h in ((61, 90), (100, 30)):
    a = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
    got = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=6272)([Image.fromarray(a)], return_tensors="np")
    values = got["pixel_values"].astype(np.float32)
    places = sorted(rng.choice(values.size, 64, replace=False).tolist())
    out["patches"].append({"size": [w, h], "pixels": a.tobytes().hex(), "grid": got["image_grid_thw"][0].tolist(),
                           "places": places, "bits": values.ravel()[places].view(np.uint32).tolist(),
                           "crc32_of_all": zlib.crc32(values.tobytes())})
with open(sys.argv[1], "w") as f:
    json.dump(out, f, indent=0)
    f.write("\n")
