"""FastAPI + onnxruntime: the Open Inference Protocol's infer for one model, as it is commonly written."""

import os

import numpy
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

TYPES = {"FP32": numpy.float32, "INT64": numpy.int64}
NAMES = {numpy.dtype(kind): name for name, kind in TYPES.items()}

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list


class Question(BaseModel):
    id: str | None = None
    inputs: list[Tensor]


@app.get("/v2/health/ready")
def ready():
    return {}


@app.post("/v2/models/{name}/infer")
async def infer(name: str, question: Question):
    feeds = {t.name: numpy.array(t.data, TYPES[t.datatype]).reshape(t.shape) for t in question.inputs}
    values = session.run(None, feeds)
    outputs = [
        {"name": output.name, "shape": list(value.shape), "datatype": NAMES[value.dtype], "data": value.ravel().tolist()}
        for output, value in zip(session.get_outputs(), values)
    ]
    return {"model_name": name, "id": question.id, "outputs": outputs}
