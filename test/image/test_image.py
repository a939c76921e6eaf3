"""The container image as it was built (SMELT_IMAGE, else smelt:cpu): what is in it, and both programs run from it as a container would run them: its own
root, read-only; process 1; no network but loopback; its layout mounted at /opt/ml. No engine is asked to run anything, so this works where
none can. As root."""

import atexit
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "http"))
import smelt_job
from smelt_job import ROOT, Job, Skip, expect, expect_equal, expect_match, need_root, once, test
import smelt_serve
from smelt_serve import Server

IMAGE = os.environ.get("SMELT_IMAGE", "smelt:cpu")
OURS_BYTES_MAX = 40 << 20  # above the base, smelt:cpu
STRANGER = 54321  # a uid that the image knows nothing of
SYSTEM = ("dev", "proc", "sys")


def tool(name, *arguments):
    done = subprocess.run([os.path.join(ROOT, "image", name), *arguments], capture_output=True, text=True)
    expect(done.returncode == 0, f"image/{name}: {done.stderr.strip()[-500:]}")
    return done.stdout


@once
def config():
    need_root("reading an image")
    return json.loads(tool("describe", IMAGE))


@once
def unpacked():
    """The image's files. /opt/ml is made afterwards by who mounts something there, as an engine does."""
    need_root("unpacking an image")
    folder = tempfile.mkdtemp(prefix="smelt-image-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tool("unpack", IMAGE, folder)
    return folder


@once
def mountable():
    expect(not os.path.lexists(os.path.join(unpacked(), "opt/ml")), "the image holds /opt/ml")
    os.makedirs(os.path.join(unpacked(), "opt/ml"))
    return unpacked()


def in_image(*command):
    """Runs a command of the image's, for a question; returns what it said."""
    done = subprocess.run(["chroot", unpacked(), *command], capture_output=True, text=True, env={"PATH": path_variable()})
    expect(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout


def path_variable():
    return next(entry for entry in config()["Env"] if entry.startswith("PATH=")).split("=", 1)[1]


def files():
    """(path in the image, lstat) of everything in it."""
    for folder, folders, names in os.walk(unpacked()):
        inside = "/" + os.path.relpath(folder, unpacked()).removeprefix(".")
        if inside.lstrip("/").split("/")[0] in SYSTEM:
            folders.clear()
            continue
        for name in folders + names:
            yield os.path.join(inside, name).replace("//", "/"), os.lstat(os.path.join(folder, name))


def container(base, user=0):
    """Words in front of a program's name: it becomes process 1 in the image, `base` being its /opt/ml and the one place, with /tmp, to write to."""
    script = ('mount --make-rprivate / && mount --bind "$R" "$R" && mount --bind "$B" "$R/opt/ml" && mount -t tmpfs none "$R/tmp" && chmod 1777 "$R/tmp" && '
              'mount -t proc none "$R/proc" && mount --rbind /dev "$R/dev" && mount -o remount,bind,ro "$R" && ip link set lo up || exit 97; '
              'U=$1; shift; exec chroot --userspec="$U" "$R" env -u R -u B "$@"')
    os.chown(base, user, user)
    for folder, folders, names in os.walk(base):
        for name in folders + names:
            os.chown(os.path.join(folder, name), user, user)
    return ["env", f"R={mountable()}", f"B={base}", "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", script, "sh",
            f"{user}:{user}"]


def environment(**more):
    """What docker sets, with -e for `more`; nothing of the tests' own."""
    return {"PATH": path_variable(), "HOME": "/root", "SAGEMAKER_BASE_DIR": None, "SAGEMAKER_BIND_TO_PORT": None, **more}


def inner(process):
    """The pid, here, of the container's process 1."""
    found = []

    def started():
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            found[:] = file.read().split()
        return found

    process.wait_for(started, "a container's process 1")
    return int(found[0])


def ask(server, path, body=None, content_type=None):
    """(status, body text) of a request from inside of the container's network."""
    script = """if True:
        import sys, time, urllib.error, urllib.request
        path, kind = sys.argv[1:]
        body = sys.stdin.buffer.read() or None
        for attempt in range(600):
            request = urllib.request.Request("http://127.0.0.1:8080" + path, data=body, headers={"Content-Type": kind} if kind else {})
            try:
                answer = urllib.request.urlopen(request, timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            except OSError:
                time.sleep(0.05)
                continue
            if path == "/ping" and answer.status == 503:
                time.sleep(0.05)
                continue
            sys.stdout.buffer.write(b"%d %s" % (answer.status, answer.read()))
            break
    """
    done = subprocess.run(["nsenter", "-t", str(inner(server.process)), "-n", sys.executable, "-c", script, path, content_type or ""], input=body or b"",
                          capture_output=True, timeout=120)
    expect(done.stdout, f"{path}: no answer: {done.stderr.decode()[-500:]} {server.log()[-1000:]}")
    status, _, text = done.stdout.partition(b" ")
    return int(status), text.decode()


# --- what is in it ----------------------------------------------------------------------------------------------------


@test(3, "CMD is train, there is no ENTRYPOINT, train, serve and chmod are on PATH")
def configuration():
    expect_equal(config().get("Cmd"), ["train"], "Cmd")
    expect(not config().get("Entrypoint"), f"Entrypoint {config().get('Entrypoint')}")
    for program in ("train", "serve", "chmod"):
        expect_match(r"\d+\.\d+", in_image(program, "--version"), f"{program} --version")


@test(4, "labels: accept-bind-to-port, multi-models")
def labels():
    for name in ("accept-bind-to-port", "multi-models"):
        expect_equal(config()["Labels"].get(f"com.amazonaws.sagemaker.capabilities.{name}"), "true", name)


@test("5i", "no driver in the image; every library that the programs name is there")
def libraries():
    driver = [path for path, _ in files() if re.match(r"lib(cuda|nvidia-ml)\.so", os.path.basename(path))]
    expect_equal(driver, [], "the driver's libraries")
    for program in ("train", "serve"):
        listed = in_image("ldd", f"/usr/local/bin/{program}")
        expect("not found" not in listed and not re.search(r"lib(cuda|cudart|nvidia|cudnn|nccl|python)", listed), listed)
    backend = "/usr/local/lib/smelt/smelt_cuda.so"
    if os.path.exists(unpacked() + backend):
        lacking = re.findall(r"(\S+) => not found", in_image("ldd", backend))
        expect_equal(lacking, [], "what the GPU backend lacks")


@test(7, "nothing under /opt/ml")
def opt_ml_is_not_there():
    expect_equal([path for path, _ in files() if re.match(r"/opt/ml/.", path)], [], "files")


@test("i1", "no compiler, no package lists, no caches; ours is readable by all, nobody but root may write it")
def nothing_left():
    for path, info in files():
        name = os.path.basename(path)
        expect(not re.fullmatch(r"(gcc|g\+\+|cc|c\+\+|cc1|clang|ld|ld\.bfd|make|python3?(\.\d+)?|pip3?)(-[\d.]+)?", name) or not stat.S_ISREG(info.st_mode) or
               not info.st_mode & 0o111, f"{path} is in the image")
        expect(not re.match(r"/var/lib/apt/lists/.*_Packages|/var/cache/apt/.*\.(deb|bin)$|/src(/|$)", path), f"{path} is in the image")
        if path.startswith("/usr/local/"):
            wanted = 0o555 if stat.S_ISDIR(info.st_mode) or path.startswith("/usr/local/bin/") else 0o444
            expect(stat.S_ISLNK(info.st_mode) or info.st_mode & wanted == wanted and not info.st_mode & 0o022, f"{path} has mode {stat.filemode(info.st_mode)}")
            expect(info.st_uid == 0, f"{path} belongs to {info.st_uid}")


@test("i2", "the bill of materials names every package that is installed, what is inside of the programs, and each once; licences are there")
def bill():
    with open(os.path.join(unpacked(), "usr/local/share/doc/smelt/sbom.spdx.json"), encoding="ascii") as file:
        document = json.load(file)
    expect_equal([document["spdxVersion"], document["dataLicense"], document["SPDXID"]], ["SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT"], "the document's kind")
    expect_match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", document["creationInfo"]["created"], "created")
    expect_match(r"^https://\S+$", document["documentNamespace"], "documentNamespace")
    packages = {package["SPDXID"]: package for package in document["packages"]}
    expect_equal(len(packages), len(document["packages"]), "identifiers, each once")
    for name, package in packages.items():
        expect_match(r"^SPDXRef-[A-Za-z0-9.-]+$", name, "an identifier")
        expect(package["name"] and package["versionInfo"] and package["downloadLocation"], f"{package}")
    for relation in document["relationships"]:
        for end in ("spdxElementId", "relatedSpdxElement"):
            expect(relation[end] == "SPDXRef-DOCUMENT" or relation[end] in packages, f"{relation} names what is not there")
    installed = set(in_image("dpkg-query", "-W", "-f", "${Package} ${Version}\n").split("\n")) - {""}
    told = {f"{package['name']} {package['versionInfo']}" for package in packages.values()}
    expect_equal(sorted(installed - told), [], "packages that the bill lacks")
    inside = [r["relatedSpdxElement"] for r in document["relationships"] if r["relationshipType"] == "STATIC_LINK"]
    expect_equal(sorted(packages[i]["name"] for i in inside), ["libarchive-dev", "libstb-dev"], "what is inside of the programs")
    version = in_image("train", "--version").split("\n")[0]
    expect_equal("train (smelt) {0}, commit {1}".format(*packages["SPDXRef-smelt"]["versionInfo"].split("+")), version, "smelt's own version")
    for i in inside:
        expect(os.path.getsize(os.path.join(unpacked(), "usr/local/share/doc/smelt/licences", packages[i]["name"])) > 500, f"no licence of {i}")
    lacking = [line.split()[0] for line in installed if not os.path.exists(os.path.join(unpacked(), "usr/share/doc", line.split()[0], "copyright"))]
    expect_equal(lacking, [], "packages without a copyright file")


@test("i3", "what is ours and what it needs is small")
def size():
    ours = sum(info.st_size for path, info in files() if path.startswith("/usr/local/") and stat.S_ISREG(info.st_mode))
    if os.path.exists(os.path.join(unpacked(), "usr/local/lib/smelt")):
        raise Skip(f"the bound is smelt:cpu's; this image has {ours / 1e6:.0f} MB below /usr/local")
    with open(os.path.join(ROOT, "image/run.lock")) as file:
        names = [line.split("=")[0] for line in file if not line.startswith("#")]
    needed = sum(1024 * int(size) for size in in_image("dpkg-query", "-W", "-f", "${Installed-Size}\n", *names).split())
    expect(ours + needed <= OURS_BYTES_MAX, f"{ours} bytes of ours and {needed} of libraries")


# --- train from it ----------------------------------------------------------------------------------------------------


def train_in_image(user, *words):
    with Job() as job:
        job.run(*words, program="train", env=environment(), wrapper=container(job.base, user)).expect_success()
        expect(job.exists("model/model.safetensors") and job.exists("model/model.pth"), "no model")
        expect_equal({os.lstat(job.path("model", name)).st_uid for name in job.files("model")}, {user}, "who owns the model")
        return job.model()


@test("1i", "train in the image: read-only root, no network, process 1; the word train changes nothing, nor does a user that the image does not know")
def trains():
    models = {train_in_image(0), train_in_image(0, "train"), train_in_image(STRANGER, "train")}
    expect_equal(len(models), 1, "different models")


@test("6i", "train in the image computes on the CPU where no driver is")
def trains_without_driver():
    with Job(max_steps="1") as job:
        result = job.run(program="train", env=environment(NVIDIA_VISIBLE_DEVICES="void"), wrapper=container(job.base)).expect_success()
        expect_match(r"(?i)\bcpu\b", result.out, "a line that names the CPU")


@test("12i", "train in the image is process 1 and ends cleanly by SIGTERM; without a layout it ends with a sentence")
def train_stops():
    with Job(epochs="1000") as job:
        process = job.start(program="train", env=environment(), wrapper=container(job.base))
        process.wait_line(r"^\[metric\]")
        os.kill(inner(process), signal.SIGTERM)
        process.finish(60).expect_success()
        expect(job.exists("model/model.safetensors"), "no model after SIGTERM")
    with Job(channel=None) as job:
        job.run(program="train", env=environment(), wrapper=container(job.base)).expect_failure(3, "channel")


# --- serve from it ----------------------------------------------------------------------------------------------------


def serve_in_image(user):
    with tempfile.TemporaryDirectory(prefix="smelt-image-model-") as base:
        shutil.copytree(smelt_serve.model_files(), os.path.join(base, "model"))
        wrapper = container(base, user)
        server = Server(model=None, env=environment(), args=("serve",), wrapper=wrapper, wait=False, port=8080, program="serve")
        with server:
            status, body = ask(server, "/ping")
            expect_equal(status, 200, f"/ping {body!r}")
            status, body = ask(server, "/invocations", ",".join(["128"] * 3072).encode(), "text/csv")
            expect_equal(status, 200, f"/invocations {body!r}")
            expect_equal(len(json.loads(body)[0]), 100, "classes")
            status, body = ask(server, "/invocations", b"1,2", "text/csv")
            expect_equal(status, 400, f"/invocations {body!r}")
            os.kill(inner(server.process), signal.SIGTERM)
            server.finish()
        return body


@test("2i", "serve in the image: read-only root, no network, process 1: /ping, /invocations, a wrong body, SIGTERM")
def serves():
    serve_in_image(0)


@test("2j", "… as a user that the image does not know")
def serves_stranger():
    serve_in_image(STRANGER)


if __name__ == "__main__":
    smelt_job.main(os.path.join(ROOT, "image/unpack"))
