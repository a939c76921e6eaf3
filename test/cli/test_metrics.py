"""Contract tests 66–73: what a job tells while it runs. Method: the log is read line by line as it comes, the published regular
expressions are run by Python's re as the platform would, metric files and event files are read by independent readers."""

import json
import math
import os
import re
import time

import smelt_job
import smelt_read
from smelt_hosts import ranks_of
from smelt_job import Job, expect, expect_equal, expect_match, once, test

RUN = {"epochs": "2", "artifact_formats": "safetensors", "log_every_steps": "2"}

@once
def published():
    """{metric name: regex} as train --metrics prints it."""
    with Job(channel=None) as job:
        result = job.run("--metrics", limit=20)
        expect(result.code == 0, result.tail())
        definitions = json.loads(result.out)
        expect_equal({member for entry in definitions for member in entry}, {"Name", "Regex"}, "members of the definitions")
        return {entry["Name"]: entry["Regex"] for entry in definitions}


@test(66, "on a pipe each epoch's line comes before the next epoch is over")
def line_by_line():
    with Job(RUN, epochs="200") as job:
        process = job.start()
        at = process.wait_line(r"^\[metric\].*epoch=1\b")
        expect(process.running(), "the job is over")
        expect(not [e for e in process.events[at + 1:] if re.search(r"^\[metric\].*epoch=3\b", e[2])], "lines came in one lump")


@test(67, "the published regexes capture the right number for every epoch and match nothing else")
def regexes():
    definitions = published()
    expect(len(definitions) <= 40 and all(len(n) <= 255 and len(r) <= 500 for n, r in definitions.items()), "beyond the platform's limits")
    expect({"train:loss", "validation:accuracy", "validation:loss", "train:accuracy"} <= set(definitions), f"too few: {list(definitions)}")
    with Job(RUN, ema_decay="0.9") as job:
        result = job.run().expect_success()
        history = [json.loads(line) for line in job.read("output/data/history.jsonl").decode().splitlines()]
    expect_equal(len(result.metrics()), 2, "metric lines")
    for name, regex in definitions.items():
        captured = [m.group(1) for line in result.text.splitlines() if (m := re.search(regex, line))]
        said = [m[name] for m in (smelt_read.pairs(line) for line in result.text.splitlines()) if name in m]
        expect_equal(captured, said, f"{name}: captured against said")
        if name.startswith(("train:", "validation:")):
            epoch_values = [m[name] for m in result.metrics() if name in m]
            for text, entry in zip(epoch_values, history):
                expect(math.isfinite(float(text)), f"{name}={text}")
                recorded = entry[name.replace(":", "_")]
                expect(math.isclose(float(text), recorded, rel_tol=1e-4, abs_tol=1e-9), f"{name}: {text} in the log, {recorded} in the history")
        for line in result.metrics():
            if name in line:
                whole = " ".join(f"{k}={v}" for k, v in line.items())
                expect_equal(len(re.findall(regex, whole)), 1, f"{name}: times that its regex matches in {whole}")
    objective = [re.search(definitions["validation:accuracy"], line) for line in result.lines if line.startswith("[metric]")]
    expect(all(objective) and len(objective) == 2, "the objective is not in every epoch's line")


@test(68, "one metric line an epoch")
def one_line():
    with Job(RUN) as job:
        result = job.run().expect_success()
        expect_equal([m["epoch"] for m in result.metrics()], ["1", "2"], "epochs of the metric lines")


@test(69, "no carriage return, tab or escape in the log, on a pipe and on a terminal")
def plain_lines():
    for stdout in ("pipe", "pty"):
        with Job(RUN) as job:
            raw = job.run(stdout=stdout).expect_success().raw_out
            raw = raw.replace(b"\r\n", b"\n") if stdout == "pty" else raw  # a terminal's own line ends
            expect(raw.count(b"\n") > 5 and not re.search(rb"[\r\t\x1b\x00-\x08]", raw), f"{stdout}: {raw[:2000]!r}")


@test("69b", "a person's terminal gets a live line; the metric lines in it are whole")
def live_line():
    with Job(RUN) as job:
        result = job.run(stdout="pty", env={"TRAINING_JOB_NAME": None}).expect_success()
        raw = result.raw_out.replace(b"\r\n", b"\n")
        expect(b"\r" in raw or b"\x1b[" in raw, f"no live line: {raw[:2000]!r}")
        expect_equal(len(re.findall(rb"^(?:.*[\r]|\x1b\[[0-9]*K|\r)*\[metric\] .*validation:accuracy=[0-9.]+", raw, re.M)), 2, "whole metric lines")


