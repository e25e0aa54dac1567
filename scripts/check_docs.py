#!/usr/bin/env python3
"""Every relative link of the Markdown pages leads to a file or folder of the repository.

    check_docs.py [REPOSITORY]
"""
import re
import sys
from pathlib import Path

LINK = re.compile(r"\]\(([^)#\s]*)(?:#[^)\s]*)?\)")
SKIPPED = {"build", ".venv", ".git", "runs", "models"}  # "models" at the top: a user's model folders


def pages(root):
    for path in sorted(root.rglob("*.md")):
        parts = path.relative_to(root).parts
        if parts[0] not in SKIPPED and "node_modules" not in parts:
            yield path


def broken_links(root):
    for page in pages(root):
        fenced = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            if fenced:
                continue
            for target in LINK.findall(line):
                if target and "://" not in target and not (page.parent / target).exists():
                    yield f"{page.relative_to(root)}:{number}: {target} is not there"


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    problems = list(broken_links(root))
    print("\n".join(problems) if problems else "all links of the pages lead somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
