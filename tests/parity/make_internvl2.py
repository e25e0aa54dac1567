#!/usr/bin/env python3
"""Parity fixture generator for InternVL2 (see docs/spec/internvl2.md, section 10).

    make_internvl2.py OUT_DIR [--llm internlm2|llama|qwen2] [--vit 300m|6b]
                      [--seed N] [--steps N] [--no-crosscheck]

Writes a tiny but structurally complete checkpoint in the hub's own layout (key
names, config.json, sharded safetensors with index, tokenizer, preprocessor
config), three training samples (tiled image with thumbnail and two turns; two
images; text only) and everything a C++ implementation has to reproduce:

    OUT_DIR/ckpt/         model directory, hub naming
    OUT_DIR/data/         images (PNG), meta.json, train.jsonl
    OUT_DIR/expected/     tokens, tiles, batch, activations, grads, curves, LoRA
    OUT_DIR/manifest.json scalars, options, tolerances, cross checks

The reference is a small self-contained PyTorch model written for this purpose.
Unless --no-crosscheck is given, it is compared with the transformers
"internvl" port (for InternLM2 after splitting wqkv into q/k/v, which turns the
decoder into a Llama decoder); the differences are stored in the manifest.
Needs the packages of requirements.txt beside this file; transformers (cross check)
and peft (LoRA fixture) may be missing.
"""
import argparse
import io
import json
import math
import os
import struct
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import save_file

if int(Image.__version__.split(".")[0]) >= 13:
    sys.exit("needs pillow < 13: from 13 on, some pictures are resized vertically first and other pixels come out")

IGNORE = -100
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EXTRA = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
SYSTEM = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
CORPUS = [
    "The picture shows a red square, a blue circle and a green line.",
    "What is shown in the image? Describe it in one short sentence.",
    "Which image has more circles, the first or the second one?",
    "The second image has 3 circles; the first image has only 1.",
    "A wooden bridge crosses the quiet river near the old town.",
    "Please count from 1 to 10 and then add 256 and 1024.",
    "She doesn't know whether it's raining; they've gone home.",
    "图片中有一个红色的正方形和一个蓝色的圆形。", "请用一句话描述这张图片。",
    "第二张图片里的圆形更多。", SYSTEM, "system user assistant Image-1: Image-2: Frame-1:",
]

# --------------------------------------------------------------------------- model


