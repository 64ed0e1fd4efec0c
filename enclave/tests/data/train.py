"""Trains the small models that tests and the demo serve, from data sets that scikit-learn bundles.

    pip install numpy scikit-learn skl2onnx && python3 train.py

Writes models/<name>/1/model.onnx and held-out/<name>_{x,y}.npy: 40 rows that training never saw,
and what they are. Everything is seeded; the files in this folder came out of numpy 2.4.6,
scikit-learn 1.9.1 and skl2onnx 1.20.0. The two digit models are plain graphs written with
onnx.helper, the others scikit-learn pipelines.
"""

import pathlib

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).parent
OPSET = {"": 17, "ai.onnx.ml": 3}


def split(loader, scale=1.0):
    data = loader()
    x = (data.data / scale).astype(np.float32)
    return train_test_split(x, data.target, test_size=0.25, random_state=0)


def write(name, model, x, y):
    folder = HERE / "models" / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    held_out = HERE / "held-out"
    held_out.mkdir(exist_ok=True)
    np.save(held_out / f"{name}_x.npy", x[:40])
    np.save(held_out / f"{name}_y.npy", y[:40])


def pipeline(name, model, loader):
    xa, xb, ya, yb = split(loader)
    model.fit(xa, ya)
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    onnx = to_onnx(model, initial_types=[("X", FloatTensorType([None, xa.shape[1]]))],
                   options=options, target_opset=OPSET)
    print(f"{name}: {model.score(xb, yb):.3f} over {len(yb)} held-out rows")
    write(name, onnx, xb, yb)


def graph(name, nodes, weights, x_info, x, y, predict):
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])
    initializers = [numpy_helper.from_array(np.ascontiguousarray(value, np.float32)
                                            if value.dtype.kind == "f" else value, key)
                    for key, value in weights.items()]
    onnx = helper.make_model(helper.make_graph(nodes, name, [x_info], [probabilities], initializers),
                             opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    print(f"{name}: {(predict(x) == y).mean():.3f} over {len(y)} held-out rows")
    write(name, onnx, x, y)


def digits_mlp_plain():
    xa, xb, ya, yb = split(load_digits)
    scaler = StandardScaler().fit(xa)
    net = MLPClassifier((128, 64), max_iter=300, random_state=0).fit(scaler.transform(xa), ya)
    # The scaling goes into the first layer: (x - m) / s @ W = x @ (W / s) - m / s @ W.
    weights = {}
    (w, *rest), (b, *biases) = net.coefs_, net.intercepts_
    weights["W0"], weights["b0"] = w / scaler.scale_[:, None], b - (scaler.mean_ / scaler.scale_) @ w
    for i, (w, b) in enumerate(zip(rest, biases), 1):
        weights[f"W{i}"], weights[f"b{i}"] = w, b
    nodes, at = [], "X"
    for i in range(3):
        nodes.append(helper.make_node("Gemm", [at, f"W{i}", f"b{i}"], [f"z{i}"]))
        at = f"z{i}"
        if i < 2:
            nodes.append(helper.make_node("Relu", [at], [f"a{i}"]))
            at = f"a{i}"
    nodes.append(helper.make_node("Softmax", [at], ["probabilities"], axis=1))
    x_info = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["batch", 64])
    graph("digits_mlp_plain", nodes, weights, x_info, xb, yb,
          lambda x: net.predict(scaler.transform(x)))


