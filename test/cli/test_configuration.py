"""Contract tests 1–37: how train is invoked and configured. Method: a tiny job in a temporary base directory, config files in the
shapes that the platform and its SDKs write; what must be refused is refused within seconds, before any data is read."""

import json
import os
import re
import signal
import subprocess
import time

import smelt_job
from smelt_job import Job, Skip, expect, expect_equal, expect_match, need_root, test

BAD_SETTING = 2


def resolved(job, **options):
    """The settings as train --print-config resolves them: {name: text}."""
    result = job.run("--print-config", limit=20, **options)
    expect(result.code == 0, result.tail())
    return dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*(?:#.*)?$", result.out, re.M))


def refused(limit_seconds=10.0, **values):
    """Runs a job with these settings, which must be refused at once; returns the Result."""
    with Job(values) as job:
        result = job.run()
        expect(result.seconds < limit_seconds, f"{values} took {result.seconds:.1f} s to be refused")
        return result


# --- invocation -------------------------------------------------------------------------------------------------------


@test(1, "argv train, nothing, the word train, unknown arguments: the same model")
def invocation():
    models = set()
    with Job() as job:
        for arguments in ((), ("train",), ("train", "--some-flag", "v")):
            job.restart()
            result = job.run(*arguments, env={"SMELT_X": "1"})
            result.expect_success()
            models.add(job.model())
            job.drop_checkpoints()
        expect_match(r"(?i)warning.*some-flag", result.text, "warning about an unknown argument")
        link = os.path.join(job.scratch, "train")
        os.symlink(smelt_job.TRAIN, link)
        job.restart()
        job.run(program=link).expect_success()
        models.add(job.model())
    expect_equal(len(models), 1, "different models")


@test(5, "no hard dependency on CUDA, the driver, or anything beyond the listed libraries")
def dependencies():
    listed = subprocess.run(["ldd", smelt_job.TRAIN], capture_output=True, text=True, check=True).stdout
    expect(not re.search(r"lib(cuda|nvidia|cudnn|nccl|python)", listed), listed)
    expect("not found" not in listed, listed)


@test(6, "without an NVIDIA library it says that it computes on the CPU")
def says_cpu():
    with Job() as job:
        result = job.run().expect_success()
        expect_match(r"(?i)\bcpu\b", result.out, "a line that names the CPU")


@test(8, "read-only root file system, only the base and /tmp writable")
def read_only_root():
    need_root("remounting in a private mount namespace")
    with Job() as job:
        # "bind" in the remount: this mount of the file system becomes read-only, never the file system itself.
        script = ('mount --make-rprivate / && mount --bind "$B" "$B" && mount --bind /tmp /tmp && mount -o remount,bind,ro / && '
                  'if touch /root/x 2>/dev/null; then exit 97; fi && exec "$@"')
        result = job.run(env={"B": job.base}, wrapper=("unshare", "-m", "sh", "-c", script, "sh"))
        if result.code == 97 or (result.code != 0 and re.match(r"(unshare|mount|sh): ", result.err)):
            raise Skip(f"the root file system cannot be remounted here ({result.err.strip()})")
        result.expect_success()


def need_namespace(kind):
    need_root("a namespace")
    tried = subprocess.run(["unshare", *kind.split(), "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise Skip(f"no namespaces here ({tried.stderr.strip()})")


@test(9, "no network at all")
def no_network():
    need_namespace("-n")
    with Job() as job:
        job.run(wrapper=("unshare", "-n")).expect_success()


@test(10, "NVIDIA_VISIBLE_DEVICES=void, CUDA_VISIBLE_DEVICES empty: the CPU")
def void_devices():
    with Job() as job:
        result = job.run(env={"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}).expect_success()
        expect_match(r"(?i)\bcpu\b", result.out, "a line that names the CPU")


@test(11, "plain x86-64 instructions only (SMELT_CPU=generic); an unknown word is refused")
def generic_cpu():
    with Job(max_steps="1") as job:
        result = job.run(env={"SMELT_CPU": "generic"}).expect_success()
        expect_match("generic", result.out, "the instruction set in the log")
        job.restart()
        job.run(env={"SMELT_CPU": "sse9"}).expect_failure(BAD_SETTING, "SMELT_CPU", "sse9", "generic")


@test(12, "as process 1 of a pid namespace SIGTERM ends it cleanly")
def process_one():
    need_namespace("-p -f")
    with Job(epochs="1000") as job:
        process = job.start(wrapper=("unshare", "-p", "-f", "--kill-child"))
        process.wait_line(r"^\[metric\]")
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            inner = int(file.read().split()[0])
        os.kill(inner, signal.SIGTERM)
        process.finish(60).expect_success()
        expect(job.exists("model/model.safetensors"), "no model after SIGTERM")


# --- hyperparameters --------------------------------------------------------------------------------------------------


@test(13, "a tiny job in the documented shapes: exit 0, model files, no failure file")
def documented_shapes():
    with Job() as job:
        job.run().expect_success()
        for name in ("model.safetensors", "model.pth", "model.json"):
            expect(job.exists(f"model/{name}"), f"model/{name} is missing: {job.files('model')}")


@test(14, "hyperparameters {}, missing, empty file: the defaults")
def hyperparameters_absent():
    with Job() as job:
        job.hyperparameters({})
        empty_object = resolved(job)
        job.config("hyperparameters", "")
        expect_equal(resolved(job), empty_object, "empty file against {}")
        os.remove(job.path("input/config/hyperparameters.json"))
        expect_equal(resolved(job), empty_object, "missing file against {}")
        expect(len(empty_object) > 20, f"--print-config shows few settings: {empty_object}")


@test(15, "epochs as 2, \"2\", \"\\\"2\\\"\", \"2.0\"")
def epochs_forms():
    for form in ("2", '"2"', 2, "2.0", " 2 ", '"\\"2\\""'):
        with Job({"epochs": form}) as job:
            expect_equal(resolved(job)["epochs"], "2", f"epochs {form!r}")
    with Job({"epochs": '"2"', "max_steps": None}) as job:
        result = job.run().expect_success()
        expect_equal([m["epoch"] for m in result.metrics()], ["1", "2"], "epochs of the metric lines")
    refused(epochs="2.5").expect_failure(BAD_SETTING, "epochs", r"2\.5")
    refused(epochs="two").expect_failure(BAD_SETTING, "epochs", "two")


@test(16, "booleans in every spelling; \"maybe\" is refused by name")
def booleans():
    for word, wanted in (("true", 1), ("True", 1), ("TRUE", 1), ('"true"', 1), ("1", 1), ("yes", 1), (True, 1),
                         ("false", 0), ("False", 0), ('"false"', 0), ("0", 0), ("no", 0), (False, 0)):
        with Job({"nesterov": word}) as job:
            expect_equal(resolved(job)["nesterov"], "true" if wanted else "false", f"nesterov {word!r}")
    refused(nesterov="maybe").expect_failure(BAD_SETTING, "nesterov", "maybe", "true")


@test(17, "null, None and the empty text mean the default")
def nulls():
    with Job() as job:
        job.hyperparameters({})
        default = resolved(job)
        for word in ("null", "None", "", None, '"null"'):
            job.hyperparameters({"lr": word, "nesterov": word, "epochs": word})
            found = resolved(job)
            expect_equal({k: found[k] for k in ("lr", "nesterov", "epochs")}, {k: default[k] for k in ("lr", "nesterov", "epochs")}, f"{word!r}")


@test(18, "lists as JSON, as JSON in a text, as Python's repr, with commas")
def lists():
    found = set()
    for form in ('["safetensors", "pth"]', '"[\\"safetensors\\",\\"pth\\"]"', "['safetensors', 'pth']", "safetensors,pth", "safetensors, pth"):
        with Job({"artifact_formats": form}) as job:
            found.add(resolved(job)["artifact_formats"])
    expect_equal(len(found), 1, f"forms differ: {found}")
    refused(artifact_formats="['gguf']").expect_failure(BAD_SETTING, "artifact_formats", "gguf", "safetensors")
    refused(artifact_formats="['safetensors'").expect_failure(BAD_SETTING, "artifact_formats")


@test(19, "an unknown key warns and names its neighbour; sagemaker_* and _* are silent")
def unknown_keys():
    with Job({"foo": "1", "epoch": "3", "sagemaker_program": "x.py", "_tuning_objective_metric": "validation:accuracy",
              "sagemaker_estimator_class_name": "Estimator"}, max_steps="1") as job:
        result = job.run().expect_success()
        expect_match(r"(?i)warning.*\bfoo\b", result.text, "warning about foo")
        expect_match(r"(?i)\bepoch\b.*epochs", result.text, "did you mean epochs")
        expect(not re.search(r"(?i)warning.*(sagemaker_|_tuning)", result.text), result.tail())


@test(20, "batch-size is batch_size; mini_batch_size and learning_rate are honoured")
def aliases():
    for key, name, value in (("batch-size", "batch_size", "24"), ("mini_batch_size", "batch_size", "24"),
                             ("learning_rate", "lr", "0.25"), ("learning-rate", "lr", "0.25")):
        with Job() as job:
            job.hyperparameters({key: value})
            expect_equal(resolved(job)[name], value, f"{key} {value}")
    with Job() as job:
        job.hyperparameters({"batch_size": "16", "mini_batch_size": "32"})
        job.run().expect_failure(BAD_SETTING, "batch_size", "mini_batch_size")


@test(21, "out of range is refused at once, with the permitted range")
def out_of_range():
    for key, value in (("lr", "-1"), ("epochs", "0"), ("batch_size", "1000000000"), ("momentum", "1.5"), ("lr", "nan"), ("lr", "inf"),
                       ("lr", "1e999"), ("seed", "99999999999999999999999"), ("validation_split", "2")):
        started = time.monotonic()
        with Job({key: value}) as job:
            result = job.run()
            result.expect_failure(BAD_SETTING, rf"\b{key}\b", re.escape(value), r"\d.*(to|\.\.|between|and|least|most).*\d|finite|range")
            expect("data" not in result.out.lower() or "channel" not in result.out.lower(), f"data was read first: {result.out}")
        expect(time.monotonic() - started < 10, "took seconds")
    for key, value in (("lr_schedule", "cosign"), ("stem", "vgg"), ("flip", "sometimes"), ("recipe", "quick")):
        refused(**{key: value}).expect_failure(BAD_SETTING, rf"\b{key}\b", value)


@test(22, "100 hyperparameters, 256-character keys, 2500-character values")
def large_hyperparameters():
    values = {f"{i:03d}_" + "k" * 252: "v" * 2500 for i in range(96)}
    with Job(values, max_steps="1") as job:
        result = job.run().expect_success()
        expect(all(len(line.encode()) <= 8192 for line in result.text.split("\n")), "a line above 8 KB")
    with Job({"recipe": "x" * 2500}) as job:
        job.run().expect_failure(BAD_SETTING, "recipe")


@test(23, "malformed JSON: exit 2, the file and the place")
def malformed_json():
    for name, text in (("hyperparameters", '{"epochs": "2"'), ("hyperparameters", '{"epochs": 2,}'), ("hyperparameters", "[1, 2]"),
                       ("inputdataconfig", '{"train": {'), ("resourceconfig", '{"current_host": algo-1}'), ("checkpointconfig", "{,}"),
                       ("tensorboardoutputconfig", "{nope}"), ("hyperparameters", b'{"epochs": "\xff\xfe"}'),
                       ("hyperparameters", '{"epochs": "2"} trailing')):
        with Job() as job:
            job.config(name, text)
            result = job.run()
            result.expect_failure(BAD_SETTING, rf"{name}\.json", r"byte|line|offset|object|UTF-8")


@test(24, "deeply nested and huge JSON is refused, bounded in time")
def huge_json():
    for text in ("[" * 5_000_000 + "]" * 5_000_000, '{"a":' * 200_000 + "1" + "}" * 200_000, '{"a":"' + "x" * 10_000_000 + '"}'):
        with Job() as job:
            job.config("hyperparameters", text)
            result = job.run(limit=30)
            result.expect_failure(BAD_SETTING, r"hyperparameters\.json")


@test(25, "non-ASCII and \\u escapes reach the log as UTF-8")
def unicode_values():
    with Job() as job:
        job.config("hyperparameters", '{"größe": "1", "recipe": "caf\\u00e9 \\ud83d\\ude00\\u0007"}')
        refusal = job.run().expect_failure(BAD_SETTING, "recipe", "café 😀")
        job.config("hyperparameters", '{"gr\\u00f6\\u00dfe\\u0007": "1"}')
        warning = job.run("--print-config")
        expect_match("größe", warning.text, "the unknown key in the log")
        for result in (refusal, warning):
            (result.raw_out + result.raw_err).decode("utf-8")
            expect("\x07" not in result.text, "a control character came through")


# --- the other config files -------------------------------------------------------------------------------------------


@test(26, "resourceconfig of local mode, of the platform, with topology, with unknown keys")
def resource_shapes():
    local = {"current_host": "algo-1-x7k2p", "hosts": ["algo-1-x7k2p"], "network_interface_name": "eth0", "current_instance_type": "local"}
    platform = {"current_host": "algo-1", "current_instance_type": "ml.g5.xlarge", "current_group_name": "homogeneousCluster",
                "hosts": ["algo-1"], "instance_groups": [{"instance_group_name": "homogeneousCluster", "instance_type": "ml.g5.xlarge",
                                                          "hosts": ["algo-1"]}], "network_interface_name": "eth0", "topology": None}
    topology = {**platform, "topology": [{"hostName": "algo-1", "capacityUnitId": "u-1"}], "something_new": {"a": [1, 2, {"b": None}]}}
    for shape in (local, platform, topology):
        with Job(max_steps="1", artifact_formats="safetensors") as job:
            job.config("resourceconfig", shape)
            job.run().expect_success()


@test("26b", "every config file of opt_ml_layout/shapes, as its writer writes it")
def sample_shapes():
    folder = os.path.join(smelt_job.ROOT, "opt_ml_layout/shapes")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    theirs = [name for name in names if ".quoted." in name or ".local." in name]
    expect(len(theirs) == 3 and len(names) >= 8, f"{names}")
    for group in (theirs, [name for name in names if name not in theirs]):
        with Job() as job:
            for name in group:
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    text = file.read()
                if name.startswith("hyperparameters"):
                    text = json.dumps({**json.loads(text), "max_steps": "1", "stem": "imagenet", "threads": "1"})
                job.config(name.split(".")[0], text)
            result = job.run().expect_success()
            expect("warning" not in result.text.lower(), f"{group}: {result.text}")


@test(27, "resourceconfig missing: one host; current_host not among hosts: refused")
def resource_missing():
    with Job(resource=False, max_steps="1", artifact_formats="safetensors") as job:
        job.run().expect_success()
    with Job() as job:
        job.config("resourceconfig", {"current_host": "algo-3", "hosts": ["algo-1", "algo-2"]})
        job.run().expect_failure(BAD_SETTING, "algo-3", "resourceconfig")


@test(28, "several hosts: their order is that of the names' bytes, whatever the file's order: the first that is not there is named")
def several_hosts():
    names = [f"algo-{i}.invalid" for i in range(1, 13)]
    for hosts in (names, names[::-1]):
        with Job(rendezvous_timeout_seconds="2") as job:
            job.config("resourceconfig", {"current_host": "algo-2.invalid", "hosts": hosts})
            job.run().expect_failure(4, r"algo-1\.invalid")


@test(29, "instance_groups lists the hosts in another order, or others: who is the first host stays the same")
def instance_groups():
    hosts = ["algo-1.invalid", "algo-2.invalid"]
    for groups in ([], [hosts[::-1]], [["algo-2.invalid"], ["algo-1.invalid"]]):
        with Job(rendezvous_timeout_seconds="2") as job:
            job.config("resourceconfig", {"current_host": "algo-2.invalid", "hosts": hosts, "current_group_name": "g0",
                                          "instance_groups": [{"instance_group_name": f"g{i}", "hosts": group} for i, group in enumerate(groups)]})
            job.run().expect_failure(4, r"algo-1\.invalid")


@test(30, "a network interface that is not there changes nothing")
def interface_name():
    for name in ("ethwe", "", None):
        with Job(max_steps="1", artifact_formats="safetensors") as job:
            resource = {"current_host": "algo-1", "hosts": ["algo-1"]}
            if name is not None:
                resource["network_interface_name"] = name
            job.config("resourceconfig", resource)
            job.run().expect_success()


@test(32, "no channel: exit 3, the names that were looked for")
def no_channel():
    with Job(channel=None) as job:
        job.run().expect_failure(3, "train", "training", "cifar100")
        os.remove(job.path("input/config/inputdataconfig.json"))
        job.restart()
        job.run().expect_failure(3, "train")


@test(33, "channel names, a manifest beside the channel, a config directory without x")
def channel_names():
    for name in ("train", "training", "cifar100", "pictures", "my-data.v2"):
        with Job(channel=name, max_steps="1", artifact_formats="safetensors") as job:
            job.write(f"input/data/{name}-manifest", json.dumps([{"prefix": "s3://b/"}]))
            if os.geteuid() == 0:
                os.chmod(job.path("input/config"), 0o644)
            job.run().expect_success()
    with Job(channel=None, max_steps="1", artifact_formats="safetensors") as job:  # no inputdataconfig: directories count, files do not
        os.remove(job.path("input/config/inputdataconfig.json"))
        for file, data in Job.tiny().items():
            job.write(f"input/data/train/{file}", data)
        job.write("input/data/train-manifest", "[]")
        job.run().expect_success()


@test(34, "a channel entry of nothing but TrainingInputMode, or empty")
def bare_entries():
    for entry in ({"TrainingInputMode": "File"}, {}, {"TrainingInputMode": "FastFile", "ContentType": "application/x-image", "New": 1}):
        with Job(max_steps="1", artifact_formats="safetensors") as job:
            job.entry("train", entry)
            job.run().expect_success()


@test(35, "no secret reaches the log")
def secrets():
    secrets_env = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/SECRET1", "AWS_SESSION_TOKEN": "SECRET2token", "AWS_ACCESS_KEY_ID": "AKIASECRET3",
                   "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/SECRET4", "WANDB_API_KEY": "SECRET5", "HF_TOKEN": "SECRET6"}
    with Job(max_steps="1") as job:
        result = job.run(env=secrets_env).expect_success()
        expect("SECRET" not in result.text, result.tail())
        for folder in ("model", "output", "checkpoints"):
            for name in job.files(folder):
                expect(b"SECRET" not in job.read(f"{folder}/{name}"), f"{folder}/{name} holds a secret")
        shown = job.run("--print-config", env=secrets_env)
        expect("SECRET" not in shown.text, "--print-config shows a secret")


@test(36, "debughookconfig, profilerconfig and unknown files are ignored")
def other_config_files():
    with Job(max_steps="1", artifact_formats="safetensors") as job:
        job.config("debughookconfig", {"S3OutputPath": "s3://b/", "LocalPath": "/opt/ml/output/tensors"})
        job.config("profilerconfig", {"ProfilingIntervalInMilliseconds": 500})
        for name in ("init-config", "metric-definition-regex", "trainingjobconfig", "upstreamoutputdataconfig"):
            job.config(name, "not json at all")
        job.run().expect_success()


@test(37, "model and output/data missing at start are made")
def missing_directories():
    with Job(max_steps="1") as job:
        for name in ("model", "output/data", "output", "checkpoints"):
            os.rmdir(job.path(name))
        job.run().expect_success()
        expect(job.exists("model/model.safetensors") and job.exists("output/data"), "directories were not made")


# --- what a user asks for ---------------------------------------------------------------------------------------------


@test("h1", "--help, --summary, --print-config, --metrics, --version: exit 0, no job needed")
def questions():
    with Job(channel=None) as job:
        for argument, pattern in (("--help", r"\bepochs\b"), ("--summary", r"layer4\.2\.conv2"), ("--print-config", r"batch_size"),
                                  ("--metrics", r'"Regex"'), ("--version", r"\d+\.\d+\.\d+")):
            result = job.run(argument, limit=20)
            expect(result.code == 0 and result.failure is None, f"{argument}: {result.tail()}")
            expect_match(pattern, result.out, argument)
        expect_equal(job.files("model"), [], "files in model")


@test("h2", "the help lists every setting of --print-config, with its range")
def help_is_complete():
    with Job() as job:
        names = set(resolved(job))
        text = job.run("--help", limit=20).out
        missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
        expect(not missing, f"--help lacks {missing}")


@test("h3", "a directory that cannot be written is refused with a sentence")
def unwritable_model():
    with Job() as job:
        os.rmdir(job.path("model"))
        job.write("model", "a file where the directory should be")
        result = job.run()
        result.expect_failure(5, "model")


if __name__ == "__main__":
    smelt_job.main()
