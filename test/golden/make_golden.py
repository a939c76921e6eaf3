#!/usr/bin/env python3
"""Makes the golden files beside this script with PyTorch and torchvision (torch 2.x, torchvision 0.2x; on a CPU, a minute).

    python3 test/golden/make_golden.py

resnet34_*.txt: torchvision's resnet34 (for the cifar stem with conv1 = 3x3/1 and no max-pool), all in double: one forward and backward
pass, ten SGD steps, evaluation after them. augment.txt: augmented images. Weights and images are no files: both sides compute them
from the integer hash below (golden.h has the same in C). A line is "name value value ...". README.md says what "steady" is for.
"""
import copy
import os

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

HERE = os.path.dirname(os.path.abspath(__file__))
MEAN = np.array([0.507, 0.487, 0.441], np.float32)
STD = np.array([0.267, 0.256, 0.276], np.float32)

# What the hash's numbers are for; a parameter's place in torchvision's order (without num_batches_tracked) is added.
IMAGES, LABELS, ELEMENTS, WEIGHTS, DOT1, DOT2 = 1, 2, 3, 1000, 2000, 3000


def mix(h):
    h = np.asarray(h, np.uint64) & 0xFFFFFFFF
    h ^= h >> np.uint64(16)
    h = h * 0x85EBCA6B & 0xFFFFFFFF
    h ^= h >> np.uint64(13)
    h = h * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> np.uint64(16)


def hash_words(stream, count):
    return mix(np.arange(count, dtype=np.uint64) ^ mix(stream + 0x9E3779B9))


def hash_units(stream, count):
    """Uniform in [-1, 1), 24 bits: exact in float."""
    return ((hash_words(stream, count) >> np.uint64(8)).astype(np.int64) - (1 << 23)) / float(1 << 23)


def hash_images(count, size):
    return (hash_words(IMAGES, count * 3 * size * size) >> np.uint64(24)).astype(np.uint8).reshape(count, 3, size, size)


def normalize(pixels):
    """In float32, operation by operation as core/backend/augment.c."""
    return (pixels.astype(np.float32) / np.float32(255) - MEAN[:, None, None]) / STD[:, None, None]


def line(file, name, values, form=" %.16g"):
    file.write(name + "".join(form % v for v in np.asarray(values, np.float64).reshape(-1)) + "\n")


def project(tensor, index):
    """Sum, two dot products with hash vectors, L2 norm."""
    v = tensor.detach().numpy().reshape(-1)
    return [v.sum(), v @ hash_units(DOT1 + index, v.size), v @ hash_units(DOT2 + index, v.size), np.sqrt((v * v).sum())]


def elements(tensor, index):
    v = tensor.detach().numpy().reshape(-1)
    return v[(hash_words(ELEMENTS + index * 16, 4) % v.size).astype(np.int64)]


def set_weights(entries, steady):
    """Uniform with Kaiming's fan-out variance; gamma 1 +- 1/4, beta +- 1/8; head +- 1/sqrt(C). Rounded once, to float.
    Steady: beta is moved by +4 or -4 where nothing but a ReLU follows (so channels are well on or well off), else by 2."""
    for index, (name, tensor) in enumerate(entries):
        u = hash_units(WEIGHTS + index, tensor.numel())
        if tensor.dim() == 4:
            value = u * np.float64(np.float32(np.sqrt(6.0 / (tensor.shape[0] * tensor.shape[2] * tensor.shape[3]))))
        elif name.startswith("fc."):
            value = u * np.float64(np.float32(1 / np.sqrt(512.0)))
        elif name.endswith("running_mean"):
            value = u * 0
        elif name.endswith("running_var"):
            value = u * 0 + 1
        else:
            centre = np.where(u < 0, -4, 4) if name.endswith("bn1.bias") else 2
            value = 1 + u * 0.25 if name.endswith("weight") else u * 0.125 + centre * steady
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(value.astype(np.float32).astype(np.float64).reshape(tensor.shape)))


