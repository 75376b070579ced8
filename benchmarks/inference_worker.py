"""A process of `inference.py`: one model in one library, asked over stdin. It needs nothing of the pipeline.

    python inference_worker.py KIND PATH IMAGES THREADS

KIND is openvino or torch. Requests: "latency N" (N images alone, milliseconds each), "throughput N" (N batches,
seconds), "outputs PATH" (probabilities of all images).
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCH = 16
Run = Callable[[Any], Any]  # uint8 (n, height, width, 1) to float32 (n, n_findings)


def answer(run: Run, images: Any, ready: str) -> None:
    """Answer requests until stdin ends."""
    count = len(images)
    batches = [images[start : start + BATCH] for start in range(0, count - BATCH + 1, BATCH)] or [images]
    for warm in (images[:1], batches[0]):
        run(warm)
        run(warm)
    print(json.dumps({"ready": ready}), flush=True)
    place = 0
    for line in sys.stdin:
        what, value = line.split(maxsplit=1)
        if what == "outputs":
            np.save(value.strip(), np.concatenate([run(images[n : n + BATCH]) for n in range(0, count, BATCH)]))
            print(json.dumps({}), flush=True)
            continue
        found, cpu = [], time.process_time()
        for number in range(int(value)):
            given = images[(place + number) % count][None] if what == "latency" else batches[number % len(batches)]
            start = time.perf_counter()
            run(given)
            found.append(time.perf_counter() - start)
        place += int(value)
        cpu = (time.process_time() - cpu) / int(value)
        print(json.dumps({"seconds": found, "cpu": cpu, "images": len(batches[0])}), flush=True)


def openvino_run(path: str, threads: int) -> tuple[Run, str]:
    """Return what runs an ONNX model in OpenVINO, in float32."""
    import openvino

    core = openvino.Core()
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    output = compiled.output("probabilities")
    return lambda images: compiled(images)[output], f"OpenVINO {openvino.__version__.split('-')[0]}"


def torch_run(path: str, threads: int) -> tuple[Run, str]:
    """Return ResNet50 with the weights of an .npz file of the Keras model's, in PyTorch, channels last, compiled.

    BatchNormalization is folded into the convolutions by `torch.fx`, as PyTorch's own users do for inference.
    """
    import torch
    from torch.fx.experimental.optimization import fuse
    from train_step_torch import resnet50

    torch.set_num_threads(threads)
    weights = np.load(path)
    network = resnet50().eval()
    load(network, weights)
    body = torch.nn.Sequential(network, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    head = torch.nn.Linear(2048, len(weights["findings/bias"]))
    head.weight.data = torch.from_numpy(weights["findings/kernel"].T.copy())
    head.bias.data = torch.from_numpy(weights["findings/bias"])
    whole = fuse(torch.nn.Sequential(body, head, torch.nn.Sigmoid()).eval()).to(memory_format=torch.channels_last)
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    compiled = torch.jit.freeze(torch.jit.trace(whole, torch.zeros(1, 3, *weights["size"].tolist())))

    def run(images: Any) -> Any:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) - mean
            return compiled(x.contiguous(memory_format=torch.channels_last)).numpy()

    return run, f"PyTorch {torch.__version__}"


def load(network: Any, weights: Any) -> None:
    """Copy the weights of `keras.applications.ResNet50` into the same network in PyTorch."""
    import torch

    def put(pair: Any, name: str) -> None:
        convolution, norm = pair
        kernel = weights[f"{name}_conv/kernel"]
        convolution.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        convolution.bias.data = torch.from_numpy(weights[f"{name}_conv/bias"])
        for mine, theirs in (("weight", "gamma"), ("bias", "beta")):
            getattr(norm, mine).data = torch.from_numpy(weights[f"{name}_bn/{theirs}"])
        norm.running_mean.data = torch.from_numpy(weights[f"{name}_bn/moving_mean"])
        norm.running_var.data = torch.from_numpy(weights[f"{name}_bn/moving_variance"])

    put(network[0], "conv1")
    blocks = iter(network[3:])
    for stage, count in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for number in range(1, count + 1):
            block, name = next(blocks), f"conv{stage}_block{number}"
            for part, module in (("1", block.one), ("2", block.two), ("3", block.three)):
                put(module, f"{name}_{part}")
            if number == 1:
                put(block.short, f"{name}_0")


def main() -> None:
    """Open the model and answer."""
    kind, path, images, threads = sys.argv[1:]
    run, ready = {"openvino": openvino_run, "torch": torch_run}[kind](path, int(threads))
    answer(run, np.load(images), ready)


if __name__ == "__main__":
    main()
