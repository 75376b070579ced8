"""The PyTorch side of `train_step.py`: a process that trains ResNet50 and answers over stdin and stdout.

    python train_step_torch.py SIZE BATCH PRECISION FROZEN THREADS

It needs torch and nothing of the pipeline. The network is that of `keras.applications.ResNet50` (version 1: strides in
the first convolution of a block, biases everywhere), channels last, with autocast and the fused Adam.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional

EPSILON, MOMENTUM = 1.001e-5, 0.01


def normalised(inputs: int, outputs: int, side: int = 1, stride: int = 1) -> nn.Sequential:
    """Return convolution and BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, EPSILON, MOMENTUM))


class Block(nn.Module):
    """One bottleneck block."""

    def __init__(self, inputs: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        self.one = normalised(inputs, width, 1, stride)
        self.two = normalised(width, width, 3)
        self.three = normalised(width, 4 * width)
        self.short = normalised(inputs, 4 * width, 1, stride) if first else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = functional.relu(self.one(x), inplace=True)
        y = functional.relu(self.two(y), inplace=True)
        return functional.relu(self.three(y) + self.short(x), inplace=True)


def resnet50() -> nn.Sequential:
    """Return the backbone without pooling and head."""
    layers: list[nn.Module] = [normalised(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(blocks):
            layers.append(Block(inputs, width, 1 if number else stride, not number))
            inputs = 4 * width
    return nn.Sequential(*layers)


class Training:
    """Network, optimizer and one batch in memory."""

    def __init__(self, size: int, batch: int, precision: str, frozen: bool) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(7)
        torch.backends.cudnn.benchmark = True
        self.backbone = resnet50().to(self.device, memory_format=torch.channels_last).train(not frozen)
        self.head = nn.Linear(2048, 14).to(self.device)
        learning = [*self.head.parameters(), *([] if frozen else self.backbone.parameters())]
        self.optimizer = torch.optim.Adam(learning, 1e-4, fused=True)
        self.images = torch.randint(0, 256, (batch, 1, size, size), dtype=torch.uint8, device=self.device)
        self.labels = (torch.rand(batch, 14, device=self.device) < 0.1).float()
        self.mean = torch.tensor([103.939, 116.779, 123.68], device=self.device).view(1, 3, 1, 1)
        self.types = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16, "float32": torch.float32}
        self.precision, self.frozen = precision, frozen
        self.scaler = torch.amp.GradScaler(self.device, enabled=precision == "mixed_float16")

    def step(self) -> float:
        """Train on the batch once; return the loss."""
        x = (self.images.float().expand(-1, 3, -1, -1) - self.mean).contiguous(memory_format=torch.channels_last)
        lower = torch.autocast(self.device, self.types[self.precision], enabled=self.precision != "float32")
        with lower, torch.set_grad_enabled(not self.frozen):
            features = self.backbone(x).float().mean((2, 3))
        loss = functional.binary_cross_entropy_with_logits(self.head(features), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(loss.detach())


def main() -> None:
    """Answer requests until stdin ends: "memory N" trains N steps."""
    size, batch, precision, frozen, threads = sys.argv[1:]
    if int(threads):
        torch.set_num_threads(int(threads))
    training = Training(int(size), int(batch), precision, frozen == "frozen")
    for _ in range(2):
        training.step()
    print(json.dumps({"ready": f"PyTorch {torch.__version__}"}), flush=True)
    for line in sys.stdin:
        steps = int(line.split()[1])
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            training.step()  # waits for the device, as the loss comes to the processor
        found = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "images": steps * int(batch)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