def network_golden(path, stem, size, batch, classes, rate, steady):
    model = torchvision.models.resnet34(num_classes=classes).double()
    if stem == "cifar":
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False).double()
        model.maxpool = torch.nn.Identity()
    entries = [(k, v) for k, v in model.state_dict(keep_vars=True).items() if not k.endswith("num_batches_tracked")]
    number = {name: i for i, (name, _) in enumerate(entries)}
    params = dict(model.named_parameters())
    set_weights(entries, steady)

    # Small rates: large ones make the ten steps chaotic, so that rounding, not definitions, would be compared.
    count = 3 * batch
    images = normalize(hash_images(count, size))
    labels = (hash_words(LABELS, count) % classes).astype(np.int64)
    smoothing = float(np.float32(0.1))

    def batch_of(step, mixed):
        """Images step*batch ... of the set; when training every second one mixed, 3/4 to 1/4, with the one five places on."""
        at = np.array([(step * batch + n) % count for n in range(batch)])
        partner = (at + 5) % count
        weight = np.array([0.75 if mixed and n % 2 else 1.0 for n in range(batch)], np.float32)[:, None, None, None]
        x = weight * images[at] + (np.float32(1) - weight) * images[partner]
        smooth = lambda l: (1 - smoothing) * np.eye(classes)[l] + smoothing / classes
        w = weight.reshape(-1, 1).astype(np.float64)
        target = w * smooth(labels[at]) + (1 - w) * smooth(labels[partner]) if mixed else np.eye(classes)[labels[at]]
        return torch.from_numpy(x.astype(np.float64)), torch.from_numpy(target), labels[at]

    def hits(logits, label):
        order = np.argsort(-logits.detach().numpy(), axis=1)
        return [(order[:, 0] == label).sum(), (order[:, :5] == label[:, None]).any(1).sum()]

    betas = [p for k, p in params.items() if p.dim() == 1 and k.endswith("bias") and k != "fc.bias"]
    plain = [p for k, p in params.items() if p.dim() == 1 and not any(p is b for b in betas)]
    optimizer = torch.optim.SGD([
        {"params": [p for p in params.values() if p.dim() > 1], "weight_decay": 2.0 ** -8},
        {"params": plain, "weight_decay": 0.0}, {"params": betas, "weight_decay": 0.0, "lr": 2 * rate}],
        lr=rate, momentum=0.875, nesterov=True)
    average = copy.deepcopy(model)

    with open(path, "w") as file:
        file.write("# resnet34, %s stem, %dx%d, batch %d, %d classes; torch %s, torchvision %s\n" % (
            stem, size, size, batch, classes, torch.__version__, torchvision.__version__))
        curve = []
        for step in range(10):
            model.train()
            x, target, label = batch_of(step, True)
            logits = model(x)
            loss = F.cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            curve.append(loss.item())
            if step == 0:
                line(file, "loss", [loss.item()])
                line(file, "hits", hits(logits, label))
                for n in range(batch):
                    line(file, "logits.%d" % n, logits[n].detach().numpy())
                for name, p in params.items():
                    line(file, "gradient." + name, project(p.grad, number[name]) + list(elements(p.grad, number[name])))
            optimizer.step()
            with torch.no_grad():
                for a, v in zip(average.state_dict().values(), model.state_dict().values()):
                    if a.dtype == torch.float64:
                        a += (1 - 0.75) * (v - a)
        line(file, "curve", curve)
        for name, tensor in entries:
            line(file, "trained." + name, project(tensor, number[name]))
        for name, m in (("evaluated", model), ("evaluated_average", average)):
            m.eval()
            x, target, label = batch_of(0, False)
            logits = m(x)
            line(file, name, [F.cross_entropy(logits, target).item()] + hits(logits, label))
            line(file, name + ".logits", logits[0].detach().numpy())


AUGMENT_SIZE = 12


def augment_golden(path):
    """name: shift x, shift y, flip, degrees, reflect; then 3 x 12 x 12 normalised values."""
    size = AUGMENT_SIZE
    image = torch.from_numpy(hash_images(2, size)[0].astype(np.float64))[None]
    transform = torchvision.transforms.functional
    cases = [("plain", 0, 0, 0, 0, 0), ("zero_crop", 3, -4, 0, 0, 0), ("zero_crop_flip", -2, 4, 1, 0, 0), ("reflect_crop", 4, 3, 0, 0, 1),
             ("reflect_crop_flip", -4, 1, 1, 0, 1), ("zero_turn", 0, 0, 0, 15, 0), ("zero_turn_back", 0, 0, 0, -100, 0),
             ("zero_all", 2, 1, 1, 13, 0), ("reflect_turn", 0, 0, 0, 30, 1), ("reflect_all", -3, 2, 1, -7, 1)]
    with open(path, "w") as file:
        file.write("# torch %s, torchvision %s\n" % (torch.__version__, torchvision.__version__))
        for name, dx, dy, flip, degrees, reflect in cases:
            pad = 4
            x = F.pad(image, (pad,) * 4, mode="reflect" if reflect else "constant")
            x = transform.crop(x, pad + dy, pad + dx, size, size)
            x = transform.hflip(x) if flip else x
            radians = float(np.float32(np.deg2rad(degrees)))
            if degrees and not reflect:
                x = transform.rotate(x, float(np.rad2deg(radians)), transform.InterpolationMode.BILINEAR)
            if degrees and reflect:
                at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
                v, u = torch.meshgrid(at, at, indexing="ij")
                c, s = np.cos(radians), np.sin(radians)
                grid = torch.stack((u * c - v * s, u * s + v * c), -1)[None] * 2 / (size - 1)
                x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
            x = transform.normalize(x / 255, list(map(float, MEAN)), list(map(float, STD)))
            file.write("%s %d %d %d %.9g %d" % (name, dx, dy, flip, radians, reflect))
            line(file, "", x.numpy(), " %.7g")


if __name__ == "__main__":
    torch.manual_seed(0)
    augment_golden(os.path.join(HERE, "augment.txt"))
    for steady, stem, size, batch, classes, rate in ((0, "imagenet", 32, 8, 100, 2.0 ** -14), (0, "cifar", 16, 6, 10, 2.0 ** -9),
                                                     (1, "imagenet", 32, 8, 100, 2.0 ** -16), (1, "cifar", 16, 6, 10, 2.0 ** -13)):
        path = "resnet34_%s_%d%s.txt" % (stem, size, "_steady" if steady else "")
        network_golden(os.path.join(HERE, path), stem, size, batch, classes, rate, steady)
