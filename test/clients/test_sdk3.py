"""SageMaker's Python SDK, version 3: ModelTrainer in local container mode, which names no command (the image's CMD runs) and an interface that is not there, and
a local endpoint on what was trained; nothing replaced but the command `docker`."""

import json
import logging
import os

import smelt_clients as clients
from smelt_clients import IMAGE, REGION, ROLE, expect, expect_equal, expect_match, once, printed, scratch, smelt_job, smelt_serve, test

clients.home()

import boto3  # noqa: E402
import numpy  # noqa: E402
from sagemaker.core.deserializers import NumpyDeserializer  # noqa: E402
from sagemaker.core.local import LocalSession  # noqa: E402
from sagemaker.core.local.entities import _LocalEndpoint  # noqa: E402, F401
from sagemaker.core.serializers import NumpySerializer  # noqa: E402
from sagemaker.train import ModelTrainer  # noqa: E402
from sagemaker.train.configs import Compute, InputData  # noqa: E402
from sagemaker.train.model_trainer import Mode  # noqa: E402

logging.getLogger("sagemaker").setLevel(logging.ERROR)


def session():
    session = LocalSession(boto_session=boto3.Session(region_name=REGION))
    session.config = {"local": {"local_code": True, "serving_port": smelt_serve.free_port(), "container_root": scratch()}}
    return session


@once
def trained(hosts):
    root = scratch()
    trainer = ModelTrainer(training_mode=Mode.LOCAL_CONTAINER, training_image=IMAGE, role=ROLE, sagemaker_session=session(), base_job_name="smelt",
                           compute=Compute(instance_type="local_cpu", instance_count=hosts), hyperparameters=clients.HYPERPARAMETERS,
                           local_container_root=root)
    with printed() as text:
        trainer.train(input_data_config=[InputData(channel_name="train", data_source=clients.channel())], wait=True)
    return root, text.getvalue()


@test(161, "ModelTrainer in local container mode, one host: model.tar.gz")
def train_one():
    root, _ = trained(1)
    expect_equal(clients.archive_names(os.path.join(root, "compressed_artifacts/model.tar.gz")), ["model.json", "model.pth", "model.safetensors"], "model.tar.gz")


@test("161b", "… on two hosts, with an interface name that is not there")
def train_two():
    root, text = trained(2)
    expect_equal(clients.archive_names(os.path.join(root, "compressed_artifacts/model.tar.gz")), ["model.json", "model.pth", "model.safetensors"], "model.tar.gz")
    expect_match("ethwe", text, "a line about the interface")


@test("161c", "… a local endpoint on it, with the SDK's own runtime client, serializer and deserializer")
def serve_trained():
    local = session()
    archive = os.path.join(trained(1)[0], "compressed_artifacts/model.tar.gz")
    client = local.sagemaker_client
    with printed():
        client.create_model(ModelName="smelt", PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"file://{archive}", "Environment": {}})
        client.create_endpoint_config("smelt", [{"ModelName": "smelt", "InstanceType": "local", "InitialInstanceCount": 1, "VariantName": "AllTraffic"}])
        client.create_endpoint("smelt", "smelt")
        try:
            serializer, deserializer = NumpySerializer(), NumpyDeserializer()
            answer = local.sagemaker_runtime_client.invoke_endpoint(Body=serializer.serialize(numpy.zeros((2, 3, 32, 32), numpy.uint8)), EndpointName="smelt",
                                                                    ContentType=serializer.CONTENT_TYPE, Accept="application/x-npy")
            scores = deserializer.deserialize(answer["Body"], "application/x-npy")
            refused = json.loads(local.sagemaker_runtime_client.invoke_endpoint(Body=b"1,2", EndpointName="smelt", ContentType="text/csv", Accept="text/csv")["Body"].read())
        finally:
            client.delete_endpoint("smelt")
    expect_equal(scores.shape, (2, 100), "shape")
    expect("3072" in refused["error"]["message"], f"{refused}")


if __name__ == "__main__":
    smelt_job.main()
