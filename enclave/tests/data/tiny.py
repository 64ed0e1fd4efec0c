"""Writes the tiny ONNX models of the runtime's tests: every datatype, external tensor data in every
place where it can stand, what must be refused, and graphs that fail when they run.

    pip install onnx numpy && python3 tiny.py        (the files here: onnx 1.23.2)

Each case is a folder tiny/<case>, as a version's folder of a model repository.
"""

import pathlib
import shutil

import numpy as np
from onnx import TensorProto as T, helper as h, numpy_helper

HERE = pathlib.Path(__file__).parent / "tiny"
W = np.arange(64, dtype=np.float32)


def info(name, kind=T.FLOAT, shape=(None, 64)):
    return h.make_tensor_value_info(name, kind, shape)


def save(case, nodes, inputs, outputs, initializers=(), functions=(), files=None, opset=17, **graph):
    graph = h.make_graph(nodes, case, inputs, outputs, list(initializers), **graph)
    opsets = [h.make_opsetid("", opset), h.make_opsetid("ai.onnx.ml", 3), h.make_opsetid("local", 1)]
    model = h.make_model(graph, opset_imports=opsets, ir_version=8 if opset == 17 else 9,
                         functions=list(functions))
    save_bytes(case, model.SerializeToString(deterministic=True), files)


