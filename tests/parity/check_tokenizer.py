#!/usr/bin/env python3
"""Compare our tokenizer with Hugging Face `tokenizers` on 100 000 varied texts.

    check_tokenizer.py PROBE [--texts N] [--ranks qwen.tiktoken] [--keep FOLDER]
    check_tokenizer.py --fetch          puts Qwen's rank file into .venv, where tests look for it

PROBE is the test program built from tokenizer_probe.cpp. The texts go through tokenizers of the reference:
the patterns of Qwen2, Llama-3 and GPT-2, one that only PCRE2 knows, one that our own trainer made, and
Qwen's real vocabulary when its rank file is there (--ranks, TRIPTYCH_QWEN_RANKS, or .venv/qwen.tiktoken).
Ends with 77, for "skipped", without the package `tokenizers`.
"""
import argparse
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import zipfile

VENV = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".venv")
RANKS_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"


def fetch():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", d, "dashscope==2.0.2"], check=True)
        wheel = zipfile.ZipFile(os.path.join(d, os.listdir(d)[0]))
        data = wheel.read("dashscope/resources/qwen.tiktoken")
    assert hashlib.sha256(data).hexdigest() == RANKS_SHA256, "another rank file than expected"
    with open(os.path.join(VENV, "qwen.tiktoken"), "wb") as f:
        f.write(data)


if sys.argv[1:] == ["--fetch"]:
    sys.exit(fetch())
try:
    import tokenizers
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
except ImportError:
    print("skipped: the package tokenizers is not installed (make test installs it)")
    sys.exit(77)

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "qwen2": CONTRACTIONS + r"\p{N}" + REST,
    "llama3": CONTRACTIONS + r"\p{N}{1,3}" + REST,
    "gpt2": None,
    "other": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t)?"
             r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
ADDED = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<|image_pad|>", True),
         ("<tool_call>", False), ("</tool_call>", False), ("<|im_|>", False)]
WORDS = ("the of and picture red square don't I'LL we've it's WHO'S cat's naïve café Ångström straße ﬁne déjà-vu 123 4567 "
         "3.14159 1e-5 (x+y) foo_bar baz::qux() http://example.org/?q=a&b=c <b>bold</b> {\"key\": [1,2]} 你好 世界 中文分词 測試 "
         "日本語 テスト かな 한국어 문장 Привет мир Καλημέρα שלום مرحبا नमस्ते ประเทศไทย 🙂 👍🏽 👨‍👩‍👧 🇫🇷 ½ ² Ⅷ ٣ ४ 𝟘 𐐀 ſ a'ſ e\u0301 "
         "o\u0308\u0323 \u1e9b\u0323 \u212b \uac00\u11a8 <|im_start|> <|im_end|> <|image_pad|> <|im_|> <tool_call> <|im_ <|").split(" ")
SPACES = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "", "", "\u00a0", "\u3000", "\u2028", "\u180e", "\u200b", "\u0085", "\x1c"]
# assigned in Unicode 9 to 16 and, the last ones, later: old and new tables part there
NEW = [0x560, 0x8D4, 0x8E2, 0x1C80, 0x1E900, 0x11D00, 0x1FA70, 0x16E40, 0x10F30, 0x1E2C0, 0x18B00, 0x30000, 0x8D3, 0x898, 0x1DFA,
       0x2A6DE, 0x9FFD, 0x1E290, 0x31350, 0x2EBF0, 0x10D4A, 0x1C89, 0xA7CB, 0x16D40, 0x10EFD, 0x897, 0x105C0, 0x113D1, 0x11DE0, 0x33000, 0x88F]


def varied_texts(n):
    r = random.Random(0)

    def any_char():
        kind = r.random()
        if kind < 0.3:
            return chr(r.randrange(0x20, 0x7F))
        if kind < 0.5:
            return chr(r.randrange(0x80, 0x800))
        if kind < 0.6:
            return chr(r.choice(NEW) + r.randrange(4))
        if kind < 0.7:
            return chr(r.randrange(0x300, 0x370))
        while True:
            c = r.randrange(0x800, 0x30000 if kind < 0.97 else 0x110000)
            if not 0xD800 <= c <= 0xDFFF:
                return chr(c)

    for i in range(n):
        kind = i % 10
        if kind < 6:
            yield "".join(r.choice(WORDS) + r.choice(SPACES) for _ in range(r.randrange(1, 24)))
        elif kind < 8:
            yield "".join(any_char() for _ in range(r.randrange(1, 40)))
        elif kind < 9:
            yield "".join(r.choice(" \n\r\t'sStTrevmlLdDſ1²a.-,\u00a0\u3000é") for _ in range(r.randrange(1, 30)))
        else:
            yield r.choice(WORDS) * r.randrange(1, 60) + r.choice(SPACES) * r.randrange(9)