class RMSNorm(nn.Module):
    """fp32 statistics; multiplied by the weight after the cast back."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class VitAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.h, self.qkn = c["hidden_size"], c["num_attention_heads"], c["qk_normalization"]
        self.qkv = nn.Linear(d, 3 * d, bias=c["qkv_bias"])
        if self.qkn:  # over all heads at once (width d), before the head split
            self.q_norm, self.k_norm = RMSNorm(d, c["layer_norm_eps"]), RMSNorm(d, c["layer_norm_eps"])
        self.proj = nn.Linear(d, d)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).split(d, -1)
        if self.qkn:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.view(b, n, self.h, d // self.h).transpose(1, 2) for t in (q, k, v))
        a = ((q * (d // self.h) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((a @ v).transpose(1, 2).reshape(b, n, d))


class VitMLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1 = nn.Linear(c["hidden_size"], c["intermediate_size"])
        self.fc2 = nn.Linear(c["intermediate_size"], c["hidden_size"])

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class VitLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, eps = c["hidden_size"], c["layer_norm_eps"]
        norm = (lambda: nn.LayerNorm(d, eps=eps)) if c["norm_type"] == "layer_norm" else (lambda: RMSNorm(d, eps))
        self.attn, self.mlp, self.norm1, self.norm2 = VitAttention(c), VitMLP(c), norm(), norm()
        self.ls1 = nn.Parameter(torch.full((d,), float(c["initializer_factor"])))
        self.ls2 = nn.Parameter(torch.full((d,), float(c["initializer_factor"])))

    def forward(self, x):
        x = x + self.attn(self.norm1(x)) * self.ls1
        return x + self.mlp(self.norm2(x)) * self.ls2


class VitEmbeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, p, self.grid = c["hidden_size"], c["patch_size"], c["image_size"] // c["patch_size"]
        self.class_embedding = nn.Parameter(torch.randn(1, 1, d))
        self.patch_embedding = nn.Conv2d(3, d, p, p)
        self.position_embedding = nn.Parameter(torch.randn(1, self.grid**2 + 1, d))

    def forward(self, pixels):
        x = self.patch_embedding(pixels)
        b, d, gh, gw = x.shape
        pos = self.position_embedding
        grid = pos[:, 1:].float().reshape(1, self.grid, self.grid, d).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(gh, gw), mode="bicubic", align_corners=False)
        grid = grid.reshape(1, d, gh * gw).permute(0, 2, 1).to(pos.dtype)
        x = torch.cat([self.class_embedding.expand(b, 1, -1), x.flatten(2).transpose(1, 2)], 1)
        return x + torch.cat([pos[:, :1], grid], 1)


class VisionModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embeddings = VitEmbeddings(c)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList([VitLayer(c) for _ in range(c["num_hidden_layers"])])

    def forward(self, pixels):
        x = self.embeddings(pixels)
        states = [x]
        for layer in self.encoder.layers:
            x = layer(x)
            states.append(x)
        return x, states


def rope_tables(pos, dim, theta, max_pos=None, scaling=None, seq_len=None):
    """cos/sin [*, dim]; dynamic NTK changes theta only past max_pos."""
    if scaling and scaling["type"] == "dynamic" and seq_len and seq_len > max_pos:
        f = scaling["factor"]
        theta = theta * ((f * seq_len / max_pos) - (f - 1)) ** (dim / (dim - 2))
    inv = 1.0 / (theta ** (torch.arange(0, dim, 2).float() / dim))
    ang = pos.float()[..., None] * inv
    ang = torch.cat([ang, ang], -1)
    return ang.cos(), ang.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class DecoderBase(nn.Module):
    """Shared maths of the three decoders; subclasses only differ in naming."""

    def attend(self, q, k, v, cos, sin, mask, cache):
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        q, k = rotate(q, cos[:, None], sin[:, None]), rotate(k, cos[:, None], sin[:, None])
        if cache is not None:
            if "k" in cache:
                k, v = torch.cat([cache["k"], k], 2), torch.cat([cache["v"], v], 2)
            cache["k"], cache["v"] = k, v
        g = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(g, 1), v.repeat_interleave(g, 1)
        s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        s = s + mask.to(s.dtype)
        p = s.softmax(-1, dtype=torch.float32).to(q.dtype)
        return (p @ v).transpose(1, 2).flatten(2)


class InternLM2Layer(DecoderBase):
    def __init__(self, c):
        super().__init__()
        d, h, kv, eps = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
        self.h, self.kv, self.dh = h, kv, d // h
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.attention = nn.Module()
        self.attention.wqkv, self.attention.wo = lin(d, (h + 2 * kv) * self.dh), lin(d, d)
        self.feed_forward = nn.Module()
        f = c["intermediate_size"]
        self.feed_forward.w1, self.feed_forward.w3, self.feed_forward.w2 = lin(d, f), lin(d, f), lin(f, d)
        self.attention_norm, self.ffn_norm = RMSNorm(d, eps), RMSNorm(d, eps)

    def forward(self, x, cos, sin, mask, cache=None):
        b, n, _ = x.shape
        g = self.h // self.kv
        # one group per kv head: g query heads, then k, then v
        t = self.attention.wqkv(self.attention_norm(x)).view(b, n, self.kv, g + 2, self.dh)
        q, k, v = t[..., :g, :].reshape(b, n, self.h, self.dh), t[..., g, :], t[..., g + 1, :]
        x = x + self.attention.wo(self.attend(q, k, v, cos, sin, mask, cache))
        y, m = self.ffn_norm(x), self.feed_forward
        return x + m.w2(F.silu(m.w1(y)) * m.w3(y))


class LlamaLayer(DecoderBase):
    """Llama and Qwen2 (the latter has biases on q, k and v)."""

    def __init__(self, c):
        super().__init__()
        d, h, kv, eps = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
        self.h, self.kv, self.dh = h, kv, d // h
        bias = c["model_type"] == "qwen2"
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        self.self_attn.q_proj = nn.Linear(d, h * self.dh, bias=bias)
        self.self_attn.k_proj = nn.Linear(d, kv * self.dh, bias=bias)
        self.self_attn.v_proj = nn.Linear(d, kv * self.dh, bias=bias)
        self.self_attn.o_proj = nn.Linear(h * self.dh, d, bias=False)
        f = c["intermediate_size"]
        self.mlp.gate_proj, self.mlp.up_proj = nn.Linear(d, f, bias=False), nn.Linear(d, f, bias=False)
        self.mlp.down_proj = nn.Linear(f, d, bias=False)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(d, eps), RMSNorm(d, eps)

    def forward(self, x, cos, sin, mask, cache=None):
        b, n, _ = x.shape
        y, a = self.input_layernorm(x), self.self_attn
        q = a.q_proj(y).view(b, n, self.h, self.dh)
        k, v = a.k_proj(y).view(b, n, self.kv, self.dh), a.v_proj(y).view(b, n, self.kv, self.dh)
        x = x + a.o_proj(self.attend(q, k, v, cos, sin, mask, cache))
        y, m = self.post_attention_layernorm(x), self.mlp
        return x + m.down_proj(F.silu(m.gate_proj(y)) * m.up_proj(y))


class LanguageModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.fused = c, c["model_type"] == "internlm2"
        d, v = c["hidden_size"], c["vocab_size"]
        self.model = nn.Module()
        setattr(self.model, "tok_embeddings" if self.fused else "embed_tokens", nn.Embedding(v, d))
        layer = InternLM2Layer if self.fused else LlamaLayer
        self.model.layers = nn.ModuleList([layer(c) for _ in range(c["num_hidden_layers"])])
        self.model.norm = RMSNorm(d, c["rms_norm_eps"])
        setattr(self, "output" if self.fused else "lm_head", nn.Linear(d, v, bias=False))

    @property
    def embed(self):
        return self.model.tok_embeddings if self.fused else self.model.embed_tokens

    @property
    def head(self):
        return self.output if self.fused else self.lm_head

    def forward(self, x, mask, pos, caches=None):
        """x [B,N,D]; mask additive [B,1,N,K]; pos [B,N]."""
        c = self.c
        cos, sin = rope_tables(pos, c["hidden_size"] // c["num_attention_heads"], c["rope_theta"],
                               c["max_position_embeddings"], c.get("rope_scaling"), mask.shape[-1])
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        states = [x]
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mask, caches[i] if caches is not None else None)
            states.append(x)
        return self.head(self.model.norm(x)).float(), states


class InternVLChat(nn.Module):
    def __init__(self, cfg, img_id):
        super().__init__()
        self.cfg, self.img_id = cfg, img_id
        dv, dl = cfg["vision_config"]["hidden_size"], cfg["llm_config"]["hidden_size"]
        self.vision_model = VisionModel(cfg["vision_config"])
        self.language_model = LanguageModel(cfg["llm_config"])
        self.mlp1 = nn.Sequential(nn.LayerNorm(4 * dv), nn.Linear(4 * dv, dl), nn.GELU(), nn.Linear(dl, dl))

    def features(self, pixels):
        last, states = self.vision_model(pixels)
        sel = self.cfg["select_layer"]
        x = (last if sel == -1 else states[sel])[:, 1:]
        t, n, c = x.shape
        g = int(n**0.5)
        # ps_version v2: the 2x2 neighbourhood (r,c),(r,c+1),(r+1,c),(r+1,c+1), row major
        x = x.view(t, g // 2, 2, g // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(t, (g // 2) ** 2, 4 * c)
        return self.mlp1(x), last, x

    def embed(self, ids, pixels, flags):
        e = self.language_model.embed(ids)
        feats, last, shuffled = self.features(pixels)
        sel = (ids == self.img_id).reshape(-1)
        flat = e.reshape(-1, e.shape[-1]).clone()
        flat[sel] = flat[sel] * 0.0 + feats[flags == 1].reshape(-1, e.shape[-1]).to(flat.dtype)
        return flat.view_as(e), feats, last, shuffled

    def forward(self, ids, pixels, flags, mask, pos):
        x, feats, last, shuffled = self.embed(ids, pixels, flags)
        logits, states = self.language_model(x, mask, pos)
        return dict(logits=logits, inputs_embeds=x, vit_embeds=feats, vit_last=last,
                    vit_shuffled=shuffled, llm_states=states)


def causal_mask(attn, dtype=torch.float32):
    """Right padded 0/1 mask [B,N] -> additive [B,1,N,N]."""
    b, n = attn.shape
    ok = torch.ones(n, n, dtype=torch.bool).tril()[None, None] & attn.bool()[:, None, None, :]
    return torch.zeros(b, 1, n, n, dtype=dtype).masked_fill(~ok, torch.finfo(dtype).min)


def block_mask(cu, n, dtype=torch.float32):
    """Packed sequence: causal inside each [cu[i], cu[i+1])."""
    seg = torch.zeros(n, dtype=torch.long)
    for i in range(len(cu) - 1):
        seg[cu[i]:cu[i + 1]] = i
    ok = (seg[:, None] == seg[None]) & torch.ones(n, n, dtype=torch.bool).tril()
    return torch.zeros(1, 1, n, n, dtype=dtype).masked_fill(~ok[None, None], torch.finfo(dtype).min)


def lm_loss(logits, labels):
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1),
                           ignore_index=IGNORE)


def weighted_loss(logits, labels, weights):
    ce = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1),
                         ignore_index=IGNORE, reduction="none")
    w = weights[:, 1:].reshape(-1)
    return (ce * w).sum() / w.sum()


# --------------------------------------------------------------------------- tokenizers


def sp_append(model_bytes, pieces):
    """Append NORMAL pieces to a serialized SentencePiece ModelProto (field 1 is repeated)."""
    out = bytearray(model_bytes)
    for text, score in pieces:
        raw = text.encode()
        body = b"\x0a" + bytes([len(raw)]) + raw + b"\x15" + struct.pack("<f", score)
        out += b"\x0a" + bytes([len(body)]) + body
    return bytes(out)


class Tok:
    """Added tokens are cut out first (leftmost, longest); the rest goes to the base model."""

    def __init__(self, kind, ckpt, out_files):
        self.kind, self.files = kind, out_files
        if kind == "internlm2":
            import sentencepiece as spm
            buf = io.BytesIO()
            spm.SentencePieceTrainer.train(
                sentence_iterator=iter(CORPUS * 4), model_writer=buf, model_type="bpe", vocab_size=480,
                byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
                normalization_rule_name="identity", character_coverage=0.98, unk_id=0, bos_id=1, eos_id=2,
                pad_id=-1, num_threads=1, minloglevel=2, hard_vocab_limit=False)
            raw = buf.getvalue()
            base = spm.SentencePieceProcessor(model_proto=raw).get_piece_size()
            raw = sp_append(raw, [(f"[UNUSED_TOKEN_{i}]", -1e6) for i in range(141, 147)])
            self.sp = spm.SentencePieceProcessor(model_proto=raw)
            assert self.sp.get_piece_size() == base + 6
            with open(os.path.join(ckpt, "tokenizer.model"), "wb") as f:
                f.write(raw)
            names = ["<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>"]
            self.added = {"<unk>": 0, "<s>": 1, "</s>": 2}
            self.added.update({n: base + i for i, n in enumerate(names)})
            n = base + 6
            self.bos, self.pad, self.eos = 1, 2, 2
        else:
            from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
            digits = r"\p{N}{1,3}" if kind == "llama" else r"\p{N}"
            pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits +
                       r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
            tk = Tokenizer(models.BPE())
            if kind == "qwen2":
                tk.normalizer = normalizers.NFC()
            tk.pre_tokenizer = pre_tokenizers.Sequence([
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
            tk.decoder = decoders.ByteLevel()
            tk.train_from_iterator(CORPUS * 4, trainers.BpeTrainer(
                vocab_size=480, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
            n = tk.get_vocab_size()
            names = (["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"] if kind == "llama"
                     else ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
            self.added = {t: n + i for i, t in enumerate(names)}
            n += len(names)
            tk.add_special_tokens(names + EXTRA)
            if kind == "llama":
                tk.post_processor = processors.TemplateProcessing(
                    single="<|begin_of_text|> $A",
                    special_tokens=[("<|begin_of_text|>", self.added["<|begin_of_text|>"])])
            tk.save(os.path.join(ckpt, "tokenizer.json"))
            self.tk = tk
            self.bos = self.added.get("<|begin_of_text|>")
            self.pad = self.added["<|end_of_text|>" if kind == "llama" else "<|endoftext|>"]
            self.eos = self.added["<|im_end|>"]
        self.added.update({t: n + i for i, t in enumerate(EXTRA)})
        self.size = n + len(EXTRA)
        conf = {
            "add_bos_token": kind != "qwen2", "add_eos_token": False, "clean_up_tokenization_spaces": False,
            "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                              "single_word": False, "special": True}
                                     for t, i in sorted(self.added.items(), key=lambda kv: kv[1])},
            "bos_token": {"internlm2": "<s>", "llama": "<|begin_of_text|>", "qwen2": None}[kind],
            "eos_token": {"internlm2": "</s>", "llama": "<|im_end|>", "qwen2": "<|im_end|>"}[kind],
            "pad_token": {"internlm2": "</s>", "llama": "<|end_of_text|>", "qwen2": "<|endoftext|>"}[kind],
            "unk_token": "<unk>" if kind == "internlm2" else None, "model_max_length": 8192,
            "tokenizer_class": {"internlm2": "InternLM2Tokenizer", "llama": "PreTrainedTokenizerFast",
                                "qwen2": "Qwen2Tokenizer"}[kind],
        }
        write_json(os.path.join(ckpt, "tokenizer_config.json"), conf)
        write_json(os.path.join(ckpt, "added_tokens.json"), {t: i for t, i in self.added.items() if i > 2})
        write_json(os.path.join(ckpt, "special_tokens_map.json"),
                   {k: conf[k] for k in ("bos_token", "eos_token", "pad_token", "unk_token") if conf[k]}
                   | {"additional_special_tokens": [t for t, i in self.added.items() if i > 2]})

    def __call__(self, text, bos=True):
        ids, i, start = [], 0, 0
        order = sorted(self.added, key=len, reverse=True)

        def flush(end):
            if end > start:
                seg = text[start:end]
                ids.extend(self.sp.encode(seg) if self.kind == "internlm2"
                           else self.tk.encode(seg, add_special_tokens=False).ids)
        while i < len(text):
            hit = next((t for t in order if text.startswith(t, i)), None)
            if hit is None:
                i += 1
                continue
            flush(i)
            ids.append(self.added[hit])
            i += len(hit)
            start = i
        flush(len(text))
        return ([self.bos] if bos and self.bos is not None else []) + ids


# --------------------------------------------------------------------------- data


def choose_grid(w, h, lo, hi, size):
    cand = sorted({(i, j) for n in range(lo, hi + 1) for i in range(1, n + 1) for j in range(1, n + 1)
                   if lo <= i * j <= hi}, key=lambda r: r[0] * r[1])
    best, diff = (1, 1), float("inf")
    for r in cand:
        d = abs(w / h - r[0] / r[1])
        if d < diff:
            best, diff = r, d
        elif d == diff and w * h > 0.5 * size * size * r[0] * r[1]:
            best = r
    return best


def tiles_of(img, lo, hi, size, thumb):
    gx, gy = choose_grid(img.width, img.height, lo, hi, size)
    big = img.resize((size * gx, size * gy), Image.BICUBIC)
    out = [big.crop((c * size, r * size, (c + 1) * size, (r + 1) * size)) for r in range(gy) for c in range(gx)]
    if thumb and len(out) != 1:
        out.append(img.resize((size, size), Image.BICUBIC))
    return out, (gx, gy)


def normalise(tile):
    x = torch.from_numpy(np.asarray(tile.convert("RGB"), dtype=np.uint8).copy()).permute(2, 0, 1).float().div(255)
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def draw(w, h, k):
    """Deterministic picture: gradients plus shapes."""
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([(x * 255 // max(w - 1, 1)), (y * 255 // max(h - 1, 1)), ((x * 7 + y * 13 * k) % 256)], -1)
    img = Image.fromarray(a.astype(np.uint8))
    d = ImageDraw.Draw(img)
    d.rectangle([w // 8, h // 8, w // 3, h // 2], fill=(220, 30, 40))
    for i in range(k):
        d.ellipse([w // 2 + 9 * i, h // 3, w // 2 + 9 * i + 15, h // 3 + 15], fill=(20, 60, 230))
    d.line([0, h - 1, w - 1, h // 2], fill=(0, 180, 90), width=3)
    return img


def render(turns):
    """(prompt text, user opener, assistant opener): template internlm2-chat / Hermes-2."""
    u, a, end = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"
    text = "<|im_start|>system\n" + SYSTEM + end
    for t in turns:
        text += (u if t["from"] == "human" else a) + t["value"].strip() + end
    return text, u, a


def encode_sample(tok, turns, counts, ntok):
    text, u, a = render(turns)
    for c in counts:
        text = text.replace("<image>", "<img>" + "<IMG_CONTEXT>" * (ntok * c) + "</img>", 1)
    ids = tok(text)
    lab = list(ids)
    bos = 1 if tok.bos is not None else 0
    n = lambda s: len(tok(s)) - bos  # the reference measures fragments by tokenizing them alone
    for i in range(bos):
        lab[i] = IGNORE
    cur = bos
    parts = text.split(a)
    step = n(parts[0] + a)
    lab[cur:cur + step] = [IGNORE] * step
    cur += step
    for p in parts[1:-1]:
        answer, question = p.split(u)
        cur += n(answer)
        step = n(u + question + a)
        lab[cur:cur + step] = [IGNORE] * step
        cur += step
    cur += n(parts[-1])
    mismatch = cur != len(ids)
    if mismatch:
        lab = [IGNORE] * len(ids)
    return text, ids, lab, mismatch


# --------------------------------------------------------------------------- output


def write_json(path, obj):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(obj, f, ensure_ascii=False, indent=2)
        f.write("\n")


def save(path, tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path, metadata={"format": "pt"})


def configs(args, vocab, tok):
    size = 56
    if args.vit == "300m":
        vis = dict(hidden_size=64, num_attention_heads=4, intermediate_size=160, num_hidden_layers=3,
                   qk_normalization=False, qkv_bias=True, norm_type="layer_norm", initializer_factor=1.0)
    else:  # odd head count, no qkv bias, RMSNorm everywhere, like the 6B encoder
        vis = dict(hidden_size=80, num_attention_heads=5, intermediate_size=192, num_hidden_layers=4,
                   qk_normalization=True, qkv_bias=False, norm_type="rms_norm", initializer_factor=0.1)
    vis.update(architectures=["InternVisionModel"], model_type="intern_vit_6b", image_size=size, patch_size=14,
               num_channels=3, hidden_act="gelu", layer_norm_eps=1e-6, attention_dropout=0.0, dropout=0.0,
               drop_path_rate=0.0, initializer_range=0.02, use_flash_attn=False, torch_dtype="float32")
    llm = dict(hidden_size=64, num_attention_heads=8, num_key_value_heads=2, intermediate_size=176,
               num_hidden_layers=3, rms_norm_eps=1e-5, hidden_act="silu", vocab_size=vocab, initializer_range=0.02,
               max_position_embeddings=2048, bos_token_id=tok.bos, eos_token_id=tok.eos, pad_token_id=tok.pad,
               tie_word_embeddings=False, use_cache=True, torch_dtype="float32")
    if args.llm == "internlm2":
        llm.update(architectures=["InternLM2ForCausalLM"], model_type="internlm2", bias=False, rope_theta=1000000,
                   rope_scaling={"type": "dynamic", "factor": 2.0}, attn_implementation="eager")
    elif args.llm == "llama":
        llm.update(architectures=["LlamaForCausalLM"], model_type="llama", rope_theta=500000.0, rope_scaling=None,
                   attention_bias=False)
    else:
        llm.update(architectures=["Qwen2ForCausalLM"], model_type="qwen2", rope_theta=1000000.0, rms_norm_eps=1e-6,
                   use_sliding_window=False)
    return dict(architectures=["InternVLChatModel"], model_type="internvl_chat", downsample_ratio=0.5,
                dynamic_image_size=True, force_image_size=size, use_thumbnail=True, pad2square=False,
                min_dynamic_patch=1, max_dynamic_patch=6, ps_version="v2", select_layer=-1,
                template="internlm2-chat" if args.llm != "qwen2" else "Hermes-2", use_backbone_lora=0,
                use_llm_lora=0, tie_word_embeddings=False, torch_dtype="float32", vision_config=vis, llm_config=llm)


def init_weights(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("_embedding") or name.split(".")[-2] in ("tok_embeddings", "embed_tokens"):
                p.copy_(torch.randn(p.shape, generator=g) * 0.5)
            elif p.ndim == 1 and not name.endswith("bias"):  # norms and layer scale, around their usual value
                p.copy_(p * (1 + 0.1 * torch.randn(p.shape, generator=g)))
            elif p.ndim == 1:
                p.copy_(0.05 * torch.randn(p.shape, generator=g))
            else:
                p.copy_(torch.randn(p.shape, generator=g) / math.sqrt(p[0].numel()))


def crosscheck(args, cfg, model, batch, ref, grads):
    """Run the transformers port on the same weights; return max abs differences."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration
    import transformers
    v, t = cfg["vision_config"], dict(cfg["llm_config"])
    theta = float(t["rope_theta"])
    text = dict(model_type="qwen2" if args.llm == "qwen2" else "llama",
                rope_parameters={"rope_type": "default", "rope_theta": theta}, head_dim=None)
    for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "num_hidden_layers",
              "rms_norm_eps", "vocab_size", "max_position_embeddings"):
        text[k] = t[k]
    text["head_dim"] = t["hidden_size"] // t["num_attention_heads"]
    text["tie_word_embeddings"] = False
    vis = dict(hidden_size=v["hidden_size"], num_hidden_layers=v["num_hidden_layers"],
               num_attention_heads=v["num_attention_heads"], attention_bias=v["qkv_bias"],
               use_qk_norm=v["qk_normalization"], intermediate_size=v["intermediate_size"], norm_type=v["norm_type"],
               layer_norm_eps=v["layer_norm_eps"], image_size=[v["image_size"]] * 2, patch_size=[14, 14],
               layer_scale_init_value=v["initializer_factor"])
    hf_cfg = InternVLConfig(vision_config=vis, text_config=text, image_token_id=model.img_id,
                            image_seq_length=(v["image_size"] // 28) ** 2, tie_word_embeddings=False)
    hf_cfg._attn_implementation = "eager"
    hf = InternVLForConditionalGeneration(hf_cfg).float().eval()
    hub = dict(model.state_dict())
    mapped = to_hf(hub, cfg)
    missing, unexpected = hf.load_state_dict(mapped, strict=False)
    used = batch["pixel_values"][batch["image_flags"] == 1]  # the port has no image_flags
    out = hf(input_ids=batch["input_ids"], pixel_values=used, attention_mask=batch["attention_mask"],
             position_ids=batch["position_ids"])
    keep = batch["attention_mask"].bool()
    loss = lm_loss(out.logits.float(), batch["labels"])
    loss.backward()
    hub_grads = to_hf(grads, cfg)
    gd = max((p.grad - hub_grads[n]).abs().max().item() for n, p in hf.named_parameters()
             if n in hub_grads and p.grad is not None)
    feats = hf.model.get_image_features(used).pooler_output
    return dict(transformers=transformers.__version__, missing=list(missing), unexpected=list(unexpected),
                logits_max_abs=(out.logits - ref["logits"])[keep].abs().max().item(),
                vit_embeds_max_abs=(feats - ref["vit_embeds"][batch["image_flags"] == 1]).abs().max().item(),
                loss=loss.item(), grad_max_abs=gd)


def to_hf(sd, cfg):
    """Hub keys -> keys of the transformers port (InternLM2 becomes Llama)."""
    out, llm = {}, cfg["llm_config"]
    kv = llm["num_key_value_heads"]
    g, dh = llm["num_attention_heads"] // kv, llm["hidden_size"] // llm["num_attention_heads"]
    inlm = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
            "feed_forward.w1": "mlp.gate_proj", "feed_forward.w3": "mlp.up_proj",
            "feed_forward.w2": "mlp.down_proj", "attention.wo": "self_attn.o_proj"}
    vit = {"attn.proj": "attention.projection_layer", "attn.q_norm": "attention.q_norm",
           "attn.k_norm": "attention.k_norm", "norm1": "layernorm_before", "norm2": "layernorm_after"}
    for k, t in sd.items():
        if k.startswith("mlp1."):
            idx, rest = k.split(".")[1:]
            name = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}[idx]
            out[f"model.multi_modal_projector.{name}.{rest}"] = t
        elif k.startswith("vision_model.embeddings."):
            rest = k.split("embeddings.", 1)[1]
            rest = rest.replace("class_embedding", "cls_token").replace("position_embedding", "position_embeddings")
            rest = rest.replace("patch_embedding.", "patch_embeddings.projection.")
            out["model.vision_tower.embeddings." + rest] = t
        elif k.startswith("vision_model."):
            i, rest = k.split("layers.", 1)[1].split(".", 1)
            base = f"model.vision_tower.encoder.layer.{i}."
            if rest in ("ls1", "ls2"):
                out[base + ("lambda_1" if rest == "ls1" else "lambda_2")] = t
            elif rest.startswith("attn.qkv"):
                for n, part in zip("qkv", t.chunk(3, 0)):
                    out[f"{base}attention.{n}_proj.{rest.split('.')[-1]}"] = part.clone()
            else:
                stem, leaf = rest.rsplit(".", 1)
                out[base + vit.get(stem, stem) + "." + leaf] = t
        else:
            k2 = k[len("language_model."):]
            if k2 in ("output.weight", "lm_head.weight"):
                out["lm_head.weight"] = t
                continue
            k2 = k2[len("model."):].replace("tok_embeddings", "embed_tokens")
            if ".wqkv." in k2:
                base = k2.split("attention.")[0] + "self_attn."
                w = t.view(kv, g + 2, dh, -1)
                out["model.language_model." + base + "q_proj.weight"] = w[:, :g].reshape(kv * g * dh, -1).clone()
                out["model.language_model." + base + "k_proj.weight"] = w[:, g].reshape(kv * dh, -1).clone()
                out["model.language_model." + base + "v_proj.weight"] = w[:, g + 1].reshape(kv * dh, -1).clone()
                continue
            for a, b in inlm.items():
                if llm["model_type"] == "internlm2":
                    k2 = k2.replace(a + ".", b + ".") if ("." + a + ".") in k2 else k2
            out["model.language_model." + k2] = t
    return out


