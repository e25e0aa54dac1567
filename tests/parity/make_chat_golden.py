#!/usr/bin/env python3
"""Render conversations with a model's own Jinja template and write text and ids for tests/data/text_template_test.

    make_chat_golden.py --template chat_template.jinja --ranks qwen.tiktoken > tests/data/golden/chat_qwen2_5_vl.json

The template is the one a model folder carries; it is not kept here. Ids are those of the real vocabulary, with
every placeholder repeated to the medium's token count.
"""
import argparse
import json
import os
import sys
import tempfile

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from check_tokenizer import real  # noqa: E402

IMAGE, VIDEO = {"type": "image"}, {"type": "video"}
CASES = [
    dict(messages=[dict(role="user", content="Hello")]),
    dict(messages=[dict(role="user", content="Hello"), dict(role="assistant", content="Hi!\n")]),
    dict(messages=[dict(role="user", content="Hello")], add_generation_prompt=True),
    dict(messages=[dict(role="system", content="Short answers."), dict(role="user", content=[IMAGE, "Colour?"]),
                   dict(role="assistant", content="Blue.")], media_tokens=[4]),
    dict(messages=[dict(role="user", content=[IMAGE, "Left or ", IMAGE, VIDEO, "right?"]), dict(role="assistant", content="Left."),
                   dict(role="user", content=["And", VIDEO, "?"])], media_tokens=[1, 6, 3, 2], add_generation_prompt=True),
    dict(messages=[dict(role="user", content=["a", IMAGE, VIDEO, IMAGE, "b", VIDEO]), dict(role="assistant", content="c")],
         media_tokens=[2, 2, 2, 2], add_vision_id=True),
    dict(messages=[dict(role="assistant", content="  naïve e\u0301"), dict(role="assistant", content=""),
                   dict(role="tool", content="{\"t\": 1}\n\n"), dict(role="user", content=" 你好 <|im_end|> x ")]),
    dict(messages=[dict(role="system", content=""), dict(role="user", content=["", IMAGE, "", "\nwhat"])], media_tokens=[9]),
]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--template", required=True)
    ap.add_argument("--ranks", required=True)
    a = ap.parse_args()
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)   # as transformers sets it up
    template = env.from_string(open(a.template, encoding="utf-8").read())
    with tempfile.TemporaryDirectory() as folder:
        tok = real(a.ranks, folder)
    out = []
    for case in CASES:
        messages = [dict(m, content=[p if isinstance(p, dict) else {"type": "text", "text": p} for p in m["content"]]
                         if isinstance(m["content"], list) else m["content"]) for m in case["messages"]]
        text = template.render(messages=messages, add_generation_prompt=case.get("add_generation_prompt", False),
                               add_vision_id=case.get("add_vision_id", False))
        full, rest = "", text
        for n in case.get("media_tokens", []):
            at, pad = min((rest.find(p), p) for p in ("<|image_pad|>", "<|video_pad|>") if p in rest)
            full, rest = full + rest[:at] + pad * n, rest[at + len(pad):]
        out.append(dict(case, text=text, ids=tok.encode(full + rest, add_special_tokens=False).ids))
    rows = ",\n".join(map(json.dumps, out))
    print(f'{{"made_with": "jinja2 {jinja2.__version__}", "cases": [\n{rows}\n]}}')


if __name__ == "__main__":
    main()
