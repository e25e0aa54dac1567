#!/usr/bin/env python3
"""Which folder of src/ may include which: docs/layers.txt, one line a folder.

    scripts/check_layers.py [ROOT]

Prints every include that the list does not permit and exits 1; also a folder without a line, a line
without a folder's name spelt right, an include of a file that is not there, and permissions that
are circular.
"""
import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def read_permissions(path):
    permissions = {}
    for line in path.read_text().splitlines():
        if line.strip():
            folder, _, names = line.partition(":")
            permissions[folder.strip()] = set(names.split())
    return permissions


def unit(path):
    """A folder; every model family is one of its own."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "models" and len(parts) > 2 else parts[0]


def circular(permissions):
    """A folder that may reach itself, or None."""
    for start in permissions:
        seen, todo = set(), list(permissions[start])
        while todo:
            folder = todo.pop()
            if folder == start:
                return start
            if folder not in seen:
                seen.add(folder)
                todo.extend(permissions.get(folder, ()))
    return None


def problems_of(root):
    permissions = read_permissions(root / "docs/layers.txt")
    source = root / "src"
    for folder, names in permissions.items():
        for name in sorted(names - permissions.keys()):
            yield f"docs/layers.txt: {folder} may include {name}, which has no line"
    if circular(permissions):
        yield f"docs/layers.txt: {circular(permissions)} may include itself by way of others"
    for path in sorted(source.rglob("*")):
        if path.suffix not in {".h", ".cpp", ".cu", ".cuh"}:
            continue
        here = path.relative_to(source).as_posix()
        if here.split("/")[0] not in permissions:
            yield f"{path.relative_to(root)}: docs/layers.txt has no line for {here.split('/')[0]}"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            place, target = f"{path.relative_to(root)}:{number}", match[1]
            if not (source / target).exists():
                yield f'{place}: "{target}" is not in src/; libraries are included with <>'
                continue
            allowed = permissions[here.split("/")[0]]
            if unit(target) != unit(here) and target.split("/")[0] not in allowed:
                yield f"{place}: {unit(here)} may not include {unit(target)}; docs/layers.txt says what it may"


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    problems = list(problems_of(root))
    print("\n".join(problems) if problems else "every include is permitted")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
