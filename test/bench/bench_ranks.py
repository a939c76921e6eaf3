#!/usr/bin/env python3
"""Training images/s of 1 and 2 ranks on this machine's cores, which they divide among them; what the ranks sent each other, how long the sums took, and
how much of that was hidden behind computing. The program `train` as a whole, in turns, on made-up data.

    python3 test/bench/bench_ranks.py [--rounds 3] [--steps 12] [--batch 128] [--stem imagenet|cifar]"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../cli"))
import smelt_data

WARM = 3  # steps that are not counted
WAYS = [("1 rank", {"devices": "1"}), ("2 ranks", {"devices": "2"}), ("2 ranks, bf16 sums", {"devices": "2", "reduce_type": "bf16"}),
        ("2 ranks, sync_bn", {"devices": "2", "sync_bn": "true"})]


def trained(options, settings):
    """(images/s, figures of the sums or None) of one run in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="smelt-bench-") as base:
        os.makedirs(f"{base}/input/config")
        os.makedirs(f"{base}/input/data/train")
        for name, count in (("train.bin", options.steps * options.batch), ("test.bin", 100)):
            with open(f"{base}/input/data/train/{name}", "wb") as file:
                file.write(smelt_data.binary(count, len(name)))
        with open(f"{base}/input/config/hyperparameters.json", "w") as file:
            json.dump({"epochs": "1", "batch_size": str(options.batch), "stem": options.stem, "log_every_steps": "1", "artifact_formats": "safetensors",
                       "lr": "0.01", **settings}, file)
        run = subprocess.run(["build/bin/train"], env=dict(os.environ, SAGEMAKER_BASE_DIR=base), capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(run.stdout + run.stderr)
    rates = [float(found) for found in re.findall(r"\[step\].* images/s=([0-9.]+)", run.stdout)]
    sums = re.search(r"sums count=(\d+) megabytes_sent=(\S+) seconds=(\S+) seconds_waited=(\S+)", run.stdout)
    rate = options.batch * (len(rates) - WARM) / sum(options.batch / rate for rate in rates[WARM:])
    return rate, [float(value) for value in sums.groups()] if sums else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--stem", default="imagenet", choices=("imagenet", "cifar"))
    options = parser.parse_args()
    found = {name: [] for name, _ in WAYS}
    for _ in range(options.rounds):
        for name, settings in WAYS:
            found[name].append(trained(options, settings))
    alone = statistics.median(rate for rate, _ in found[WAYS[0][0]])
    print(f"training, {options.stem} stem, batch {options.batch} in all, {len(os.sched_getaffinity(0))} cores, median of {options.rounds}:")
    for name, _ in WAYS:
        rate = statistics.median(rate for rate, _ in found[name])
        line = f"  {name:20s} {rate:7.1f} images/s  {rate / alone:5.2f}"
        if found[name][0][1]:
            _, megabytes, seconds, waited = (statistics.median(values) for values in zip(*(sums for _, sums in found[name])))
            line += f"   sent {megabytes / options.steps:6.1f} MB a step, {1e3 * seconds / options.steps:6.1f} ms in sums, {100 * max(0, 1 - waited / seconds):3.0f} % of that hidden"
        print(line)


if __name__ == "__main__":
    main()