def adamw_curve(build, batch, steps, decay_rule, lr=1e-3, wd=0.05, clip=1.0):
    model = build()
    params = dict(model.named_parameters())
    decayed = [n for n, p in params.items() if decay_rule == "all" or (p.ndim > 1 and not n.endswith(".bias"))]
    groups = [dict(params=[params[n] for n in decayed], weight_decay=wd),
              dict(params=[p for n, p in params.items() if n not in decayed], weight_decay=0.0)]
    opt = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for _ in range(steps):
        opt.zero_grad()
        loss = lm_loss(run(model, batch)["logits"], batch["labels"])
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), clip)))
        losses.append(loss.item())
        opt.step()
    return losses, norms, model


def run(model, b, dtype=torch.float32):
    return model(b["input_ids"], b["pixel_values"].to(dtype), b["image_flags"],
                 causal_mask(b["attention_mask"], dtype), b["position_ids"])


@torch.no_grad()
def greedy(model, ids, pixels, steps, use_cache):
    cur, toks, rows, caches = ids[None], [], [], None
    flags = torch.ones(pixels.shape[0], dtype=torch.long)
    x = model.embed(cur, pixels, flags)[0]
    if use_cache:
        caches = [{} for _ in model.language_model.model.layers]
    n = x.shape[1]
    logits, _ = model.language_model(x, causal_mask(torch.ones(1, n)), torch.arange(n)[None], caches)
    for _ in range(steps):
        rows.append(logits[0, -1].clone())
        toks.append(int(rows[-1].argmax()))
        e = model.language_model.embed(torch.tensor([[toks[-1]]]))
        n += 1
        if use_cache:
            logits, _ = model.language_model(e, torch.zeros(1, 1, 1, n), torch.tensor([[n - 1]]), caches)
        else:
            x = torch.cat([x, e], 1)
            logits, _ = model.language_model(x, causal_mask(torch.ones(1, n)), torch.arange(n)[None])
    return toks, torch.stack(rows)


