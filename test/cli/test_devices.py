"""Contract tests 30, 31, 98 and what GPUs ask of `train` before it computes: how they are found, counted, chosen and refused. Method: fake_plugin.c, a
smelt_cuda.so of GPUs that are not there, whose backend only notes what it was opened with."""

import os
import re
import shutil
import subprocess
import tempfile

import smelt_job
from smelt_hosts import RUN, Hosts
from smelt_job import HERE, ROOT, Job, Skip, expect, expect_equal, expect_match, once, test

BAD_SETTING, DEVICE = 2, 4
SECONDS_MAX = 30  # of what is refused before any data is read; only a hang gets there
FP32, TF32, BF16, FP16 = 1, 2, 3, 4  # enum precision
QUICK = {**smelt_job.QUICK, "max_steps": "1", "peer_timeout_seconds": "3"}
FOUR = "T4:75 T4:75 T4:75 T4:75"


@once
def folder():
    made = tempfile.TemporaryDirectory(prefix="smelt-plugin-")
    smelt_job._held.append(type("Held", (), {"drop": staticmethod(made.cleanup)}))
    return made.name


def compile_plugin(name, *flags):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Skip("a fake plugin needs a C compiler")
    library = os.path.join(folder(), name)
    subprocess.run([compiler, "-std=c17", "-D_POSIX_C_SOURCE=200809L", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-override-init", "-shared", "-fPIC",
                    "-I", ROOT, os.path.join(HERE, "fake_plugin.c"), *flags, "-o", library], check=True)
    return library


@once
def plugin():
    return compile_plugin("fake.so")


def environment(gpus=FOUR, **more):
    return {"SMELT_CUDA_LIBRARY": plugin(), "FAKE_GPUS": gpus, "SM_NUM_GPUS": None, "SMELT_CACHE": "", **more}


def refused(code, *patterns, env=None, **values):
    with Job({**QUICK, **values}) as job:
        return job.run(limit=SECONDS_MAX, env=env or environment()).expect_failure(code, *patterns)


def opened(env=None, **values):
    """What each rank's backend was opened with, in the order of devices."""
    with Job({**QUICK, **values}) as job:
        record = os.path.join(job.scratch, "record")
        result = job.run(limit=SECONDS_MAX, env={**(env or environment()), "FAKE_RECORD": record})
        result.expect_failure(DEVICE, "fake GPU cannot compute")
        return sorted(open(record).read().splitlines()), result


def fields(line):
    return dict(word.split("=", 1) for word in line.split())


# --- found ------------------------------------------------------------------------------------------------------------


@test("g1", "all GPUs are used, one rank each; devices=N: the first N; fp16 unless something else is asked for")
def all_of_them():
    lines, result = opened()
    expect_equal([fields(line)["device"] for line in lines], ["0", "1", "2", "3"], "devices")
    expect_equal({fields(line)["precision"] for line in lines}, {str(FP16)}, "precision")
    expect_match(r"ranks world=4 here=0-3", result.out, "the ranks")
    lines, _ = opened(devices="2", precision="fp32", deterministic="false")
    expect_equal([(fields(line)["device"], fields(line)["precision"], fields(line)["deterministic"]) for line in lines],
                 [("0", str(FP32), "0"), ("1", str(FP32), "0")], "two devices")
    lines, _ = opened(devices="1", precision="bf16", env=environment("A10G:86"))
    expect_equal([(fields(line)["rank"], fields(line)["precision"]) for line in lines], [("-1", str(BF16))], "one device, alone")


@test("g2", "without a driver or with backend=cpu nobody looks for GPUs; backend=auto goes on without them, with a warning that says why")
def on_the_cpu():
    with Job(QUICK) as job:
        result = job.run(env=environment(FAKE_PROBE="crash")).expect_success()
        expect_match("device backend=cpu", result.out, "what computes")
    # What the CPU does not have shows quickly that it was chosen.
    for env, backend, warning in (
            ({"SMELT_CUDA_LIBRARY": None}, "auto", None),
            (environment(FAKE_PROBE="crash"), "cpu", None),
            (environment(FAKE_PROBE="crash"), "auto", "crashed.*signal 11"),
            (environment(FAKE_PROBE="leave"), "auto", "ended the process"),
            (environment(FAKE_PROBE="none"), "auto", "the fake driver has no GPU"),
            (environment(""), "auto", "shows no GPU")):
        if "FAKE_GPUS" not in env and os.path.exists("/dev/nvidiactl"):
            continue  # this machine has a driver
        result = refused(BAD_SETTING, "the cpu backend computes in fp32", env=env, backend=backend, precision="bf16")
        expect(warning is not None or "GPU" not in result.err, result.err)
        expect_match(f"warning: no GPU is used: .*{warning}" if warning else "", result.err, str(env))


