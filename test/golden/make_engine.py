#!/usr/bin/env python3
"""Makes engine.txt with PyTorch and torchvision: what networks with the weights of golden_params and golden_sharpen (golden.h) answer in
evaluation mode, for both stems, maps that divide evenly and ones that do not.

    python3 test/golden/make_engine.py

Computed in double from fp32 weights and images; logits of torchvision's resnet34."""
import os

import numpy as np
import torch
import torchvision

from make_golden import HERE, hash_images, line, normalize, set_weights
from make_serve import sharpen

CASES = (("imagenet", 32, 100), ("imagenet", 40, 10), ("cifar", 32, 10), ("cifar", 24, 7))
IMAGES = 2


def main():
    with open(os.path.join(HERE, "engine.txt"), "w") as file:
        file.write("# resnet34, evaluation; torch %s, torchvision %s\n" % (torch.__version__, torchvision.__version__))
        for stem, size, classes in CASES:
            model = torchvision.models.resnet34(num_classes=classes).double()
            if stem == "cifar":
                model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False).double()
                model.maxpool = torch.nn.Identity()
            entries = [(k, v) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")]
            set_weights(entries, 0)
            sharpen(entries)
            model.eval()
            with torch.no_grad():
                logits = model(torch.from_numpy(normalize(hash_images(IMAGES, size)).astype(np.float64)))
            for n in range(IMAGES):
                line(file, "%s.%d.%d" % (stem, size, n), logits[n].numpy())


if __name__ == "__main__":
    main()
