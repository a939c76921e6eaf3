"""How smelt_cuda.so is made: where headers and libraries come from, what becomes of kernels that break a rule, what the library asks of others.

Method: `fetch` sees toolkits and package folders made here, of a few bytes each, never the network; `compile_kernels` compiles kernels that each
break one rule; the symbols of what `make cuda` made are read with nm. Numbered c1, c2, …"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import smelt_job
from smelt_job import ROOT, Skip, expect, expect_equal, expect_match, once, test

FETCH = os.path.join(ROOT, "core/backend/cuda/toolkit/fetch")
BUILD = os.path.join(ROOT, "build/cuda13")
COMPILER = os.path.join(BUILD, "compile_kernels")
LIBRARY = os.environ.get("SMELT_CUDA_LIBRARY") or os.path.join(BUILD, "smelt_cuda.so")
TRAIN = os.path.join(ROOT, "build/bin/train")

# --- fetch --------------------------------------------------------------------------------------------------------------

LIBRARIES = ["libcudart.so.13", "libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnccl.so.2", "libcudnn.so.9", "libcudnn_graph.so.9",
             "libcudnn_heuristic.so.9", "libcudnn_engines_precompiled.so.9", "libcudnn_engines_runtime_compiled.so.9"]
HEADERS = {
    "cuda_runtime_api.h": "#define CUDART_VERSION  13000\n",
    "cudnn_version.h": "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 19\n#define CUDNN_PATCHLEVEL 0\n",
    "nccl.h": "#define NCCL_MAJOR 2\n#define NCCL_MINOR 28\n#define NCCL_PATCH 9\n#define NCCL_VERSION_CODE 22809\n",
    "crt/host_defines.h": "", "nvrtc.h": "", "cudnn_graph.h": "", "cccl/nv/target": "", "cccl/thrust/sort.h": "",
}


def put(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def toolkit(folder, **other_headers):
    """An installed toolkit; a header's name has _ for . in the keywords, None: it is missing."""
    for name, text in {**HEADERS, **{name.replace("_h", ".h"): text for name, text in other_headers.items()}}.items():
        if text is not None:
            put(os.path.join(folder, "include", name), text)
    for name in LIBRARIES:
        put(os.path.join(folder, "lib64", name), "")