@test(70, "a loss that is not a number: a failure with a hint, and no such token in the log")
def not_a_number():
    with Job(RUN, epochs="20", lr="100", momentum="0.999", weight_decay="1", lr_schedule="constant", warmup_epochs="0") as job:
        result = job.run()
        expect(result.code != 0, f"lr 100 did not diverge: {result.tail()}")
        result.expect_failure(result.code, "loss|finite|diverg", "lr|learning rate|precision|clip")
        expect(not re.search(r"=[-+]?(nan|inf)\b", result.out, re.I), result.tail())
        for name in published():
            expect(not re.search(rf"{re.escape(name)}=\S*(nan|inf)\b", result.text, re.I), result.tail())


@test(71, "SAGEMAKER_METRICS_DIRECTORY: <pid of the rank>.json with right lines, steps not falling; a missing directory is made or ignored")
def metrics_directory():
    for exists in (True, False):
        with Job(RUN) as job:
            directory = os.path.join(job.scratch, "metrics/sagemaker")
            if exists:
                os.makedirs(directory)
            process = job.start(env={"SAGEMAKER_METRICS_DIRECTORY": directory})
            process.wait_line(r"^network ")
            rank, = ranks_of(process)  # who writes
            process.finish().expect_success()
            names = os.listdir(directory) if os.path.isdir(directory) else []
            if not exists and not names:
                continue
            expect_equal(names, [f"{rank}.json"], "files in the metrics directory")
            with open(os.path.join(directory, names[0]), encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            steps = {}
            for line in lines:
                expect({"MetricName", "Value", "Timestamp"} <= set(line) <= {"MetricName", "Value", "Timestamp", "IterationNumber"}, f"keys {line}")
                expect(isinstance(line["Value"], (int, float)) and abs(line["Timestamp"] - time.time()) < 7200, f"values {line}")
                expect(line.get("IterationNumber", 0) >= steps.get(line["MetricName"], 0), f"steps fall: {line}")
                steps[line["MetricName"]] = line.get("IterationNumber", 0)
            expect("validation:accuracy" in steps, f"metrics: {list(steps)}")


@test(72, "tensorboardoutputconfig: an event file with right checksums in LocalPath; without it none")
def tensorboard():
    with Job(RUN) as job:
        directory = os.path.join(job.scratch, "tb/logs")
        job.config("tensorboardoutputconfig", {"LocalPath": directory, "S3OutputPath": "s3://b/tb"})
        result = job.run().expect_success()
        names = [os.path.join(f, n) for f, _, ns in os.walk(directory) for n in ns]
        expect(len(names) == 1 and "tfevents" in os.path.basename(names[0]), f"files: {names}")
        events = smelt_read.events(names[0])
        scalars = {}
        kinds = set()
        for _, step, _, values in events:
            for tag, value in values.items():
                kinds.add(value if isinstance(value, str) else "scalar")
                scalars.setdefault(tag, []).append((step, value))
        expect_equal({"scalar", "image", "histogram"} - kinds, set(), "kinds that are missing")
        tag = next((t for t in scalars if re.search(r"validation.accuracy$", t)), None)
        expect(tag, f"no validation accuracy: {list(scalars)[:20]}")
        said = [float(m["validation:accuracy"]) for m in result.metrics()]
        expect([round(v, 3) for _, v in scalars[tag]] == [round(v, 3) for v in said], f"{scalars[tag]} against {said}")
    with Job(RUN, epochs="1") as job:
        job.run().expect_success()
        expect(not [n for n in job.files(".") if "tfevents" in n], "an event file that nobody asked for")


@test(73, "every line is UTF-8 and at most 8 KB")
def line_lengths():
    with Job(RUN, epochs="1") as job:
        job.config("hyperparameters", json.dumps({**job.settings, "ключ" * 60: "значение" * 300}, ensure_ascii=False))
        result = job.run().expect_success()
        for raw in (result.raw_out, result.raw_err):
            raw.decode("utf-8")
            expect(all(len(line) <= 8192 for line in raw.split(b"\n")), "a line above 8 KB")
        expect_match("ключ", result.text, "warning about the unknown key")


if __name__ == "__main__":
    smelt_job.main()
