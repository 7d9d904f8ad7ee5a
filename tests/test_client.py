"""clouds_tf.client by itself; tests/serving and tests/server run it against servers."""

import http.server
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import REPOSITORY

from clouds_tf import client


def test_a_client_needs_the_standard_library_only():
    program = (
        "import sys; from clouds_tf import client;"
        "print(len(sys.modules), *(name for name in sys.modules if 'clouds_tf.' in name),"
        "*{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    number, *modules = found.stdout.split()
    assert {"tensorflow", "keras", "numpy", "pandas", "absl"}.isdisjoint(modules)
    assert {name for name in modules if name.startswith("clouds_tf.")} == {
        "clouds_tf.client",
        "clouds_tf.messages",
    }
    assert int(number) < 250  # TensorFlow brings thousands


def _encoded(mask, order):
    """The runs of a mask, by numpy alone."""
    flat = np.pad(mask.ravel("F" if order == "columns" else "C"), 1)
    changes = np.flatnonzero(np.diff(flat.astype(int))) + 1
    return " ".join(f"{a} {b - a}" for a, b in zip(changes[::2], changes[1::2]))


@given(st.data(), st.sampled_from(["columns", "rows"]))
@settings(max_examples=50)
def test_masks_are_those_that_were_encoded(data, order):
    height, width = (data.draw(st.integers(1, 7)) for _ in range(2))
    bits = data.draw(st.lists(st.booleans(), min_size=2 * height * width, max_size=None))
    masks = np.array(bits[: 2 * height * width]).reshape(2, height, width)
    dataset = {"submission_size": [height, width], "rle_order": order}
    found = client.decode_masks([_encoded(mask, order) for mask in masks], dataset)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, masks)


@pytest.mark.parametrize("text", ["1", "0 1", "1 0", "5 3", "7 1", "1 2 x"])
def test_what_is_no_encoding_is_refused(text):
    with pytest.raises(ValueError, match="RLE: got|invalid literal"):
        client.decode_masks([text], {"submission_size": [2, 3], "rle_order": "columns"})


def test_an_overloaded_server_is_asked_again_when_it_says():
    answers = iter([(503, "0"), (503, None), (503, "99"), (503, "0"), (200, None)])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802 (the name that http.server looks for)
            status, after = next(answers)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if after:
                self.send_header("Retry-After", after)
            self.end_headers()
            self.wfile.write(json.dumps({"error": "overload", "predictions": [1]}).encode())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{httpd.server_port}/v1/models/clouds"
        for _ in range(2):  # no Retry-After, and one beyond the timeout
            with pytest.raises(ValueError, match="status 503: overload"):
                client.request(url, [b""], timeout=5)
        assert client.request(url, [b""], timeout=5) == [1]
        httpd.shutdown()
