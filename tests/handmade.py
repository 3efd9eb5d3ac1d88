"""Layers of linear attention made by hand, which take the steps they are told to take."""

import torch

from icl.architecture import Architecture
from icl.transformer import build


def layers(gammas, constant=0.0):
    """M layers whose answers have the weights Γ b + (constant, 0, …, 0), for Γ (M, d, d)."""
    models, d, _ = gammas.shape
    layer = build(Architecture(d, (1,), d + 1, d + 1), models).double().requires_grad_(False)
    for maps in (layer.embed, layer.readout, *layer.blocks[0].maps()):
        maps.weight.zero_()
    block, eye = layer.blocks[0], torch.eye(d + 1).double()
    # Embedding, key and output are the identity: W = Qᵀ, and p reads the label alone.
    layer.embed.weight[:] = block.key.weight[:, :, 0] = block.output.weight[:, 0] = eye
    block.query.weight[:, :d, 0, :d] = gammas
    block.value.weight[:, d, 0, d] = layer.readout.weight[:, d] = 1
    layer.readout.weight[:, 0] = constant
    return layer


def near(matrix, errors=(1e-3, 2e-3, 3e-3)):
    """Matrices (M, d, d) at these relative distances from one, (d, d)."""
    return torch.stack([(1 + error) * torch.as_tensor(matrix) for error in errors])


def drawn(d):
    """Three layers as training finds them: their matrices drawn."""
    return build(Architecture(d, (1,), 4 * d, 4 * d), 3).initialise((0, 1, 2), 1.0)
