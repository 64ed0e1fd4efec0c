"""NVIDIA's tritonclient, unchanged, against a host or `touchstone proxy`: JSON and binary tensors, metadata, errors.

    tritonclient_test.py HOST:PORT FOLDER WAY      FOLDER: held-out rows of the models that are served; WAY: for people
"""

import sys
from pathlib import Path

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def batch(folder: Path, model: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    return numpy.load(folder / f"{model}_x.npy"), numpy.load(folder / f"{model}_y.npy")


def ask(client, model: str, name: str, rows: numpy.ndarray, output: str, binary: bool, **options):
    tensor = triton.InferInput(name, list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    wanted = triton.InferRequestedOutput(output, binary_data=binary)
    return client.infer(model, [tensor], outputs=[wanted], **options)


def server_and_models(client, folder):
    assert client.is_server_live() and client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.is_model_ready("digits_cnn") and client.is_model_ready("digits_cnn", "1")
    assert not client.is_model_ready("no_such_model")
    metadata = client.get_model_metadata("digits_cnn")
    assert metadata["name"] == "digits_cnn" and metadata["versions"] == ["1"], metadata
    assert [(i["name"], i["datatype"], i["shape"]) for i in metadata["inputs"]] == [("image", "FP32", [-1, 1, 8, 8])]
    assert [(o["name"], o["datatype"]) for o in metadata["outputs"]] == [("probabilities", "FP32")], metadata


def both_encodings_agree(client, folder):
    rows, labels = batch(folder, "digits_cnn")
    answers = [
        ask(client, "digits_cnn", "image", rows, "probabilities", binary).as_numpy("probabilities")
        for binary in (False, True)
    ]
    assert answers[0].dtype == answers[1].dtype == numpy.float32
    assert answers[0].tobytes() == answers[1].tobytes(), "JSON and binary outputs differ"
    score = (answers[0].argmax(axis=1) == labels).mean()
    assert answers[0].shape == (len(rows), 10) and score > 0.9, score


def nothing_named_means_all_outputs(client, folder):
    rows, labels = batch(folder, "wine_rf")
    tensor = triton.InferInput("X", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    answer = client.infer("wine_rf", [tensor])
    names = [output["name"] for output in answer.get_response()["outputs"]]
    assert names == ["label", "probabilities"], names
    assert answer.as_numpy("label").dtype == numpy.int64
    assert (answer.as_numpy("label") == labels).mean() > 0.9


def one_output_of_two(client, folder):
    rows, _ = batch(folder, "wine_rf")
    answer = ask(client, "wine_rf", "X", rows[:3], "label", True)
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["label"]
    assert answer.as_numpy("label").shape == (3,) and answer.as_numpy("probabilities") is None


def ids_versions_and_receipts(client, folder):
    rows, _ = batch(folder, "digits_cnn")
    answer = ask(client, "digits_cnn", "image", rows[:1], "probabilities", True, request_id="my id 7", model_version="1")
    response = answer.get_response()
    assert response["id"] == "my id 7" and response["model_version"] == "1", response
    asked = {"touchstone_require": "logged signed", "touchstone_nonce": "ab" * 32}
    for binary in (False, True):
        answer = ask(client, "digits_cnn", "image", rows[:1], "probabilities", binary, parameters=asked)
        assert answer.get_response()["model_name"] == "digits_cnn"


def concurrent(client, folder):
    rows, _ = batch(folder, "digits_cnn")
    tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(rows[:1])
    waiting = [client.async_infer("digits_cnn", [tensor]) for _ in range(32)]
    answers = {one.get_result(timeout=30).as_numpy("probabilities").tobytes() for one in waiting}
    assert len(answers) == 1, "the same question has different answers"


def refusals_are_understood(client, folder):
    rows, _ = batch(folder, "digits_cnn")
    cases = [
        ("an unknown model", dict(model="no_such_model", name="image", rows=rows[:1]), {}),
        ("an unknown version", dict(model="digits_cnn", name="image", rows=rows[:1]), {"model_version": "9"}),
        ("an unknown input", dict(model="digits_cnn", name="picture", rows=rows[:1]), {}),
        ("a wrong shape", dict(model="digits_cnn", name="image", rows=rows[:1, :, :4]), {}),
        ("an unknown guarantee", dict(model="digits_cnn", name="image", rows=rows[:1]), {"parameters": {"touchstone_require": "perfect"}}),
        ("a guarantee not to be had", dict(model="digits_cnn", name="image", rows=rows[:1]), {"parameters": {"touchstone_require": "proven"}}),
        ("a compressed request", dict(model="digits_cnn", name="image", rows=rows[:1]), {"request_compression_algorithm": "gzip"}),
    ]
    for what, question, options in cases:
        try:
            ask(client, output="probabilities", binary=True, **question, **options)
        except InferenceServerException as error:
            assert error.message(), what
            assert str(error.status()).startswith("4"), f"{what}: {error.status()} {error.message()}"
        else:
            raise AssertionError(f"{what} was answered")
    # And the server goes on.
    ask(client, "digits_cnn", "image", rows[:1], "probabilities", True)


def main() -> int:
    address, folder, way = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    tests = [server_and_models, both_encodings_agree, nothing_named_means_all_outputs, one_output_of_two,
             ids_versions_and_receipts, concurrent, refusals_are_understood]  # fmt: skip
    failed = 0
    for test in tests:
        client = triton.InferenceServerClient(address, concurrency=8)
        try:
            test(client, folder)
            print(f"test tritonclient::{test.__name__} ({way}) ... ok")
        except (AssertionError, InferenceServerException) as error:
            failed += 1
            print(f"test tritonclient::{test.__name__} ({way}) ... FAILED: {error!r}")
        finally:
            client.close()
    print(f"tritonclient: {len(tests) - failed} passed, {failed} failed, {way}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