def patches(x):
    """3x3 neighbourhoods of [n, c, h, w], zero-padded: [n, h, w, c * 9]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


class Cnn:
    """conv 3x3 -> relu -> max-pool 2x2 -> conv 3x3 -> relu -> dense -> softmax, in numpy."""

    def __init__(self, rng):
        he = lambda fan_in, *shape: rng.normal(0, np.sqrt(2 / fan_in), shape)
        self.p = {"k1": he(9, 9, 12), "c1": np.zeros(12), "k2": he(108, 108, 16), "c2": np.zeros(16),
                  "W": he(256, 256, 10), "b": np.zeros(10)}
        self.m = {k: np.zeros_like(v) for k, v in self.p.items()}
        self.v = {k: np.zeros_like(v) for k, v in self.p.items()}
        self.t = 0

    def forward(self, x):
        p = self.p
        self.x1 = patches(x)
        self.a1 = np.maximum(self.x1 @ p["k1"] + p["c1"], 0).transpose(0, 3, 1, 2)
        n, c, h, w = self.a1.shape
        cells = self.a1.reshape(n, c, h // 2, 2, w // 2, 2)
        pooled = cells.max((3, 5))
        self.won = cells == pooled[:, :, :, None, :, None]
        self.x2 = patches(pooled)
        self.a2 = np.maximum(self.x2 @ p["k2"] + p["c2"], 0).transpose(0, 3, 1, 2)
        self.flat = self.a2.reshape(n, -1)
        z = self.flat @ p["W"] + p["b"]
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def step(self, x, y, rate=2e-3):
        out = self.forward(x)
        n = len(x)
        dz = out.copy()
        dz[np.arange(n), y] -= 1
        dz /= n
        g = {"W": self.flat.T @ dz, "b": dz.sum(0)}
        d2 = ((dz @ self.p["W"].T).reshape(self.a2.shape) * (self.a2 > 0)).transpose(0, 2, 3, 1)
        g["k2"], g["c2"] = np.einsum("nhwi,nhwo->io", self.x2, d2), d2.sum((0, 1, 2))
        dx2 = (d2 @ self.p["k2"].T).reshape(*d2.shape[:3], 12, 3, 3)
        dpool = np.zeros((n, 12, 6, 6))
        for i in range(3):
            for j in range(3):
                dpool[:, :, i:i + 4, j:j + 4] += dx2[..., i, j].transpose(0, 3, 1, 2)
        dpool = dpool[:, :, 1:5, 1:5]
        d1 = (self.won * dpool[:, :, :, None, :, None]).reshape(self.a1.shape) * (self.a1 > 0)
        d1 = d1.transpose(0, 2, 3, 1)
        g["k1"], g["c1"] = np.einsum("nhwi,nhwo->io", self.x1, d1), d1.sum((0, 1, 2))
        self.t += 1
        for k in self.p:  # Adam
            self.m[k] = 0.9 * self.m[k] + 0.1 * g[k]
            self.v[k] = 0.999 * self.v[k] + 0.001 * g[k] ** 2
            m, v = self.m[k] / (1 - 0.9 ** self.t), self.v[k] / (1 - 0.999 ** self.t)
            self.p[k] = self.p[k] - rate * m / (np.sqrt(v) + 1e-8)


def digits_cnn():
    xa, xb, ya, yb = split(load_digits, scale=16.0)
    xa, xb = xa.reshape(-1, 1, 8, 8), xb.reshape(-1, 1, 8, 8)
    rng = np.random.default_rng(0)
    net = Cnn(rng)
    for _ in range(40):
        order = rng.permutation(len(xa))
        for start in range(0, len(order), 32):
            batch = order[start:start + 32]
            net.step(xa[batch].astype(np.float64), ya[batch])
    kernel = lambda k, c: k.reshape(c, 3, 3, -1).transpose(3, 0, 1, 2)
    p = net.p
    weights = {"k1": kernel(p["k1"], 1), "c1": p["c1"], "k2": kernel(p["k2"], 12), "c2": p["c2"],
               "W": p["W"], "b": p["b"]}
    conv = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    nodes = [
        helper.make_node("Conv", ["image", "k1", "c1"], ["z1"], **conv),
        helper.make_node("Relu", ["z1"], ["a1"]),
        helper.make_node("MaxPool", ["a1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "k2", "c2"], ["z2"], **conv),
        helper.make_node("Relu", ["z2"], ["a2"]),
        helper.make_node("Flatten", ["a2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "W", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    x_info = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    graph("digits_cnn", nodes, weights, x_info, xb, yb, lambda x: net.forward(x).argmax(1))


if __name__ == "__main__":
    digits_cnn()
    digits_mlp_plain()
    pipeline("cancer_logreg", make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
             load_breast_cancer)
    pipeline("wine_rf", RandomForestClassifier(20, random_state=0), load_wine)
    pipeline("diabetes_ridge", make_pipeline(StandardScaler(), Ridge()), load_diabetes)
