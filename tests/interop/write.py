"""Writes tests/fixtures/torch/interop: adapters as stock PEFT and LyCORIS save them, and what the adapted model computes. All float64.

    pip install torch safetensors peft lycoris-lora
    python tests/interop/write.py

expected.safetensors: `model.*` (the base model, see model.py), `ids`, `image` (channels-last), `base` and one output for each case. A case of PEFT is a folder,
`lycoris.safetensors` a file; `authors.safetensors` and `glue.safetensors` have FLoRA under the names of its authors' programs, computed from the formula.
"""

import shutil
import warnings
from pathlib import Path

import peft
import torch
from lycoris.modules.locon import LoConModule
from safetensors.torch import save_file

from model import Model, base, run

warnings.filterwarnings("ignore")
torch.manual_seed(20251128)
torch.set_default_dtype(torch.float64)
folder = Path(__file__).parents[1] / "fixtures" / "torch" / "interop"
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir(parents=True)

tensors = {f"model.{k}": torch.randn_like(v) * 0.5 for k, v in Model().state_dict().items()}
tensors["ids"] = torch.randint(0, 9, (4, 5))
tensors["image"] = torch.randn(4, 7, 6, 3)
tensors["base"] = run(base(tensors), tensors)


def randomize(module):
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + torch.randn_like(parameter) * 0.3


ALL = ["words", "conv1", "conv2", "up", "blocks.1.down"]
cases = {
    "lora": dict(r=4, lora_alpha=6, target_modules=ALL, rank_pattern={"blocks.0.up": 2, "conv.": 3}, alpha_pattern={"up": 5}, modules_to_save=["head"]),
    "rslora": dict(r=3, lora_alpha=4, target_modules=r"blocks\.\d\.(up|down)", use_rslora=True, exclude_modules=["blocks.1.up"]),
    "dora": dict(r=2, lora_alpha=3, target_modules=ALL, use_dora=True),
    "biases": dict(r=2, lora_alpha=2, target_modules=["up", "conv1"], bias="all", modules_to_save=["head"]),
    "lora_biases": dict(r=2, lora_alpha=2, target_modules=["up", "conv1"], bias="lora_only"),
}
for name, options in cases.items():
    model = peft.get_peft_model(base(tensors), peft.LoraConfig(**options))
    randomize(model)
    tensors[name] = run(model, tensors)
    model.save_pretrained(folder / name)
    (folder / name / "README.md").unlink(missing_ok=True)

# LyCORIS: a convolution in Tucker form, one without, a linear layer.
model, saved = base(tensors), {}
for name, layer, rank, tucker in [("conv1", model.conv1, 4, True), ("conv2", model.conv2, 2, False), ("blocks.1.up", model.blocks[1].up, 3, False)]:
    module = LoConModule("lycoris_" + name.replace(".", "_"), layer, lora_dim=rank, alpha=1.5, use_tucker=tucker)
    randomize(module)
    module.apply_to()
    state = {k: v.detach().contiguous().clone() for k, v in module.state_dict().items() if k.startswith("lora_") or k == "alpha"}
    saved |= {f"{module.lora_name}.{k}": v for k, v in state.items()}
tensors["lycoris"] = run(model, tensors)
save_file(saved, folder / "lycoris.safetensors")

# The authors' names: modes [in, out, *kernel].
model, saved, scale = base(tensors), {}, 0.4
for name, layer, ranks in [("conv1", model.conv1, (2, 4, 2, 3)), ("blocks.0.up", model.blocks[0].up, (3, 2))]:
    sizes = [layer.weight.shape[1], layer.weight.shape[0], *layer.weight.shape[2:]]
    core, factors = torch.randn(ranks), [torch.randn(i, j) for i, j in zip(sizes, ranks)]
    delta = core
    for factor in factors:
        delta = torch.tensordot(delta, factor, dims=[[0], [1]])
    layer.weight.data += scale * delta.transpose(0, 1)
    saved |= {f"{name}.flora_layer.param_G": core} | {f"{name}.flora_layer.param_{n}": factor for n, factor in enumerate(factors)}
tensors["authors"] = run(model, tensors)
save_file(saved, folder / "authors.safetensors")

model, saved = base(tensors), {}
for name, layer in [("blocks.0.up", model.blocks[0].up), ("blocks.1.down", model.blocks[1].down)]:
    e, a, b = torch.randn(2, 3), torch.randn(3, layer.in_features), torch.randn(layer.out_features, 2)
    layer.weight.data += scale * (b @ e @ a)
    saved |= {f"{name}.lora_E": e, f"{name}.lora_A": a, f"{name}.lora_B": b}
tensors["glue"] = run(model, tensors)
save_file(saved, folder / "glue.safetensors")

# AdaLoRA after some steps, in which it lost all triplets of one layer. Its run is over when it is saved.
layers = ["conv1", "conv2", "up", "blocks.1.down"]
options = dict(init_r=4, target_r=2, tinit=1, tfinal=1, total_step=6, lora_alpha=6, beta1=0.5, beta2=0.5)
model = peft.get_peft_model(base(tensors), peft.AdaLoraConfig(target_modules=layers, modules_to_save=["head"], **options))
randomize(model)
for name, parameter in model.named_parameters():
    if "blocks.0.up.lora_" in name:
        parameter.data *= 1e-3
target = torch.randn(4, 3)
for step in range(1, 7):
    (model(tensors["ids"], tensors["image"].movedim(-1, 1)) - target).square().mean().backward()
    model.base_model.update_and_allocate(step)
    model.zero_grad()
pattern = model.peft_config["default"].rank_pattern
assert not any(pattern["blocks.0.up.lora_E.default"]) and sum(sum(kept) for kept in pattern.values()) == 2 * len(pattern)
tensors["adalora"] = run(model, tensors)
model.save_pretrained(folder / "adalora")
(folder / "adalora" / "README.md").unlink(missing_ok=True)

save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
for path in sorted(folder.rglob("*.*")):
    print(path.relative_to(folder), path.stat().st_size)
