#!/usr/bin/env python3
"""Training images/s beside PyTorch, both stems, batch 128, fp32: the program `train` as a whole (its own [step] lines, augmentation as by
default) and PyTorch's step alone on a batch that is ready, in its faster layout, in turns. Prints the medians and their ratio.

    python3 test/bench/bench_train.py [--rounds 3] [--steps 12] [--stem imagenet|cifar|both]

Needs PyTorch and torchvision, and build/bin/train; the data are made up."""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torchvision

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../cli"))
import smelt_data

BATCH, WARM = 128, 3


def smelt_rate(base, steps):
    run = subprocess.run(["build/bin/train"], env=dict(os.environ, SAGEMAKER_BASE_DIR=base), capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(run.stdout + run.stderr)
    rates = [float(found) for found in re.findall(r"^\[step\].* images/s=([0-9.]+)", run.stdout, re.M)]
    if len(rates) != steps:
        raise SystemExit(f"{steps} [step] lines expected, {len(rates)} found:\n{run.stdout}")
    return BATCH * (steps - WARM) / sum(BATCH / rate for rate in rates[WARM:])


def smelt_base(folder, stem, steps):
    os.makedirs(f"{folder}/input/config")
    os.makedirs(f"{folder}/input/data/train")
    for name, count in (("train.bin", steps * BATCH), ("test.bin", 100)):
        with open(f"{folder}/input/data/train/{name}", "wb") as file:
            file.write(smelt_data.binary(count))
    settings = dict(stem=stem, epochs=1, max_steps=steps, batch_size=BATCH, lr=0.01, log_every_steps=1, checkpoint_every_epochs=0, resume="false",
                    artifact_formats="safetensors", threads=torch.get_num_threads())
    with open(f"{folder}/input/config/hyperparameters.json", "w") as file:
        json.dump({key: str(value) for key, value in settings.items()}, file)
    return folder


class Peer:
    """PyTorch's training step in one memory layout."""

    def __init__(self, stem, layout):
        self.model = torchvision.models.resnet34(num_classes=100)
        if stem == "cifar":
            self.model.conv1, self.model.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
        self.model = self.model.to(memory_format=layout).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.images = torch.randn(BATCH, 3, 32, 32).to(memory_format=layout)
        self.labels = torch.randint(0, 100, (BATCH,))

    def step(self):
        self.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(self.model(self.images), self.labels).backward()
        self.optimizer.step()

    def rate(self, steps):
        for _ in range(WARM):
            self.step()
        started = time.perf_counter()
        for _ in range(steps - WARM):
            self.step()
        return BATCH * (steps - WARM) / (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--stem", default="both")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}, fp32; images/s, median of {options.rounds} rounds in turns")
    for stem in ("imagenet", "cifar") if options.stem == "both" else (options.stem,):
        layouts = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
        found = {"smelt": [], **{name: [] for name in layouts}}
        with tempfile.TemporaryDirectory() as folder:
            base = smelt_base(folder, stem, options.steps)
            for _ in range(options.rounds):
                found["smelt"].append(smelt_rate(base, options.steps))
                for name, layout in layouts.items():
                    found[name].append(Peer(stem, layout).rate(options.steps))
        medians = {name: statistics.median(rates) for name, rates in found.items()}
        best = max(layouts, key=medians.get)
        print(f"stem={stem} smelt={medians['smelt']:.1f} " + " ".join(f"pytorch_{name}={medians[name]:.1f}" for name in layouts)
              + f" ratio={medians['smelt'] / medians[best]:.2f} (to {best})", flush=True)


if __name__ == "__main__":
    main()