@test("g3", "backend=cuda: no GPU, a crash, a library that is missing, foreign, of another build or without its own libraries: refused with a sentence")
def without_gpu():
    refused(DEVICE, "backend=cuda: .*fake driver has no GPU", env=environment(FAKE_PROBE="none"), backend="cuda")
    refused(DEVICE, "backend=cuda: .*shows no GPU", env=environment(""), backend="cuda")
    refused(DEVICE, "backend=cuda: .*crashed.*signal 11", env=environment(FAKE_PROBE="crash"), backend="cuda")
    foreign = os.path.join(folder(), "foreign.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "/dev/null", "-o", foreign], check=True)
    needs = os.path.join(folder(), "needs.so")
    nccl = os.path.join(folder(), "libnccl.so.77")
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "/dev/null", "-Wl,-soname,libnccl.so.77", "-o", nccl], check=True)
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "/dev/null", "-x", "none", "-Wl,--no-as-needed", nccl, "-o", needs], check=True)
    os.remove(nccl)
    for library, pattern in ((os.path.join(folder(), "nowhere.so"), "nowhere.so cannot be opened: .*No such file"),
                             (foreign, "foreign.so is no library of smelt's"),
                             (compile_plugin("other.so", "-DFAKE_MEANING=77"), "other.so belongs to another version of smelt"),
                             (needs, r"needs.so needs a library that this machine lacks: libnccl.so.77: .*part of NCCL")):
        refused(DEVICE, f"backend=cuda: .*{pattern}", env=environment(SMELT_CUDA_LIBRARY=library), backend="cuda")


@test("g4", "a driver that hangs is given up when the job is stopped, and leaves no process behind")
def hang():
    with Job({**QUICK, "backend": "cuda"}) as job:
        process = job.start(env=environment(FAKE_PROBE="hang"))
        process.wait_line("setting backend")
        children = []
        while not children:
            children = open(f"/proc/{process.child.pid}/task/{process.child.pid}/children").read().split()
        process.child.terminate()
        result = process.finish(SECONDS_MAX)
        expect_equal(result.code, 0, "exit code")
        expect(not os.path.exists(f"/proc/{children[0]}"), "the process that asked is still there")


@test("g5", "the library beside the program is found; ../lib/smelt and ../cuda13 too")
def places():
    with Job({**QUICK, "backend": "cuda"}) as job:
        for place in ("bin", "lib/smelt", "cuda13"):
            root = os.path.join(job.scratch, place.replace("/", "-"))
            os.makedirs(os.path.join(root, "bin"), exist_ok=True)
            os.makedirs(os.path.join(root, place), exist_ok=True)
            program = shutil.copy(smelt_job.TRAIN, os.path.join(root, "bin/train"))
            shutil.copy(plugin(), os.path.join(root, place, "smelt_cuda.so"))
            job.restart()
            result = job.run(program=program, env=environment("A10G:86", SMELT_CUDA_LIBRARY=None), limit=SECONDS_MAX)
            result.expect_failure(DEVICE, "a fake GPU cannot compute")
        os.remove(os.path.join(root, "cuda13/smelt_cuda.so"))
        job.restart()
        job.run(program=program, env=environment(SMELT_CUDA_LIBRARY=None), limit=SECONDS_MAX).expect_failure(
            DEVICE, "backend=cuda: there is no smelt_cuda.so beside this program")


# --- counted and chosen -----------------------------------------------------------------------------------------------