def lora_fixture(args, build, batch, out):
    """LoRA on the language model with peft; B is made non-zero so that it matters."""
    from peft import LoraConfig, get_peft_model
    targets = (["attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]
               if args.llm == "internlm2" else
               ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"])
    model = build()
    for p in model.parameters():
        p.requires_grad_(False)
    lora = get_peft_model(model.language_model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets))
    g = torch.Generator().manual_seed(args.seed + 7)
    with torch.no_grad():
        for n, p in lora.named_parameters():
            if "lora_" in n:
                p.copy_(torch.randn(p.shape, generator=g) * 0.05)
    loss = lm_loss(run(model, batch)["logits"], batch["labels"])
    loss.backward()
    # the adapter as peft would write it: drop the adapter name from the keys
    named = {n: p for n, p in lora.named_parameters() if "lora_" in n}
    short = {n.replace(".default.", "."): p for n, p in named.items()}
    os.makedirs(os.path.join(out, "lora"), exist_ok=True)
    save(os.path.join(out, "lora", "adapter_model.safetensors"), short)
    save(os.path.join(out, "lora", "grads.safetensors"), {n.replace(".default.", "."): p.grad for n, p in named.items()})
    write_json(os.path.join(out, "lora", "adapter_config.json"),
               dict(peft_type="LORA", r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=targets,
                    task_type="CAUSAL_LM", fan_in_fan_out=False, inference_mode=False))
    return dict(loss=loss.item(), keys=sorted(short)[:4], count=len(short))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("out_dir")
    ap.add_argument("--llm", choices=["internlm2", "llama", "qwen2"], default="internlm2")
    ap.add_argument("--vit", choices=["300m", "6b"], default="300m")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--no-crosscheck", action="store_true")
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    ckpt, data, exp = (os.path.join(args.out_dir, d) for d in ("ckpt", "data", "expected"))
    for d in (ckpt, data, exp):
        os.makedirs(d, exist_ok=True)

    tok = Tok(args.llm, ckpt, [])
    vocab = tok.size
    cfg = configs(args, vocab, tok)
    img_id, size = tok.added["<IMG_CONTEXT>"], cfg["force_image_size"]
    ntok = (size // 28) ** 2
    write_json(os.path.join(ckpt, "config.json"), cfg)
    write_json(os.path.join(ckpt, "preprocessor_config.json"),
               dict(crop_size=size, do_center_crop=True, do_normalize=True, do_resize=True,
                    feature_extractor_type="CLIPFeatureExtractor", image_mean=list(MEAN), image_std=list(STD),
                    resample=3, size=size))
    write_json(os.path.join(ckpt, "generation_config.json"), dict(eos_token_id=[tok.eos, tok.added["<|im_end|>"]]))

    model = InternVLChat(cfg, img_id)
    init_weights(model, args.seed + 1)
    sd = {k: v.clone() for k, v in model.state_dict().items()}
    names, total = list(sd), sum(v.numel() * v.element_size() for v in sd.values())
    half, acc, weight_map, shards = total / 2, 0, {}, [{}, {}]
    for n in names:  # two shards, so that the index is exercised
        s = 0 if acc < half else 1
        shards[s][n] = sd[n]
        weight_map[n] = f"model-0000{s + 1}-of-00002.safetensors"
        acc += sd[n].numel() * sd[n].element_size()
    for s, t in enumerate(shards):
        save(os.path.join(ckpt, f"model-0000{s + 1}-of-00002.safetensors"), t)
    write_json(os.path.join(ckpt, "model.safetensors.index.json"),
               dict(metadata=dict(total_size=total), weight_map=weight_map))

    # ---- samples
    pics = {"wide.png": draw(170, 90, 1), "tall.png": draw(60, 130, 2), "square.png": draw(40, 40, 3)}
    for n, im in pics.items():
        im.save(os.path.join(data, n))
    rows = [
        {"id": 0, "image": "wide.png", "width": 170, "height": 90, "conversations": [
            {"from": "human", "value": "<image>\nWhat is shown in the image?"},
            {"from": "gpt", "value": "The picture shows a red square and a blue circle."},
            {"from": "human", "value": "请用一句话描述这张图片。"},
            {"from": "gpt", "value": "图片中有一个红色的正方形。"}]},
        {"id": 1, "image": ["tall.png", "square.png"], "conversations": [
            {"from": "human", "value": "Image-1: <image>\nImage-2: <image>\nWhich image has more circles?"},
            {"from": "gpt", "value": "The second image has 3 circles; the first image has 2 & ☂."}]},
        {"id": 2, "conversations": [
            {"from": "human", "value": "Please count from 1 to 10 and then add 256."},
            {"from": "gpt", "value": "It's 1, 2, 3, 4, 5, 6, 7, 8, 9, 10; then 266."}]},
    ]
    with open(os.path.join(data, "train.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    write_json(os.path.join(data, "meta.json"), {"tiny": dict(
        root=".", annotation="train.jsonl", data_augment=False, repeat_time=1, length=len(rows))})

    samples, tensors, info = [], {}, []
    for r in rows:
        imgs = r.get("image")
        imgs = [imgs] if isinstance(imgs, str) else imgs
        tiles, counts, grids = [], [], []
        if imgs:
            cap = cfg["max_dynamic_patch"] if len(imgs) == 1 else max(1, cfg["max_dynamic_patch"] // len(imgs))
            for n in imgs:
                t, gr = tiles_of(pics[n], cfg["min_dynamic_patch"], cap, size, cfg["use_thumbnail"])
                tiles += t
                counts.append(len(t))
                grids.append(gr)
        else:  # a dummy white tile keeps the vision tower in the graph; flag 0 drops it
            tiles, _ = tiles_of(Image.new("RGB", (224, 224), (255, 255, 255)), 1, 1, size, True)
        text, ids, lab, bad = encode_sample(tok, r["conversations"], counts, ntok)
        assert not bad, "tokenization mismatch"
        px = torch.stack([normalise(t) for t in tiles])
        k = r["id"]
        tensors[f"sample{k}.tiles_u8"] = torch.stack([torch.from_numpy(np.asarray(t).copy()) for t in tiles])
        tensors[f"sample{k}.pixel_values"] = px
        tensors[f"sample{k}.input_ids"], tensors[f"sample{k}.labels"] = torch.tensor(ids), torch.tensor(lab)
        samples.append((ids, lab, px, 1 if imgs else 0))
        info.append(dict(id=k, text=text, grids=grids, tiles=counts, tokens=len(ids),
                         label_tokens=sum(x != IGNORE for x in lab)))
    save(os.path.join(exp, "samples.safetensors"), tensors)

    width, n = max(len(s[0]) for s in samples), len(samples)
    ids = torch.full((n, width), tok.pad)
    lab, att, pos = torch.full((n, width), IGNORE), torch.zeros(n, width, dtype=torch.long), torch.zeros(n, width, dtype=torch.long)
    for i, (a, l, _, _) in enumerate(samples):
        ids[i, :len(a)], lab[i, :len(a)], att[i, :len(a)] = torch.tensor(a), torch.tensor(l), 1
        pos[i, :len(a)] = torch.arange(len(a))
    batch = dict(input_ids=ids, labels=lab, attention_mask=att, position_ids=pos,
                 pixel_values=torch.cat([s[2] for s in samples]),
                 image_flags=torch.cat([torch.full((s[2].shape[0],), s[3], dtype=torch.long) for s in samples]))
    save(os.path.join(exp, "batch.safetensors"), batch)

    def build():
        m = InternVLChat(cfg, img_id)
        m.load_state_dict(sd)
        return m

    # ---- forward, loss, gradients
    model = build()
    ref = run(model, batch)
    loss = lm_loss(ref["logits"], batch["labels"])
    loss.backward()
    grads = {k: p.grad.clone() for k, p in model.named_parameters()}
    acts = {k: ref[k] for k in ("vit_last", "vit_shuffled", "vit_embeds", "inputs_embeds", "logits")}
    acts.update({f"llm_state_{i}": s for i, s in enumerate(ref["llm_states"])})
    save(os.path.join(exp, "activations.safetensors"), acts)
    save(os.path.join(exp, "grads.safetensors"), grads)

    # ---- packed variant and weighted reductions
    p_ids = torch.cat([torch.tensor(s[0]) for s in samples])[None]
    p_lab = torch.cat([torch.tensor(s[1]) for s in samples])[None]
    cu = [0]
    for s in samples:
        cu.append(cu[-1] + len(s[0]))
    p_pos = torch.cat([torch.arange(len(s[0])) for s in samples])[None]
    packed = build()(p_ids, batch["pixel_values"], batch["image_flags"], block_mask(cu, cu[-1]), p_pos)
    reductions = {}
    for kind in ("token", "sample", "square"):
        w = torch.zeros(1, cu[-1])
        for i, s in enumerate(samples):
            eff = sum(x != IGNORE for x in s[1])
            w[0, cu[i]:cu[i + 1]] = {"token": 1.0, "sample": 1.0 / max(eff, 1), "square": max(eff, 1) ** -0.5}[kind]
        w[p_lab == IGNORE] = 0
        reductions[kind] = weighted_loss(packed["logits"], p_lab, w).item()
    save(os.path.join(exp, "packed.safetensors"),
         dict(input_ids=p_ids, labels=p_lab, position_ids=p_pos, cu_seqlens=torch.tensor(cu, dtype=torch.int32),
              logits=packed["logits"]))

    # ---- bf16 forward (weights and activations in bf16, logits in fp32)
    m16 = build().to(torch.bfloat16)
    with torch.no_grad():
        out16 = run(m16, batch, torch.bfloat16)
    keep = batch["attention_mask"].bool()
    d16 = (out16["logits"] - ref["logits"].detach())[keep]

    # ---- optimizer curves
    curves = {}
    for rule in ("matrix_only", "all"):
        losses, norms, last = adamw_curve(build, batch, args.steps, rule)
        curves[rule] = dict(loss=losses, grad_norm=norms)
        if rule == "matrix_only":
            save(os.path.join(exp, "weights_after.safetensors"), dict(last.state_dict()))

    # ---- greedy decoding of sample 0, first turn
    text0, _, a = render(rows[0]["conversations"][:1])
    text0 = (text0 + a).replace("<image>", "<img>" + "<IMG_CONTEXT>" * (ntok * info[0]["tiles"][0]) + "</img>", 1)
    prompt = torch.tensor(tok(text0))
    m = build().eval()
    with_cache, rows_c = greedy(m, prompt, samples[0][2], 8, True)
    without, rows_n = greedy(m, prompt, samples[0][2], 8, False)
    save(os.path.join(exp, "generate.safetensors"), dict(prompt_ids=prompt, new_ids=torch.tensor(with_cache), step_logits=rows_c))

    # ---- small side tables: rope with and without dynamic NTK; position embedding resize
    dim = cfg["llm_config"]["hidden_size"] // cfg["llm_config"]["num_attention_heads"]
    ntk = {}
    for n_seq in (48, 96):
        c, s = rope_tables(torch.arange(n_seq), dim, 1e6, 48, {"type": "dynamic", "factor": 2.0}, n_seq)
        ntk[f"cos_{n_seq}"], ntk[f"sin_{n_seq}"] = c, s
    emb = build().vision_model.embeddings
    big = torch.linspace(-2, 2, 3 * 84 * 112).view(1, 3, 84, 112)
    with torch.no_grad():
        ntk["resize_in"], ntk["resize_out"] = big, emb(big)
    save(os.path.join(exp, "tables.safetensors"), ntk)

    lora = None
    try:
        lora = lora_fixture(args, build, batch, exp)
    except ImportError:
        pass
    check = None
    if not args.no_crosscheck:
        try:
            check = crosscheck(args, cfg, build(), batch, {k: ref[k].detach() for k in ("logits", "vit_embeds")}, grads)
        except ImportError:
            check = "transformers not installed"

    manifest = dict(
        family="internvl2", options=dict(llm=args.llm, vit=args.vit, seed=args.seed, steps=args.steps),
        versions=dict(torch=torch.__version__, pillow=Image.__version__, numpy=np.__version__),
        ids=dict(bos=tok.bos, eos=tok.eos, pad=tok.pad, vocab=vocab, **{t: i for t, i in tok.added.items()}),
        num_image_token=ntok, samples=info, parameters=sum(v.numel() for v in sd.values()),
        loss=dict(padded_token_mean=loss.item(), packed=reductions,
                  packed_vs_padded_logits_max_abs=max(
                      (packed["logits"][0, cu[i]:cu[i + 1]] - ref["logits"][i, :cu[i + 1] - cu[i]]).abs().max().item()
                      for i in range(n)),
                  bf16=lm_loss(out16["logits"], batch["labels"]).item(),
                  bf16_logits_max_abs=d16.abs().max().item(), bf16_logits_rms=d16.pow(2).mean().sqrt().item(),
                  logits_rms=ref["logits"][keep].pow(2).mean().sqrt().item()),
        grad_norm=float(torch.sqrt(sum(g.double().pow(2).sum() for g in grads.values()))),
        adamw=dict(lr=1e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.05, clip=1.0, curves=curves),
        generate=dict(ids=with_cache, ids_without_cache=without, logits_max_abs=(rows_c - rows_n).abs().max().item()),
        lora=lora, crosscheck=check,
        tolerances=dict(fp32=dict(pixel_values=1e-6, tiles_u8=0, activations_rtol=1e-4, activations_atol=2e-5, loss=1e-5,
                                  grads_rtol=1e-3, grads_atol=1e-6, curve=1e-4),
                        bf16=dict(logits_rms_rel=0.02, loss=0.02)))
    write_json(os.path.join(args.out_dir, "manifest.json"), manifest)
    print(json.dumps({k: manifest[k] for k in ("options", "parameters", "loss", "grad_norm", "generate", "lora", "crosscheck")},
                     ensure_ascii=False, indent=1))
    print("curve", curves["matrix_only"]["loss"])


if __name__ == "__main__":
    main()
