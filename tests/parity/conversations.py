"""Records with the tokens and labels that the reference libraries make of them; part of make_qwen2_5_vl.py.

The text is rendered by transformers' apply_chat_template and tokenized by its tokenizer. Labels follow the rule of
`data.learn` (docs/options.md): an answer is an assistant turn's content, its <|im_end|> and the newline after it.
Where the rendered string is tokenized as a whole, they must also equal transformers' own assistant mask.
"""
import json
import os

from PIL import Image

SYSTEM = "You are a helpful assistant."
END = "<|im_end|>\n"
PADS = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
# ChatML with the default system sentence; `pads` of a part: how many placeholders the medium takes.
TEMPLATE = """{%- macro body(m) -%}
{%- if m.content is string -%}{{ m.content }}
{%- else -%}{%- for p in m.content -%}
{%- if p.type == 'text' -%}{{ p.text }}
{%- else -%}{{ '<|vision_start|>' + ('<|' + p.type + '_pad|>') * p.pads + '<|vision_end|>' }}{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\\n""" + SYSTEM + """<|im_end|>\\n' }}{%- endif -%}
{%- for m in messages -%}
{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.learned -%}{%- generation -%}{{ body(m) + '<|im_end|>\\n' }}{%- endgeneration -%}
{%- else -%}{{ body(m) + '<|im_end|>\\n' }}{%- endif -%}
{%- endfor -%}"""

# For the tokenizer of these records: line breaks and runs of spaces merge, so that turns tokenized one by one and the
# whole string differ where an answer begins with them.
CORPUS = ["system\n\n\nYou are a helpful assistant.\n\n", "user\nWhat is in the picture?\n\n\n\nDescribe the two images.\n\n",
          "assistant\n\n\nThe picture shows a red square.\n\n\n\nIt's on the left, isn't it?\n\n", "    if x:\n        return x\n\n\n",
          "naïve café, 你好 你好, caf\u00e9 na\u00efve", "user\n\nHow many frames 12 345?\n\n\nassistant\n\n"] * 6

text = lambda s: {"type": "text", "text": s}
image = lambda n: {"type": "image", "image": f"image{n}"}
VIDEO = {"type": "video", "video": "video"}
user = lambda *parts: dict(role="user", content=[text(p) if isinstance(p, str) else p for p in parts])
answer = lambda s, **more: dict(role="assistant", content=s, **more)

# The first five are the samples of the batches.
RECORDS = dict(
    one_image=[user(image(0), "What is in the picture?"), answer("A red square.")],
    two_images=[user(image(1), "Describe ", image(2), "the two images."), answer("The first is tall."), user("How many?"), answer("Two.")],
    video=[user(VIDEO, "How many frames?"), answer("It's five.")],
    text=[user("12 345 naïve café — 你好\n\n  x"), answer("ok  \n fine!")],
    big_image=[user("Look: ", image(3)), answer("Seen.")],
    own_system=[dict(role="system", content="Short answers."), user("Hi "), answer("Hi!\n"), user("\n\nBye"), answer("")],
    odd_borders=[user("List two. "), answer("\n\n1. a\n2. b\n"), user("  Again?"), answer("  if x:\n    return\n\n")],
    all_media=[user(image(2), VIDEO, "Which ", image(0), "is it?"), answer("The first, na\u0131ve cafe\u0301."), user("And ", image(1), "?"),
               answer("Neither 🙂👍🏽.")],
    not_learned=[user("Guess."), answer("Four?", loss=False), user("No."), answer("Five.")],
    tools=[user("Size?"), answer("<tool_call>size()</tool_call>"), dict(role="tool", content="{\"w\": 3}\n\n"), answer("Three"),
           answer(" wide.")],
)


def write_media(out, images, video):
    """lossless files of the folder's pictures and frames -> part with its files, by name"""
    os.makedirs(os.path.join(out, "media"), exist_ok=True)
    files = {}
    for name, pixels in [*((f"image{i}", im) for i, im in enumerate(images)), *((f"frame{i}", f) for i, f in enumerate(video))]:
        files[name] = f"media/{name}.png"
        Image.fromarray(pixels.numpy()).save(os.path.join(out, files[name]))
    files["video"] = [files[f"frame{i}"] for i in range(len(video))]
    return files