@test("g6", "more devices than GPUs is refused; fewer GPUs than SM_NUM_GPUS and GPUs of several kinds are told")
def counted():
    refused(BAD_SETTING, r"devices=5, but this host has 4 GPUs \(T4, .*\)", devices="5")
    refused(BAD_SETTING, r"devices=2, but this host has 1 GPU \(A10G\)", devices="2", env=environment("A10G:86"))
    _, result = opened(env=environment(SM_NUM_GPUS="8"), devices="1")
    expect_match("SM_NUM_GPUS=8, but 4 GPUs of this machine answer", result.err, "warning")
    _, result = opened(env=environment("T4:75 A10G:86", SM_NUM_GPUS="2"))
    expect_match(r"GPUs of this host differ \(T4, A10G\)", result.err, "warning")
    expect("SM_NUM_GPUS" not in result.err, result.err)


@test("g7", "bf16 and tf32 need compute capability 8.0 on each GPU that is used; on a CPU they are refused")
def precision():
    for word in ("bf16", "tf32"):
        refused(BAD_SETTING, rf"precision={word}: T4 \(compute capability 7.5\)", precision=word)
        refused(BAD_SETTING, rf"precision={word}: T4", precision=word, env=environment("A10G:86 T4:75"))
        refused(BAD_SETTING, rf"precision={word}: the cpu backend computes in fp32 only", precision=word, env={"SMELT_CUDA_LIBRARY": None})
    lines, _ = opened(env=environment("A10G:86 T4:75"), devices="1", precision="tf32")
    expect_equal(fields(lines[0])["precision"], str(TF32), "precision")


@test("g8", "plans are kept where SMELT_CACHE says, else XDG_CACHE_HOME, else in a directory of this user's; not in another user's")
def cache():
    def kept(**env):
        lines, result = opened(env=environment("A10G:86", **env))
        return fields(lines[0])["cache"], result
    expect_equal(kept(SMELT_CACHE="/a/b")[0], "/a/b", "SMELT_CACHE")
    expect_equal(kept(SMELT_CACHE="")[0], "-", "empty")
    expect_equal(kept(SMELT_CACHE=None, XDG_CACHE_HOME="/x")[0], "/x/smelt", "XDG_CACHE_HOME")
    own = f"/tmp/smelt-cache-{os.geteuid()}"
    expect_equal(kept(SMELT_CACHE=None, XDG_CACHE_HOME=None)[0], own, "neither")
    before = os.stat(own).st_mode
    os.chmod(own, 0o777)
    try:
        found, result = kept(SMELT_CACHE=None, XDG_CACHE_HOME=None)
    finally:
        os.chmod(own, before & 0o777)
    expect_equal(found, "-", "a directory that others can write")
    expect_match("plans are not kept", result.out, "line")


# --- hosts ------------------------------------------------------------------------------------------------------------


def run(cluster, *environments):
    processes = [cluster.start_host(host, env=env) for host, env in enumerate(environments)]
    return [process.finish(SECONDS_MAX) for process in processes]


@test(98, "a host without GPUs among hosts with them: both are refused, with a sentence that says what differs; other kinds of GPU are told")
def hosts():
    with Hosts(2, {**RUN, "peer_timeout_seconds": "3"}) as cluster:
        results = run(cluster, environment("A10G:86"), {"SMELT_CUDA_LIBRARY": None})
        for result in results:
            expect(result.code != 0 and result.failure is not None, result.tail())
        expect(any(re.search("computes_on", result.failure.decode()) for result in results), results[0].tail())
    with Hosts(2, {**RUN, "peer_timeout_seconds": "3"}) as cluster:
        record = os.path.join(folder(), "hosts")
        env = {"FAKE_RECORD": record}
        results = run(cluster, environment("A10G:86 A10G:86", **env), environment("T4:75", **env))
        for result in results:
            expect_equal(result.code, DEVICE, "exit code")
        expect_match(r"GPUs of the hosts differ \(A10G here, T4 elsewhere\)", results[0].err, "warning of the first host")
        expect_equal(sorted(fields(line)["rank"] + " " + fields(line)["hosts"] for line in open(record)), ["0 2", "1 2", "2 2"], "ranks and hosts")


if __name__ == "__main__":
    smelt_job.main()
