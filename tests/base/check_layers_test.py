"""scripts/check_layers.py finds what it is there to find."""
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.dont_write_bytecode = True
import check_layers  # noqa: E402


def problems(layers, files):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in {"docs/layers.txt": layers, **files}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return list(check_layers.problems_of(root))


LAYERS = "base:\nmodels: base\ncli: base models\n"


class CheckLayers(unittest.TestCase):
    def test_permitted(self):
        files = {"src/base/a.h": "", "src/models/x/m.h": '#include "base/a.h"\n#include <vector>\n'}
        self.assertEqual(problems(LAYERS, files), [])

    def test_upwards(self):
        files = {"src/base/a.h": '#pragma once\n#include "cli/c.h"\n', "src/cli/c.h": ""}
        self.assertEqual(
            problems(LAYERS, files),
            ["src/base/a.h:2: base may not include cli; docs/layers.txt says what it may"])

    def test_other_family(self):
        files = {"src/models/x/m.h": '#include "models/y/m.h"\n', "src/models/y/m.h": ""}
        self.assertEqual(len(problems(LAYERS, files)), 1)

    def test_missing_file_and_folder(self):
        files = {"src/base/a.h": '#include "base/none.h"\n', "src/extra/e.h": ""}
        self.assertEqual(len(problems(LAYERS, files)), 2)

    def test_circular_permissions(self):
        self.assertEqual(len(problems("a: b\nb: a\n", {"src/a/a.h": ""})), 1)


if __name__ == "__main__":
    unittest.main()
