"""A program that converts a network to OpenVINO and runs it once.

It runs in a separate process, because some versions of OpenVINO crash with SIGFPE or SIGILL on CPUs
that they do not know.
"""

import sys
from typing import Any


def compile_network(network: Any) -> Any:
    """Compiles an openvino.Model for this CPU, in bfloat16 if supported, otherwise in float32."""
    import openvino

    core = openvino.Core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hint = "bf16" if has_bfloat16 else "f32"
    return core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": hint})


def main(saved_model: str, path: str) -> None:
    """Writes the network of a SavedModel as `path`, an .xml with a .bin next to it; runs it."""
    import numpy as np
    import openvino

    # The TensorFlow front end of openvino.convert_model, without that function's telemetry.
    network = openvino.Core().read_model(saved_model)
    openvino.save_model(network, path, compress_to_fp16=False)
    sides = [side.get_length() for side in list(network.input().partial_shape)[1:]]
    compile_network(openvino.Core().read_model(path))(np.zeros([1, *sides], np.uint8))


if __name__ == "__main__":
    main(*sys.argv[1:])
