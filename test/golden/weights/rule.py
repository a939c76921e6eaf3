"""What every file that is meant to be read holds: tensor k is the k-th of SHAPES; its element i in C order is
((7 i + 13 k) % 61 - 30) / 4, which fp16 and bf16 hold exactly; "counter" is the int64 scalar 7. golden_weights.h knows the same."""
import collections

import torch

SHAPES = {"conv.weight": (4, 2, 3, 3), "norm.weight": (4,), "fc.weight": (3, 4), "empty": (0, 5), "scalar": ()}


def values(k, shape):
    count = int(torch.tensor(shape, dtype=torch.int64).prod()) if shape else 1
    i = torch.arange(count, dtype=torch.float64)
    return (((7 * i + 13 * k) % 61 - 30) / 4).reshape(shape)


def state(dtype=torch.float32, prefix=""):
    tensors = collections.OrderedDict()
    for k, (name, shape) in enumerate(SHAPES.items()):
        tensors[prefix + name] = values(k, shape).to(dtype)
    tensors[prefix + "counter"] = torch.tensor(7)
    return tensors
