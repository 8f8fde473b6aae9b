"""Load a folder of bottlenecks in AdapterHub's library, and compare its logits with those that lie beside them.

usage: read_adapters.py MODEL FOLDER

MODEL is a case of tests/fixtures/models; FOLDER what tenfold wrote, and logits.safetensors with `logits`.
pip install torch safetensors adapters
"""

import sys
from pathlib import Path

import adapters
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

case, folder = Path(sys.argv[1]), Path(sys.argv[2])
inputs = load_file(case / "expected.safetensors")
given = dict(input_ids=inputs["ids"], attention_mask=inputs["mask"], token_type_ids=inputs["types"])
model = AutoModelForSequenceClassification.from_pretrained(case).eval()
with torch.no_grad():
    before = model(**given).logits
    adapters.init(model)
    name = model.load_adapter(str(folder), use_safetensors=True, set_active=True)
    model.eval()
    theirs = model(**given).logits
ours = load_file(folder / "logits.safetensors")["logits"]
away, moved = (ours - theirs).abs().max().item(), (theirs - before).abs().max().item()
print(f"{case.name}, {name}: {away:.1e} apart, moved by {moved:.1e}")
assert moved > 1e-2 and away < 1e-4 * max(1.0, theirs.abs().max().item())
