#!/usr/bin/env python3
"""One epoch of the 3x3 stem beside PyTorch, on the same batches: the same first weights, order, learning rates, no augmentation.

    python3 test/golden/compare_epoch.py --data DIR/cifar-100-binary [--stem cifar|imagenet] [--steps N] [--out FILE.csv] [--plot FILE.svg]

Needs PyTorch and torchvision, and build/bin/train; it is no part of `make test`. PyTorch makes the weights, `train` starts from that
file; the order of images is recomputed here (Philox, Fisher-Yates: core/base/random.c, train/batch.c). Prints both losses a step and
how far apart they are. The first step agrees to fp32's last digits; from then on the two drift: where an activation lies within
rounding of zero, one side's ReLU lets its gradient through and the other's does not (as PyTorch in float and in double differ)."""
import argparse
import json
import os
import re
import subprocess
import tempfile
import time

import numpy
import torch
import torchvision

BATCH, LR, SEED = 128, 0.02, 11
RANDOM_SHUFFLE = 2  # enum random_purpose


def philox(counter, key):
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def below(seed, epoch, index, bound):
    """random_below of the first words of (seed, RANDOM_SHUFFLE, epoch, index)."""
    block = 0
    while True:
        words = philox((index & 0xFFFFFFFF, index >> 32, epoch, RANDOM_SHUFFLE | block << 16), (seed & 0xFFFFFFFF, seed >> 32))
        for word in words:
            product = word * bound
            if (product & 0xFFFFFFFF) >= (-bound % 2**32) % bound:
                return product >> 32
        block += 1


def order(seed, epoch, count):
    indices = list(range(count))
    for i in range(count, 1, -1):
        j = below(seed, epoch, i, i)
        indices[i - 1], indices[j] = indices[j], indices[i - 1]
    return indices


def network(stem):
    torch.manual_seed(SEED)
    model = torchvision.models.resnet34(num_classes=100)
    if stem == "cifar":
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        torch.nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = torch.nn.Identity()
    return model


def smelt_losses(data, stem, steps, weights):
    with tempfile.TemporaryDirectory() as base:
        os.makedirs(f"{base}/input/config")
        os.makedirs(f"{base}/input/data")
        os.symlink(os.path.abspath(data), f"{base}/input/data/train")
        settings = dict(stem=stem, epochs=1, max_steps=steps, batch_size=BATCH, lr=LR, lr_schedule="constant", warmup_epochs=0, momentum=0.9,
                        weight_decay=0, crop_padding=0, flip="none", seed=SEED, log_every_steps=1, pretrained=weights, checkpoint_every_epochs=0)
        with open(f"{base}/input/config/hyperparameters.json", "w") as file:
            json.dump({key: str(value) for key, value in settings.items()}, file)
        started = time.time()
        run = subprocess.run(["build/bin/train"], env=dict(os.environ, SAGEMAKER_BASE_DIR=base), capture_output=True, text=True)
        if run.returncode != 0:
            raise SystemExit(run.stdout + run.stderr)
        losses = [float(found) for found in re.findall(r"^\[step\].* loss_now=([0-9.]+)", run.stdout, re.M)]
        return losses, time.time() - started


def torch_losses(data, steps, model):
    records = numpy.fromfile(f"{data}/train.bin", numpy.uint8).reshape(-1, 3074)
    labels, pixels = torch.from_numpy(records[:, 1].astype(numpy.int64)), records[:, 2:].reshape(-1, 3, 32, 32)
    scaled = pixels.astype(numpy.float64) / 255
    mean, std = scaled.mean((0, 2, 3)).reshape(1, 3, 1, 1), scaled.std((0, 2, 3)).reshape(1, 3, 1, 1)
    images = torch.from_numpy(((scaled - mean) / std).astype(numpy.float32))
    indices = order(SEED, 0, len(labels))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    losses, started = [], time.time()
    model.train()
    for step in range(steps):
        batch = indices[step * BATCH:(step + 1) * BATCH]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, time.time() - started


def plot(path, ours, theirs):
    """Both curves, running mean over 10 steps, as a plain SVG."""
    width, height, top = 760, 340, max(max(ours), max(theirs))
    low = min(min(ours), min(theirs))

    def curve(values, colour):
        mean = [sum(values[max(0, i - 9):i + 1]) / len(values[max(0, i - 9):i + 1]) for i in range(len(values))]
        points = " ".join(f"{50 + i * (width - 70) / max(1, len(mean) - 1):.1f},{20 + (top - v) / (top - low) * (height - 60):.1f}" for i, v in enumerate(mean))
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'

    ticks = "".join(f'<text x="44" y="{24 + (top - v) / (top - low) * (height - 60):.0f}" text-anchor="end">{v:.1f}</text>' for v in numpy.linspace(low, top, 6))
    with open(path, "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
                   f'<rect width="100%" height="100%" fill="white"/>{ticks}{curve(theirs, "#d62728")}{curve(ours, "#1f77b4")}'
                   f'<text x="{width - 200}" y="40" fill="#1f77b4">smelt</text><text x="{width - 200}" y="58" fill="#d62728">PyTorch {torch.__version__}</text>'
                   f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">step (batches of {BATCH}, mean of 10)</text></svg>\n')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--stem", default="cifar")
    parser.add_argument("--steps", type=int, default=390)
    parser.add_argument("--out")
    parser.add_argument("--plot")
    options = parser.parse_args()
    model = network(options.stem)
    with tempfile.TemporaryDirectory() as directory:
        torch.save(model.state_dict(), f"{directory}/first.pth")
        ours, our_seconds = smelt_losses(options.data, options.stem, options.steps, f"{directory}/first.pth")
    theirs, their_seconds = torch_losses(options.data, options.steps, model)
    lines = ["step,smelt,pytorch"] + [f"{i + 1},{a:.6g},{b:.6g}" for i, (a, b) in enumerate(zip(ours, theirs))]
    if options.out:
        with open(options.out, "w") as file:
            file.write("\n".join(lines) + "\n")
    if options.plot:
        plot(options.plot, ours, theirs)
    print("\n".join(lines[:6] + ["..."] + lines[-3:]))
    first = max(abs(a - b) for a, b in list(zip(ours, theirs))[:10])
    last = [sum(values[-50:]) / len(values[-50:]) for values in (ours, theirs)]
    print(f"steps={len(ours)} largest difference in the first 10 steps={first:.2e}; mean loss of the last 50 steps: smelt {last[0]:.4f}, PyTorch {last[1]:.4f}")
    print(f"seconds: smelt {our_seconds:.0f} (whole process), PyTorch {their_seconds:.0f} (steps only)")


if __name__ == "__main__":
    main()
