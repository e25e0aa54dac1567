// Files against the reference libraries in both directions: safetensors and peft of the Python
// environment (tests/parity/requirements.txt).
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/files.h"
#include "base/format.h"
#include "checkpoint/adapter.h"
#include "support/paths.h"
#include "support/scratch.h"

namespace triptych {
namespace {

/// Runs a Python program in the repository's environment, in `folder`.
void run_python(const Scratch& scratch, const std::string& program) {
  std::ofstream(scratch / "program.py") << program;
  const std::string command =
      fmt::format("cd '{}' && '{}/.venv/bin/python' -W ignore program.py > output.txt 2>&1",
                  scratch.path().string(), source_dir());
  ASSERT_EQ(std::system(command.c_str()), 0) << read_file(scratch / "output.txt");
}

constexpr char kTensors[] = R"(
import torch
torch.manual_seed(0)
types = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
         torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64,
         torch.complex64]
def value(i, shape):
    return (torch.arange(max(1, torch.Size(shape).numel())) % 5 + i % 3)[:torch.Size(shape).numel()].reshape(shape).to(types[i])
tensors = {f"{str(types[i])[6:]}.{len(s)}": value(i, s) for i in range(len(types)) for s in [(), (0, 2), (7,), (2, 3, 4)]}
)";

TEST(Parity, PythonsFileComesOutByteForByte) {
  const Scratch scratch;
  run_python(scratch, std::string(kTensors) + R"(
from safetensors.torch import save_file
save_file(tensors, "model.safetensors", metadata={"format": "pt", "ä": "\"quoted\"\n"})
)");
  const auto hub = HubFolder::open(scratch.path());
  EXPECT_EQ(hub.names().size(), 64);
  EXPECT_EQ(hub.read("bfloat16.3", at::kFloat).sum().item<float>(),
            24 * 2 + 4 * (0 + 1 + 2 + 3 + 4) + 6 - 24);
  save_hub_folder(scratch / "out", hub.layout(), [&](const auto& name) { return hub.view(name); });
  EXPECT_EQ(read_file(scratch / "out/model.safetensors"), read_file(scratch / "model.safetensors"));
  // A header of our own from the same names is the same as well.
  const auto header = hub.layout().files[0].header;
  EXPECT_EQ(make_safetensors_header(header.tensors, header.metadata).text, header.text);
}

TEST(Parity, PythonReadsOurFiles) {
  const Scratch scratch;
  run_python(scratch, std::string(kTensors) + R"(
from safetensors.torch import save_file
save_file(tensors, "python.safetensors")
)");
  const auto file = SafetensorsFile::open(scratch / "python.safetensors");
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& stored : file->header().tensors) {
    tensors.insert(tensors.begin(), {stored.name, file->read(stored.name)});
  }
  save_safetensors(scratch / "ours.safetensors", tensors,
                   {{"format", "pt"}});  // misaligned and all
  run_python(scratch, std::string(kTensors) + R"(
from safetensors.torch import load_file
from safetensors import safe_open
ours = load_file("ours.safetensors")
assert ours.keys() == tensors.keys()
for name, want in tensors.items():
    assert ours[name].dtype == want.dtype and ours[name].shape == want.shape, name
    assert ours[name].contiguous().reshape(-1).view(torch.uint8).equal(want.reshape(-1).view(torch.uint8)), name
assert safe_open("ours.safetensors", "pt").metadata() == {"format": "pt"}
)");
}

constexpr char kPeft[] = R"(
import torch
from peft import LoraConfig, PeftModel, get_peft_model
class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.o_proj = (torch.nn.Linear(6, 4), torch.nn.Linear(6, 4), torch.nn.Linear(4, 6))
    def forward(self, x):
        return self.o_proj(self.q_proj(x) * self.k_proj(x))
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(Attention() for _ in range(3))
        self.lm_head = torch.nn.Linear(6, 5)
    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return self.lm_head(x)
def base():
    torch.manual_seed(1)
    return Model()
x = torch.linspace(-1, 1, 12).reshape(2, 6)
def fill(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
)";

TEST(Parity, PeftsFolderComesOutByteForByteAndPeftLoadsOurs) {
  const Scratch scratch;
  run_python(scratch, std::string(kPeft) + R"(
configs = [
    dict(target_modules=["q_proj", "o_proj"]),
    dict(target_modules=r"layers\.[02]\..*_proj", exclude_modules=["k_proj"], use_rslora=True, lora_dropout=0.25),
    dict(target_modules=["q_proj", "k_proj"], layers_to_transform=[1, 2], layers_pattern="layers",
         rank_pattern={r"layers\.1\..*": 2}, alpha_pattern={"k_proj": 3.5}, modules_to_save=["lm_head"]),
]
for i, config in enumerate(configs):
    model = get_peft_model(base(), LoraConfig(r=4, lora_alpha=6, task_type="FEATURE_EXTRACTION" if i else None, **config))
    fill(model)
    model.save_pretrained(f"peft{i}")
    torch.save(model.eval().base_model(x), f"want{i}.pt")
    open(f"targets{i}.txt", "w").write("\n".join(sorted(
        n[len("base_model.model."):] for n, m in model.named_modules() if hasattr(m, "lora_A"))))
    open(f"modules{i}.txt", "w").write("\n".join(n for n, m in base().named_modules() if isinstance(m, torch.nn.Linear)))
)");
  for (const char* i : {"0", "1", "2"}) {
    const auto folder = scratch / ("peft" + std::string(i));
    const auto adapter = load_adapter(folder);
    save_adapter(scratch / ("ours" + std::string(i)), adapter);
    EXPECT_EQ(read_file(scratch / ("ours" + std::string(i) + "/adapter_model.safetensors")),
              read_file(folder / "adapter_model.safetensors"));
    // The configuration means the same: the same modules, with the ranks of the stored tensors.
    std::vector<std::string> adapted, want;
    std::ifstream modules(scratch / ("modules" + std::string(i) + ".txt"));
    std::ifstream targets(scratch / ("targets" + std::string(i) + ".txt"));
    for (std::string line; std::getline(modules, line);) {
      if (adapter.config.adapts(line)) adapted.push_back(line);
    }
    for (std::string line; std::getline(targets, line);) want.push_back(line);
    EXPECT_THAT(adapted, testing::UnorderedElementsAreArray(want));
    EXPECT_FALSE(want.empty());
  }
  run_python(scratch, std::string(kPeft) + R"(
import json
for i in range(3):
    model = PeftModel.from_pretrained(base(), f"ours{i}").eval()
    assert model.base_model(x).equal(torch.load(f"want{i}.pt")), i
    ours, theirs = (json.load(open(f"{f}{i}/adapter_config.json")) for f in ("ours", "peft"))
    assert list(ours) == list(theirs), set(ours) ^ set(theirs)
    for key in ours:
        a, b = ours[key], theirs[key]
        if key == "layers_pattern":  # one name or a list of one
            a, b = (v if v is None or isinstance(v, list) else [v] for v in (a, b))
        assert (sorted(a) == sorted(b) if isinstance(a, list) and isinstance(b, list) else a == b) or key == "auto_mapping", (key, a, b)
)");
}

}  // namespace
}  // namespace triptych
