"""A peer of bench_serve.py: torchvision's resnet34 behind flask, as such endpoints are usually written. Run by gunicorn; SMELT_PEER_MODEL is
a directory with model.pth."""
import io
import os

import flask
import numpy
import torch
import torchvision

torch.set_num_threads(len(os.sched_getaffinity(0)))
model = torchvision.models.resnet34(num_classes=100)
model.load_state_dict(torch.load(os.path.join(os.environ["SMELT_PEER_MODEL"], "model.pth"), weights_only=True))
model.eval()
app = flask.Flask(__name__)


@app.get("/ping")
def ping():
    return ""


@app.post("/invocations")
def invocations():
    images = torch.from_numpy(numpy.load(io.BytesIO(flask.request.get_data()), allow_pickle=False))
    with torch.inference_mode():
        answer = torch.softmax(model(images), 1).numpy()
    out = io.BytesIO()
    numpy.save(out, answer)
    return flask.Response(out.getvalue(), content_type="application/x-npy")