def reference(name, texts):
    tok = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    tok.decoder = decoders.ByteLevel()
    if PATTERNS[name]:
        tok.normalizer = normalizers.NFC()
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated"),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tok.add_tokens([AddedToken(t, special=s, normalized=False) for t, s in ADDED])
    if name == "llama3":  # the flags that other families use
        tok.add_tokens([AddedToken("[L]", lstrip=True, normalized=False), AddedToken("[R]", rstrip=True, normalized=False),
                        AddedToken("\u1e17!", normalized=True)])
    return tok


def real(ranks, folder):
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import make_qwen2_5_vl as fixture
    vocab, merges = fixture.vocab_from_ranks(ranks)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERNS["qwen2"]), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_tokens([AddedToken(t, special=t not in fixture.PLAIN_ADDED, normalized=False) for t in fixture.SPECIALS])
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump(vocab, f, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {
            str(len(vocab) + i): dict(content=t, special=t not in fixture.PLAIN_ADDED) for i, t in enumerate(fixture.SPECIALS)}}, f)
    return tok


def train(probe, folder, texts):
    """A folder made by our trainer, read by transformers where it is installed."""
    os.makedirs(folder, exist_ok=True)
    lines = os.path.join(folder, "lines")
    with open(lines, "w", encoding="utf-8", newline="") as f:
        f.writelines(t.replace("\n", " ") + "\n" for t in texts[:2000])
    subprocess.run([probe, "--train", folder, lines], check=True)
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tok = AutoTokenizer.from_pretrained(folder)
    assert tok.eos_token == "<|im_end|>" and tok.pad_token == "<|endoftext|>", tok
    assert tok.convert_tokens_to_ids("<|file_sep|>") == len(tok) - 1
    return tok.backend_tokenizer


def write_cases(tok, texts, path):
    with open(path, "wb") as f:
        for text in texts:
            ids = tok.encode(text, add_special_tokens=False).ids
            raw, back = text.encode(), tok.decode(ids, skip_special_tokens=False).encode()
            f.write(struct.pack("<I", len(raw)) + raw + struct.pack(f"<I{len(ids)}i", len(ids), *ids)
                    + struct.pack("<I", len(back)) + back)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("probe")
    ap.add_argument("--texts", type=int, default=100_000)
    ap.add_argument("--ranks", default=os.environ.get("TRIPTYCH_QWEN_RANKS", os.path.join(VENV, "qwen.tiktoken")))
    ap.add_argument("--keep", help="leave tokenizers and cases in this folder")
    a = ap.parse_args()
    texts = list(varied_texts(a.texts))
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        folder = a.keep or scratch
        os.makedirs(folder, exist_ok=True)
        cases = os.path.join(folder, "cases")

        def check(what, form, path):
            nonlocal failed
            print(f"{what}: ", end="", flush=True)
            failed |= subprocess.run([a.probe, form, path, cases]).returncode != 0

        for name in PATTERNS:
            tok = reference(name, texts[:4000])
            path = os.path.join(folder, name + ".json")
            tok.save(path)
            some = texts
            if name == "other":  # PCRE2 10.42 knows Unicode 14 only
                some = [t for t in texts if all(ord(c) not in range(0x300, 0x370) and ord(c) < 0x500 or c in "".join(WORDS) for c in t)]
            if name == "llama3":
                some = [t.replace("<|im_|>", " [L] [R] e\u0304\u0301! ") for t in texts]
            write_cases(tok, some, cases)
            check(name, "--json", path)
        if os.path.exists(a.ranks):
            tok = real(a.ranks, folder)
            tok.save(os.path.join(folder, "real.json"))
            write_cases(tok, texts, cases)
            check("real, tokenizer.json", "--json", os.path.join(folder, "real.json"))
            check("real, rank file", "--ranks", a.ranks)
            check("real, vocab.json and merges.txt", "--folder", folder)
        else:
            print("real vocabulary: skipped, no rank file (check_tokenizer.py --fetch gets it)")
        trained = os.path.join(folder, "trained")
        write_cases(train(a.probe, trained, texts), texts[:20_000], cases)
        check("trained by ourselves", "--folder", trained)
    print(f"reference: tokenizers {tokenizers.__version__}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
