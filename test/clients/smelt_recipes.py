"""smelt_recipes: the README's Python blocks, run with the real SDK. Nothing leaves this machine: before a request is sent it is kept, and answered here."""

import io
import json
import os
import re
import urllib.parse

import botocore.awsrequest
import botocore.session

import smelt_clients as clients

README = os.path.join(clients.ROOT, "README.md")
STATUS = {"DescribeTrainingJob": {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting", "CreationTime": 1700000000, "ModelArtifacts": {"S3ModelArtifacts": "s3://bucket/x"}}, "DescribeEndpoint": {"EndpointStatus": "Creating"}}


def blocks(kind):
    """The code of each block that is marked so, in order."""
    with open(README, encoding="utf-8") as file:
        return re.findall(rf"<!-- recipe: {kind} -->\n```python\n(.*?)```", file.read(), re.S)


# A role that SageMaker may take.
ROLE = ("<Role><Path>/</Path><RoleName>SageMakerRole</RoleName><RoleId>x</RoleId><Arn>arn:aws:iam::123456789012:role/SageMakerRole</Arn>"
        "<CreateDate>2026-01-01T00:00:00Z</CreateDate><AssumeRolePolicyDocument>" + urllib.parse.quote(json.dumps(
            {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}]})) + "</AssumeRolePolicyDocument></Role>")


class Raw(io.BytesIO):
    def stream(self, *_, **__):
        yield self.read()


class Amazon:
    """Answers every AWS request that clients of this process make, and keeps SageMaker's: [(operation, parameters)]."""

    def __init__(self):
        self.requests = []
        emitter_of = botocore.session.Session.get_component
        amazon = self

        def get_component(session, name):
            component = emitter_of(session, name)
            if name == "event_emitter" and not getattr(session, "_smelt", False):
                session._smelt = True
                component.register("before-send", amazon.answer)
            return component

        botocore.session.Session.get_component = get_component

    def answer(self, request, **_):
        target = request.headers.get("X-Amz-Target")
        if target:
            operation = (target.decode() if isinstance(target, bytes) else target).split(".")[-1]
            body = request.body.decode() if isinstance(request.body, bytes) else request.body
            self.requests.append((operation, json.loads(body or "{}")))
            name = re.sub(r"^(Create|Describe)", "", operation)
            said = {f"{name}Arn": f"arn:aws:sagemaker:eu-west-1:123456789012:{name.lower()}/x", f"{name}Name": "smelt-x", **STATUS.get(operation, {})}
            return self.response(request, 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(said).encode())
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body or "")
        action = re.search(r"Action=(\w+)", body)
        if action:  # STS, IAM
            said = "<Account>123456789012</Account><Arn>arn:aws:iam::123456789012:role/SageMakerRole</Arn><UserId>x</UserId><EvaluationResults/>" + ROLE
            text = f"<{action[1]}Response><{action[1]}Result>{said}</{action[1]}Result></{action[1]}Response>"
        else:  # S3
            text = "" if request.method == "HEAD" else "<Result><Buckets><Bucket><Name>bucket</Name></Bucket></Buckets></Result>"
        return self.response(request, 200, {"Content-Type": "text/xml", "x-amz-bucket-region": clients.REGION}, text.encode())

    @staticmethod
    def response(request, status, headers, body):
        return botocore.awsrequest.AWSResponse(request.url, status, headers, Raw(body))

    def of(self, operation):
        return [parameters for name, parameters in self.requests if name == operation]
