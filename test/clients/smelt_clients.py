"""smelt_clients: what the tests with SageMaker's own clients share: a home with settings and keys of nobody, a free port, golden pictures as a client would
hold them, and a proxy that answers as the platform's endpoint in front of a container does."""

import atexit
import contextlib
import http.server
import io
import json
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "test/cli"), os.path.join(ROOT, "test/http")]
import serve_bodies as bodies  # noqa: E402
import smelt_data  # noqa: E402
import smelt_job  # noqa: E402
import smelt_serve  # noqa: E402
from smelt_job import Skip, expect, expect_equal, expect_match, once, test  # noqa: E402, F401

IMAGE = "smelt:cpu"  # a name only: the stand-in for docker knows one image
ROLE = "arn:aws:iam::123456789012:role/smelt"
REGION = "eu-west-1"
HYPERPARAMETERS = {"epochs": 2, "batch_size": 32, "stem": "imagenet", "threads": 1, "seed": 7, "rendezvous_timeout_seconds": 60}

# One at a time: the clients keep what they know of local mode in globals.
os.environ["SMELT_TEST_JOBS"] = "1"


def scratch():
    path = tempfile.mkdtemp(prefix="smelt-client-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def home():
    """Before a client is imported: no files of the user's, no telemetry, keys of nobody, no place to ask for others."""
    path = scratch()
    settings = os.path.join(path, "config.yaml")
    with open(settings, "w") as file:
        file.write("SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n")
    os.environ.update(HOME=path, SAGEMAKER_USER_CONFIG_OVERRIDE=settings, SAGEMAKER_ADMIN_CONFIG_OVERRIDE=settings, AWS_ACCESS_KEY_ID="AKIDEXAMPLE",
                      AWS_SECRET_ACCESS_KEY="wJalrSECRETexample", AWS_DEFAULT_REGION=REGION, AWS_EC2_METADATA_DISABLED="true", AWS_MAX_ATTEMPTS="1",
                      SAGEMAKER_SUPPRESS_V2_WARNING="1",
                      AWS_CONFIG_FILE=os.path.join(path, "none"), AWS_SHARED_CREDENTIALS_FILE=os.path.join(path, "none"))
    return path


def channel():
    """A folder with CIFAR-100's files: 100 and 32 pictures."""
    path = scratch()
    for name, data in smelt_job.Job.tiny().items():
        with open(os.path.join(path, name), "wb") as file:
            file.write(data)
    return path


@once
def golden_archive():
    """model.tar.gz of the model whose answers PyTorch gave us (test/golden/serve.txt)."""
    path = os.path.join(scratch(), "model.tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        for name in ("model.json", "model.safetensors"):
            tar.add(os.path.join(smelt_serve.model_files(), name), name)
    return path


def archive_names(path):
    with tarfile.open(path) as tar:
        return sorted(member.name for member in tar.getmembers() if member.isfile())


@contextlib.contextmanager
def printed():
    """What the client prints meanwhile: the containers' lines. They are shown as well."""
    before, text = sys.stdout, io.StringIO()
    sys.stdout = text
    try:
        yield text
    finally:
        sys.stdout = before
        if os.environ.get("SMELT_SHOW"):
            print(text.getvalue())


def expect_probabilities(rows, *images, tolerance=1e-4):
    expect_equal(len(rows), len(images), "rows")
    for row, n in zip(rows, images):
        off = smelt_serve.distance([float(v) for v in row], bodies.probabilities(n))
        expect(off <= tolerance, f"image {n}: {off:.2e} away from PyTorch's probabilities")


# --- the platform in front of a container -----------------------------------------------------------------------------

FORWARDED = ("content-type", "accept", "x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-inference-id", "x-amzn-sagemaker-target-model",
             "x-amzn-sagemaker-target-variant")


class Platform(http.server.ThreadingHTTPServer):
    """POST /endpoints/NAME/invocations → POST /invocations of the container: few headers go through, and an answer that is not 2xx becomes the
    service's ModelError (424) with the container's status and the first 2048 bytes of what it said."""

    def __init__(self, container_port):
        outer = self
        self.heads = []  # what reached the container

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                headers = {name: self.headers[name] for name in FORWARDED if self.headers[name] is not None}
                outer.heads.append((headers, len(body)))
                request = urllib.request.Request(f"http://127.0.0.1:{container_port}/invocations", data=body, headers=headers)
                try:
                    answer = urllib.request.urlopen(request, timeout=60)
                except urllib.error.HTTPError as error:
                    answer = error
                said = answer.read()
                if 200 <= answer.status < 300:
                    back = {"Content-Type": answer.headers["Content-Type"], "x-Amzn-Invoked-Production-Variant": "AllTraffic"}
                    if answer.headers["X-Amzn-SageMaker-Custom-Attributes"]:
                        back["X-Amzn-SageMaker-Custom-Attributes"] = answer.headers["X-Amzn-SageMaker-Custom-Attributes"]
                    self.reply(200, back, said)
                else:
                    error = {"Message": f"Received client error ({answer.status}) from primary", "OriginalMessage": said[:2048].decode(),
                             "OriginalStatusCode": answer.status, "LogStreamArn": "arn:aws:logs:eu-west-1:123456789012:log-group:x"}
                    self.reply(424, {"Content-Type": "application/json", "x-amzn-ErrorType": "ModelError"}, json.dumps(error).encode())

            def reply(self, status, headers, body):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(body)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"
