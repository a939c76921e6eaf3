"""SageMaker's Python SDK, version 2, in local mode, with nothing of it replaced but the command `docker` (which is test/clients/docker): training on one and on
two hosts, an endpoint on the result, every pair of serializer and deserializer, batch transform; and boto3 through the platform's mapping."""

import io
import json
import logging
import os
import re

import smelt_clients as clients
from smelt_clients import IMAGE, REGION, ROLE, bodies, expect, expect_equal, expect_match, expect_probabilities, once, printed, scratch, smelt_job, smelt_serve, test

HOME = clients.home()

import boto3  # noqa: E402
import numpy  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
from sagemaker import base_deserializers as deserializers, base_serializers as serializers  # noqa: E402
from sagemaker.estimator import Estimator  # noqa: E402
from sagemaker.local import LocalSession  # noqa: E402
from sagemaker.model import Model  # noqa: E402
from sagemaker.predictor import Predictor  # noqa: E402
from sagemaker.pytorch.model import PyTorchPredictor  # noqa: E402
from sagemaker.transformer import Transformer  # noqa: E402

logging.getLogger("sagemaker").setLevel(logging.ERROR)
METRICS = json.loads(os.popen(f"{smelt_job.TRAIN} --metrics").read())


def session():
    session = LocalSession(boto_session=boto3.Session(region_name=REGION))
    session.config = {"local": {"local_code": True, "serving_port": smelt_serve.free_port(), "container_root": scratch()}}
    return session


# --- training ---------------------------------------------------------------------------------------------------------


def fit(hosts, wanted_error=None, **hyperparameters):
    """(folder of what came out, everything that was printed)"""
    folder = scratch()
    estimator = Estimator(IMAGE, ROLE, hosts, "local", output_path=f"file://{folder}", sagemaker_session=session(), metric_definitions=METRICS,
                          hyperparameters={**clients.HYPERPARAMETERS, **hyperparameters}, base_job_name="smelt")
    with printed() as text:
        try:
            estimator.fit({"train": f"file://{clients.channel()}"})
            expect(wanted_error is None, "the SDK is content with a job that must fail")
        except RuntimeError as error:
            expect(wanted_error is not None, f"{error}: {text.getvalue()[-2000:]}")
            expect_match(wanted_error, str(error), "the SDK's error")
    return estimator, folder, text.getvalue()


@once
def trained(hosts):
    return fit(hosts)


def metrics_of(text):
    """{name: [values]} as the platform finds them: each regular expression on each line."""
    found = {}
    for line in text.splitlines():
        for metric in METRICS:
            match = re.search(metric["Regex"], line)
            if match:
                found.setdefault(metric["Name"], []).append(float(match[1]))
    return found


