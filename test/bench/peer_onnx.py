"""A peer of bench_serve.py: the same network in ONNX Runtime behind FastAPI, run by uvicorn; SMELT_PEER_MODEL is a directory with model.onnx,
which `python3 peer_onnx.py DIRECTORY` makes from model.pth."""
import io
import os
import sys


def export(directory):
    import torch
    import torchvision

    model = torchvision.models.resnet34(num_classes=100)
    model.load_state_dict(torch.load(os.path.join(directory, "model.pth"), weights_only=True))
    whole = torch.nn.Sequential(model, torch.nn.Softmax(1)).eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.onnx.export(whole, (torch.zeros(2, 3, 32, 32),), os.path.join(directory, "model.onnx"), input_names=["images"], output_names=["scores"],
                      dynamic_shapes=({0: batch},), dynamo=True)


if __name__ == "__main__":
    export(sys.argv[1])
else:
    import fastapi
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(os.path.join(os.environ["SMELT_PEER_MODEL"], "model.onnx"), options, providers=["CPUExecutionProvider"])
    app = fastapi.FastAPI()

    @app.get("/ping")
    async def ping():
        return fastapi.Response()

    @app.post("/invocations")
    async def invocations(request: fastapi.Request):
        images = numpy.load(io.BytesIO(await request.body()), allow_pickle=False)
        out = io.BytesIO()
        numpy.save(out, session.run(None, {"images": images})[0])
        return fastapi.Response(out.getvalue(), media_type="application/x-npy")