def fetch(folder, *words, **environment):
    environment = {"SMELT_CUDA_WHEELS": os.path.join(folder, "wheels"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": os.path.join(folder, "links"), **environment}
    return subprocess.run([FETCH, *(words or ("13", os.path.join(folder, "out")))], cwd=folder, env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=300)


def sentence(result):
    expect_equal(len(result.stderr.splitlines()), 1, f"lines of {result.stderr!r}")
    expect_match("^cuda toolkit: ", result.stderr, "sentence")
    return result.stderr


@test("c1", "an installed toolkit that fits is linked to, with the names that a linker asks for")
def installed():
    with tempfile.TemporaryDirectory() as folder:
        toolkit(os.path.join(folder, "cuda"))
        result = fetch(folder, SMELT_CUDA_TOOLKIT=os.path.join(folder, "cuda"))
        expect_equal(result.returncode, 0, result.stderr)
        with open(os.path.join(folder, "out/source"), encoding="utf-8") as file:
            expect_match("^CUDA 13.0, cuDNN 9.19.0, NCCL 2.28.9, from .*/cuda$", file.read(), "source")
        for name in LIBRARIES + ["libcudart.so", "libnvrtc.so", "libcudnn.so", "libnccl.so"]:
            expect(os.path.isfile(os.path.join(folder, "out/lib", name)), f"lib/{name} is not there")
        for name in ("cuda_runtime_api.h", "cudnn_graph.h", "nv/target"):
            expect(os.path.isfile(os.path.join(folder, "out/include", name)), f"include/{name} is not there")
        expect(not os.path.exists(os.path.join(folder, "out/include/thrust")), "headers that nobody needs are there")


@test("c2", "a toolkit that does not fit is passed over with the reason; without one and without packages: exit code 3, and nothing is left")
def unfit():
    old_cuda, old_cudnn = "#define CUDART_VERSION  12080\n", "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 1\n#define CUDNN_PATCHLEVEL 0\n"
    for reason, headers in ((r"CUDA 12\.8, needs 13\.0 to below 14", {"cuda_runtime_api_h": old_cuda}),
                            (r"cuDNN 9\.1\.0, needs 9\.19\.0 to below 10", {"cudnn_version_h": old_cudnn})):
        with tempfile.TemporaryDirectory() as folder:
            toolkit(os.path.join(folder, "cuda"), **headers)
            result = fetch(folder, SMELT_CUDA_TOOLKIT=os.path.join(folder, "cuda"))
            expect_match(f"/cuda does not fit: {reason}", result.stdout, "reason")
            expect_equal(result.returncode, 3, "exit code")
            expect_match("nvidia-cuda-runtime 13[0-9.]* could not be fetched with pip, which says: ", sentence(result), "sentence")
            expect(not os.path.exists(os.path.join(folder, "out")), "the folder is there")
    with tempfile.TemporaryDirectory() as folder:
        toolkit(os.path.join(folder, "cuda"))
        os.remove(os.path.join(folder, "cuda/lib64/libnvrtc-builtins.so.13.0"))
        result = fetch(folder, SMELT_CUDA_TOOLKIT=os.path.join(folder, "cuda"))
        expect_match(r"does not fit: no libnvrtc-builtins.so.13.\*", result.stdout, "reason")


@test("c2b", "where only installed toolkits are asked for, none is fetched: exit code 3 and the reason")
def installed_only():
    with tempfile.TemporaryDirectory() as folder:
        toolkit(os.path.join(folder, "cuda"))
        # Of the other flavour, which this machine's own toolkit is not, either, or is: then there is nothing to see.
        result = fetch(folder, "12", os.path.join(folder, "out"), SMELT_CUDA_TOOLKIT="installed", CUDA_HOME=os.path.join(folder, "cuda"))
        if result.returncode == 0:
            raise Skip("CUDA 12 is installed here")
        expect_equal(result.returncode, 3, "exit code")
        expect("pip" not in sentence(result), "it tried to fetch")
        expect(not os.path.exists(os.path.join(folder, "out")) and not os.path.exists(os.path.join(folder, "wheels")), "something was made")


@test("c3", "V100's flavour refuses a newer cuDNN, which has nothing for it")
def volta():
    with tempfile.TemporaryDirectory() as folder:
        toolkit(os.path.join(folder, "cuda"), cuda_runtime_api_h="#define CUDART_VERSION  12090\n")
        result = fetch(folder, "12", os.path.join(folder, "out"), SMELT_CUDA_TOOLKIT=os.path.join(folder, "cuda"))
        expect_match(r"does not fit: cuDNN 9\.19\.0, needs 9\.10\.2$", result.stdout.splitlines()[0], "reason")


@test("c4", "a package that is not the one smelt was written for is refused: exit code 1")
def alien_wheel():
    with tempfile.TemporaryDirectory() as folder:
        name = "nvidia_cuda_runtime-13.0.96"
        os.mkdir(os.path.join(folder, "links"))
        with zipfile.ZipFile(os.path.join(folder, "links", f"{name}-py3-none-any.whl"), "w") as wheel:
            wheel.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: nvidia-cuda-runtime\nVersion: 13.0.96\n")
            wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{name}.dist-info/RECORD", "")
        result = fetch(folder, SMELT_CUDA_TOOLKIT="wheels")
        if "No module named pip" in subprocess.run([sys.executable, "-m", "pip"], capture_output=True, text=True, check=False).stderr:
            raise Skip("no pip here")
        expect_match("sha256 differs", sentence(result), "sentence")
        expect_equal(result.returncode, 1, "exit code")


@test("c5", "words that fetch does not know; a folder that cannot be made; no pip")
def fetch_refuses():
    with tempfile.TemporaryDirectory() as folder:
        for words in ((), ("14", "x"), ("13",)):
            result = subprocess.run([FETCH, *words], cwd=folder, capture_output=True, text=True, timeout=60)
            expect_equal(result.returncode, 1, f"exit code of {words}")
            expect_match("usage: fetch FLAVOUR FOLDER", sentence(result), "sentence")
        put(os.path.join(folder, "file"), "")
        expect_equal(fetch(folder, "13", os.path.join(folder, "file/out")).returncode, 1, "exit code")
        put(os.path.join(folder, "no/pip/__init__.py"), "raise ModuleNotFoundError('No module named pip')\n")
        result = fetch(folder, SMELT_CUDA_TOOLKIT="wheels", PYTHONPATH=os.path.join(folder, "no"))
        expect_match("apt-get install python3-pip", sentence(result), "sentence")
        expect_equal(result.returncode, 3, "exit code without pip")



# --- compile_kernels ------------------------------------------------------------------------------------------------------

GOOD = 'extern "C" __global__ void __launch_bounds__(256) twice(float *x) { x[threadIdx.x] *= 2; }\n'


def compiled(folder, source):
    path = os.path.join(folder, "kernels.cu")
    put(path, source)
    return subprocess.run([COMPILER, path, os.path.join(folder, "cubins")], capture_output=True, text=True, timeout=300)


@test("c6", "a kernel becomes code for every architecture and a row of the table")
def compiles():
    with tempfile.TemporaryDirectory() as folder:
        result = compiled(folder, GOOD)
        expect_equal(result.returncode, 0, result.stderr)
        head, row = result.stdout.splitlines()
        architectures = re.findall(r"sm_\d+", head)
        expect_equal(architectures[0], "sm_75", "the oldest")
        expect_equal(architectures[-1], "sm_120", "the newest")
        expect_match(r"^twice +0( +\d+)+$", row, "row")
        for name in architectures:
            with open(os.path.join(folder, "cubins", name + ".cubin"), "rb") as file:
                data = file.read()
            expect_equal(data[:4], b"\x7fELF", f"beginning of {name}")
            expect(b"twice" in data, f"{name} does not name the kernel")


@test("c7", "warnings, errors, spills, local memory, registers, shared memory and emptiness are failures with a sentence")
def kernels_refused():
    live = "".join(f"float v{i} = x[{i}]; " for i in range(90)) + "__syncthreads(); " + "".join(f"y[{i}] = v{i} * 3 - v{89 - i}; " for i in range(90))
    for source, words in (
            (GOOD.replace("{", "{ int unused;"), "sm_75: warnings, which count as errors"),
            (GOOD.replace("x[", "z["), "sm_75: NVRTC_ERROR_COMPILATION"),
            ("__device__ int nothing;\n", "there is no kernel in it"),
            (GOOD.replace("{", "{ __shared__ volatile float big[12289]; big[threadIdx.x] = 1;"), "sm_75: NVRTC_ERROR_COMPILATION"),
            (GOOD.replace("{", "{ volatile float local[1024]; for (int i = 0; i < 1024; i++) local[i] = x[i]; x[0] = local[(int)x[1] & 1023];"),
             r"twice on sm_\d+: 0 bytes spilled, \d+ bytes of local memory, both must be 0"),
            (f'extern "C" __global__ void __launch_bounds__(256) many(const volatile float *x, volatile float *y) {{ {live} }}\n',
             r"many on sm_\d+: \d+ registers, at most 64"),
            (f'extern "C" __global__ void __launch_bounds__(1024) many(const volatile float *x, volatile float *y) {{ {live} }}\n',
             r"many on sm_\d+: [1-9]\d* bytes spilled")):
        with tempfile.TemporaryDirectory() as folder:
            result = compiled(folder, source)
            expect_equal(result.returncode, 1, f"exit code for {source[:200]}")
            expect_match(words, result.stderr, f"what is said of {source[:200]}")
            expect(not os.path.exists(os.path.join(folder, "cubins/kernels.txt")), "a table was written")


@test("c8", "compile_kernels without words, without a file, without a place")
def compiler_refuses():
    with tempfile.TemporaryDirectory() as folder:
        put(os.path.join(folder, "kernels.cu"), GOOD)
        for words, code in (((), 2), ((os.path.join(folder, "none.cu"), folder), 3), ((os.path.join(folder, "kernels.cu"), "/proc/none"), 5)):
            result = subprocess.run([COMPILER, *words], capture_output=True, text=True, timeout=60)
            expect_equal((result.returncode, len(result.stderr.splitlines())), (code, 1), f"exit code and lines of {result.stderr}")


# --- the library ----------------------------------------------------------------------------------------------------------


def symbols(path, *options, kinds):
    """Names of nm's kinds."""
    lines = subprocess.run(["nm", *options, path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if len(line.split()) > 1 and line.split()[-2] in kinds}


@once
def wanted():
    return symbols(LIBRARY, "-D", "--undefined-only", kinds="U")


@once
def from_libraries():
    """What the libraries that it is linked with, and the C library, export."""
    lines = subprocess.run(["ldd", LIBRARY], capture_output=True, text=True, check=True).stdout.splitlines()
    paths = [match.group(1) for match in (re.search(r"(/\S+) \(0x", line) for line in lines) if match]
    for name in ("libcudart.so.", "libcudnn.so.9", "libnccl.so.2", "libc.so.6"):
        expect(any(name in path for path in paths), f"{LIBRARY} is not linked with {name}, or it is not found:\n" + "\n".join(lines))
    return set().union(*(symbols(path, "-D", "--defined-only", kinds="TWViBDR") for path in paths))


@once
def listed():
    with open(os.path.join(ROOT, "core/backend/cuda/host_symbols.list"), encoding="utf-8") as file:
        return set(re.findall(r"^\t(\w+);$", file.read(), re.M))


@test("c9", "smelt_cuda.so takes from the program exactly what host_symbols.list says, and the rest from CUDA, cuDNN, NCCL and the C library")
def takes():
    needed = wanted() - from_libraries()
    expect(needed <= listed(), f"not in host_symbols.list, and no library has it: {', '.join(sorted(needed - listed()))}")
    expect(listed() <= needed, f"in host_symbols.list, but not used: {', '.join(sorted(listed() - needed))}")


@test("c10", "train exports what host_symbols.list says, and nothing else of its own")
def exports():
    ours = symbols(os.path.join(ROOT, "build/release/libsmelt.a"), "--defined-only", kinds="TBDR")
    expect_equal(sorted(symbols(TRAIN, "-D", "--defined-only", kinds="TBDR") & ours), sorted(listed()), "what train exports")


@test("c11", "smelt_cuda.so exports its table alone; neither train nor serve needs a file of NVIDIA's")
def starts_without():
    expect_equal(sorted(symbols(LIBRARY, "-D", "--defined-only", kinds="TWVBDR")), ["smelt_plugin"], "what the library exports")
    for program in (TRAIN, os.path.join(ROOT, "build/bin/serve")):
        needs = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
        expect(re.search("NEEDED.*(cuda|cudnn|nccl|nvrtc)", needs) is None, f"{program} needs:\n{needs}")


if __name__ == "__main__":
    smelt_job.main(COMPILER)