def body(message):
    if isinstance(message["content"], str):
        return message["content"]
    return "".join(p["text"] if p["type"] == "text" else "<|vision_start|>" + PADS[p["type"]] * p["pads"] + "<|vision_end|>"
                   for p in message["content"])


def answer_spans(rendered, messages):
    """[(begin, end, turn)] of the answers in the rendered string"""
    spans, at = [], 0
    for k, m in enumerate(messages):
        opening = f"<|im_start|>{m['role']}\n"
        at = rendered.index(opening, at) + len(opening)
        end = at + len(body(m)) + len(END)
        assert rendered[at:end] == body(m) + END
        if m["role"] == "assistant":
            spans.append((at, end, k))
        at = end
    assert at == len(rendered)
    return spans


def learned_turns(messages, learn):
    turns = [k for k, m in enumerate(messages) if m["role"] == "assistant"]
    return {k for k in (turns[-1:] if learn == "last" else turns) if messages[k].get("loss", True)}


def expect(tok, messages, learn, label_tokens):
    """ids and labels of one record"""
    learned = learned_turns(messages, learn)
    marked = [dict(m, learned=k in learned) for k, m in enumerate(messages)]
    rendered = tok.apply_chat_template(marked, chat_template=TEMPLATE, tokenize=False)
    spans = answer_spans(rendered, messages)
    if learn == "all":                       # everything but the turns that ask not to be learned, their opening included
        off = [(b - len("<|im_start|>assistant\n"), e) for b, e, k in spans if k not in learned]
        on = list(zip([0, *(e for _, e in off)], [*(b for b, _ in off), len(rendered)]))
    else:
        on = [(b, e) for b, e, k in spans if k in learned]
    cuts = [0, len(rendered)]
    if label_tokens == "separate":           # prompt, answer, prompt, answer, ...
        cuts = sorted({0, len(rendered), *(x for b, e, _ in spans for x in (b, e))})
    ids, labels = [], []
    for start, stop in zip(cuts, cuts[1:]):
        coded = tok(rendered[start:stop], add_special_tokens=False, return_offsets_mapping=True)
        for i, (b, e) in zip(coded["input_ids"], coded["offset_mapping"]):
            ids.append(i)
            labels.append(i if any(start + b < last and start + e > first for first, last in on) else -100)
    if label_tokens == "whole" and learn != "all":
        ref = tok.apply_chat_template(marked, chat_template=TEMPLATE, return_dict=True, return_assistant_tokens_mask=True)
        assert ref["input_ids"] == ids and ref["assistant_masks"] == [int(x != -100) for x in labels]
    return ids, labels


RULES = [(learn, tokens) for learn in ("assistant", "last", "all") for tokens in ("separate", "whole")]


def write_conversations(out, toks, images, video, pads):
    """toks: folder -> tokenizer; pads: medium -> placeholders. Writes the records and what is expected of each."""
    files = write_media(out, images, video)
    expected, lines = [], []
    for name, messages in RECORDS.items():
        own = lambda p, key, value: p if p["type"] == "text" else dict(p, **{key(p): value(p)})
        every = lambda key, value: [m if isinstance(m["content"], str) else
                                    dict(m, content=[own(p, key, value) for p in m["content"]]) for m in messages]
        lines.append(json.dumps(dict(messages=every(lambda p: p["type"], lambda p: files[p[p["type"]]])), ensure_ascii=False))
        counted = every(lambda p: "pads", lambda p: pads[p[p["type"]]])
        media = [p[p["type"]] for m in messages if not isinstance(m["content"], str) for p in m["content"] if p["type"] != "text"]
        for folder, tok in toks.items():
            for learn, tokens in RULES:
                ids, labels = expect(tok, counted, learn, tokens)
                expected.append(dict(record=len(lines) - 1, name=name, folder=folder, learn=learn, label_tokens=tokens, media=media,
                                     ids=ids, labels=labels))
    with open(os.path.join(out, "conversations.jsonl"), "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    with open(os.path.join(out, "conversations_expected.json"), "w") as f:
        f.write("[\n" + ",\n".join(map(json.dumps, expected)) + "\n]\n")
    return expected