@test(160, "Estimator.fit in local mode, one host: model.tar.gz, output.tar.gz, metrics by the regular expressions, a clean log")
def fit_one():
    _, folder, text = trained(1)
    expect_equal(clients.archive_names(os.path.join(folder, "model.tar.gz")), ["model.json", "model.pth", "model.safetensors"], "model.tar.gz")
    names = clients.archive_names(os.path.join(folder, "output.tar.gz"))
    expect("data/history.csv" in names and "failure" not in names, f"output.tar.gz: {names}")
    found = metrics_of(text)
    for name in ("train:loss", "validation:accuracy", "validation:loss"):
        expect_equal(len(found.get(name, [])), 2, f"values of {name}, one an epoch")
    expect(not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", text.replace("\r\n", "\n")), "control characters, with a terminal as stdout")
    expect("wJalrSECRET" not in text, "a key in the log")


@test("160b", "… on two hosts: they find each other, one model")
def fit_two():
    _, folder, text = trained(2)
    expect_equal(clients.archive_names(os.path.join(folder, "model.tar.gz")), ["model.json", "model.pth", "model.safetensors"], "model.tar.gz")
    expect_equal(len(metrics_of(text)["train:loss"]), 2, "values of train:loss, one an epoch, from one host")
    expect_match(r"(?m)^algo-2-\w+ +\| .", text, "lines of the second host")


@test("160c", "… with a wrong hyperparameter: the SDK raises, the log tells why")
def fit_fails():
    _, folder, text = fit(1, wanted_error="exited|exit code|Failed to run", lr=-1)
    expect_match(r"\blr\b.*-1.*0 to 100", text, "the reason")
    expect_match("failure", " ".join(clients.archive_names(os.path.join(folder, "output.tar.gz"))), "output.tar.gz holds the failure file")


@test("160d", "Estimator.deploy of what was trained, and a prediction")
def deploy_trained():
    estimator = trained(1)[0]
    with printed():
        predictor = estimator.deploy(1, "local", serializer=serializers.NumpySerializer(), deserializer=deserializers.NumpyDeserializer(), wait=False)
        try:
            scores = predictor.predict(numpy.zeros((3, 3, 32, 32), numpy.uint8))
        finally:
            predictor.delete_endpoint()
    expect_equal(scores.shape, (3, 100), "shape")
    expect(abs(scores.sum(axis=1) - 1).max() < 1e-5, "probabilities that do not sum to 1")


# --- the endpoint -----------------------------------------------------------------------------------------------------


endpoints = []  # that run: a thread of the SDK's waits for each


class Endpoint:
    """The golden model behind local mode's Model.deploy; stopped at the end of the program."""

    def __init__(self):
        self.session = session()
        model = Model(IMAGE, f"file://{clients.golden_archive()}", ROLE, sagemaker_session=self.session, name="golden")
        with printed():
            model.deploy(1, "local", endpoint_name="golden", wait=False)  # local mode has pinged already; "wait" polls every 30 s
        self.port = self.session.config["local"]["serving_port"]
        endpoints.append(self)

    def stop(self):
        with printed():
            Predictor("golden", sagemaker_session=self.session).delete_endpoint(delete_endpoint_config=False)

    def predictor(self, serializer, deserializer, kind=Predictor):
        return kind("golden", sagemaker_session=self.session, serializer=serializer, deserializer=deserializer)


@once
def endpoint():
    return Endpoint()


def images(*numbers):
    return numpy.frombuffer(b"".join(bodies.pixels(n) for n in numbers), numpy.uint8).reshape(len(numbers), 3, 32, 32)


def png(n):
    return bodies.image_png(n)


def pictures_file():
    path = os.path.join(scratch(), "picture.png")
    with open(path, "wb") as file:
        file.write(png(1))
    return path


# Each serializer with what a user would give it, and the golden images that this is.
SENDERS = {
    "NumpySerializer": (lambda: serializers.NumpySerializer(), lambda: images(0, 1), (0, 1)),
    "NumpySerializer, a list of float64": (lambda: serializers.NumpySerializer(), lambda: [bodies.normalized(0), bodies.normalized(1)], (0, 1)),
    "NumpySerializer(float32)": (lambda: serializers.NumpySerializer(dtype="float32"), lambda: [bodies.normalized(0), bodies.normalized(1)], (0, 1)),
    "JSONSerializer": (lambda: serializers.JSONSerializer(), lambda: images(0, 1), (0, 1)),
    "JSONSerializer, instances": (lambda: serializers.JSONSerializer(), lambda: {"instances": images(0, 1)}, (0, 1)),
    "CSVSerializer": (lambda: serializers.CSVSerializer(), lambda: images(0, 1), (0, 1)),
    "JSONLinesSerializer": (lambda: serializers.JSONLinesSerializer(), lambda: images(0, 1).tolist(), (0, 1)),
    "IdentitySerializer, bytes of no type": (lambda: serializers.IdentitySerializer(), lambda: png(1), (1,)),
    "IdentitySerializer(image/png)": (lambda: serializers.IdentitySerializer("image/png"), lambda: png(1), (1,)),
    "IdentitySerializer(application/x-image)": (lambda: serializers.IdentitySerializer("application/x-image"), lambda: png(1), (1,)),
    "DataSerializer, a file": (lambda: serializers.DataSerializer(), lambda: pictures_file(), (1,)),
    "DataSerializer(image/png), bytes": (lambda: serializers.DataSerializer("image/png"), lambda: png(1), (1,)),
}

# Each deserializer, and how its result becomes rows of numbers.
RECEIVERS = {
    "NumpyDeserializer": (lambda: deserializers.NumpyDeserializer(), lambda scores: scores.tolist()),
    "JSONDeserializer": (lambda: deserializers.JSONDeserializer(), lambda scores: scores),
    "CSVDeserializer": (lambda: deserializers.CSVDeserializer(), lambda rows: rows),
    "JSONLinesDeserializer": (lambda: deserializers.JSONLinesDeserializer(), lambda rows: rows),
    "StringDeserializer": (lambda: deserializers.StringDeserializer(), json.loads),
    "BytesDeserializer": (lambda: deserializers.BytesDeserializer(), json.loads),
    "StreamDeserializer": (lambda: deserializers.StreamDeserializer(), lambda answer: json.loads(answer[0].read())),
}


@test(156, f"every pair of {len(SENDERS)} ways to send and {len(RECEIVERS)} to receive gives PyTorch's probabilities")
def pairs():
    wrong = []
    for sender, (serializer, data, wanted) in SENDERS.items():
        for receiver, (deserializer, rows) in RECEIVERS.items():
            try:
                answer = endpoint().predictor(serializer(), deserializer()).predict(data())
                expect_probabilities(rows(answer), *wanted)
            except Exception as problem:  # noqa: BLE001: all pairs are told
                wrong.append(f"{sender} with {receiver}: {type(problem).__name__} {problem}"[:300])
    expect(not wrong, "\n".join(wrong))


@test("156b", "serializers of other trades are answered 415 or 400 with a sentence")
def foreign():
    import scipy.sparse

    for serializer, data in ((serializers.StringSerializer(), "a cat"), (serializers.LibSVMSerializer(), "1 1:0.5"),
                             (serializers.SparseMatrixSerializer(), scipy.sparse.eye(3072, format="csr"))):
        answer = json.loads(endpoint().predictor(serializer, deserializers.BytesDeserializer()).predict(data))
        expect(answer["error"]["code"] in ("unsupported_media_type", "bad_request"), f"{type(serializer).__name__}: {answer}")
        expect(len(answer["error"]["message"]) > 20, f"{answer}")


@test(158, "PyTorchPredictor as it comes, a list of floats")
def pytorch_predictor():
    predictor = PyTorchPredictor("golden", sagemaker_session=endpoint().session)
    expect_probabilities(predictor.predict([bodies.normalized(2)]).tolist(), 2)


@test(159, "PandasDeserializer of CSV (in local mode the SDK takes the requested type for the answer's, so one type is asked for): the first row is the header")
def pandas_deserializer():
    frame = endpoint().predictor(serializers.NumpySerializer(), deserializers.PandasDeserializer("text/csv")).predict(images(0, 1, 2))
    expect_equal(frame.shape, (2, 100), "shape")
    expect_probabilities([list(frame.columns.astype(str).str.replace(r"(\.\d+)\.\d+$", r"\1", regex=True)), *frame.values.tolist()], 0, 1, 2)


@test("156c", "runtime client: custom attributes reach the endpoint, an error comes as a JSON sentence")
def runtime_client():
    client = endpoint().session.sagemaker_runtime_client
    answer = json.loads(client.invoke_endpoint(images(0).tobytes(), "golden", "application/octet-stream", "application/json", CustomAttributes="top_k=3")["Body"].read())
    expect_equal(len(answer["predictions"]), 3, f"guesses of top_k=3: {answer}")
    answer = json.loads(client.invoke_endpoint(b"1,2", "golden", "text/csv", "application/json")["Body"].read())
    expect_match("3072", answer["error"]["message"], "what is expected")


# --- boto3 ------------------------------------------------------------------------------------------------------------


@test(157, "boto3 invoke_endpoint through the platform's mapping: an answer, custom attributes, ModelError with status and sentence")
def boto3_client():
    platform = clients.Platform(endpoint().port)
    client = boto3.client("sagemaker-runtime", region_name=REGION, endpoint_url=platform.url)
    answer = client.invoke_endpoint(EndpointName="golden", ContentType="application/x-npy", Accept="application/json", Body=npy(images(0)),
                                    CustomAttributes="trace=42", InferenceId="an-id")
    expect_equal(answer["ContentType"], "application/json", "ContentType")
    expect_match("trace=42", answer["CustomAttributes"], "CustomAttributes")
    expect_probabilities(json.loads(answer["Body"].read()), 0)
    try:
        client.invoke_endpoint(EndpointName="golden", ContentType="text/csv", Body=b"1,2")
        raise AssertionError("no error")
    except ClientError as error:
        expect_equal(error.response["Error"]["Code"], "ModelError", "Code")
        expect_equal(error.response["OriginalStatusCode"], 400, "OriginalStatusCode")
        expect_match("3072", error.response["OriginalMessage"], "OriginalMessage")
        expect(len(error.response["OriginalMessage"]) <= 2048, "a long OriginalMessage")
    try:
        client.invoke_endpoint(EndpointName="golden", ContentType="video/mp4", Body=b"x")
        raise AssertionError("no error")
    except ClientError as error:
        expect_equal(error.response["OriginalStatusCode"], 415, "OriginalStatusCode")
    platform.shutdown()


def npy(array):
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


# --- batch transform --------------------------------------------------------------------------------------------------


def transform(files, content_type, **options):
    """The local transform job of the golden model; {name: bytes} of its output."""
    source, target = scratch(), scratch()
    for name, data in files.items():
        with open(os.path.join(source, name), "wb") as file:
            file.write(data)
    local = session()
    Model(IMAGE, f"file://{clients.golden_archive()}", ROLE, sagemaker_session=local, name="golden").create()
    accept, split = options.pop("accept", None), options.pop("split_type", None)
    transformer = Transformer("golden", 1, "local", output_path=f"file://{target}", accept=accept, sagemaker_session=local, **options)
    with printed() as text:
        transformer.transform(f"file://{source}", content_type=content_type, split_type=split, logs=False)
    found = {}
    for folder, _, names in os.walk(target):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = file.read()
    expect(found, f"nothing came out: {text.getvalue()[-2000:]}")
    return found


def csv_rows(text):
    return [[float(v) for v in line.split(",")] for line in text.decode().rstrip("\n").split("\n")]


@test(162, "batch transform of CSV: split by line, many records a request, assembled by line: a line out for each line in")
def transform_csv():
    lines = b"".join(",".join(map(str, bodies.pixels(n))).encode() + b"\n" for n in (0, 1, 2, 3))
    found = transform({"many.csv": lines}, "text/csv", strategy="MultiRecord", assemble_with="Line", accept="text/csv", split_type="Line")
    expect_equal(sorted(found), ["many.csv.out"], "files")
    expect_probabilities(csv_rows(found["many.csv.out"]), 0, 1, 2, 3)


@test("162b", "… one record a request")
def transform_single():
    lines = b"".join(",".join(map(str, bodies.pixels(n))).encode() + b"\n" for n in (0, 1))
    found = transform({"two.csv": lines}, "text/csv", strategy="SingleRecord", assemble_with="Line", accept="text/csv", split_type="Line")
    expect_probabilities(csv_rows(found["two.csv.out"]), 0, 1)


@test("162c", "batch transform of pictures: a file, a request, an .out")
def transform_pictures():
    found = transform({"0.png": png(0), "1.png": png(1)}, "image/png", strategy="SingleRecord", accept="application/json")
    expect_equal(sorted(found), ["0.png.out", "1.png.out"], "files")
    for n in (0, 1):
        expect_probabilities(json.loads(found[f"{n}.png.out"]), n)


if __name__ == "__main__":
    try:
        smelt_job.main()
    finally:
        for running in endpoints:
            running.stop()