def save_bytes(case, model, files=None):
    folder = HERE / case
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model)
    for name, data in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def external(name, array, location, **entries):
    """A tensor whose data is in another file. `entries` replace or add to external_data."""
    tensor = T(name=name, data_type=h.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
    tensor.data_location = T.EXTERNAL
    pairs = {"location": location, "offset": "0", "length": str(array.nbytes), **entries}
    for key, value in pairs.items():
        if value is not None:
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    return tensor


def add(*inputs, output="Y"):
    return h.make_node("Add", list(inputs), [output])


def all_types():
    kinds = {
        "bool": T.BOOL, "uint8": T.UINT8, "uint16": T.UINT16, "uint32": T.UINT32, "uint64": T.UINT64,
        "int8": T.INT8, "int16": T.INT16, "int32": T.INT32, "int64": T.INT64,
        "fp16": T.FLOAT16, "bf16": T.BFLOAT16, "fp32": T.FLOAT, "fp64": T.DOUBLE, "bytes": T.STRING,
    }
    nodes, inputs, outputs = [], [], []
    for name, kind in kinds.items():
        nodes.append(h.make_node("Identity", [name], [name + "_out"]))
        inputs.append(info(name, kind, [2, None]))
        outputs.append(info(name + "_out", kind, [2, None]))
    save("all_types", nodes, inputs, outputs)


def good_external():
    x, y, raw = info("X"), info("Y"), W.tobytes()
    save("external", [add("X", "W")], [x], [y], [external("W", W, "w.bin")], files={"w.bin": raw})
    # Two tensors in one file in a folder: one with an offset, one that takes the rest.
    both = [external("A", W, "data/w.bin", offset=None), external("B", W, "data/w.bin", offset="256", length=None)]
    save("external_shared", [add("X", "A", output="a"), add("a", "B")], [x], [y], both,
         files={"data/w.bin": raw + (W * 10).tobytes()})
    outside = external("W", W, "w.bin")
    branch = h.make_graph([add("X", "W", output="then")], "then", [], [info("then", shape=None)], [outside])
    other = h.make_graph([h.make_node("Identity", ["X"], ["else"])], "else", [], [info("else", shape=None)])
    save("external_subgraph",
         [h.make_node("ReduceMax", ["X"], ["max"], keepdims=0), h.make_node("Less", ["max", "limit"], ["small"]),
          h.make_node("If", ["small"], ["Y"], then_branch=branch, else_branch=other)],
         [x], [info("Y", shape=None)], [numpy_helper.from_array(np.float32(1000), "limit")], files={"w.bin": raw})
    save("external_attribute", [h.make_node("Constant", [], ["W"], value=outside), add("X", "W")], [x], [y],
         files={"w.bin": raw})
    function = h.make_function("local", "AddW", ["a"], ["b"],
                               [h.make_node("Constant", [], ["W"], value=outside), add("a", "W", output="b")],
                               [h.make_opsetid("", 17)])
    save("external_function", [h.make_node("AddW", ["X"], ["Y"], domain="local")], [x], [y],
         functions=[function], files={"w.bin": raw})
    values = external("W", W[:2], "w.bin", offset="4")
    sparse = h.make_sparse_tensor(values, h.make_tensor("", T.INT64, [2], [0, 63]), [64])
    save("external_sparse", [add("X", "W")], [x], [y], sparse_initializer=[sparse], files={"w.bin": raw})


def bad_external():
    x, y, raw = info("X"), info("Y"), W.tobytes()

    def case(name, files={"w.bin": raw}, tensor=None, location="w.bin", **entries):
        tensor = tensor or external("W", W, location, **entries)
        save(name, [add("X", "W")], [x], [y], [tensor], files=files)

    case("refused_absolute", location="/w.bin", files={})
    case("refused_dotdot", location="data/../w.bin")
    case("refused_dot", location="./w.bin")
    case("refused_memory_address", location="*/_ORT_MEM_ADDR_/*", files={})
    case("refused_itself", location="model.onnx", files={})
    case("refused_missing", files={})
    case("refused_unlisted", files={"w.bin": raw, "notes.txt": b"?"})
    case("refused_range", offset="4")
    case("refused_offset_overflow", offset=str(2**64 - 4))
    case("refused_offset_sign", offset="+0")
    case("refused_no_location", location=None)
    case("refused_unknown_key", basepath="elsewhere")
    twice = external("W", W, "w.bin")
    twice.external_data.add(key="location", value="other.bin")
    case("refused_location_twice", tensor=twice)
    both = external("W", W, "w.bin")
    both.raw_data = raw
    case("refused_both_data", tensor=both)
    # A tensor that keeps its own data and yet names a file.
    quiet = external("W", W, "w.bin")
    quiet.data_location = T.DEFAULT
    quiet.raw_data = raw
    case("refused_quiet_location", tensor=quiet)
    # Deep inside training info, which the runtime does not even load.
    training = h.make_graph([], "t", [], [info("W", shape=[64])], [external("W", W, "../w.bin")])
    model = h.make_model(h.make_graph([h.make_node("Identity", ["X"], ["Y"])], "g", [x], [y]), ir_version=8,
                         opset_imports=[h.make_opsetid("", 17)])
    model.training_info.add().initialization.CopyFrom(training)
    save_bytes("refused_training_info", model.SerializeToString(deterministic=True))
    # A graph given twice: parsers merge the two.
    good = h.make_model(h.make_graph([h.make_node("Identity", ["X"], ["Y"])], "g", [x], [y]), ir_version=8,
                        opset_imports=[h.make_opsetid("", 17)]).SerializeToString(deterministic=True)
    save_bytes("refused_two_graphs", good + b"\x3a\x03\x12\x01g")
    save_bytes("refused_group", good + b"\x0b\x0c")
    save_bytes("refused_cut_short", good[:-1])
    save_bytes("refused_ort_format", b"\x20\0\0\0ORTM" + bytes(56))
    save_bytes("refused_by_runtime", good.replace(b"Identity", b"Identitz"))


def interfaces():
    x = info("X", shape=[None])
    sequence = h.make_value_info("S", h.make_sequence_type_proto(h.make_tensor_type_proto(T.FLOAT, None)))
    save("refused_sequence", [h.make_node("SequenceConstruct", ["X"], ["S"])], [x], [sequence])
    element = h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(T.FLOAT, None))
    maps = h.make_value_info("M", h.make_sequence_type_proto(element))
    save("refused_map", [h.make_node("ZipMap", ["X"], ["M"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
         [info("X", shape=[None, 2])], [maps])
    save("refused_float8", [h.make_node("Cast", ["X"], ["Y"], to=T.FLOAT)],
         [info("X", T.FLOAT8E4M3FN, [None])], [info("Y", shape=[None])], opset=19)
    save("refused_complex", [h.make_node("Identity", ["X"], ["Y"])],
         [info("X", T.COMPLEX64, [None])], [info("Y", T.COMPLEX64, [None])])


def runs():
    # Non-finite results.
    save("log", [h.make_node("Log", ["X"], ["Y"])], [info("X", shape=[None])], [info("Y", shape=[None])])
    # Fails by the value of an index, and by shapes that only meet inside.
    save("gather", [h.make_node("Gather", ["X", "I"], ["Y"])],
         [info("X", shape=[None]), info("I", T.INT64, [None])], [info("Y", shape=[None])])
    save("add_any", [add("A", "B")], [info("A", shape=None), info("B", shape=None)], [info("Y", shape=None)])
    # Two fixed inputs, two outputs, a scalar among them.
    save("two", [h.make_node("MatMul", ["A", "B"], ["product"]),
                 h.make_node("ReduceSum", ["product"], ["sum"], keepdims=0)],
         [info("A", shape=[2, 3]), info("B", shape=[3, 2])], [info("product", shape=[2, 2]), info("sum", shape=[])])


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    all_types()
    good_external()
    bad_external()
    interfaces()
    runs()
