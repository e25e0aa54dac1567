#!/usr/bin/env python3
"""Write the ranges of \\p{L}, \\p{N} and White_Space that the tokenizer's scanner uses.

    pip install unicodedata2==16.0.0
    make_unicode_classes.py > src/data/text/unicode_classes.inc

Unicode 16.0 because the reference (`tokenizers` 0.23, Oniguruma) has that version: with --check and
the package at hand, every code point is compared with it.
"""
import sys

import unicodedata2

POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
# PropList.txt; unchanged since Unicode 6.3
WHITE_SPACE = {*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
CLASSES = {
    "kLetter": {c for c in POINTS if unicodedata2.category(chr(c))[0] == "L"},
    "kNumber": {c for c in POINTS if unicodedata2.category(chr(c))[0] == "N"},
    "kSpace": WHITE_SPACE,
}


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def check():
    from tokenizers import Regex, pre_tokenizers
    for name, pattern in ("kLetter", r"\p{L}"), ("kNumber", r"\p{N}"), ("kSpace", r"\s"):
        cut = pre_tokenizers.Split(Regex(pattern), "removed")
        for i in range(0, len(POINTS), 2000):
            block = POINTS[i:i + 2000]
            kept = {ord(c) for piece, _ in cut.pre_tokenize_str("".join(map(chr, block))) for c in piece}
            wrong = [hex(c) for c in block if (c in kept) == (c in CLASSES[name])]
            assert not wrong, (name, wrong)
    print("every code point agrees with the reference", file=sys.stderr)


if unicodedata2.unidata_version != "16.0.0":
    sys.exit(f"unicodedata2 has Unicode {unicodedata2.unidata_version}, want 16.0.0")
if "--check" in sys.argv:
    check()
print("// Written by scripts/make_unicode_classes.py from Unicode 16.0.0: first, last, class.")
line = ""
for name, points in CLASSES.items():
    for first, last in ranges(points):
        item = f"{{0x{first:X}, 0x{last:X}, CharClass::{name}}},"
        if len(line) + len(item) > 99:
            print(line.rstrip())
            line = ""
        line += item + " "
print(line.rstrip())
