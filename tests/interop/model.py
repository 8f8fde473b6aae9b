"""The model that both sides have, and what it computes: tests/interop/model.rs is the same one."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, h):
        return h + self.down(F.gelu(self.up(self.norm(h))))


class Model(nn.Module):
    """Ids [B, L] and images [B, 3, H, W] to [B, 3]."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, (3, 2))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(6, 3)

    def forward(self, ids, image):
        seen = F.gelu(self.conv2(F.gelu(self.conv1(image)))).mean((2, 3))
        h = self.words(ids).mean(1) + seen
        for block in self.blocks:
            h = block(h)
        return self.head(h)


def base(tensors):
    """The model with the weights `model.*` of a fixture."""
    model = Model()
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    return model


def run(model, tensors):
    # Images are stored channels-last.
    with torch.no_grad():
        return model.eval()(tensors["ids"], tensors["image"].movedim(-1, 1))
