"""A backbone's state dict under the names and in the shapes of another layout: its literal key map, backwards."""

from itertools import count

import torch

from vltune.weights.keys import flat, transpose


def written(model, family):
    """Without rules, the model's own; of a rule, what undoes it."""
    ours, theirs = model.state_dict(), {}
    for source, target, change in family.rules:
        for layer in count() if "{i}" in source else (0,):
            keys = [key.replace("{i}", str(layer)) for key in ([target] if isinstance(target, str) else target)]
            if not all(key in ours for key in keys):
                break
            theirs[source.replace("{i}", str(layer))] = undo(change, [ours[key] for key in keys])
    return theirs or ours


def undo(change, tensors):
    if len(tensors) == 3:  # query, key and value
        return torch.cat(tensors)
    if len(tensors) == 2:
        first, grid = tensors  # positions: (1, 1, width) and (g, g, width), or (1, width) and (g^2, width)
        return torch.cat([first, grid.flatten(0, 1)[None]], dim=1) if grid.dim() == 3 else torch.cat(tensors)
    if change is flat:
        side = round((tensors[0].shape[1] / 3) ** 0.5)
        return tensors[0].unflatten(1, (3, side, side))
    if change is transpose:
        return tensors[0].t()
    return tensors[0]
