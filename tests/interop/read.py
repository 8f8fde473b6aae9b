"""Loads what tests/interop/main.rs wrote, with stock PEFT and LyCORIS, and compares what the adapted model computes.

    python tests/interop/read.py FOLDER

FOLDER has expected.safetensors (as write.py makes it), a folder for each case of PEFT, and a file lycoris*.safetensors for each of LyCORIS; expected.safetensors has the
output for each under its name. Any name that is missing or unexpected, any warning of PEFT's and any difference ends it with an error.
"""

import sys
import warnings
from pathlib import Path

import peft
import torch
from lycoris.wrapper import create_lycoris_from_weights
from safetensors.torch import load_file

from model import base, run

torch.set_default_dtype(torch.float64)
folder = Path(sys.argv[1])
expected = load_file(folder / "expected.safetensors")


def compare(name, got):
    away = (got - expected[name]).abs().max().item()
    moved = (got - expected["base"]).abs().max().item()
    print(f"{name}: {away:.1e} away, moved by {moved:.1e}")
    if not away < 1e-11 * max(1.0, expected[name].abs().max().item()):
        sys.exit(f"{name} differs")
    if not moved > 1e-3:
        sys.exit(f"{name} is the base model")


count = 0
for path in sorted(folder.iterdir()):
    if path.is_dir():
        with warnings.catch_warnings():
            warnings.simplefilter("error", category=UserWarning)
            model = peft.PeftModel.from_pretrained(base(expected), path, autocast_adapter_dtype=False)
        held = set(load_file(path / "adapter_model.safetensors"))
        theirs = set(peft.get_peft_model_state_dict(model))
        if missing := theirs - held:
            sys.exit(f"{path.name}: PEFT has {sorted(missing)}, the file does not")
        compare(path.name, run(model, expected))
        count += 1
    elif path.name.startswith("lycoris"):
        model = base(expected)
        network, weights = create_lycoris_from_weights(1.0, str(path), model)
        if len(network.loras) != len({name.split(".")[0] for name in weights}):
            sys.exit(f"{path.name}: a layer was not found")
        for module in network.loras:
            module.apply_to()
        compare(path.stem, run(model, expected))
        count += 1
print(f"{count} cases agree with peft {peft.__version__}, torch {torch.__version__}")
